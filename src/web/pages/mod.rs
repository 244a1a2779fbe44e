//! One file per area; each struct is one page and holds all it shows.
//!
//! Fill it, call `render()` (from [`crate::web::Template`]), send the text as `text/html; charset=utf-8` with
//! `Cache-Control: no-store`.

pub mod activity;
pub mod admin;
pub mod connect;
pub mod connect_failure;
pub mod connections;
pub mod error;
pub mod login;
pub mod problem;
pub mod revoke;
