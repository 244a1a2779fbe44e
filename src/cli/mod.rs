//! One file per verb; clients of the API.

pub mod audit_verify;
