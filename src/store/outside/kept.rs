//! The lines of the file, and what they come to for one org.
//!
//! A counter alone proves nothing: a database that went back counts on, with other content. So a line names an entry that
//! was committed with what it says, or after it. A database without that entry has forgotten what the line says, however far
//! it has counted since.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{MOST_MOVES, Reached};
use crate::domain::{EntryId, OrgId, entry::Epoch};

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Line {
    /// The tenant.
    pub(in crate::store) org: OrgId,
    /// The epoch at that time.
    pub(in crate::store) epoch: Epoch,
    /// An entry committed with what happened, or later in this epoch. Lines of before there was this have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) entry: Option<EntryId>,
    /// What happened.
    pub(in crate::store) fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::store) enum Fact {
    /// The org was founded: from here on it is known.
    Began,
    /// This process wrote an entry.
    Wrote,
    /// Its log was signed.
    Checkpoint { size: u64, note: String },
    /// The epoch moved on. This is the smallest selector over what may have lost something by it.
    Moved { kind: String, id: String },
    /// The database was found to be another one: nothing is released until a recovery, whatever its numbers say later.
    Sealed { why: String },
    /// An admin recovered, here or elsewhere: checkpoints before this are of another history, and what moved before has lost
    /// it in this one as well.
    Recovered,
}

/// How far an org has come, as far as the file has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Heard {
    pub(in crate::store) epoch: Epoch,
    pub(super) size: u64,
    /// The newest entry of the highest epoch of which an entry was heard, and that epoch's counter.
    newest: Option<(i64, EntryId)>,
}

/// Everything the file says of one org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The last signed head, if there was one yet.
    pub checkpoint: Option<String>,
    /// The highest epoch heard of.
    pub epoch: Epoch,
    /// Selectors, as kind and id, with the counter of the last epoch at which they may have lost something.
    pub moved: BTreeMap<(String, String), i64>,
    /// Why it is sealed, by its stable name.
    pub sealed: Option<String>,
    pub(super) size: u64,
    /// The entry heard of last, and the counter of its epoch: a line without an entry brings the epoch beyond it. Not the one
    /// with the greatest id, which of two in one millisecond is either.
    newest: Option<(i64, EntryId)>,
    /// By epoch counter, the first entry heard of it: who has that entry has the move to that epoch, and all before.
    traces: BTreeMap<i64, EntryId>,
}

impl Heard {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            size: 0,
            newest: None,
        }
    }

    pub(super) fn newest(self) -> Option<EntryId> {
        self.newest.map(|(_, entry)| entry)
    }

    pub(in crate::store) fn reached(self) -> Reached {
        Reached {
            counter: self.epoch.counter,
            size: self.size,
        }
    }

    /// The one that is farther; within one incarnation, with the longer log and the newest entry of both.
    pub(super) fn later(self, other: Self) -> Self {
        let (mut later, earlier) = if self.epoch.counter > other.epoch.counter {
            (self, other)
        } else {
            (other, self)
        };
        if later.epoch.incarnation == earlier.epoch.incarnation {
            later.size = later.size.max(earlier.size);
            later.newest = later.newest.max(earlier.newest);
        }
        later
    }

    pub(super) fn has_reached(self, epoch: Epoch) -> bool {
        self.epoch.counter >= epoch.counter
    }

    pub(super) fn hear(&mut self, line: &Line) {
        match &line.fact {
            Fact::Sealed { .. } => {}
            Fact::Recovered => {
                *self = Self {
                    newest: line.newest(),
                    ..Self::new(line.epoch)
                };
            }
            _ if line.is_of_another_history(self.epoch) => {}
            fact => {
                self.newest = self.newest.max(line.newest());
                if line.epoch.counter >= self.epoch.counter {
                    self.epoch = line.epoch;
                }
                if let Fact::Checkpoint { size, .. } = fact {
                    self.size = self.size.max(*size);
                }
            }
        }
    }
}

impl Line {
    pub(super) fn is_move(&self) -> bool {
        matches!(self.fact, Fact::Moved { .. })
    }

