//! The gate: one transaction in which a decision is spent, the entry is written and the sealed secret is read.
//!
//! Whatever waits is committed together (`lane`). Nothing is opened before the commit; a receipt dies five seconds after it.

use std::{num::NonZero, sync::Arc, thread, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::{AgentId, Clock, EntryId, GrantId, OrgId, Time, entry::Epoch},
    egress::BeginBy,
    failpoints::Failpoint,
    store::{
        Durability, GateAnswer, GateItem, IdempotencyKey, IdempotencyRecord, NewEntry, SecretKind, SecretRow,
        Spend, Store, StoreError,
    },
};

use super::{
    admission::{Admission, Full, Place},
    lane::{self, Line, Waiting},
    queues::Ticket,
    turns::Turns,
    verify::VerifiedDecision,
};

/// Why the gate released nothing. Nothing was written, unless the database has not confirmed the commit: then that is not
/// known, and nothing is released on it either ([`StoreError::Undecided`], heard by all of a batch as an outage).
#[derive(Debug, thiserror::Error)]
pub enum GateRefusal {
    /// The org is sealed until an admin recovers.
    #[error("the org is sealed")]
    Sealed,
    /// The org moved on since the facts were read: read again, decide again.
    #[error("the facts are stale")]
    Stale,
    /// The decision is about another grant.
    #[error("the decision is about another grant")]
    WrongGrant,
    /// The decision is made out to another entry.
    #[error("the decision is made out to another entry")]
    WrongEntry,
    /// The grant is not active any more, or its tokens were renewed: read again.
    #[error("the grant changed")]
    GrantChanged,
    /// The decision was spent already.
    #[error("the decision was spent")]
    Spent {
        /// By this entry.
        entry: EntryId,
    },
    /// The idempotency key belongs to another call.
    #[error("the idempotency key is taken")]
    Taken(IdempotencyRecord),
    /// The process is stopping; nothing was tried.
    #[error("the gate is closed")]
    Closed,
    /// The database did not commit, or did not say whether it did.
    #[error("the store is unavailable")]
    Store(#[source] StoreError),
}

/// Proof that an entry is durable. It names the secret that came with the commit and dies [`RECEIPT_LIFE`] after it.
///
/// INVARIANT: constructed only by [`Gate::release`]. Moved, never cloned: it releases once.
#[derive(Debug)]
pub struct AuditReceipt {
    entry: EntryId,
    at: Time,
    dies: Duration,
    secret: Option<SecretRow>,
    decision: VerifiedDecision,
    clock: Arc<dyn Clock>,
}

/// The receipt is older than [`RECEIPT_LIFE`]: nothing may leave on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is dead")]
pub struct DeadReceipt;

impl AuditReceipt {
    /// The entry that precedes the release.
    #[must_use]
    pub fn entry(&self) -> EntryId {
        self.entry
    }

    /// When it was committed.
    #[must_use]
    pub fn at(&self) -> Time {
        self.at
    }

    /// The decision that was spent.
    #[must_use]
    pub fn decision(&self) -> &VerifiedDecision {
        &self.decision
    }

    /// The last moment at which a send may begin; every send, resends included, carries it.
    #[must_use]
    pub fn begin_by(&self) -> BeginBy {
        BeginBy::new(Arc::clone(&self.clock), self.dies)
    }

    /// Whether anything may still be opened or handed over.
    ///
    /// # Errors
    /// When more than five seconds, suspension included, have passed since the commit.
    pub fn live(&self) -> Result<(), DeadReceipt> {
        if self.begin_by().has_passed() {
            Err(DeadReceipt)
        } else {
            Ok(())
        }
    }

    /// The sealed secret that came with the commit, while the receipt lives.
    pub(super) fn secret(&self) -> Result<Option<&SecretRow>, DeadReceipt> {
        self.live()?;
        Ok(self.secret.as_ref())
    }
}

/// What is to be released against a verified decision.
#[derive(Debug)]
pub struct Release {
    /// The tenant.
    pub org: OrgId,
    /// The epoch at which every fact was read.
    pub epoch: Epoch,
    /// Which secret of which grant, of which generation.
    pub secret: (GrantId, SecretKind, u64),
    /// The caller's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The entry.
    pub entry: NewEntry,
}

/// An entry that releases nothing: a refusal, an evaluation.
#[derive(Debug)]
pub struct Statement {
    /// The tenant.
    pub org: OrgId,
    /// The epoch at which every fact was read.
    pub epoch: Epoch,
    /// The caller's idempotency key, with how the call ended.
    pub idempotency: Option<IdempotencyKey>,
    /// The entry.
    pub entry: NewEntry,
}

/// The one door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    admission: Admission,
    turns: Turns,
    line: Arc<Line>,
    wake: mpsc::Sender<()>,
    clock: Arc<dyn Clock>,
}

/// A place in the line. Whoever goes away before being served gives it up.
#[derive(Debug)]
struct Queued<'a> {
    line: &'a Line,
    ticket: Ticket,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.line.queues().leave(self.ticket);
    }
}

impl Gate {
    /// Starts the lane. It ends when the last clone of the gate is dropped.
    #[must_use]
    pub fn start(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self::start_with(store, clock, Durability::Commit)
    }

    /// A gate whose transactions are rolled back: what a release costs without its durability.
    #[cfg(feature = "bench")]
    #[must_use]
    pub fn start_without_commit(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self::start_with(store, clock, Durability::LeaveOut)
    }

