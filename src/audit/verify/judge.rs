//! The end of a verification: what was read against what was signed.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Expects, Report, Verifier};
use crate::audit::{
    checkpoint::{Checkpoint, CheckpointError},
    finding::{FindingKind, Place},
    note::NoteError,
};

impl Verifier<'_> {
    /// Compares everything read so far with the checkpoint.
    pub(super) fn judge(&mut self, note: &str) {
        let checkpoint = match Checkpoint::open(note, self.key) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                let kind = match error {
                    CheckpointError::Note(NoteError::Unsigned) => FindingKind::Unsigned,
                    CheckpointError::Note(NoteError::BadSignature) => FindingKind::BadSignature,
                    CheckpointError::WrongLog => FindingKind::WrongLog,
                    CheckpointError::Note(_) | CheckpointError::Line { .. } => FindingKind::BadCheckpoint,
                };
                self.here(kind, &format!("the checkpoint proves nothing: {error}"));
                // Still compared, to tell whether the entries fit what somebody signed.
                Checkpoint::read_unverified(note).ok()
            }
        };
        if let Some(witness) = self.witness {
            match witness.cosigned(note) {
                Ok(Some(_)) => {}
                Ok(None) => self.here(
                    FindingKind::NotCosigned,
                    "the witness has not cosigned the checkpoint",
                ),
                Err(error) => self.here(
                    FindingKind::BadCosignature,
                    &format!("the witness's cosignature proves nothing: {error}"),
                ),
            }
        }
        let Some(checkpoint) = checkpoint else { return };
        self.compare_writers(&checkpoint);
        if checkpoint.size != self.entries {
            let explain = format!(
                "the checkpoint is over {} entries, the file holds {}",
                checkpoint.size, self.entries
            );
            self.here(FindingKind::WrongSize, &explain);
        } else if checkpoint.root != self.frontier.root() {
            let explain = if self.findings.is_empty() && self.more_findings == 0 {
                "every entry is whole and every writer's chain holds, but the entries stand in another order than was signed"
            } else {
                "the root over the entries is not the one that was signed"
            };
            self.find(FindingKind::WrongRoot, Place::default(), explain.to_owned());
        }
    }

    fn compare_writers(&mut self, checkpoint: &Checkpoint) {
        let mut found = Vec::new();
        for (name, tracked) in &self.writers {
            let explain = match checkpoint.writers.get(name) {
                None => "the checkpoint knows no such writer".to_owned(),
                Some(signed) if signed.seq != tracked.head.seq => format!(
                    "the last entry of this writer in the file is number {}, the checkpoint commits to {}",
                    tracked.head.seq, signed.seq
                ),
                Some(signed) if signed.hash != tracked.head.hash => {
                    "the entry was changed: the checkpoint commits to another hash of this writer's last entry".to_owned()
                }
                Some(_) => continue,
            };
            found.push((tracked.at.clone(), explain));
        }
        for (name, signed) in &checkpoint.writers {
            if !self.writers.contains_key(name) {
                let at = Place {
                    writer: Some(name.clone()),
                    ..Place::default()
                };
                let explain = format!("all {} entries of this writer are missing", signed.seq);
                found.push((at, explain));
            }
        }
        for (at, explain) in found {
            self.find(FindingKind::WriterHead, at, explain);
        }
    }

    /// Called at every size: when the log has just the kept checkpoint's size, the roots must be equal.
    pub(super) fn compare_with_kept(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        if kept.reached || kept.checkpoint.size != self.entries {
            return;
        }
        kept.reached = true;
        let size = kept.checkpoint.size;
        if kept.checkpoint.root != self.frontier.root() {
            let explain = format!(
                "the first {size} entries are not those of the checkpoint kept elsewhere: history was rewritten"
            );
            self.find(FindingKind::Rewritten, Place::default(), explain);
        }
    }

    pub(super) fn end(&mut self) {
        if self.expects != Expects::Nothing {
            self.here(FindingKind::Truncated, "the file ends without a checkpoint");
        }
        if let Some(kept) = &self.kept
            && !kept.reached
        {
            let explain = format!(
                "the checkpoint kept elsewhere is over {} entries, the file holds {}: later entries were removed",
                kept.checkpoint.size, self.entries
            );
            self.find(FindingKind::Rewritten, Place::default(), explain);
        }
    }

    pub(super) fn report(self) -> Report {
        Report {
            verified: self.findings.is_empty(),
            origin: self.key.name().to_owned(),
            entries: self.entries,
            writers: self.writers.len(),
            root: STANDARD.encode(self.frontier.root()),
            first: self.first,
            last: self.last,
            kept_checkpoint: self.kept.map(|kept| kept.checkpoint.size),
            findings: self.findings,
            more_findings: self.more_findings,
        }
    }
}
