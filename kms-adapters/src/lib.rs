//! The `KeyService` port of Postern, its adapters and their one conformance suite.
//!
//! A key service holds keys that never leave it (KEKs) and wraps 32-byte data keys under them. It promises that a
//! wrapped key opens only under the same KEK and the same [`KeyContext`]; it must never log, cache or fall back.

pub mod conformance;
pub mod local;
mod port;

pub use local::LocalKeys;
pub use port::{
    BoxFuture, HeapKey, KeyContext, KeyError, KeyMemory, KeyService, KeyState, KeyStatus, PlainKey,
};
