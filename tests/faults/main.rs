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
mod fan_out;
mod pause;
mod process;
mod rotation;
mod server;
mod storage;
