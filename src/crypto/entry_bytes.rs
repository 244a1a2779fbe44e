//! The bytes of an audit entry (crypto §6): RFC 8785 canonical JSON, its hash and its leaf.
//!
//! Pure. It lives on this floor because the store finishes an entry inside the transaction that commits it; the room
//! `audit` offers it to everyone above. Promises: one entry has one encoding; [`parse`] accepts that encoding and no
//! other; every text from outside went through [`cap_text`].

mod wire;

use ring::digest::{Context, SHA256};

use super::{
    digest,
    entry_text::{cap_text, is_capped},
};
use crate::domain::{
    EntryId, OrgId, Time,
    entry::{Entry, EntryDraft, EntryType, Epoch},
};
use wire::Wire;

/// What the store alone knows of an entry: its place.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// The entry's id.
    pub id: EntryId,
    /// The tenant.
    pub org: OrgId,
    /// The epoch it commits under.
    pub epoch: Epoch,
    /// The database's time.
    pub ts: Time,
    /// `<replica>/<lane>`: 1 to 128 of `A-Z a-z 0-9 . _ : / -`.
    pub writer: &'a str,
    /// Counts per (org, writer) without gaps, from 1.
    pub writer_seq: u64,
    /// The hash of that writer's previous entry for the org; [`FIRST_PREV`] for its first.
    pub prev: [u8; 32],
}

/// A finished entry, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEntry {
    /// The canonical JSON.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes: what the writer's next entry names as `prev`.
    pub hash: [u8; 32],
    /// SHA-256 of 0x00 and the bytes: the leaf of the Merkle log (RFC 9162 §2.1.1).
    pub leaf: [u8; 32],
}

/// Why bytes are not an entry, or a draft cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`MAX_ENTRY_BYTES`].
    #[error("longer than 65535 bytes")]
    TooLong,
    /// Not JSON.
    #[error("not JSON, at byte {column}")]
    NotJson {
        /// Where, counted from 1.
        column: usize,
    },
    /// JSON, but a member is unknown, missing, doubled or of a wrong type.
    #[error("not an entry: unknown, missing, repeated or wrong member, at byte {column}")]
    NotAnEntry {
        /// Where, counted from 1.
        column: usize,
    },
    /// An entry, but not in its one canonical form.
    #[error("not in canonical form, from byte {column}")]
    NotCanonical {
        /// The first byte that differs, counted from 1.
        column: usize,
    },
    /// A member breaks its rule.
    #[error("member `{field}` breaks its rule")]
    Form {
        /// Which one.
        field: &'static str,
    },
}

/// Finishes a draft: caps every text from outside, encodes, hashes.
///
/// # Errors
/// When a member that only we write breaks its rule. SECURITY: the append fails then, and with it what it records.
pub fn finish(kind: EntryType, draft: EntryDraft, stamp: Stamp<'_>) -> Result<EncodedEntry, EntryError> {
    encode(&Entry {
        schema: SCHEMA,
        id: stamp.id,
        org: stamp.org,
        epoch: stamp.epoch,
        ts: stamp.ts,
        writer: stamp.writer.to_owned(),
        writer_seq: stamp.writer_seq,
        prev: digest::hex(&stamp.prev),
        kind,
        draft: cap_draft(draft),
    })
}

/// Encodes an entry that already keeps every rule.
///
/// # Errors
/// When it does not.
pub fn encode(entry: &Entry) -> Result<EncodedEntry, EntryError> {
    check(entry)?;
    let bytes = canonical(entry)?;
    Ok(EncodedEntry {
        hash: entry_hash(&bytes),
        leaf: leaf_hash(&bytes),
        bytes,
    })
}

/// Reads an entry strictly: the bytes must be exactly what [`encode`] makes of the result.
///
/// # Errors
/// When they are not, saying where.
pub fn parse(bytes: &[u8]) -> Result<Entry, EntryError> {
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(EntryError::TooLong);
    }
    // Once for all: `from_slice` would look at every string's UTF-8 again.
    let text = std::str::from_utf8(bytes).map_err(|error| EntryError::NotJson {
        column: error.valid_up_to() + 1,
    })?;
    // The parser's own words may hold text from outside; only the place is kept.
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => EntryError::NotAnEntry {
            column: error.column(),
        },
        _ => EntryError::NotJson {
            column: error.column(),
        },
    })?;
    let entry = Entry::from(wire);
    check(&entry)?;
    let again = canonical(&entry)?;
    if again == bytes {
        Ok(entry)
    } else {
        let same = again.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        Err(EntryError::NotCanonical { column: same + 1 })
    }
}

/// SHA-256 of the bytes.
#[must_use]
pub fn entry_hash(bytes: &[u8]) -> [u8; 32] {
    digest::sha256(bytes)
}

/// RFC 9162 §2.1.1: SHA-256 of 0x00 and the bytes.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[0x00]);
    context.update(bytes);
    let mut hash = [0_u8; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// 32 bytes from exactly 64 lower-case hexadecimal digits.
#[must_use]
pub fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut hash = [0_u8; 32];
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(hash)
}

/// Whether `text` can name a writer: it stands between blanks in a checkpoint.
#[must_use]
pub fn is_writer(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-'))
}

