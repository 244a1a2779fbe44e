//! The chain of one writer's entries, and the order of epochs: the two rules that sequencer and verifier share.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    crypto::{
        digest::hex,
        entry_bytes::{FIRST_PREV, parse_hex32},
    },
    domain::entry::Epoch,
};

/// Writers by name, each with its last entry.
pub type Writers = BTreeMap<String, ChainHead>;

/// A writer's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Its number.
    pub seq: u64,
    /// SHA-256 of its bytes; hexadecimal in JSON.
    #[serde(serialize_with = "write_hex", deserialize_with = "read_hex")]
    pub hash: [u8; 32],
}

/// How an entry does not follow its writer's last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenLink {
    /// Numbers are missing before it.
    Gap {
        /// The first missing number.
        expected: u64,
    },
    /// Its number was used before.
    Repeat {
        /// The number that should have come.
        expected: u64,
    },
    /// Its number is right, but `prev` is not the hash of the entry before.
    Prev,
}

/// Whether entry (`seq`, `prev`) follows `head`; `None` stands for a writer that has not written yet.
///
/// # Errors
/// Says how it does not.
pub fn follow(head: Option<&ChainHead>, seq: u64, prev: &[u8; 32]) -> Result<(), BrokenLink> {
    let (last, hash) = head.map_or((0, &FIRST_PREV), |head| (head.seq, &head.hash));
    let expected = last.saturating_add(1);
    if seq > expected {
        Err(BrokenLink::Gap { expected })
    } else if seq < expected {
        Err(BrokenLink::Repeat { expected })
    } else if prev == hash {
        Ok(())
    } else {
        Err(BrokenLink::Prev)
    }
}

/// Whether `next` may stand behind `last` in the log: the counter never goes back, and one counter has one incarnation.
#[must_use]
pub fn epoch_may_follow(last: Option<Epoch>, next: Epoch) -> bool {
    last.is_none_or(|last| next.counter > last.counter || next == last)
}

fn write_hex<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(hash))
}

fn read_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
    parse_hex32(&text).ok_or_else(|| de::Error::custom("not 64 hexadecimal digits"))
}