    fn start_with(store: Store, clock: Arc<dyn Clock>, durability: Durability) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Turns::new(processors);
        let (line, wake) = lane::start(store, Arc::clone(&clock), durability, turns.clone());
        Self {
            admission: Admission::new(processors),
            turns,
            line,
            wake,
            clock,
        }
    }

    /// Whether a call of this agent would be let in now: asked before anything costly is done for it.
    ///
    /// # Errors
    /// [`Full`].
    pub fn has_room(&self, org: OrgId, agent: AgentId) -> Result<(), Full> {
        self.admission.has_room(org, agent)
    }

    /// Lets a call of this agent in. It keeps its place until it passed the gate or has to wait for a provider.
    ///
    /// # Errors
    /// [`Full`]: too much is under way, of this agent, this org or altogether.
    pub fn enter(&self, org: OrgId, agent: AgentId) -> Result<Place, Full> {
        self.admission.enter(org, agent)
    }

    /// Waits until it is the org's turn to be judged: few are ready for the processors at a time, each org in turn.
    /// From then on nothing may be waited for before [`Place::judged`], and after that nothing but the gate. Whoever has to wait
    /// for something else gives the turn up first: [`Place::without_turn`].
    pub async fn turn(&self, org: OrgId, place: &mut Place) {
        place.has_turn(self.turns.wait(org).await);
    }

    /// Spends the decision, writes the entry and reads the secret, all or nothing.
    ///
    /// # Errors
    /// A typed refusal; what was written then, [`GateRefusal`] says.
    pub async fn release(
        &self,
        decision: VerifiedDecision,
        release: Release,
    ) -> Result<AuditReceipt, GateRefusal> {
        let claims = decision.claims();
        // INVARIANT: I1. `verify` compared these already; the gate does not rely on it.
        if (claims.org, claims.grant) != (release.org, release.secret.0) {
            return Err(GateRefusal::WrongGrant);
        }
        let entry = release.entry.id;
        let spend = match decision.entry() {
            // Its entry spends it: there is one of that id at most, and no other can.
            Some(made_for) if made_for == entry => None,
            Some(_) => return Err(GateRefusal::WrongEntry),
            None => Some(Spend {
                iss: claims.iss.clone(),
                jti: claims.jti.clone(),
                keep_until: Time::from_unix_seconds(claims.exp) + SPENT_OUTLIVES,
            }),
        };
        let item = GateItem {
            org: release.org,
            epoch: Some(release.epoch),
            secret: Some(release.secret),
            spend,
            idempotency: release.idempotency,
            entry: release.entry,
        };
        let (at, secret, committed) = self.pass(item).await?;
        Failpoint::GateCommitted.reached();
        let dies = committed + RECEIPT_LIFE;
        Ok(AuditReceipt {
            entry,
            at,
            dies,
            secret,
            decision,
            clock: Arc::clone(&self.clock),
        })
    }

    /// Writes an entry that releases nothing.
    ///
    /// # Errors
    /// A typed refusal; what was written then, [`GateRefusal`] says.
    pub async fn state(&self, statement: Statement) -> Result<Time, GateRefusal> {
        let item = GateItem {
            org: statement.org,
            epoch: Some(statement.epoch),
            secret: None,
            spend: None,
            idempotency: statement.idempotency,
            entry: statement.entry,
        };
        self.pass(item).await.map(|(at, ..)| at)
    }

    /// Appends what became of a release. It allows nothing, so it holds at any epoch.
    ///
    /// # Errors
    /// A typed refusal; what was written then, [`GateRefusal`] says.
    pub async fn follow_up(&self, org: OrgId, entry: NewEntry) -> Result<Time, GateRefusal> {
        let item = GateItem {
            org,
            epoch: None,
            secret: None,
            spend: None,
            idempotency: None,
            entry,
        };
        self.pass(item).await.map(|(at, ..)| at)
    }

    async fn pass(&self, item: GateItem) -> Result<(Time, Option<SecretRow>, Duration), GateRefusal> {
        let (answer, answered) = oneshot::channel();
        let queued = self.join(Waiting { item, answer });
        // Full: the lane is about to look anyway.
        let _awake = self.wake.try_send(());
        let answered = answered.await;
        drop(queued);
        let (answer, committed) = answered
            .map_err(|_| GateRefusal::Closed)?
            .map_err(GateRefusal::Store)?;
        match answer {
            GateAnswer::Committed { at, secret } => Ok((at, secret, committed)),
            GateAnswer::Sealed => Err(GateRefusal::Sealed),
            GateAnswer::Stale | GateAnswer::Waits => Err(GateRefusal::Stale),
            GateAnswer::GrantChanged => Err(GateRefusal::GrantChanged),
            GateAnswer::Spent(entry) => Err(GateRefusal::Spent { entry }),
            GateAnswer::Taken(record) => Err(GateRefusal::Taken(record)),
        }
    }

    /// The line needs no bound of its own: in it are calls that were let in, and what became of calls.
    fn join(&self, waiting: Waiting) -> Queued<'_> {
        let org = waiting.item.org;
        let ticket = self.line.queues().join(org, waiting);
        let line = &self.line;
        Queued { line, ticket }
    }
}

/// How long a receipt lives, suspension included (architecture §3).
pub const RECEIPT_LIFE: Duration = Duration::from_secs(5);
/// A spent decision is remembered this long after its `exp`.
const SPENT_OUTLIVES: Duration = Duration::from_secs(24 * 3600);
