//! Router, extraction, problems, routes: the only room that names axum.
//!
//! A handler does four things: extract, call one flow, map, answer. What every answer has in common lives in
//! [`guard`], what every connection has in common in [`server`], every "no" in [`problem`].

pub mod answer;
pub mod caller;
pub mod cookie;
pub mod extract;
pub mod guard;
pub mod openapi;
pub mod pages;
pub mod problem;
pub mod query;
mod refusal;
pub mod router;
pub mod routes;
pub mod security;
pub mod server;

pub use problem::{Code, Problem};
