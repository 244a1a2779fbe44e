use postern::{release::AuditReceipt, store::SecretRow};

fn peek(receipt: &AuditReceipt) -> &SecretRow {
    receipt.secret().unwrap().unwrap()
}

fn main() {}