    fn newest(&self) -> Option<(i64, EntryId)> {
        self.entry.map(|entry| (self.epoch.counter, entry))
    }

    /// Whether it is of an incarnation that nobody has compared with what is kept.
    fn is_of_another_history(&self, kept: Epoch) -> bool {
        self.entry.is_some() && self.epoch.incarnation != kept.incarnation
    }

    /// Up to where others moved the epoch on before this, unheard: what lost something by it is not known.
    fn unheard(&self, heard: i64) -> Option<i64> {
        let counter = self.epoch.counter;
        let up_to = match &self.fact {
            Fact::Checkpoint { .. } | Fact::Wrote => counter,
            // Those of before there were entries stand in no order once they were compacted.
            Fact::Moved { .. } if self.entry.is_some() => counter - 1,
            _ => return None,
        };
        (up_to > heard).then_some(up_to)
    }
}

impl Kept {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            checkpoint: None,
            epoch,
            moved: BTreeMap::new(),
            sealed: None,
            size: 0,
            newest: None,
            traces: BTreeMap::new(),
        }
    }

    /// Of an org that the file says nothing of before this line.
    pub(super) fn before(line: &Line) -> Self {
        let counter = match &line.fact {
            // Whatever moved before that is unheard.
            Fact::Checkpoint { .. } | Fact::Moved { .. } | Fact::Wrote if line.entry.is_some() => 0,
            _ => line.epoch.counter,
        };
        Self::new(Epoch {
            counter,
            ..line.epoch
        })
    }

    pub(super) fn heard(&self) -> Heard {
        Heard {
            epoch: self.epoch,
            size: self.size,
            newest: self.newest,
        }
    }

    /// Whether nothing was kept of the org when it was sealed: what is kept since says nothing of before.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.sealed.as_deref() == Some(NO_OUTSIDE_CHECKPOINT)
    }

    /// A few of the entries that the database has to have: the last ones, which an older one would lack first.
    pub fn last_entries(&self) -> impl Iterator<Item = EntryId> {
        let newest = self.newest.map(|(_, entry)| entry);
        let traces = self.traces.values().rev().take(LAST_TRACES);
        newest.into_iter().chain(traces.copied())
    }

    /// By epoch counter, in its order, an entry that whoever has that move, and all before, has to have.
    pub fn traces(&self) -> impl Iterator<Item = (i64, EntryId)> {
        self.traces.iter().map(|(counter, entry)| (*counter, *entry))
    }

    pub(super) fn hear(&mut self, line: Line) {
        let foreign = line.is_of_another_history(self.epoch) || self.is_over_another(&line);
        if let Some(counter) = line.unheard(self.epoch.counter).filter(|_| !foreign) {
            self.lost_by(anything(), counter);
        }
        let mut heard = self.heard();
        heard.hear(&line);
        Heard {
            epoch: self.epoch,
            size: self.size,
            ..
        } = heard;
        let Line {
            epoch, entry, fact, ..
        } = line;
        if let (Some(entry), false) = (entry, foreign) {
            self.traces.entry(epoch.counter).or_insert(entry);
            if self.newest.is_none_or(|(counter, _)| counter <= epoch.counter) {
                self.newest = Some((epoch.counter, entry));
            }
            if self.traces.len() > MOST_TRACES {
                self.traces = self.needed_traces();
            }
        }
        match fact {
            Fact::Moved { kind, id } => self.lost_by((kind, id), epoch.counter),
            // Another replica's checkpoint may be written after a larger one that this replica has signed meanwhile.
            Fact::Checkpoint { size, note } if !foreign && size == self.size => self.checkpoint = Some(note),
            Fact::Sealed { why } => {
                self.sealed.get_or_insert(why);
            }
            Fact::Recovered => self.begin_anew(epoch, entry),
            Fact::Began | Fact::Wrote | Fact::Checkpoint { .. } => {}
        }
    }

    /// Whether it was written over a database that is known to be another one: what that one has, or counts up to, shows
    /// nothing of what is missing in it. Of a stranger nothing can be missing.
    fn is_over_another(&self, line: &Line) -> bool {
        self.sealed.is_some() && !self.is_stranger() && line.fact != Fact::Recovered
    }

    /// What was moved before stays: a still older database may be put back.
    fn begin_anew(&mut self, epoch: Epoch, entry: Option<EntryId>) {
        for counter in self.moved.values_mut() {
            *counter = epoch.counter.min(*counter);
        }
        self.traces = entry.map(|entry| (epoch.counter, entry)).into_iter().collect();
        self.newest = entry.map(|entry| (epoch.counter, entry));
        self.checkpoint = None;
        self.sealed = None;
    }

    /// The older half of too many moves becomes one that counts against everything.
    fn lost_by(&mut self, selector: (String, String), counter: i64) {
        raise(&mut self.moved, selector, counter);
        if self.moved.len() <= MOST_MOVES {
            return;
        }
        let mut epochs: Vec<i64> = self.moved.values().copied().collect();
        epochs.sort_unstable();
        let Some(&middle) = epochs.get(epochs.len() / 2) else {
            return;
        };
        self.moved.retain(|_, epoch| *epoch > middle);
        raise(&mut self.moved, anything(), middle);
    }

    /// Of every move that is told apart, the entry that shows it and the one before, which who lacks that move may have; and
    /// the last of all.
    fn needed_traces(&self) -> BTreeMap<i64, EntryId> {
        let of_moves = self.moved.values().flat_map(|counter| {
            let before = self.traces.range(..*counter).next_back();
            before.into_iter().chain(self.traces.range(*counter..).next())
        });
        let needed = of_moves.chain(self.traces.last_key_value());
        needed.map(|(counter, entry)| (*counter, *entry)).collect()
    }

    pub(super) fn lines(&self, org: OrgId) -> Vec<Line> {
        let line = |counter, entry, fact| Line {
            org,
            epoch: Epoch {
                counter,
                ..self.epoch
            },
            entry,
            fact,
        };
        let (last, traces) = (self.epoch.counter, self.needed_traces());
        let trace = |counter: i64| traces.get(&counter).copied();
        // First how far it had come, so that nothing behind this was unheard.
        let mut lines = vec![line(last, trace(last), Fact::Began)];
        let mut shown = BTreeSet::from([last]);
        for ((kind, id), counter) in &self.moved {
            let (kind, id) = (kind.clone(), id.clone());
            lines.push(line(*counter, trace(*counter), Fact::Moved { kind, id }));
            shown.insert(*counter);
        }
        let others = traces.iter().filter(|(counter, _)| !shown.contains(*counter));
        lines.extend(others.map(|(counter, entry)| line(*counter, Some(*entry), Fact::Wrote)));
        let (size, note) = (self.size, self.checkpoint.clone());
        let (counter, newest) = self
            .newest
            .map_or((last, None), |(counter, newest)| (counter, Some(newest)));
        lines.extend(match note {
            Some(note) => Some(line(counter, newest, Fact::Checkpoint { size, note })),
            None => newest.map(|newest| line(counter, Some(newest), Fact::Wrote)),
        });
        let why = self.sealed.clone();
        lines.extend(why.map(|why| line(last, None, Fact::Sealed { why })));
        lines
    }
}

/// The selector over whatever there is.
pub(super) fn anything() -> (String, String) {
    ("all".to_owned(), String::new())
}

fn raise(moved: &mut BTreeMap<(String, String), i64>, selector: (String, String), epoch: i64) {
    let known = moved.entry(selector).or_insert(epoch);
    *known = epoch.max(*known);
}

/// Why an org is sealed of which the file said nothing.
pub const NO_OUTSIDE_CHECKPOINT: &str = "no_outside_checkpoint";
/// Entries that are looked for beside the newest: a database that went back and counted on has that one.
const LAST_TRACES: usize = 8;
/// More than that are thinned to those that are needed.
const MOST_TRACES: usize = 4 * MOST_MOVES;