// RFC 8785 §3.2: `Wire` names its members in the order of their UTF-16 code units (all ASCII), holds no fraction, and
// serde_json escapes exactly what §3.2.2.2 escapes. A test holds this against two independent implementations.
fn canonical(entry: &Entry) -> Result<Vec<u8>, EntryError> {
    // Enough for nearly every entry: no growing on the vend path.
    let mut bytes = Vec::with_capacity(1_280);
    serde_json::to_writer(&mut bytes, &Wire::from(entry)).map_err(|_| EntryError::Form { field: "ts" })?;
    if bytes.len() > MAX_ENTRY_BYTES {
        Err(EntryError::TooLong)
    } else {
        Ok(bytes)
    }
}

fn cap_draft(mut draft: EntryDraft) -> EntryDraft {
    let cap = |text: &mut String, max: usize| {
        if !is_capped(text, max) {
            *text = cap_text(text, max).into_owned();
        }
    };
    draft.on_behalf.iter_mut().for_each(|text| cap(text, MAX_TEXT));
    if let Some(decision) = &mut draft.decision {
        cap(&mut decision.jti, MAX_TEXT);
        cap(&mut decision.iss, MAX_ISSUER);
    }
    if let Some(policy) = &mut draft.policy {
        cap(&mut policy.id, MAX_TEXT);
        cap(&mut policy.version, MAX_TEXT);
        cap(&mut policy.digest, MAX_TEXT);
    }
    let texts = [
        &mut draft.tool,
        &mut draft.context_digest,
        &mut draft.outcome,
        &mut draft.reason,
        &mut draft.correlation,
    ];
    texts.into_iter().flatten().for_each(|text| cap(text, MAX_TEXT));
    draft
}

fn check(entry: &Entry) -> Result<(), EntryError> {
    let draft = &entry.draft;
    let capped = |text: &Option<String>| text.as_ref().is_none_or(|text| is_capped(text, MAX_TEXT));
    let mac = |text: &Option<String>| text.as_ref().is_none_or(|text| is_mac(text));
    let decision = draft.decision.as_ref();
    let policy = draft.policy.as_ref();
    let rules = [
        ("schema", entry.schema == SCHEMA),
        ("epoch", entry.epoch.counter >= 0),
        ("writer", is_writer(&entry.writer)),
        ("writer_seq", (1..=MAX_INTEGER).contains(&entry.writer_seq)),
        ("prev", parse_hex32(&entry.prev).is_some()),
        (
            "generation",
            draft.generation.is_none_or(|number| number <= MAX_INTEGER),
        ),
        ("on_behalf", draft.on_behalf.len() <= MAX_ITEMS),
        (
            "on_behalf",
            draft.on_behalf.iter().all(|text| is_capped(text, MAX_TEXT)),
        ),
        ("approvals", draft.approvals.len() <= MAX_ITEMS),
        ("account_hash", mac(&draft.account_hash)),
        ("action_hash", mac(&draft.action_hash)),
        (
            "decision.jti",
            decision.is_none_or(|d| is_capped(&d.jti, MAX_TEXT)),
        ),
        (
            "decision.iss",
            decision.is_none_or(|d| is_capped(&d.iss, MAX_ISSUER)),
        ),
        (
            "decision.sha256",
            decision.is_none_or(|d| parse_hex32(&d.sha256).is_some()),
        ),
        ("policy.id", policy.is_none_or(|p| is_capped(&p.id, MAX_TEXT))),
        (
            "policy.version",
            policy.is_none_or(|p| is_capped(&p.version, MAX_TEXT)),
        ),
        (
            "policy.digest",
            policy.is_none_or(|p| is_capped(&p.digest, MAX_TEXT)),
        ),
        ("tool", capped(&draft.tool)),
        ("context_digest", capped(&draft.context_digest)),
        ("outcome", capped(&draft.outcome)),
        ("reason", capped(&draft.reason)),
        ("correlation", capped(&draft.correlation)),
    ];
    match rules.into_iter().find(|(_, kept)| !kept) {
        Some((field, _)) => Err(EntryError::Form { field }),
        None => Ok(()),
    }
}

// 32 bytes as base64url without padding: 43 digits, the last carries four bits only.
fn is_mac(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && text.ends_with(|last: char| "AEIMQUYcgkosw048".contains(last))
}

/// The `prev` of a writer's first entry: it prints as 64 zeros.
pub const FIRST_PREV: [u8; 32] = [0; 32];

/// What a C2SP entry bundle can hold (tlog-tiles: 16-bit length).
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// Longest text from outside, in bytes.
pub const MAX_TEXT: usize = 128;

/// Longest `decision.iss`, in bytes.
pub const MAX_ISSUER: usize = 256;

/// Most items of `on_behalf` and of `approvals`.
pub const MAX_ITEMS: usize = 16;

// RFC 8785 §3.2.2.3, RFC 7493 §2.2: integers beyond 2^53 − 1 do not survive other readers.
const MAX_INTEGER: u64 = (1 << 53) - 1;

const SCHEMA: u8 = 1;

#[cfg(test)]
mod tests;
