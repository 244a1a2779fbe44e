//! The heads that this process signed last, so that the next step need not read and verify what it has just written.
//!
//! They are answers of [`super::signed_head`], which depends on nothing but what it is asked about: kept beside that, and given
//! only for the very same again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    audit::{LogHead, VerifierKey},
    domain::OrgId,
    store::LogRow,
};

/// Some heads, one of an org.
#[derive(Debug, Default)]
pub struct SignedHeads(Mutex<HashMap<OrgId, Known>>);

/// What was asked about, and the answer.
#[derive(Debug)]
struct Known {
    row: LogRow,
    key: VerifierKey,
    head: LogHead,
}

impl SignedHeads {
    /// Takes the org's head out, if it is the one of this row under this key. Whoever lets the log grow puts the next one in.
    ///
    /// INVARIANT: I6; every byte of both is compared: who may write to the database and has no key gains nothing.
    pub(super) fn take(&self, org: OrgId, row: &LogRow, key: &VerifierKey) -> Option<LogHead> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.remove(&org)?;
        (known.row == *row && known.key == *key).then_some(known.head)
    }

    /// Remembers what was signed and committed.
    pub(super) fn put(&self, org: OrgId, row: LogRow, key: VerifierKey, head: LogHead) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&org) {
            // Those of orgs that are quiet by now would else stay for ever.
            known.clear();
        }
        known.insert(org, Known { row, key, head });
    }
}

/// Orgs whose heads are remembered: a few KB each.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sample;

    fn row(text: &str) -> LogRow {
        LogRow {
            size: 0,
            head: text.to_owned(),
            checkpoint: text.to_owned(),
        }
    }

    fn key(name: &str) -> VerifierKey {
        VerifierKey::new(name, [7; 32]).unwrap()
    }

    #[test]
    fn a_head_is_given_once_and_only_for_what_it_was_made_of() {
        let (signed, org) = (SignedHeads::default(), sample::org());
        let asked = |row: &LogRow, key: &VerifierKey| {
            signed.put(org, self::row("a"), self::key("a"), LogHead::new(org));
            signed.take(org, row, key)
        };
        assert_eq!(asked(&row("a"), &key("a")), Some(LogHead::new(org)));
        assert_eq!(signed.take(org, &row("a"), &key("a")), None);
        assert_eq!(asked(&row("a"), &key("b")), None);
        let other = VerifierKey::new("a", [8; 32]).unwrap();
        assert_eq!(asked(&row("a"), &other), None);
        for change in [
            |row: &mut LogRow| row.size += 1,
            |row: &mut LogRow| row.head.push(' '),
            |row: &mut LogRow| row.checkpoint.push(' '),
        ] {
            let mut changed = row("a");
            change(&mut changed);
            assert_eq!(asked(&changed, &key("a")), None);
        }
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let signed = SignedHeads::default();
        for number in 0..=MOST {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let org = OrgId::from_bytes(bytes);
            signed.put(org, row("a"), key("a"), LogHead::new(org));
            assert!(signed.0.lock().unwrap().len() <= MOST);
            assert!(signed.take(org, &row("a"), &key("a")).is_some());
            signed.put(org, row("a"), key("a"), LogHead::new(org));
        }
    }
}
