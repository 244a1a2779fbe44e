//! A real process, stopped, killed and starved at the worst moment: `postern dev`, or a Postern beside an Acme Mail that
//! survives it. Needs the feature `failpoints`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

mod browser;
mod copy;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the tests' one way to a PostgreSQL server"
)]
#[path = "../it/harness/database.rs"]
mod database;
mod fan_out;
mod pause;
mod process;
mod provider;
mod revocation;
mod rotation;
mod rows;
mod served;
mod server;
#[path = "../shared/mod.rs"]
mod shared;
mod sinks;
mod stop;
mod storage;
mod sweep;
