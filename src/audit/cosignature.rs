//! Cosignatures of witnesses (C2SP tlog-cosignature, `cosignature/v1`): at that time, this was the largest log of this
//! origin that the witness had seen, and everything it had cosigned before was part of it.

use std::{fmt, str::FromStr};

use super::note::{NoteError, VerifierKey, parse_signature, split_note};

/// A witness's name and public key: `<name>+<key id>+<base64(0x04 ‖ public key)>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey(VerifierKey);

impl WitnessKey {
    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// C2SP tlog-cosignature, "Format".
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.0.id_as(COSIGNATURE_V1)
    }

    /// When this witness cosigned the note, in seconds since 1970; `None` if it did not. Several cosignatures of it: the
    /// last moment.
    ///
    /// # Errors
    /// When it is not a note, or a signature that names this witness's key does not hold.
    pub fn cosigned(&self, note: &str) -> Result<Option<u64>, NoteError> {
        let (text, signatures) = split_note(note)?;
        let mut latest = None;
        for line in signatures.split_terminator('\n') {
            if let Some(at) = self.holds(text, line)? {
                latest = latest.max(Some(at));
            }
        }
        Ok(latest)
    }

    /// The note with what this witness answered: its own cosignatures, which hold, and nothing else of the answer.
    ///
    /// # Errors
    /// When the answer has no cosignature of this witness, or one that does not hold.
    pub fn add(&self, note: &str, answer: &str) -> Result<String, NoteError> {
        let (text, signatures) = split_note(note)?;
        let mut whole = format!("{text}\n");
        // What it said of this text before, it says again.
        for line in signatures.split_terminator('\n') {
            if self.holds(text, line)?.is_none() {
                whole.push_str(line);
                whole.push('\n');
            }
        }
        let mut cosigned = false;
        for line in answer.split_terminator('\n') {
            if self.holds(text, line)?.is_some() {
                whole.push_str(line);
                whole.push('\n');
                cosigned = true;
            }
        }
        // The whole is read once more: whoever reads it next must be able to.
        match split_note(&whole) {
            Ok(_) if cosigned => Ok(whole),
            Ok(_) => Err(NoteError::Unsigned),
            Err(error) => Err(error),
        }
    }

    /// The moment a signature line names, if it is this witness's.
    fn holds(&self, text: &str, line: &str) -> Result<Option<u64>, NoteError> {
        let (name, blob) = parse_signature(line)?;
        let Some((id, rest)) = blob.split_first_chunk::<4>() else {
            return Err(NoteError::InvalidNote);
        };
        if name != self.name() || *id != self.id() {
            return Ok(None);
        }
        let Some((at, signature)) = rest.split_first_chunk::<8>() else {
            return Err(NoteError::BadSignature);
        };
        let at = u64::from_be_bytes(*at);
        let message = format!("cosignature/v1\ntime {at}\n{text}");
        if i64::try_from(at).is_err() || !self.0.verifies(message.as_bytes(), signature) {
            return Err(NoteError::BadSignature);
        }
        Ok(Some(at))
    }
}

impl FromStr for WitnessKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        VerifierKey::parse_as(COSIGNATURE_V1, text).map(Self)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text_as(COSIGNATURE_V1))
    }
}

/// C2SP signed-note, "Signature types": a timestamped Ed25519 cosignature.
const COSIGNATURE_V1: u8 = 0x04;

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::crypto::ed25519::Ed25519Signer;

    const TEXT: &str = "postern.example/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn witness() -> (Ed25519Signer, WitnessKey) {
        let signer = Ed25519Signer::from_seed(&[7; 32]);
        let key = VerifierKey::new("witness.example/w1", signer.public()).unwrap();
        (signer, WitnessKey(key))
    }

    fn line(at: u64, text: &str) -> String {
        let (signer, key) = witness();
        let signature = signer.sign(format!("cosignature/v1\ntime {at}\n{text}").as_bytes());
        let blob = [&key.id()[..], &at.to_be_bytes(), &signature].concat();
        format!("\u{2014} {} {}\n", key.name(), STANDARD.encode(blob))
    }

    fn note() -> String {
        let signer = Ed25519Signer::from_seed(&[8; 32]);
        let log = VerifierKey::new("postern.example/log", signer.public()).unwrap();
        log.sign(TEXT, |text| signer.sign(text)).unwrap()
    }

    // The example of C2SP tlog-cosignature: its key is not given, but its key id and its time stand in the line.
    #[test]
    fn the_example_of_the_specification_has_the_form_that_is_read() {
        let (name, blob) = parse_signature(
            "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==",
        )
        .unwrap();
        assert_eq!((name, blob.len()), ("witness.example.com/w1", 4 + 8 + 64));
        assert_eq!(u64::from_be_bytes(blob[4..12].try_into().unwrap()), 1_679_315_147);
    }

    #[test]
    fn a_cosignature_holds_over_its_text_and_time_and_no_other() {
        let (_, key) = witness();
        assert_eq!(key.cosigned(&note()), Ok(None));
        let both = key.add(&note(), &line(1_679_315_147, TEXT)).unwrap();
        assert_eq!(key.cosigned(&both), Ok(Some(1_679_315_147)));
        let again = key.add(&both, &line(1_679_315_148, TEXT)).unwrap();
        assert_eq!(again, key.add(&note(), &line(1_679_315_148, TEXT)).unwrap());
        let other = line(1_679_315_147, &TEXT.replace("\n3\n", "\n4\n"));
        assert_eq!(key.add(&note(), &other), Err(NoteError::BadSignature));
        let lines = line(5, TEXT);
        let blob = lines.trim_end().rsplit_once(' ').unwrap().1;
        let mut bytes = STANDARD.decode(blob).unwrap();
        bytes[11] ^= 1;
        let later = lines.replace(blob, &STANDARD.encode(bytes));
        assert_eq!(key.add(&note(), &later), Err(NoteError::BadSignature));
    }

    #[test]
    fn an_answer_without_the_witnesss_own_cosignature_adds_nothing() {
        let (_, key) = witness();
        let (_, logs_own) = split_note(&note())
            .map(|(text, own)| (text, own.to_owned()))
            .unwrap();
        for answer in ["", logs_own.as_str()] {
            assert_eq!(key.add(&note(), answer), Err(NoteError::Unsigned));
        }
        let mixed = format!("{logs_own}{}", line(5, TEXT));
        assert_eq!(key.add(&note(), &mixed), key.add(&note(), &line(5, TEXT)));
        assert_eq!(key.add(&note(), "nothing\n"), Err(NoteError::InvalidNote));
    }

    #[test]
    fn a_key_has_one_text_and_is_none_of_a_log() {
        let (signer, key) = witness();
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        let log = VerifierKey::new(key.name(), signer.public()).unwrap();
        assert_eq!(log.to_string().parse::<WitnessKey>(), Err(NoteError::InvalidKey));
        assert_eq!(key.to_string().parse::<VerifierKey>(), Err(NoteError::InvalidKey));
    }
}
