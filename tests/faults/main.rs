//! A real `postern dev`, stopped, killed and starved at the worst moment. Needs the feature `failpoints`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

mod browser;
mod pause;
mod process;
mod storage;
