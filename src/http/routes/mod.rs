//! One file per noun; `openapi.rs` shows how such a file looks.

pub mod health;
pub mod problems;
