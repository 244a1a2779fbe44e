//! Integration tests: the real flows and the real router over a real database and a real authorization server.
//! One claim per test.
#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

mod audit;
mod canary;
mod connect;
mod decisions;
mod epochs;
mod gate;
mod harness;
mod idempotency;
mod layering;
mod notify;
mod provider;
mod refresh;
mod replicas;
mod restart;
mod revoke;
mod routes;
mod rows;
mod spool;
mod sweep;
mod vend;
