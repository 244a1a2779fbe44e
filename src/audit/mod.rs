//! The audit log: how entries are encoded, ordered, folded into one Merkle log per org, signed, exported, checked
//! offline.
//!
//! Pure: no database, no network, no clock — but for `sinks` and `witness`, which send copies and checkpoints to where the
//! operator named. `docs/audit-log.md` describes every format byte by byte. What it must
//! never do: change, skip or repair an entry.

pub mod chain;
pub mod checkpoint;
pub mod cosignature;
pub mod encoding;
pub mod export;
pub mod finding;
pub mod merkle;
pub mod note;
pub mod sequencer;
pub mod sinks;
pub mod tiles;
pub mod verify;
pub mod witness;

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod vectors;

pub use checkpoint::{Checkpoint, org_of, origin};
pub use cosignature::WitnessKey;
pub use encoding::{EncodedEntry, EntryError, Stamp, cap_bytes, cap_text, finish};
pub use export::{ExportError, ExportWriter};
pub use finding::{Finding, FindingKind, Place};
pub use note::{NoteError, VerifierKey};
pub use sequencer::{Batch, Leaf, LogHead, Pending, SequenceError, Waiting, in_reach};
pub use verify::{Report, verify, verify_witnessed};
