use postern::release::AuditReceipt;

fn copy(receipt: &AuditReceipt) -> AuditReceipt {
    receipt.clone()
}

fn main() {}
