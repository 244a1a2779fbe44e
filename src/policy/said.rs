//! What Cedar says of the three sets, and the memory of it where no request has a part in that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{rule::Rule, schema::Tool};

/// What Cedar said of one set. Which permits still count is not its to say: that is asked of them for each request.
#[derive(Debug)]
pub(super) enum Said {
    /// Some policy could not be evaluated.
    Failed(Vec<Arc<Rule>>),
    /// Some permit matched and no forbid.
    Permitted(Vec<Arc<Rule>>),
    /// Some forbid matched.
    Forbidden(Vec<Arc<Rule>>),
    /// Nothing matched.
    Silent,
}

/// What was said of organisation, user and agent about tools of one grant.
///
/// INVARIANT: only where nothing reads the context; everything else that Cedar is given stands as long as this.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<usize, Arc<[Said; 3]>>>);

impl Memory {
    pub(super) fn of(&self, tool: &Tool) -> Option<Arc<[Said; 3]>> {
        self.held().get(&tool.number).cloned()
    }

    /// Remembers what was said about the tool, unless it is much, or something failed: want of stack is a failure, too,
    /// and the next request may have more of it.
    pub(super) fn keep(&self, tool: &Tool, said: &Arc<[Said; 3]>) {
        let rules: Option<usize> = said.iter().map(Said::remembered_rules).sum();
        if rules.is_none_or(|rules| rules > MOST_RULES) {
            return;
        }
        let mut held = self.held();
        if held.len() < MOST_TOOLS {
            held.insert(tool.number, Arc::clone(said));
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<usize, Arc<[Said; 3]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// How many rules there are to remember; `None`: it must not be remembered.
    fn remembered_rules(&self) -> Option<usize> {
        match self {
            Self::Failed(_) => None,
            Self::Permitted(rules) | Self::Forbidden(rules) => Some(rules.len()),
            Self::Silent => Some(0),
        }
    }
}

/// Together some 6 KiB of a grant at most, mostly some hundred bytes: an agent uses few tools of a grant, and few rules
/// match. Of other tools and rules Cedar is asked every time.
const MOST_TOOLS: usize = 16;
const MOST_RULES: usize = 16;
