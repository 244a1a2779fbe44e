//! What Acme Mail saw, in order of arrival. Never a token: digests only.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::grants::TokenHash;
use crate::domain::Time;

/// The endpoint a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Authorize,
    Token,
    Revoke,
    Introspect,
    Api,
}

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) at: Time,
    pub(super) kind: Kind,
    pub(super) method: String,
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
    /// Asked for (`authorize`), given (`token`) or held (`api`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    /// Absent while the answer is not out, and for ever when the caller hung up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The token, refresh token or code that was presented, as hexadecimal SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_sha256: Option<TokenHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issued_access_sha256: Option<TokenHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issued_refresh_sha256: Option<TokenHash>,
    /// Whether an injected fault had a hand in the answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) fault: bool,
}

impl Entry {
    pub(super) fn new(kind: Kind, method: &str, path: &str) -> Self {
        Self {
            seq: 0,
            at: Time::from_unix_seconds(0),
            kind,
            method: method.to_owned(),
            path: path.to_owned(),
            grant_type: None,
            client_id: None,
            account: None,
            scope: None,
            status: None,
            error: None,
            token_sha256: None,
            issued_access_sha256: None,
            issued_refresh_sha256: None,
            fault: false,
        }
    }
}

/// The latest entries.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Log {
    last_seq: u64,
    entries: VecDeque<Entry>,
}

impl Log {
    /// Enters a request that has just arrived.
    pub(super) fn open(&mut self, draft: Entry, now: Time) -> Entry {
        self.last_seq += 1;
        let entry = Entry {
            seq: self.last_seq,
            at: now,
            ..draft
        };
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry.clone());
        entry
    }

    /// Completes an entry; nothing happens when it has been dropped meanwhile.
    pub(super) fn close(&mut self, entry: Entry) {
        if let Ok(index) = self.entries.binary_search_by_key(&entry.seq, |entry| entry.seq)
            && let Some(open) = self.entries.get_mut(index)
        {
            *open = entry;
        }
    }

    pub(super) fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    /// Forgets what it saw; numbers go on.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A long load run must not eat the machine; the oldest go first.
const MAX_ENTRIES: usize = 100_000;
