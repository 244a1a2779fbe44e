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

mod ahead;
mod apply;
mod audit;
mod batches;
mod canary;
mod clocks;
mod connect;
mod copy;
mod decisions;
mod describing;
mod doctor;
mod doubts;
mod epochs;
mod exchange;
mod failover;
mod fan_out;
mod gate;
mod gate_settings;
mod grown;
mod hangups;
mod harness;
mod hung;
mod idempotency;
mod layering;
mod leases;
mod log;
mod million;
mod mutations;
mod notify;
mod org;
mod outcomes;
mod oversight;
mod panics;
mod places;
mod policies;
mod progress;
mod promises;
mod provider;
mod race;
mod ready;
mod recovered;
mod refresh;
mod refused;
mod replicas;
mod restart;
mod restored;
mod returned;
mod revoke;
mod rotated;
mod routes;
mod rows;
mod runs;
mod sealed;
#[path = "../shared/mod.rs"]
mod shared;
mod shares;
mod shown;
mod sinks;
mod spent;
mod spool;
mod sweep;
mod timeouts;
mod unconfirmed;
mod vanished;
mod vend;
mod walks;
mod week;
mod witness;
mod writers;
