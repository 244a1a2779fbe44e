//! What a copy writes down about itself: in the target how far it has come, with the rows, in one transaction; in the
//! source, at the end, that another database goes on in its place.

use serde::{Deserialize, Serialize};

use super::verify::TableReport;
use crate::{
    crypto::digest,
    store::{Store, StoreError, sql::Value},
};

/// The mark in the target.
pub(super) const COPY: &str = "copy";
/// The mark in the source.
pub(in crate::store) const COPIED_TO: &str = "copied_to";

/// How far a copy has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Which copy this is: random.
    pub(super) id: String,
    /// What the source was when it began.
    pub(super) source: String,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Rows are being copied, from this place on.
    Copying { rows: u64, at: Option<Place> },
    /// Both databases were compared and are the same, for good once the source is closed; orgs up to this one have begun
    /// their new epoch.
    Finishing {
        after: Option<String>,
        tables: Vec<TableReport>,
    },
    /// The database may be opened.
    Complete { tables: Vec<TableReport> },
}

/// The last batch that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// `''`: the deployment.
    pub(super) scope: String,
    pub(super) table: String,
    /// The key of its last row within the org; empty: there is no more of this table.
    pub(super) key: Vec<Part>,
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Int(i64),
    Text(String),
    Blob(String),
}

impl Part {
    /// A key as it stands in a mark; no part of a primary key is NULL.
    pub(super) fn of(key: &[Value]) -> Vec<Self> {
        key.iter()
            .filter_map(|value| match value {
                Value::Null => None,
                Value::Int(int) => Some(Self::Int(*int)),
                Value::Text(text) => Some(Self::Text(text.clone())),
                Value::Blob(bytes) => Some(Self::Blob(digest::base64url(bytes))),
            })
            .collect()
    }

    /// The key it was made from; `None` if somebody changed it.
    pub(super) fn values(parts: &[Self]) -> Option<Vec<Value>> {
        parts
            .iter()
            .map(|part| match part {
                Self::Int(int) => Some(Value::Int(*int)),
                Self::Text(text) => Some(Value::Text(text.clone())),
                Self::Blob(text) => digest::base64url_decode(text).map(Value::Blob),
            })
            .collect()
    }
}

impl Mark {
    pub(super) fn text(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(|_| StoreError::Inconsistent { table: "meta" })
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete { .. })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Store {
    /// Refuses a database that is half a copy, and one in whose place its copy goes on: two databases with the same
    /// keys would write two histories under one name.
    pub(in crate::store) async fn refuse_moved(&self) -> Result<(), StoreError> {
        if self.meta(COPIED_TO).await?.is_some() {
            return Err(StoreError::Moved);
        }
        let Some(text) = self.meta(COPY).await? else {
            return Ok(());
        };
        match Mark::parse(&text) {
            Some(mark) if mark.is_complete() => Ok(()),
            _ => Err(StoreError::HalfCopied),
        }
    }
}
