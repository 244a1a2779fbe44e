//! Ending things, in one action, for everybody at once (protocol §8).

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::{
        EntryId, GrantId, OrgId, RevocationId, Time,
        connector::ConnectorId,
        entry::{Entry, EntryDraft, EntryType, Epoch},
    },
    store::{
        IN_FLIGHT_PAGE, OutboxRow, RevocationRow, Selector, SelectorCounts, StoreError, Tx, UpstreamTotals,
    },
};

use super::{Deps, Refusal, record};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What to end.
    pub selector: Selector,
    /// Why, in the caller's words.
    pub reason: String,
    /// Whether to wait for the outcome of calls already sent.
    pub drain: bool,
    /// Who asks, as an id.
    pub by: String,
}

/// A revocation that has taken effect.
#[derive(Debug)]
pub struct Revoked {
    /// Its id.
    pub id: RevocationId,
    /// The epoch it began: no entry of the selection commits under it.
    pub epoch: Epoch,
    /// When.
    pub at: Time,
    /// How long moving the epoch on took: over PostgreSQL mostly the wait for the exclusive guard, on SQLite none of it. Where
    /// it was tried again, of the last try.
    pub guard_wait: Duration,
    /// How much it covered; `None` if that was not counted in time for this answer.
    pub counts: Option<SelectorCounts>,
    /// Releases whose call was sent and has no outcome yet; `None` if they could not be read any more.
    pub in_flight: Option<Vec<EntryId>>,
}

/// What a revocation would end; changes nothing.
///
/// # Errors
/// When the selection names nothing in this org.
pub async fn dry_run(deps: &Deps, org: OrgId, selector: &Selector) -> Result<SelectorCounts, Refusal> {
    let mut tx = deps.store.read_for_long(org).await?;
    exists(deps, &mut tx, org, selector).await?;
    Ok(tx.count_selector(org, selector).await?)
}

/// Ends the selection. When this returns, no replica releases anything of it.
///
/// # Errors
/// When the selection names nothing in this org or the database does not commit: then nothing ended. After
/// [`Refusal::OutcomeUnknown`] and [`StoreError::Undecided`] it may have; to end it again does no harm.
pub async fn run(deps: &Arc<Deps>, org: OrgId, ask: Ask) -> Result<Revoked, Refusal> {
    let deps = Arc::clone(deps);
    // In its own task: a caller that hangs up cannot leave it half done.
    tokio::spawn(async move {
        let drain = ask.drain;
        let selector = ask.selector.clone();
        let mut revoked = deps.store.retry(|| commit(&deps, org, &ask)).await?;
        // INVARIANT: from here on nothing is an error: it took effect, and whoever asked must not be told otherwise.
        let before = revoked.epoch.counter;
        revoked.in_flight = known_in_flight(&deps, org, &selector, before).await;
        let until = deps.clock.since_boot() + DRAIN;
        let drained = |left: &Option<Vec<EntryId>>| left.as_ref().is_some_and(Vec::is_empty);
        while drain && !drained(&revoked.in_flight) && deps.clock.since_boot() < until {
            tokio::time::sleep(POLL).await;
            revoked.in_flight = known_in_flight(&deps, org, &selector, before).await;
        }
        Ok(revoked)
    })
    .await
    .unwrap_or(Err(Refusal::OutcomeUnknown { entry: None }))
}

