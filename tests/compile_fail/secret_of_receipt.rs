use postern::{release::AuditReceipt, store::SecretRow};

fn peek(receipt: &AuditReceipt) -> &SecretRow {
    receipt.secret().unwrap().unwrap() //~ E0624 method `secret` is private: private method
}

fn main() {}
