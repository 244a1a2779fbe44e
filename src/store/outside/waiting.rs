//! Lines that the disk has not taken yet: while it takes none they stay few, and say what they said.

use std::collections::{HashMap, HashSet};

use super::{COMPACT_AFTER, Fact, Line};
use crate::domain::OrgId;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: Vec<Line>,
    /// They are looked through when there are more.
    most: usize,
}

impl Waiting {
    pub(super) fn add(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
        self.stay_few();
    }

    /// All of them, in their order.
    pub(super) fn take(&mut self) -> Vec<Line> {
        self.most = 0;
        std::mem::take(&mut self.lines)
    }

    /// Those that were taken and not written, before those that came meanwhile.
    pub(super) fn put_back(&mut self, mut lines: Vec<Line>) {
        lines.append(&mut self.lines);
        self.lines = lines;
        self.stay_few();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    fn stay_few(&mut self) {
        if self.lines.len() <= self.most.max(COMPACT_AFTER) {
            return;
        }
        let kept = self.worth_keeping();
        let mut at = 0..self.lines.len();
        self.lines
            .retain(|_| at.next().is_some_and(|place| kept.contains(&place)));
        self.most = self.lines.len() * 2;
    }

    /// Every line that stands for more than how far an org had come. Of the others between two of those the one that went
    /// farthest, by epoch: none of them is moved to where it would say something else.
    fn worth_keeping(&self) -> HashSet<usize> {
        let mut kept = HashSet::new();
        let mut passed: HashMap<OrgId, usize> = HashMap::new();
        let mut farthest = HashMap::new();
        for (place, line) in self.lines.iter().enumerate() {
            let before = passed.entry(line.org).or_default();
            let size = match &line.fact {
                Fact::Wrote => None,
                Fact::Checkpoint { size, .. } => Some(*size),
                Fact::Began | Fact::Moved { .. } | Fact::Sealed { .. } | Fact::Recovered => {
                    *before += 1;
                    kept.insert(place);
                    continue;
                }
            };
            let Line {
                org, epoch, entry, ..
            } = line;
            let of_epoch = (epoch.incarnation, epoch.counter);
            let alike = (*org, *before, of_epoch, size.is_some(), entry.is_some());
            let known = farthest.entry(alike).or_insert((size, place));
            if known.0 <= size {
                *known = (size, place);
            }
        }
        kept.extend(farthest.into_values().map(|(_, place)| place));
        kept
    }
}
