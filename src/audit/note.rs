//! Signed notes (C2SP signed-note) with Ed25519, and the one-line verifier key.
//!
//! A note is text, a blank line and signature lines. Unknown signatures are ignored, so that witnesses can add theirs;
//! a signature that names the verifier's key must hold.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::crypto::{digest, ed25519::ed25519_verify};

/// Who signs, and the public half of the key: `<name>+<key id>+<base64(0x01 ‖ public key)>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

/// Why a text is not a note, or not one of this key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The verifier key does not parse, or its key id is wrong.
    #[error("not a verifier key of the form name+id+key")]
    InvalidKey,
    /// The text does not end in a newline, or holds a control character.
    #[error("not the text of a note")]
    InvalidText,
    /// No blank line, no signature, or a line that is none.
    #[error("not a signed note")]
    InvalidNote,
    /// No signature names this key.
    #[error("not signed by this key")]
    Unsigned,
    /// A signature names this key and does not hold.
    #[error("the signature does not hold")]
    BadSignature,
}

impl VerifierKey {
    /// A key under a name.
    ///
    /// # Errors
    /// When the name is empty, longer than 512 bytes, or holds a blank, a control or `+`.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        let fits = (1..=512).contains(&name.len())
            && !name
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if fits {
            Ok(Self {
                name: name.to_owned(),
                public,
            })
        } else {
            Err(NoteError::InvalidKey)
        }
    }

    /// The name; for a log's own key, the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// C2SP signed-note, "Signature types": SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key), first four bytes.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id_as(ED25519)
    }

    /// The same for another signature type of this key.
    pub(super) fn id_as(&self, kind: u8) -> [u8; 4] {
        let text = [self.name.as_bytes(), &[b'\n', kind], &self.public].concat();
        let [a, b, c, d, ..] = digest::sha256(&text);
        [a, b, c, d]
    }

    /// Whether this key's holder signed `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_verify(&self.public, message, signature)
    }

    /// The one line of a key for signatures of this type.
    pub(super) fn text_as(&self, kind: u8) -> String {
        let blob = STANDARD.encode([&[kind], self.public.as_slice()].concat());
        format!("{}+{}+{blob}", self.name, digest::hex(&self.id_as(kind)))
    }

    /// Reads a key for signatures of this type.
    pub(super) fn parse_as(kind: u8, text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(blob)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::InvalidKey);
        };
        let blob = STANDARD.decode(blob).map_err(|_| NoteError::InvalidKey)?;
        let public = match blob.split_first() {
            Some((first, public)) if *first == kind => {
                public.try_into().map_err(|_| NoteError::InvalidKey)?
            }
            _ => return Err(NoteError::InvalidKey),
        };
        let key = Self::new(name, public)?;
        // One key has one text: this checks the id, its case and the base64 form at once.
        if key.text_as(kind) == text {
            Ok(key)
        } else {
            Err(NoteError::InvalidKey)
        }
    }

    /// Signs `text` and returns the whole note. `sign` holds the private half.
    ///
    /// # Errors
    /// When the text cannot be a note, or `sign` does not sign with the private half of this key.
    pub fn sign(&self, text: &str, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<String, NoteError> {
        if !is_note_text(text) {
            return Err(NoteError::InvalidText);
        }
        let signature = sign(text.as_bytes());
        if !ed25519_verify(&self.public, text.as_bytes(), &signature) {
            return Err(NoteError::BadSignature);
        }
        let blob = STANDARD.encode([self.id().as_slice(), &signature].concat());
        Ok(format!("{text}\n{DASH}{} {blob}\n", self.name))
    }

    /// The text of `note`, if this key signed it.
    ///
    /// # Errors
    /// When it is not a note, or this key did not sign it.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split_note(note)?;
        let mut signed = false;
        for line in signatures.split_terminator('\n') {
            let (name, blob) = parse_signature(line)?;
            let Some((id, signature)) = blob.split_first_chunk::<4>() else {
                return Err(NoteError::InvalidNote);
            };
            if name == self.name && *id == self.id() {
                if !ed25519_verify(&self.public, text.as_bytes(), signature) {
                    return Err(NoteError::BadSignature);
                }
                signed = true;
            }
        }
        if signed {
            Ok(text)
        } else {
            Err(NoteError::Unsigned)
        }
    }
}

/// The text and the signature lines of a note, unchecked signatures.
///
/// # Errors
/// When it is not a note.
pub fn split_note(note: &str) -> Result<(&str, &str), NoteError> {
    // The text is everything up to the *last* blank line, its own newline included.
    let at = note.rfind("\n\n").ok_or(NoteError::InvalidNote)?;
    let (text, rest) = note.split_at_checked(at + 1).ok_or(NoteError::InvalidNote)?;
    let signatures = rest.strip_prefix('\n').ok_or(NoteError::InvalidNote)?;
    let lines = signatures.split_terminator('\n').count();
    if !is_note_text(text) || !is_note_text(signatures) || !(1..=MAX_SIGNATURES).contains(&lines) {
        return Err(NoteError::InvalidNote);
    }
    for line in signatures.split_terminator('\n') {
        parse_signature(line)?;
    }
    Ok((text, signatures))
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse_as(ED25519, text)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text_as(ED25519))
    }
}

