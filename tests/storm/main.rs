//! The refresh storm: very many grants whose access tokens have ended, ten waiters for each in three replica processes, and
//! a provider that rotates strictly and takes 200 ms for an answer. Every grant is refreshed once, by whichever replica is
//! first, every waiter gets that very token, and with as many calls under way as are allowed it takes little longer than
//! the provider does.
//!
//! The processes are this program started again; everything they are built of is the library's own, and the waiters in
//! them wait by the function that a vend waits by. One waiter in a hundred is a vend that comes over HTTP.
//!
//! 500 grants; 10,000 with `POSTERN_LONG=1`, `POSTERN_TEST_GRANTS` says another number. In the long form the time is asserted
//! beside what the providers alone need, where nothing else ran when it began, and that every replica had all its calls
//! under way at some time; in the short form that nobody waits in vain. Both are printed always. Needs PostgreSQL.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

mod callers;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the integration tests' own way to a PostgreSQL server"
)]
#[path = "../it/harness/database.rs"]
mod database;
#[expect(dead_code, reason = "the fault campaign's client; nobody hangs up here")]
#[path = "../faults/campaign/http.rs"]
mod http;
mod machine;
mod plan;
mod processes;
mod provider;
mod replica;
mod seed;
mod storm;

fn main() {
    // What `postern serve` runs on.
    let runtime = postern::http::server::runtime().unwrap();
    runtime.block_on(async {
        match plan::Orders::given() {
            Some(orders) => replica::run(orders).await,
            None => storm::run().await,
        }
    });
}
