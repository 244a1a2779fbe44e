//! The fault campaign: `postern serve` processes under load. Each dependency is broken in turn and mended again, nothing
//! is started anew that did not die, and then the invariants are asked from the outside (`checks.rs` says which).
//!
//! Twenty minutes with `POSTERN_LONG=1`, in an order of its own each time; without, every fault once. The seed is printed,
//! `POSTERN_FAULTS_SEED` sets it. Needs PostgreSQL, Python and libfaketime, and no failpoints: what runs is what is shipped.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

#[path = "../browser.rs"]
mod browser;
mod checks;
mod deployment;
mod dice;
mod door;
mod faults;
mod http;
mod load;
mod log;
mod postgres;
mod replica;
mod run;
mod secrets;
#[path = "../../shared/mod.rs"]
mod shared;
mod table;

use postgres::Postgres;
use run::campaign;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_on_sqlite_survives_every_fault() {
    campaign("one process, SQLite", None, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_postgresql_survive_every_fault() {
    campaign("three replicas, PostgreSQL", Some(Postgres::start().await), 3).await;
}
