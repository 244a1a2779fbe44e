use postern::release::AuditReceipt;

fn copy(receipt: &AuditReceipt) -> AuditReceipt {
    receipt.clone() //~ E0308 mismatched types: expected `AuditReceipt`, found `&AuditReceipt`
}

fn main() {}
