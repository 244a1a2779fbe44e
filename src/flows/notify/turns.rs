//! Whose messages are under way: each org's in turn, a few of any one at a time, so that neither very many changes nor
//! messages that hang keep another org's from being told.
//!
//! What one org's receiver answered and what is to be told next are written in one transaction: while it is under way, more
//! answers gather for the next.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::{Id, JoinError, JoinSet};

use crate::{domain::OrgId, egress::Webhook, store::Notice};

use super::{Deps, Message, Refusal, step};

/// What came of a try to tell somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) notice: Notice,
    pub(super) arrived: bool,
    /// For how long the receiver asked to be left alone.
    pub(super) asked: Duration,
}

/// The messages under way in this process.
#[derive(Debug)]
pub(super) struct Turns {
    deps: Arc<Deps>,
    webhook: Arc<Webhook>,
    tasks: JoinSet<Done>,
    places: HashMap<Id, Place>,
    /// What is to be written down.
    answers: BTreeMap<OrgId, Vec<Answer>>,
    /// Whose turn was the last.
    after: Option<OrgId>,
    /// Whether orgs were left for want of places.
    is_full: bool,
    /// Whether the receiver failed last: it is left alone for a moment.
    is_resting: bool,
    /// Orgs whose last step failed.
    stuck: HashSet<OrgId>,
}

/// What a task is for.
#[derive(Debug, Clone, Copy)]
struct Place {
    org: OrgId,
    messages: usize,
    is_step: bool,
}

#[derive(Debug)]
enum Done {
    Stepped(Result<Vec<Message>, Refusal>),
    Sent(Answer),
}

impl Turns {
    pub(super) fn new(deps: &Arc<Deps>, webhook: &Arc<Webhook>) -> Self {
        Self {
            deps: Arc::clone(deps),
            webhook: Arc::clone(webhook),
            tasks: JoinSet::new(),
            places: HashMap::new(),
            answers: BTreeMap::new(),
            after: None,
            is_full: false,
            is_resting: false,
            stuck: HashSet::new(),
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether somebody waits for nothing but the moment for which the receiver is left alone.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_resting && self.is_full
    }

    /// The moment is over.
    pub(super) fn rested(&mut self) {
        self.is_resting = false;
        self.stuck.clear();
    }

    /// Begins what there are places for, and writes down what was answered.
    ///
    /// # Errors
    /// When the database is unavailable: then nothing new begins.
    pub(super) async fn go_on(&mut self) -> Result<(), Refusal> {
        // What is left is another replica's, or the next start's.
        let is_left_alone = self.is_resting || self.webhook.rest().is_on(self.deps.clock.since_boot());
        let may_begin = !is_left_alone && !self.deps.uncut.is_stopping();
        let begun = if may_begin { self.begin().await } else { Ok(()) };
        let answered: Vec<OrgId> = self.answers.keys().copied().collect();
        for org in answered {
            if !self.is_stepping(org) {
                self.step(org, 0);
            }
        }
        if begun.is_err() {
            self.is_resting = true;
        }
        begun
    }

    /// Gives places to orgs in turn, from where it stopped last until all have had theirs or no place is left.
    async fn begin(&mut self) -> Result<(), Refusal> {
        if self.held(None) >= AT_ONCE {
            self.is_full = true;
            return Ok(());
        }
        let mut due = self.deps.store.due().await?;
        let mut is_last = self.after.is_none();
        loop {
            let orgs = due.orgs_to_tell(self.after, PAGE).await?;
            for &org in &orgs {
                let left = AT_ONCE.saturating_sub(self.held(None));
                if left == 0 {
                    self.is_full = true;
                    return Ok(());
                }
                self.after = Some(org);
                let room = left.min(OF_ONE_ORG.saturating_sub(self.held(Some(org))));
                if room > 0 && !self.is_stepping(org) && !self.stuck.contains(&org) {
                    self.step(org, room);
                }
            }
            if u64::try_from(orgs.len()).is_ok_and(|found| found == PAGE) {
                continue;
            }
            self.after = None;
            if is_last {
                self.is_full = false;
                return Ok(());
            }
            is_last = true;
        }
    }

    /// Waits until something has ended: how many messages have arrived; `None` if nothing is under way.
    pub(super) async fn ended(&mut self) -> Option<usize> {
        let mut next = self.tasks.join_next_with_id().await?;
        let mut arrived = 0;
        loop {
            arrived += usize::from(self.settle(next));
            match self.tasks.try_join_next_with_id() {
                Some(more) => next = more,
                None => return Some(arrived),
            }
        }
    }

    /// `true` if a message arrived.
    fn settle(&mut self, ended: Result<(Id, Done), JoinError>) -> bool {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(Place { org, .. }) = self.places.remove(&id) else {
            return false;
        };
        match ended {
            Ok((_, Done::Stepped(Ok(messages)))) => {
                for message in messages {
                    self.send(org, message);
                }
                false
            }
            Ok((_, Done::Stepped(Err(refusal)))) => {
                tracing::warn!(org.id = %org, cause = %refusal, "notices of {org} have to wait");
                self.stuck.insert(org);
                false
            }
            Ok((_, Done::Sent(answer))) => {
                self.is_resting = !answer.arrived;
                self.answers.entry(org).or_default().push(answer);
                answer.arrived
            }
            Err(_) => {
                tracing::error!(org.id = %org, "a notice of {org} stopped unexpectedly");
                self.stuck.insert(org);
                false
            }
        }
    }

    /// Writes down what was answered about an org's grants, and takes up as much as there is room for.
    fn step(&mut self, org: OrgId, room: usize) {
        let answers = self.answers.remove(&org).unwrap_or_default();
        let deps = Arc::clone(&self.deps);
        let task = self.tasks.spawn(async move {
            let taken = deps.store.retry(|| step(&deps, org, &answers, room)).await;
            // Answers that could not be written down come again: what they are about is told once more.
            Done::Stepped(taken.map_err(Refusal::from))
        });
        let place = Place {
            org,
            messages: room,
            is_step: true,
        };
        self.places.insert(task.id(), place);
    }

    fn send(&mut self, org: OrgId, message: Message) {
        let (deps, webhook) = (Arc::clone(&self.deps), Arc::clone(&self.webhook));
        let task = self
            .tasks
            .spawn(async move { Done::Sent(message.send(&deps, &webhook).await) });
        let place = Place {
            org,
            messages: 1,
            is_step: false,
        };
        self.places.insert(task.id(), place);
    }

    fn is_stepping(&self, org: OrgId) -> bool {
        self.places
            .values()
            .any(|place| place.is_step && place.org == org)
    }

    /// How many places an org holds, or all of them together.
    fn held(&self, org: Option<OrgId>) -> usize {
        let of = |place: &&Place| org.is_none_or(|org| org == place.org);
        self.places.values().filter(of).map(|place| place.messages).sum()
    }
}

/// Messages under way at a time.
const AT_ONCE: usize = 32;
/// Of them, those of one org.
const OF_ONE_ORG: usize = 8;
/// Orgs looked for in one statement: each takes a place at least.
const PAGE: u64 = 32;
