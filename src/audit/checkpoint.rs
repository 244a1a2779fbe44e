//! Checkpoints (C2SP tlog-checkpoint): how large an org's log is, its root, and the last number of every writer.
//!
//! The writers' lines are extension lines: they let anyone with an export see a dropped tail of one writer without
//! asking the operator. A checkpoint has exactly one text.

use std::fmt::{self, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    chain::{ChainHead, Writers},
    note::{NoteError, VerifierKey, split_note},
};
use crate::{
    crypto::{
        digest::hex,
        entry_bytes::{is_writer, parse_hex32},
    },
    domain::OrgId,
};

/// The head of one org's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `<issuer>/orgs/<org>/log`.
    pub origin: String,
    /// How many entries the log has.
    pub size: u64,
    /// The root of the tree of that size.
    pub root: [u8; 32],
    /// Every writer that ever wrote for the org, with its last entry.
    pub writers: Writers,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it is not one, or not signed by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its origin is not the key's name.
    #[error("of another log than the key")]
    WrongLog,
    /// A line of the text breaks its rule.
    #[error("line {line} of the checkpoint breaks its rule")]
    Line {
        /// Counted from 1.
        line: usize,
    },
}

impl Checkpoint {
    /// Signs the checkpoint and returns the note. `sign` holds the private half of `key`.
    ///
    /// # Errors
    /// When the origin cannot stand in a note, or `sign` is not the key's private half.
    pub fn sign(&self, key: &VerifierKey, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<String, NoteError> {
        key.sign(&self.to_string(), sign)
    }

    /// Reads a note strictly and checks its signature. A log's own key bears the log's origin as its name, so that a
    /// checkpoint of one org never stands for another's.
    ///
    /// # Errors
    /// When it is not a checkpoint of this log, signed by `key`.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(key.open(note)?)?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::WrongLog)
        }
    }

    /// Reads a note strictly without checking who signed it. SECURITY: proves nothing.
    ///
    /// # Errors
    /// When it is not a checkpoint.
    pub fn read_unverified(note: &str) -> Result<Self, CheckpointError> {
        Self::parse(split_note(note)?.0)
    }

    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let broken = |line: usize| CheckpointError::Line { line };
        let mut lines = text.split_terminator('\n');
        let origin = lines
            .next()
            .filter(|origin| !origin.is_empty())
            .ok_or(broken(1))?;
        let size = lines.next().and_then(parse_decimal).ok_or(broken(2))?;
        let root = lines
            .next()
            .and_then(|text| STANDARD.decode(text).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(broken(3))?;
        let mut writers = Writers::new();
        for (offset, line) in lines.enumerate() {
            let (name, head) = parse_writer(line).ok_or(broken(offset + 4))?;
            // Strictly ascending: one set of writers has one text.
            if writers
                .last_key_value()
                .is_some_and(|(last, _)| last.as_str() >= name)
            {
                return Err(broken(offset + 4));
            }
            writers.insert(name.to_owned(), head);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
            writers,
        })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            STANDARD.encode(self.root)
        )?;
        for (name, head) in &self.writers {
            writeln!(f, "writer {name} {} {}", head.seq, hex(&head.hash))?;
        }
        Ok(())
    }
}

/// The origin of an org's log: `<issuer>/orgs/<org>/log`.
#[must_use]
pub fn origin(issuer: &str, org: OrgId) -> String {
    let mut text = issuer.to_owned();
    // Writing to a `String` cannot fail.
    let _ = write!(text, "/orgs/{org}/log");
    text
}

/// The org a log's origin names.
#[must_use]
pub fn org_of(origin: &str) -> Option<OrgId> {
    let (issuer, org) = origin.strip_suffix("/log")?.rsplit_once("/orgs/")?;
    if issuer.is_empty() { None } else { org.parse().ok() }
}

/// A decimal without sign or leading zeros.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0"
        || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

fn parse_writer(line: &str) -> Option<(&str, ChainHead)> {
    let (name, rest) = line.strip_prefix("writer ")?.split_once(' ')?;
    let (seq, hash) = rest.split_once(' ')?;
    let head = ChainHead {
        seq: parse_decimal(seq).filter(|&seq| seq > 0)?,
        hash: parse_hex32(hash)?,
    };
    is_writer(name).then_some((name, head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ed25519::Ed25519Signer;

    fn checkpoint() -> Checkpoint {
        let head = |seq| ChainHead {
            seq,
            hash: [seq as u8; 32],
        };
        Checkpoint {
            origin: origin("https://postern.example", OrgId::from_bytes([2; 16])),
            size: 12,
            root: [5; 32],
            writers: [("r1/cold".to_owned(), head(5)), ("r1/hot".to_owned(), head(7))].into(),
        }
    }

    fn key(seed: u8) -> (Ed25519Signer, VerifierKey) {
        let signer = Ed25519Signer::from_seed(&[seed; 32]);
        let key = VerifierKey::new(&checkpoint().origin, signer.public()).unwrap();
        (signer, key)
    }

    #[test]
    fn a_signed_checkpoint_reads_back() {
        let (signer, key) = key(1);
        let note = checkpoint().sign(&key, |bytes| signer.sign(bytes)).unwrap();
        assert_eq!(Checkpoint::open(&note, &key), Ok(checkpoint()));
        assert_eq!(Checkpoint::read_unverified(&note), Ok(checkpoint()));
    }

    #[test]
    fn another_keys_checkpoint_is_refused() {
        let (signer, ours) = key(1);
        let (_, theirs) = key(2);
        let note = checkpoint().sign(&ours, |bytes| signer.sign(bytes)).unwrap();
        assert_eq!(Checkpoint::open(&note, &theirs), Err(NoteError::Unsigned.into()));
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused_even_when_signed() {
        let (signer, key) = key(1);
        let other = Checkpoint {
            origin: origin("https://postern.example", OrgId::from_bytes([3; 16])),
            ..checkpoint()
        };
        let note = other.sign(&key, |bytes| signer.sign(bytes)).unwrap();
        assert_eq!(Checkpoint::open(&note, &key), Err(CheckpointError::WrongLog));
    }

    #[test]
    fn other_texts_of_a_checkpoint_are_refused_even_when_signed() {
        let (signer, key) = key(1);
        let text = checkpoint().to_string();
        for (from, to, line) in [
            ("https", "\nhttps", 1),
            ("\n12\n", "\n012\n", 2),
            ("\n12\n", "\n+12\n", 2),
            ("\n12\n", "\n99999999999999999999\n", 2),
            ("BQU=\n", "BQV=\n", 3),
            ("BQU=\n", "BQU\n", 3),
            ("writer r1/cold 5", "writer r1/cold 05", 4),
            ("writer r1/cold 5", "writer r1/cold 0", 4),
            ("writer r1/cold", "writer r1/zoo", 5),
            ("writer r1/cold", "writer r1/hot", 5),
            ("0707\n", "0707 \n", 5),
            ("0707\n", "0707\nother line\n", 6),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text);
            let note = key.sign(&other, |bytes| signer.sign(bytes)).unwrap();
            assert_eq!(
                Checkpoint::open(&note, &key),
                Err(CheckpointError::Line { line }),
                "{to}"
            );
        }
    }

    #[test]
    fn an_origin_names_its_org() {
        let org = OrgId::from_bytes([2; 16]);
        assert_eq!(org_of(&origin("https://postern.example", org)), Some(org));
        assert_eq!(org_of("https://postern.example/orgs/org_1/log"), None);
        assert_eq!(org_of(&origin("", org)), None);
    }
}
