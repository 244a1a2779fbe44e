//! Sealing, key hierarchy, signatures and the strict JSON gate.

pub mod digest;
pub mod ed25519;
pub mod entry_bytes;
pub mod entry_text;
pub mod strict_json;
