//! Postern lets an AI agent act in a person's apps only against a signed allow decision for the exact action.
//!
//! The map of the house; `ARCHITECTURE.md` says which room may use which.
//!
//! - [`domain`]: ground floor, pure values and rules; no I/O
//! - [`failpoints`]: named places where tests of faults stop or kill the process; empty in every released build
//! - [`crypto`]: sealing, key hierarchy, signatures, strict JSON
//! - [`egress`]: the one outbound HTTP client
//! - [`store`]: the only room that names `sqlx`
//! - [`audit`]: entry encoding, Merkle log, checkpoints, offline verification
//! - [`connectors`]: connector files, OAuth, rendering actions into requests
//! - [`policy`]: Cedar evaluation and what a decision says
//! - [`release`]: verify, gate, open: the only way anything leaves
//! - [`flows`]: connect, decide, vend, execute, refresh, revoke
//! - [`web`]: templates of the pages people see
//! - [`http`]: router, extraction, problems, routes
//! - [`workers`]: outbox, sequencer, sweep
//! - [`dev`]: `postern dev`, the demo organisation and the Acme Mail provider
//! - [`app`]: composition root
//! - [`cli`]: one file per verb

pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod crypto;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domain;
pub mod egress;
pub mod failpoints;
pub mod flows;
pub mod http;
pub mod policy;
pub mod release;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod workers;
