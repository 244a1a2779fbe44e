//! Copying the log to the sinks: every entry at least once, in order, with a cursor per sink and org that moves on only
//! when the receiver has what lies before it. What it does not take of one org holds up that org alone.
//!
//! INVARIANT: of one org, a process has one delivery to a sink under way at a time.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use crate::{
    audit::sinks::{Sink, SinkBatch, SinkError},
    domain::OrgId,
    failpoints::Failpoint,
    store::StoreError,
};

use super::{Deps, Refusal};

/// Brings one sink up to date; returns how many entries it took. Orgs take turns, so that none waits for all that another
/// one has, and one whose log cannot be read, or is not taken, does not hold up the others: it is tried again beside them. A
/// stop leaves the rest to the next start. A sink that was sent too much, or asks for it, is left alone for a while.
///
/// # Errors
/// When the database is unavailable, or the sink was for some org.
pub async fn drain(deps: &Deps, sink: &dyn Sink) -> Result<usize, Refusal> {
    let copying = Copying { deps, sink };
    let mut taken = 0;
    while copying.may_go_on() {
        let round = copying.round().await?;
        taken += round.taken;
        if round.more {
            continue;
        }
        if round.failed > 0 {
            return Err(Refusal::ProviderUnavailable);
        }
        break;
    }
    Ok(taken)
}

/// What came of asking the sink about an org, or about several.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    taken: usize,
    /// Whether there is more to take at once.
    more: bool,
    /// Orgs of which the sink took nothing, for now.
    failed: usize,
    /// Orgs whose next entry it does not take, or nobody can read; and those whose own crowd is in the way.
    refused: usize,
}

impl Turn {
    fn add(&mut self, other: Self) {
        self.taken += other.taken;
        self.more |= other.more;
        self.failed += other.failed;
        self.refused += other.refused;
    }
}

#[derive(Debug, Clone, Copy)]
struct Copying<'a> {
    deps: &'a Deps,
    sink: &'a dyn Sink,
}