pub(super) fn parse_signature(line: &str) -> Result<(&str, Vec<u8>), NoteError> {
    let (name, blob) = line
        .strip_prefix(DASH)
        .and_then(|rest| rest.split_once(' '))
        .ok_or(NoteError::InvalidNote)?;
    let blob = STANDARD.decode(blob).map_err(|_| NoteError::InvalidNote)?;
    if name.is_empty() || name.contains(|c: char| c == '+' || c.is_whitespace()) || blob.len() < 5 {
        Err(NoteError::InvalidNote)
    } else {
        Ok((name, blob))
    }
}

fn is_note_text(text: &str) -> bool {
    text.ends_with('\n') && !text.chars().any(|c| c.is_ascii_control() && c != '\n')
}

const ED25519: u8 = 0x01;
const DASH: &str = "\u{2014} ";
const MAX_SIGNATURES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ed25519::Ed25519Signer;

    // The example of the Go package golang.org/x/mod/sumdb/note, made by another implementation.
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_verifies() {
        let key: VerifierKey = VKEY.parse().unwrap();
        assert!(key.open(NOTE).unwrap().ends_with("problem is.\n"));
    }

    #[test]
    fn a_note_with_one_changed_byte_does_not_verify() {
        let key: VerifierKey = VKEY.parse().unwrap();
        for at in 0..NOTE.len() {
            for bit in 0..8 {
                let mut bytes = NOTE.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(key.open(&text).is_err(), "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn unknown_signatures_are_ignored_and_a_false_one_of_ours_is_not() {
        let key: VerifierKey = VKEY.parse().unwrap();
        let signer = Ed25519Signer::from_seed(&[9; 32]);
        let witness = VerifierKey::new("witness.example/w1", signer.public()).unwrap();
        let (text, ours) = split_note(NOTE).unwrap();
        let theirs = witness.sign(text, |bytes| signer.sign(bytes)).unwrap();
        let both = format!("{theirs}{ours}");
        assert_eq!(key.open(&both), Ok(text));
        assert_eq!(witness.open(&both), Ok(text));
        assert_eq!(key.open(&theirs), Err(NoteError::Unsigned));
        assert_eq!(
            key.open(&both.replace("If you", "If we")),
            Err(NoteError::BadSignature)
        );
    }

    /// As `tools/verify_audit_test.py` has it.
    #[test]
    fn a_note_has_64_signatures_at_most_and_names_without_spaces_or_plus() {
        let key: VerifierKey = VKEY.parse().unwrap();
        let (text, ours) = split_note(NOTE).unwrap();
        let beside = |lines: &str| key.open(&format!("{text}\n{lines}{ours}")).map(drop);
        let foreign = "— other.example AAAAAAAA\n";
        assert_eq!(beside(&foreign.repeat(63)), Ok(()));
        assert_eq!(beside(&foreign.repeat(64)), Err(NoteError::InvalidNote));
        for name in ["a+b", "a\u{a0}b", "a\u{2003}b", ""] {
            let odd = foreign.replace("other.example", name);
            assert_eq!(beside(&odd), Err(NoteError::InvalidNote), "{name:?}");
        }
    }

    #[test]
    fn signing_with_a_foreign_key_or_a_text_that_is_none_is_refused() {
        let signer = Ed25519Signer::from_seed(&[9; 32]);
        let key: VerifierKey = VKEY.parse().unwrap();
        assert_eq!(
            key.sign("text\n", |bytes| signer.sign(bytes)),
            Err(NoteError::BadSignature)
        );
        for text in ["", "no newline", "tab\t\n", "nul\0\n"] {
            assert_eq!(
                key.sign(text, |bytes| signer.sign(bytes)),
                Err(NoteError::InvalidText)
            );
        }
    }

    #[test]
    fn keys_in_another_form_are_refused() {
        assert_eq!(VKEY.parse::<VerifierKey>().unwrap().to_string(), VKEY);
        for text in [
            "",
            "a+b",
            &VKEY.replace("c74f20a3", "C74F20A3"),
            &VKEY.replace("c74f20a3", "c74f20a4"),
            &VKEY.replace("Peter", "Pet r"),
            &VKEY.replace("Peter", "Paul"),
            &VKEY.replace("+AR", "+Ah"),
            &format!("{VKEY}\n"),
            &format!("{VKEY}AA"),
        ] {
            assert_eq!(text.parse::<VerifierKey>(), Err(NoteError::InvalidKey), "{text}");
        }
    }
}
