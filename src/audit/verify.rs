//! Offline verification of an export, with the log's public key and nothing else.
//!
//! Promises: reads the file once; memory grows with the number of writers, not of entries; goes on after a finding,
//! so that one damaged place does not hide another. `docs/audit-log.md` §8 lists the checks; the Python verifier in
//! `tools/` makes the same ones.

mod judge;

use std::io::{self, BufRead};

use serde::Serialize;

use super::{
    chain::{BrokenLink, ChainHead, epoch_may_follow, follow},
    checkpoint::{Checkpoint, org_of},
    cosignature::WitnessKey,
    encoding::{entry_hash, leaf_hash, parse, parse_hex32},
    export::{ExportLine, LineReader, NextLine, parse_line},
    finding::{Finding, FindingKind, Place},
    merkle::Frontier,
    note::VerifierKey,
};
use crate::domain::{
    OrgId, Time,
    entry::{Entry, Epoch},
};

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub verified: bool,
    /// The log the key belongs to.
    pub origin: String,
    /// How many entries were read.
    pub entries: u64,
    /// How many writers wrote them.
    pub writers: usize,
    /// The root over the entries read, in base64 as in checkpoints.
    pub root: String,
    /// The time of the first entry.
    pub first: Option<Time>,
    /// The time of the last entry.
    pub last: Option<Time>,
    /// The size of the checkpoint kept elsewhere, if one was given.
    pub kept_checkpoint: Option<u64>,
    /// What is wrong, in the order of the file; the first twenty of each kind.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more_findings: u64,
}

/// Verifies an export. `kept` is a checkpoint of the same log, kept elsewhere and already opened with the key: the
/// export must contain that log and build on it, so that even the holder of the private key cannot rewrite history.
///
/// # Errors
/// When the source cannot be read; whatever it holds is a finding, never an error.
pub fn verify(export: impl BufRead, key: &VerifierKey, kept: Option<Checkpoint>) -> io::Result<Report> {
    verify_witnessed(export, key, kept, None)
}

/// The same; if there is a `witness`, it must have cosigned the checkpoint.
///
/// # Errors
/// As [`verify`].
pub fn verify_witnessed(
    export: impl BufRead,
    key: &VerifierKey,
    kept: Option<Checkpoint>,
    witness: Option<&WitnessKey>,
) -> io::Result<Report> {
    let mut verifier = Verifier::new(key, kept);
    verifier.witness = witness;
    verifier.read(&mut LineReader::new(export), |_| false)?;
    Ok(verifier.report())
}

/// The state between two lines.
#[derive(Debug, Clone)]
pub(super) struct Verifier<'k> {
    key: &'k VerifierKey,
    witness: Option<&'k WitnessKey>,
    org: Option<OrgId>,
    kept: Option<Kept>,
    line: u64,
    expects: Expects,
    entries: u64,
    next_index: u64,
    frontier: Frontier,
    epoch: Option<Epoch>,
    writers: std::collections::BTreeMap<String, Tracked>,
    first: Option<Time>,
    last: Option<Time>,
    findings: Vec<Finding>,
    more_findings: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Header,
    EntryOrCheckpoint,
    Nothing,
}

/// A writer's last entry, and where it stood.
#[derive(Debug, Clone)]
struct Tracked {
    head: ChainHead,
    at: Place,
}

#[derive(Debug, Clone)]
struct Kept {
    checkpoint: Checkpoint,
    reached: bool,
}

impl<'k> Verifier<'k> {
    pub(super) fn new(key: &'k VerifierKey, kept: Option<Checkpoint>) -> Self {
        Self {
            key,
            witness: None,
            org: org_of(key.name()),
            kept: kept.map(|checkpoint| Kept {
                checkpoint,
                reached: false,
            }),
            line: 0,
            expects: Expects::Header,
            entries: 0,
            next_index: 0,
            frontier: Frontier::default(),
            epoch: None,
            writers: std::collections::BTreeMap::new(),
            first: None,
            last: None,
            findings: Vec::new(),
            more_findings: 0,
        }
    }

