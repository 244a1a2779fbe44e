//! Copying the log to the sinks: every entry at least once, in order, with a cursor per sink and org that moves on only
//! when the receiver has what lies before it.

use crate::{
    audit::sinks::{Sink, SinkBatch, SinkError},
    domain::OrgId,
    failpoints::Failpoint,
};

use super::{Deps, Refusal};

/// Brings one sink up to date; returns how many entries it took. Orgs take turns, so that none waits for all that another
/// one has, and one whose log cannot be read, or is not taken, does not hold up the others. A stop leaves the rest to the
/// next start.
///
/// # Errors
/// When the database is unavailable, or the sink: then everything else waits for the next look.
pub async fn drain(deps: &Deps, sink: &dyn Sink) -> Result<usize, Refusal> {
    let mut taken = 0;
    loop {
        let turn = turn(deps, sink).await?;
        taken += turn.taken;
        if !turn.more {
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
}

async fn turn(deps: &Deps, sink: &dyn Sink) -> Result<Turn, Refusal> {
    let (mut after, mut all) = (None, Turn::default());
    loop {
        let orgs = deps
            .store
            .due()
            .await?
            .orgs_behind(sink.name(), after, PAGE)
            .await?;
        let Some(last) = orgs.last().copied() else {
            return Ok(all);
        };
        after = Some(last);
        for org in orgs {
            if deps.uncut.is_stopping() {
                return Ok(Turn { more: false, ..all });
            }
            let one = drain_org(deps, sink, org).await?;
            all.taken += one.taken;
            all.more |= one.more;
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
                tracing::warn!(sink.name = sink.name(), org.id = %org, cause = %error, "the sink {} took nothing", sink.name());
                return Err(Refusal::ProviderUnavailable);
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
/// Orgs looked at at once.
const PAGE: u64 = 1000;
