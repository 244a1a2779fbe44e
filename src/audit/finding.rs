//! What is wrong with an export, and where.

use std::fmt;

use serde::Serialize;

use crate::domain::EntryId;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// Where.
    pub at: Place,
    /// In plain words, on one line, nothing of the file repeated but ids, names of writers and numbers.
    pub explain: String,
}

/// What can be wrong. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The first line is not a header of this format.
    BadHeader,
    /// Header, entry, checkpoint and key do not name the same log.
    WrongLog,
    /// A line is neither entry nor checkpoint.
    BadLine,
    /// The bytes are not an entry in canonical form.
    BadEntry,
    /// An entry claims another place than it stands at: lines are missing, doubled or moved.
    WrongIndex,
    /// Numbers of a writer are missing.
    WriterGap,
    /// A number of a writer stands twice, or entries of a writer stand in the wrong order.
    WriterRepeat,
    /// An entry is not the one its successor was written after.
    BrokenChain,
    /// An entry is of an older epoch than the one before it.
    EpochBackward,
    /// A writer's last entry is not the one the checkpoint commits to.
    WriterHead,
    /// The file ends too early: no checkpoint, or half a line.
    Truncated,
    /// Something follows the checkpoint.
    TrailingData,
    /// The checkpoint does not parse.
    BadCheckpoint,
    /// The checkpoint is not signed by the key.
    Unsigned,
    /// The checkpoint's signature does not hold.
    BadSignature,
    /// The number of entries is not the checkpoint's size.
    WrongSize,
    /// The root over the entries is not the checkpoint's.
    WrongRoot,
    /// The log contradicts a checkpoint kept elsewhere.
    Rewritten,
    /// The witness has not cosigned the checkpoint.
    NotCosigned,
    /// A cosignature of the witness does not hold.
    BadCosignature,
}

/// Where. Members that do not apply are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The entry's place in the log, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    /// The writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}

impl Place {
    /// A line of the file.
    #[must_use]
    pub fn line(line: u64) -> Self {
        Self {
            line: Some(line),
            ..Self::default()
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.line.map(|line| format!("line {line}")),
            self.index.map(|index| format!("index {index}")),
            self.entry.map(|entry| entry.to_string()),
            self.writer.as_ref().map(|writer| format!("writer {writer}")),
        ];
        let mut parts = parts.into_iter().flatten();
        match parts.next() {
            None => f.write_str("the log as a whole"),
            Some(first) => {
                f.write_str(&first)?;
                parts.try_for_each(|part| write!(f, ", {part}"))
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.explain)
    }
}