    /// Reads to the end, or until `enough`.
    pub(super) fn read<R: BufRead>(
        &mut self,
        lines: &mut LineReader<R>,
        mut enough: impl FnMut(&Self) -> bool,
    ) -> io::Result<()> {
        self.compare_with_kept();
        loop {
            self.line += 1;
            match lines.next_line()? {
                NextLine::Line(line) => self.line(line),
                NextLine::TooLong => self.here(
                    FindingKind::BadLine,
                    "the line is longer than any line of an export",
                ),
                NextLine::Unterminated => {
                    self.here(FindingKind::Truncated, "the file ends in the middle of a line");
                }
                NextLine::End => break,
            }
            if enough(self) {
                return Ok(());
            }
        }
        self.end();
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        let parsed = parse_line(line);
        match (self.expects, parsed) {
            (Expects::Header, ExportLine::Header(header)) => {
                if header.origin != self.key.name() || Some(header.org) != self.org {
                    self.here(FindingKind::WrongLog, "the header names another log than the key");
                }
                self.expects = Expects::EntryOrCheckpoint;
            }
            (Expects::Header, other) => {
                self.here(
                    FindingKind::BadHeader,
                    "the first line is not the header of an export",
                );
                self.expects = Expects::EntryOrCheckpoint;
                if !matches!(other, ExportLine::Unknown) {
                    self.line(line);
                }
            }
            (Expects::Nothing, _) => {
                self.here(FindingKind::TrailingData, "something follows the checkpoint");
            }
            (_, ExportLine::Entry { bytes, index }) => self.entry(bytes, index),
            (_, ExportLine::Checkpoint(note)) => {
                self.expects = Expects::Nothing;
                self.judge(&note);
            }
            (_, ExportLine::Header(_) | ExportLine::Unknown) => {
                self.here(
                    FindingKind::BadLine,
                    "the line is neither an entry nor a checkpoint in canonical form",
                );
            }
        }
    }

    fn entry(&mut self, bytes: &[u8], index: u64) {
        let at = Place {
            line: Some(self.line),
            index: Some(index),
            ..Place::default()
        };
        if index != self.next_index {
            let expected = self.next_index;
            self.find(
                FindingKind::WrongIndex,
                at.clone(),
                format!("index {index} stands where {expected} belongs: lines are missing, doubled or moved"),
            );
        }
        self.next_index = index.saturating_add(1);
        self.entries += 1;
        self.frontier.append(leaf_hash(bytes), |_, _| ());
        match parse(bytes) {
            Ok(entry) => self.entry_in_place(entry, bytes, at),
            Err(error) => self.find(
                FindingKind::BadEntry,
                at,
                format!("not an entry as it was written: {error}"),
            ),
        }
        self.compare_with_kept();
    }

    fn entry_in_place(&mut self, entry: Entry, bytes: &[u8], at: Place) {
        let at = Place {
            entry: Some(entry.id),
            writer: Some(entry.writer.clone()),
            ..at
        };
        if Some(entry.org) != self.org {
            self.find(
                FindingKind::WrongLog,
                at.clone(),
                "the entry belongs to another org".to_owned(),
            );
        }
        if !epoch_may_follow(self.epoch, entry.epoch) {
            let last = self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            let explain = format!(
                "epoch {} stands behind epoch {last}: entries were moved",
                entry.epoch
            );
            self.find(FindingKind::EpochBackward, at.clone(), explain);
        }
        self.epoch = Some(entry.epoch);
        self.first = self.first.or(Some(entry.ts));
        self.last = Some(entry.ts);
        self.link(&entry, &at);
        let head = ChainHead {
            seq: entry.writer_seq,
            hash: entry_hash(bytes),
        };
        self.writers.insert(entry.writer, Tracked { head, at });
    }

    fn link(&mut self, entry: &Entry, at: &Place) {
        let tracked = self.writers.get(&entry.writer);
        let prev = parse_hex32(&entry.prev).unwrap_or_default();
        let found = entry.writer_seq;
        match follow(tracked.map(|tracked| &tracked.head), found, &prev) {
            Ok(()) => {}
            Err(BrokenLink::Gap { expected }) => {
                let explain = if expected + 1 == found {
                    format!("entry number {expected} of this writer is missing before number {found}")
                } else {
                    let last = found - 1;
                    format!("entries number {expected} to {last} of this writer are missing before {found}")
                };
                self.find(FindingKind::WriterGap, at.clone(), explain);
            }
            Err(BrokenLink::Repeat { expected }) => self.find(
                FindingKind::WriterRepeat,
                at.clone(),
                format!("number {found} of this writer comes again or too late: number {expected} was due"),
            ),
            // The successor's `prev` was written when the entry before it was still whole.
            Err(BrokenLink::Prev) => {
                let (suspect, explain) = match tracked.map(|tracked| tracked.at.clone()) {
                    Some(before) => {
                        let explain = format!(
                            "the entry was changed: {}, written after it, names another hash",
                            entry.id
                        );
                        (before, explain)
                    }
                    None => (
                        at.clone(),
                        "the writer's first entry names an entry before it".to_owned(),
                    ),
                };
                self.find(FindingKind::BrokenChain, suspect, explain);
            }
        }
    }

    fn here(&mut self, kind: FindingKind, explain: &str) {
        self.find(kind, Place::line(self.line), explain.to_owned());
    }

    fn find(&mut self, kind: FindingKind, at: Place, explain: String) {
        // Per kind: a flood of one kind must not hide another.
        let alike = self
            .findings
            .iter()
            .filter(|finding| finding.kind == kind)
            .count();
        if alike < MAX_FINDINGS_OF_A_KIND {
            self.findings.push(Finding { kind, at, explain });
        } else {
            self.more_findings += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

const MAX_FINDINGS_OF_A_KIND: usize = 20;