async fn commit(deps: &Arc<Deps>, org: OrgId, ask: &Ask) -> Result<Revoked, Refusal> {
    let id = RevocationId::new(deps.clock.now(), &*deps.random)?;
    let (kind, target) = ask.selector.floor();
    let mut draft = EntryDraft {
        on_behalf: vec![ask.by.clone()],
        outcome: Some("stopped".to_owned()),
        reason: Some(if target.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}:{target}")
        }),
        correlation: Some(id.to_string()),
        ..EntryDraft::default()
    };
    match &ask.selector {
        Selector::User(user) => draft.user = Some(*user),
        Selector::Agent(agent) => draft.agent = Some(*agent),
        Selector::Connector(connector) => draft.connector = Some(connector.clone()),
        Selector::Grant(grant) => draft.grant = Some(*grant),
        Selector::All(_) => {}
    }
    let mut tx = deps.store.write_end(org).await?;
    exists(deps, &mut tx, org, &ask.selector).await?;
    if let Selector::Grant(grant) = &ask.selector
        && let Some(grant) = tx.grant(org, *grant).await?
    {
        // The person whose grant it was finds the entry in their own activity.
        draft.user = Some(grant.user);
        draft.connector = Some(grant.connector);
    }
    let entry = record::open(deps, EntryType::Revoke, draft)?;
    // What a snapshot shows now is what is about to end: every other change of the org stands in line behind `tx`.
    let before = snapshot(deps, org).await;
    let asked = Instant::now();
    let epoch = tx.advance_epoch(org, &ask.selector).await?;
    let guard_wait = asked.elapsed();
    let row = RevocationRow {
        id,
        selector: ask.selector.clone(),
        reason: ask.reason.clone(),
        epoch: epoch.counter,
        at: tx.now(),
        counts: None,
        fanned_out: false,
    };
    tx.insert_revocation(org, &row, epoch).await?;
    if let Selector::Agent(agent) = ask.selector {
        tx.disable_agent(org, agent).await?;
    }
    tx.append_entry(org, entry).await?;
    tx.commit().await?;
    Ok(Revoked {
        id,
        epoch,
        at: row.at,
        guard_wait,
        counts: counted(deps, org, row, before).await,
        in_flight: None,
    })
}

/// A view of the org as it stands, for counting. Nothing may wait long for it: who revokes holds up the org's changes.
async fn snapshot(deps: &Deps, org: OrgId) -> Option<Tx> {
    let begun = async {
        // INVARIANT: no connection is waited for: whoever has them may stand in the org's line behind this.
        let Some(mut tx) = deps.store.read_for_long_now(org).await? else {
            return Ok(None);
        };
        // On SQLite the first thing read makes the snapshot.
        tx.epoch(org).await?;
        Ok::<_, StoreError>(Some(tx))
    };
    tokio::time::timeout(SNAPSHOT, begun).await.ok()?.ok()?
}

/// How much a revocation covered, if it is counted soon. The counting walks what the selection names and therefore comes
/// after the revocation: nothing waits for it, and what it finds is written down whenever it is done.
async fn counted(
    deps: &Arc<Deps>,
    org: OrgId,
    row: RevocationRow,
    before: Option<Tx>,
) -> Option<SelectorCounts> {
    let mut before = before?;
    let deps = Arc::clone(deps);
    let counting = tokio::spawn(async move {
        let counted = async {
            before.allow_time(COUNTING).await?;
            let counts = before.count_selector(org, &row.selector).await?;
            drop(before);
            let kept = deps.store.retry(|| async {
                let mut tx = deps.store.write(org).await?;
                tx.set_revocation_counts(org, row.id, &counts).await?;
                tx.commit().await
            });
            kept.await?;
            Ok::<_, StoreError>(counts)
        };
        counted
            .await
            .inspect_err(
                |error| tracing::warn!(revocation.id = %row.id, cause = %error, "{} is not counted", row.id),
            )
            .ok()
    });
    tokio::time::timeout(COUNTED_WITHIN, counting).await.ok()?.ok()?
}

/// Calls of a revocation's selection that were sent before it took effect and have no outcome yet.
///
/// # Errors
/// When the database is unavailable.
pub async fn still_in_flight(deps: &Deps, org: OrgId, row: &RevocationRow) -> Result<u64, Refusal> {
    let mut tx = deps.store.read(org).await?;
    let left = in_flight(&mut tx, org, &row.selector, row.epoch).await?;
    Ok(u64::try_from(left.len()).unwrap_or(u64::MAX))
}

/// What became of a revocation, grant by grant.
///
/// # Errors
/// When there is no such revocation in this org.
pub async fn report(
    deps: &Deps,
    org: OrgId,
    id: RevocationId,
    after: Option<GrantId>,
    limit: u64,
) -> Result<(RevocationRow, Vec<OutboxRow>), Refusal> {
    let mut tx = deps.store.read(org).await?;
    let row = tx.revocation(org, id).await?.ok_or(Refusal::NotFound)?;
    let grants = tx.outbox_of(org, id, after, limit).await?;
    Ok((row, grants))
}

/// How far a revocation has come, over all of its grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Its grants; `None` while they are not counted.
    pub total: Option<u64>,
    /// How many have their tombstone and their place among the calls to providers.
    pub queued: u64,
    /// At the providers; those without a tombstone yet count as pending, as far as they are counted.
    pub upstream: UpstreamTotals,
}

