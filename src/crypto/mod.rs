//! Sealing, key hierarchy, signatures and the strict JSON gate.

pub mod digest;
