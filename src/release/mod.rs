//! The only way anything leaves: verify a decision, pass the gate, open the secret.
//!
//! Three proofs, each made in one place only and each needed for the next step:
//! [`VerifiedDecision`] (made by [`verify`]) → [`AuditReceipt`] (made by [`gate`]) → an open secret ([`open`]).
//! Leaving a step out does not compile.

mod admission;
pub mod gate;
mod lane;
pub mod open;
mod own;
mod queues;
pub mod seal;
mod turns;
pub mod verify;

pub use admission::{Full, Place};
pub use gate::{AuditReceipt, DeadReceipt, Gate, GateRefusal, Release, Statement};
pub use own::OwnDecision;
pub use verify::{DecisionError, Expected, TrustedKey, VerifiedDecision};