impl Progress {
    /// How many have a final answer.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.upstream.revoked + self.upstream.unsupported + self.upstream.unconfirmed
    }

    /// How many have none.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.total.map(|total| total.saturating_sub(self.done()))
    }
}

/// How far a revocation has come.
pub(super) async fn progress(tx: &mut Tx, org: OrgId, row: &RevocationRow) -> Result<Progress, Refusal> {
    let mut upstream = tx.upstream_totals(org, row.id).await?;
    let queued = upstream.pending + upstream.revoked + upstream.unsupported + upstream.unconfirmed;
    let total = match row.counts {
        _ if row.fanned_out => Some(queued),
        // Tokens that were on their way when it took effect come on top of what was counted.
        counts => counts.map(|counts| counts.grants.max(queued)),
    };
    upstream.pending += total.map_or(0, |total| total - queued);
    Ok(Progress {
        total,
        queued,
        upstream,
    })
}

/// The entry that says a revocation took effect.
pub(super) async fn entry(tx: &mut Tx, org: OrgId, id: RevocationId) -> Result<Option<Entry>, Refusal> {
    Ok(tx
        .entries_about(org, &id.to_string())
        .await?
        .iter()
        .filter_map(|row| serde_json::from_str::<Entry>(&row.bytes).ok())
        .find(|entry| entry.kind == EntryType::Revoke))
}

async fn exists(deps: &Deps, tx: &mut Tx, org: OrgId, selector: &Selector) -> Result<(), Refusal> {
    let found = match selector {
        Selector::All(all) => *all,
        Selector::User(user) => tx.user(org, *user).await?.is_some(),
        Selector::Agent(agent) => tx.agent(org, *agent).await?.is_some(),
        Selector::Grant(grant) => tx.grant(org, *grant).await?.is_some(),
        // One whose file is gone may have left grants behind: those can be ended all the same.
        Selector::Connector(connector) => {
            if deps.catalogue.get(connector).is_none() && !tx.was_connected(org, connector).await? {
                return Err(Refusal::invalid(
                    "/selector/connector",
                    "there is no such connector",
                ));
            }
            true
        }
    };
    if found { Ok(()) } else { Err(Refusal::NotFound) }
}

/// Releases of the selection before an epoch that were sent and have no outcome yet, if they can be read.
async fn known_in_flight(deps: &Deps, org: OrgId, selector: &Selector, before: i64) -> Option<Vec<EntryId>> {
    let read = async {
        let mut tx = deps.store.read(org).await?;
        in_flight(&mut tx, org, selector, before).await
    };
    read.await
        .inspect_err(|error| tracing::warn!(org.id = %org, cause = %error, "the calls under way in {org} are not known"))
        .ok()
}

async fn in_flight(
    tx: &mut Tx,
    org: OrgId,
    selector: &Selector,
    before: i64,
) -> Result<Vec<EntryId>, StoreError> {
    let (mut left, mut after) = (Vec::new(), None);
    loop {
        let page = tx.in_flight(org, before, after).await?;
        let is_last = page.len() < IN_FLIGHT_PAGE;
        for bytes in page {
            let entry: Entry =
                serde_json::from_str(&bytes).map_err(|_| StoreError::Inconsistent { table: "entries" })?;
            after = Some(entry.id);
            if covers(selector, &entry) {
                left.push(entry.id);
            }
        }
        if is_last {
            return Ok(left);
        }
    }
}

fn covers(selector: &Selector, entry: &Entry) -> bool {
    match selector {
        Selector::All(_) => true,
        Selector::User(user) => entry.draft.user == Some(*user),
        Selector::Agent(agent) => entry.draft.agent == Some(*agent),
        Selector::Grant(grant) => entry.draft.grant == Some(*grant),
        Selector::Connector(connector) => entry.draft.connector.as_ref() == Some::<&ConnectorId>(connector),
    }
}

/// A release without an outcome after this long is `unknown`; the sweeper writes that.
pub(super) const OUTCOME_DUE: Duration = Duration::from_secs(300);
/// The longest wait for calls already sent.
const DRAIN: Duration = Duration::from_secs(35);
/// How long a revocation may wait for a view of what it is about to end.
const SNAPSHOT: Duration = Duration::from_millis(100);
/// How long its answer waits for the counts.
const COUNTED_WITHIN: Duration = Duration::from_millis(400);
/// How long the counting may take.
const COUNTING: Duration = Duration::from_secs(120);
/// How often to look meanwhile.
const POLL: Duration = Duration::from_millis(100);