impl Copying<'_> {
    fn may_go_on(&self) -> bool {
        !self.deps.uncut.is_stopping() && !self.sink.standing().rest().is_on(self.deps.clock.since_boot())
    }

    /// One turn of everybody whose entries are taken; then those whose were not are tried again, and for as long as that takes
    /// the others go on: a receiver may leave one org's entries without an answer.
    async fn round(&self) -> Result<Turn, Refusal> {
        let begun = self.deps.clock.since_boot();
        let waiting = self.sink.standing().waiting();
        let first = self.turn().await?;
        let (over, is_over) = watch::channel(false);
        let again = async {
            let again = self.again(waiting, first).await;
            over.send_replace(true);
            again
        };
        let (again, others) = tokio::join!(again, self.others(first, begun, is_over));
        let mut all = others?;
        all.add(again);
        Ok(all)
    }

    /// Asks the sink again about those of whom it did not take what came last, until it has failed so often in this round.
    async fn again(&self, waiting: Vec<OrgId>, first: Turn) -> Turn {
        let mut all = Turn::default();
        for org in waiting {
            if first.failed + first.refused + all.failed + all.refused >= FAILURES || !self.may_go_on() {
                break;
            }
            let one = self.org(org).await;
            self.sink.standing().asked_again(org);
            // Not before: the others' turns would ask about it at the same time.
            if one.failed + one.refused == 0 {
                self.sink.standing().taken(org);
            }
            all.add(one);
        }
        all
    }

    /// Goes on with the others until those that are tried again had their tries; then, while there is more, until it is time to
    /// try those once more.
    async fn others(
        &self,
        first: Turn,
        begun: Duration,
        mut is_over: watch::Receiver<bool>,
    ) -> Result<Turn, Refusal> {
        let mut all = first;
        loop {
            let is_late = self.deps.clock.since_boot().saturating_sub(begun) >= PAUSE;
            if *is_over.borrow() && (!all.more || is_late) {
                return Ok(all);
            }
            if !all.more {
                tokio::select! {
                    _ended = is_over.changed() => continue,
                    () = sleep(PAUSE) => {}
                }
            }
            all.more = false;
            if self.may_go_on() {
                all.add(self.turn().await?);
            }
        }
    }

    /// Asks about each org once, but those of whom the sink did not take what came last.
    async fn turn(&self) -> Result<Turn, Refusal> {
        let standing = self.sink.standing();
        let begin = standing.behind();
        let (mut after, mut all, mut in_a_row) = (begin, Turn::default(), 0);
        // Those up to where it began come last.
        let mut from_the_first = begin.is_none();
        loop {
            let orgs = self
                .deps
                .store
                .due()
                .await?
                .orgs_behind(self.sink.name(), after, PAGE)
                .await?;
            let Some(last) = orgs.last().copied() else {
                if from_the_first {
                    break;
                }
                (after, from_the_first) = (None, true);
                continue;
            };
            after = Some(last);
            for org in orgs {
                if from_the_first && begin.is_some_and(|begin| org > begin) {
                    standing.begin_behind(None);
                    return Ok(all);
                }
                if !self.may_go_on() {
                    return Ok(Turn { more: false, ..all });
                }
                if standing.is_waiting(org) {
                    continue;
                }
                let one = self.org(org).await;
                all.add(one);
                if one.failed > 0 {
                    standing.begin_behind(Some(org));
                    in_a_row += 1;
                } else if one.taken > 0 {
                    in_a_row = 0;
                }
                if in_a_row >= FAILURES {
                    return Ok(Turn { more: false, ..all });
                }
            }
        }
        standing.begin_behind(None);
        Ok(all)
    }

    /// Hands over what comes next of an org. One whose rows cannot be read is in no other's way.
    async fn org(&self, org: OrgId) -> Turn {
        match self.hand_over(org).await {
            Ok(turn) => turn,
            Err(refusal) => {
                tracing::warn!(sink.name = self.sink.name(), org.id = %org, cause = %refusal,
                    "the log of {org} has to wait for the sink {}", self.sink.name());
                self.sink.standing().not_taken(org);
                // That says nothing of the sink, nor of the next org.
                let is_busy = matches!(refusal, Refusal::StoreUnavailable(Some(StoreError::Busy)));
                Turn {
                    failed: usize::from(!is_busy),
                    refused: usize::from(is_busy),
                    ..Turn::default()
                }
            }
        }
    }

    /// Hands over what comes next of an org. Where the sink does not take so much of it together, half of that is next: so
    /// all that lies before an entry that it does not take at all is copied.
    async fn hand_over(&self, org: OrgId) -> Result<Turn, Refusal> {
        let Self { deps, sink } = *self;
        let standing = sink.standing();
        let mut turn = Turn::default();
        let size = standing.size(org).unwrap_or(BATCH);
        for _ in 0..BATCHES {
            let mut tx = deps.store.read(org).await?;
            let next = tx.sink_cursor(org, sink.name()).await?;
            let mut entries = tx.log_page(org, next, size).await?;
            drop(tx);
            let is_there = !entries.is_empty();
            // One that is missing is not passed over: it may come back.
            let whole = entries
                .iter()
                .zip(next..)
                .take_while(|((index, _), at)| index == at);
            entries.truncate(whole.count());
            let Some((last, _)) = entries.last() else {
                if is_there {
                    standing.not_taken(org);
                    turn.not_taken(self, org, next, &SinkError::Entry);
                } else {
                    standing.set_size(org, None);
                }
                return Ok(turn);
            };
            let (behind, count) = (last + 1, entries.len());
            let now = deps.clock.now();
            let batch = SinkBatch { org, entries, now };
            match sink.deliver(&batch).await {
                Ok(()) => Failpoint::SinkDelivered.reached(),
                Err(error) if error.is_about_the_batch() && count > 1 => {
                    let half = u64::try_from(count / 2).unwrap_or(1);
                    standing.set_size(org, Some(half));
                    turn.more = true;
                    return Ok(turn);
                }
                Err(error) => {
                    standing.not_taken(org);
                    turn.not_taken(self, org, next, &error);
                    return Ok(turn);
                }
            }
            let moved = deps.store.retry(|| async {
                let mut tx = deps.store.write(org).await?;
                let moved = tx.move_sink_cursor(org, sink.name(), next, behind).await?;
                tx.commit().await.map(|()| moved)
            });
            if !moved.await? {
                // Another replica copies this log and was faster: these entries went out twice. The next ones are left to it.
                return Ok(turn);
            }
            turn.taken += count;
            if deps.uncut.is_stopping() {
                return Ok(turn);
            }
        }
        // It may take more together by now.
        standing.set_size(org, Some(size * 2).filter(|size| *size < BATCH));
        turn.more = true;
        Ok(turn)
    }
}

impl Turn {
    /// Writes down why the sink has not got what stands at `next`.
    fn not_taken(&mut self, copying: &Copying<'_>, org: OrgId, next: u64, error: &SinkError) {
        let Copying { deps, sink } = *copying;
        match error {
            SinkError::Entry => {
                tracing::error!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the log of {org} cannot be copied to the sink {} from {next} on: somebody may have changed its rows", sink.name());
                self.refused = 1;
            }
            error if error.is_about_the_batch() => {
                tracing::error!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the sink {} does not take entry {next} of the log of {org}, which waits there", sink.name());
                self.refused = 1;
            }
            error => {
                tracing::warn!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the sink {} took nothing of the log of {org}", sink.name());
                if let Some(rest) = error.rest() {
                    sink.standing().rest().until(deps.clock.since_boot() + rest);
                }
                self.failed = 1;
            }
        }
    }
}

/// Entries in one delivery.
const BATCH: u64 = 100;
/// Deliveries for one org in one turn.
const BATCHES: usize = 8;
/// Orgs of which a sink may take nothing, one behind the other, before the next look: one that is gone is not asked about
/// every org there is.
const FAILURES: usize = 3;
/// Those whose entries were not taken are tried again so often at most while the others have more.
const PAUSE: Duration = Duration::from_secs(1);
/// Orgs looked at at once.
const PAGE: u64 = 1000;
