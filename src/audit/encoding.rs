//! The encoding of entries, offered to the rooms above. It is written in `crypto`, because the store below us
//! finishes an entry inside its transaction.

pub use crate::crypto::{
    entry_bytes::{
        EncodedEntry, EntryError, FIRST_PREV, MAX_ENTRY_BYTES, Stamp, encode, entry_hash, finish, leaf_hash,
        parse, parse_hex32,
    },
    entry_text::{cap_bytes, cap_text, is_capped},
};
