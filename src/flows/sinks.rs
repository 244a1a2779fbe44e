//! Copying the log to the sinks: every entry at least once, in order, with a cursor per sink and org that moves on only
//! when the receiver has what lies before it. What it does not take of one org holds up that org alone.

use crate::{
    audit::sinks::{Sink, SinkBatch, SinkError},
    domain::OrgId,
    failpoints::Failpoint,
};

use super::{Deps, Refusal};

/// Brings one sink up to date; returns how many entries it took. Orgs take turns, so that none waits for all that another
/// one has, and one whose log cannot be read, or is not taken, does not hold up the others. A stop leaves the rest to the
/// next start. A sink that was sent too much is left alone for a while.
///
/// # Errors
/// When the database is unavailable, or the sink was for some org: the next look begins behind that one.
pub async fn drain(deps: &Deps, sink: &dyn Sink) -> Result<usize, Refusal> {
    if sink.standing().is_resting(deps.clock.since_boot()) {
        return Ok(0);
    }
    let mut taken = 0;
    loop {
        let turn = turn(deps, sink).await?;
        taken += turn.taken;
        // Those that failed do not wait until others have no more.
        if turn.failed > 0 {
            return Err(Refusal::ProviderUnavailable);
        }
        if !turn.more {
            sink.standing().begin_behind(None);
            return Ok(taken);
        }
    }
}

/// What one turn of everybody came to, or of one org.
#[derive(Default)]
struct Turn {
    taken: usize,
    /// Whether there is more to take at once.
    more: bool,
    /// Orgs of which the sink took nothing, for now.
    failed: usize,
}

async fn turn(deps: &Deps, sink: &dyn Sink) -> Result<Turn, Refusal> {
    let begin = sink.standing().behind();
    let (mut after, mut all) = (begin, Turn::default());
    // Those up to where it began come last.
    let mut from_the_first = begin.is_none();
    loop {
        let orgs = deps
            .store
            .due()
            .await?
            .orgs_behind(sink.name(), after, PAGE)
            .await?;
        let Some(last) = orgs.last().copied() else {
            if from_the_first {
                return Ok(all);
            }
            (after, from_the_first) = (None, true);
            continue;
        };
        after = Some(last);
        for org in orgs {
            if from_the_first && begin.is_some_and(|begin| org > begin) {
                return Ok(all);
            }
            if deps.uncut.is_stopping() {
                return Ok(Turn { more: false, ..all });
            }
            let one = drain_org(deps, sink, org).await;
            if !matches!(one, Ok(Turn { failed: 0, .. })) {
                sink.standing().begin_behind(Some(org));
            }
            let one = one?;
            all.taken += one.taken;
            all.more |= one.more;
            all.failed += one.failed;
            if all.failed >= FAILURES || sink.standing().is_resting(deps.clock.since_boot()) {
                return Ok(all);
            }
        }
    }
}

async fn drain_org(deps: &Deps, sink: &dyn Sink, org: OrgId) -> Result<Turn, Refusal> {
    let mut turn = Turn::default();
    for _ in 0..BATCHES {
        let mut tx = deps.store.read(org).await?;
        let next = tx.sink_cursor(org, sink.name()).await?;
        let entries = tx.log_page(org, next, BATCH).await?;
        drop(tx);
        let Some((last, _)) = entries.last() else {
            return Ok(turn);
        };
        let (behind, count) = (last + 1, entries.len());
        let now = deps.clock.now();
        let batch = SinkBatch { org, entries, now };
        match sink.deliver(&batch).await {
            Ok(()) => Failpoint::SinkDelivered.reached(),
            Err(error @ SinkError::Entry) => {
                tracing::error!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the log of {org} cannot be copied to the sink {}: somebody may have changed its rows", sink.name());
                return Ok(turn);
            }
            Err(error) if error.is_about_the_batch() => {
                tracing::error!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the sink {} does not take what comes next of the log of {org}", sink.name());
                return Ok(turn);
            }
            Err(error) => {
                tracing::warn!(sink.name = sink.name(), org.id = %org, cause = %error,
                    "the sink {} took nothing of the log of {org}", sink.name());
                if let Some(rest) = error.rest() {
                    sink.standing().rest(deps.clock.since_boot() + rest);
                }
                turn.failed = 1;
                return Ok(turn);
            }
        }
        let moved = deps.store.retry(|| async {
            let mut tx = deps.store.write(org).await?;
            // Another replica may have been faster: then these entries went out twice, and the cursor is where it belongs.
            tx.move_sink_cursor(org, sink.name(), next, behind).await?;
            tx.commit().await
        });
        moved.await?;
        turn.taken += count;
        if deps.uncut.is_stopping() {
            return Ok(turn);
        }
    }
    turn.more = true;
    Ok(turn)
}

/// Entries in one delivery.
const BATCH: u64 = 100;
/// Deliveries for one org in one turn.
const BATCHES: usize = 8;
/// Orgs of which a sink may take nothing in one look: one that is gone is not asked about every org there is.
const FAILURES: usize = 3;
/// Orgs looked at at once.
const PAGE: u64 = 1000;
