//! Going on with a database that is older than what is kept outside of it: first what would be lost and ended, then
//! the same, done.
//!
//! The rule: whatever may have lost something since the database was made, loses it again. What that was stands
//! outside, as selectors with the epoch they belong to; where nothing stands outside, it is everything. Then every API key
//! ends and every engine is disabled as well: the database cannot say which of them were ended since. The epoch
//! begins another incarnation behind every counter ever heard of, so that no fact read before is still fresh; decisions
//! that were made before and brought along are told by their time.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    crypto::{api_key, digest},
    domain::{
        OrgId, RevocationId, Time,
        entry::{EntryDraft, EntryType, Epoch},
        principal::KeyKind,
        secret::ApiKey,
    },
    store::{RevocationRow, Selector, SelectorCounts, Tx},
};

use super::{
    Deps, Refusal, engines, keys, record,
    seal::{Disagreement, Side, Why},
    sequence, witness,
};

/// What recovering one org means.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The org.
    pub org: OrgId,
    /// Why it is sealed.
    pub why: &'static str,
    /// The same in words.
    pub explain: String,
    /// Entries in the database's log, and its epoch.
    pub inside: SideView,
    /// Entries in the log that was signed last, and the highest epoch heard of; absent if nothing is kept.
    pub outside: Option<SideView>,
    /// By writer, the numbers known outside that the database does not hold: first and last.
    pub lost_entries: BTreeMap<String, (u64, u64)>,
    /// What will be ended.
    pub ends: Vec<Selector>,
    /// How many API keys of admins, host applications and agents will end; absent if none do, or nobody counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_api_keys: Option<u64>,
    /// How many policy engines will be disabled; absent if none are, or nobody counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_engines: Option<u64>,
    /// The admin key the org goes on with where all others end. It works once the org is recovered, and is made before: whoever
    /// recovers can have it in hand, whatever becomes of the process after the commit.
    #[serde(skip)]
    pub admin_key: Option<ApiKey>,
    /// The new epoch's counter.
    pub counter: i64,
    /// How much the witness has cosigned, if that is more than there is. It cosigns nothing more of this log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<u64>,
    /// There is a witness, and it gave no answer about this org: it may know of more that was lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub witness_silent: bool,
    #[serde(skip)]
    lost_head: Option<String>,
    /// How long the log was that was signed last, if that is longer than there is.
    #[serde(skip)]
    lost_size: Option<u64>,
}

impl Plan {
    /// Whether every grant ends, and with them every API key and engine.
    #[must_use]
    pub fn ends_everything(&self) -> bool {
        self.ends
            .iter()
            .any(|selector| matches!(selector, Selector::All(_)))
    }
}

/// One side, as shown.
#[derive(Debug, Serialize)]
pub struct SideView {
    /// Entries with a place.
    pub entries: u64,
    /// The epoch.
    pub epoch: Epoch,
}

impl From<Side> for SideView {
    fn from(side: Side) -> Self {
        Self {
            entries: side.size,
            epoch: side.epoch,
        }
    }
}

/// What is said of a database about which nothing is kept outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouch {
    /// Nothing: it may be any old one.
    No,
    /// The admin knows that it is the newest one. Holds only where nothing outside contradicts it.
    DatabaseIsCurrent,
}

/// Why a recovery did not come to its end, as whoever recovers is told: a new admin key may have been shown to them already.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// Nothing was done: the org is sealed as before.
    #[error(
        "{0}; it is not recovered, and an admin key shown for it never works: run `postern recover` again"
    )]
    Undone(Refusal),
    /// The database has not confirmed the commit.
    #[error(
        "the database has not confirmed that it is recovered: it may be. Keep an admin key that was shown for it, and run \
         `postern recover` again, which finds nothing to recover if it is"
    )]
    Unconfirmed(#[source] Refusal),
    /// It is done, and the data directory hangs: the file outside the database does not know.
    #[error(
        "it is recovered, and an admin key that was shown for it works; but the data directory hangs, and other replicas have not \
         heard of it: mend that, and run `postern recover` again"
    )]
    Unheard(#[source] Refusal),
    /// It is done, and what follows is not.
    #[error(
        "it is recovered, and an admin key that was shown for it works; but its log could not be signed: {0}. Run \
         `postern recover` again for what is left to recover"
    )]
    Unsigned(Refusal),
}

impl Unfinished {
    /// Before the commit, or of it.
    fn before(refusal: Refusal) -> Self {
        match &refusal {
            _ if refusal.is_unheard() => Self::Unheard(refusal),
            _ if refusal.is_undecided() => Self::Unconfirmed(refusal),
            _ => Self::Undone(refusal),
        }
    }

    /// Of the log, after the commit.
    fn behind(refusal: Refusal) -> Self {
        if refusal.is_unheard() {
            Self::Unheard(refusal)
        } else {
            Self::Unsigned(refusal)
        }
    }
}

/// What recovering these orgs would mean, with how many keys and engines would end and the admin keys that would begin;
/// changes nothing.
///
/// # Errors
/// When the database cannot be read.
pub async fn planned(deps: &Deps, found: &[Disagreement], vouch: Vouch) -> Result<Vec<Plan>, Refusal> {
    let mut plans: Vec<Plan> = found.iter().map(|found| plan(found, vouch)).collect();
    for plan in plans.iter_mut().filter(|plan| plan.ends_everything()) {
        let mut tx = deps.store.read(plan.org).await?;
        plan.ends_api_keys = Some(tx.count_living_api_keys(plan.org).await?);
        plan.ends_engines = Some(tx.count_living_engines(plan.org).await?);
        plan.admin_key = Some(api_key::mint(KeyKind::Admin, &*deps.random)?);
    }
    Ok(plans)
}

/// What recovering an org would mean; changes nothing.
#[must_use]
pub fn plan(found: &Disagreement, vouch: Vouch) -> Plan {
    let outside = found.outside();
    let heard = outside.as_ref().map_or(0, |side| side.epoch.counter);
    let lost_entries = found.checkpoint.iter().flat_map(|checkpoint| &checkpoint.writers);
    let lost_entries = lost_entries.filter_map(|(name, head)| {
        let inside = found.writers.get(name).copied().unwrap_or(0);
        (head.seq > inside).then(|| (name.clone(), (inside + 1, head.seq)))
    });
    Plan {
        org: found.org,
        why: found.why.as_str(),
        explain: found.why.to_string(),
        inside: found.inside.clone().into(),
        outside: outside.map(SideView::from),
        lost_entries: lost_entries.collect(),
        ends: ends(found, vouch),
        ends_api_keys: None,
        ends_engines: None,
        admin_key: None,
        counter: found.inside.epoch.counter.max(heard) + 1,
        witnessed: found.witnessed,
        witness_silent: found.is_witness_silent,
        lost_size: found
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.size)
            .filter(|size| found.is_witness_silent && *size > found.inside.size),
        lost_head: found
            .checkpoint
            .as_ref()
            .map(|checkpoint| format!("{}:{}", checkpoint.size, digest::hex(&checkpoint.root))),
    }
}

/// The selectors that may have lost something since this database was made.
fn ends(found: &Disagreement, vouch: Vouch) -> Vec<Selector> {
    let is_vouched_for = found.why == Why::NoRecord && vouch == Vouch::DatabaseIsCurrent;
    // Another history, or nothing known of what was before it was sealed: nothing in this database is known to be as it was
    // left.
    let mut everything = match (&found.kept, found.why) {
        _ if is_vouched_for => false,
        (Some(kept), Why::Older | Why::Lost) => kept.is_stranger(),
        _ => true,
    };
    let mut ends = Vec::new();
    for (kind, id) in found.lost() {
        match Selector::of(kind, id) {
            Some(Selector::All(_)) | None => everything = true,
            Some(selector) => ends.push(selector),
        }
    }
    if everything {
        // An agent that was revoked stays so: its keys end with all others, but somebody could give it a new one.
        ends.retain(|selector| matches!(selector, Selector::Agent(_)));
        ends.insert(0, Selector::All(true));
    }
    ends
}

/// Recovers all of them, one after the other, up to one that does not come to its end. Where there are none, a recovery before
/// this may have ended between its commit and what follows: what was said of the database until then is taken back.
///
/// # Errors
/// As [`run`], and of which org.
pub async fn all(deps: &Deps, plans: &[Plan], by: &str) -> Result<(), (OrgId, Unfinished)> {
    for plan in plans {
        run(deps, plan, by).await.map_err(|cause| (plan.org, cause))?;
    }
    if plans.is_empty() {
        take_words_back(deps).await;
    }
    Ok(())
}

/// Recovers one org, as planned: all of it or nothing.
///
/// # Errors
/// When the database does not commit, or does not say whether it has: the org stays sealed here then. Or when what follows the
/// commit fails.
pub async fn run(deps: &Deps, plan: &Plan, by: &str) -> Result<(), Unfinished> {
    let org = plan.org;
    let mut incarnation = [0_u8; 4];
    deps.random
        .fill(&mut incarnation)
        .map_err(|error| Unfinished::Undone(error.into()))?;
    let epoch = Epoch {
        incarnation: u32::from_be_bytes(incarnation),
        counter: plan.counter,
    };
    let mut ends = Vec::with_capacity(plan.ends.len());
    for selector in &plan.ends {
        ends.push((selector, counted(deps, org, selector).await));
    }
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            tx.begin_incarnation(org, epoch).await?;
            for &(selector, counts) in &ends {
                tx.remember_end(org, selector, epoch);
                end(deps, &mut tx, org, selector, counts, epoch).await?;
            }
            if plan.outside.is_none() {
                // The file begins here, and knows of nothing that was ended until now.
                tx.remember_end(org, &Selector::All(true), epoch);
            }
            if plan.ends_everything() {
                keys::revoke_all(deps, &mut tx, org, RECOVERY).await?;
                engines::disable_all(deps, &mut tx, org, RECOVERY).await?;
            }
            if let Some(key) = &plan.admin_key {
                keys::insert_admin(deps, &mut tx, org, key, by).await?;
            }
            // What was spent since is not known, and a decision says nothing of the epoch it was made at.
            tx.distrust_decisions(org).await?;
            // So that what is known now does not seal the org at every start, nor once a witness answers that was not asked.
            if let (Some(size), Some(witness)) = (plan.witnessed.max(plan.lost_size), &deps.witness) {
                let cursor = witness::cursor(witness);
                let seen = tx.sink_cursor(org, &cursor).await?;
                if size > seen {
                    tx.move_sink_cursor(org, &cursor, seen, size).await?;
                }
            }
            // People log in again: a session or link that ended since would otherwise be back.
            tx.end_all_sessions(org).await?;
            let draft = EntryDraft {
                on_behalf: vec![by.to_owned()],
                outcome: Some("recovered".to_owned()),
                reason: Some(plan.why.to_owned()),
                correlation: plan.lost_head.clone(),
                ..EntryDraft::default()
            };
            tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
                .await?;
            Ok::<_, Refusal>(tx.commit().await?)
        })
        .await
        .map_err(Unfinished::before)?;
    deps.store.unseal(org);
    take_words_back(deps).await;
    deps.facts.forget(org);
    // Its first checkpoint is kept outside before anything is released.
    sequence::run(deps, org).await.map_err(Unfinished::behind)?;
    Ok(())
}

async fn take_words_back(deps: &Deps) {
    if let Err(error) = deps.store.take_words_back().await {
        // The recovery is done; its own word is said again every few seconds.
        tracing::warn!(cause = %error, "other replicas may hold what was said of the database before");
    }
}

/// How much a selector covers. Walking all of that may take longer than a transaction that writes, and comes before it; nothing
/// waits for what cannot be counted.
async fn counted(deps: &Deps, org: OrgId, selector: &Selector) -> Option<SelectorCounts> {
    let counting = async {
        let mut tx = deps.store.read(org).await?;
        tx.allow_time(COUNTING).await?;
        tx.count_selector(org, selector).await
    };
    counting
        .await
        .inspect_err(
            |error| tracing::warn!(org.id = %org, cause = %error, "what a recovery ends is not counted"),
        )
        .ok()
}

async fn end(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    selector: &Selector,
    counts: Option<SelectorCounts>,
    epoch: Epoch,
) -> Result<(), Refusal> {
    if !selector.exists(tx, org).await? {
        return Ok(());
    }
    let now: Time = tx.now();
    let row = RevocationRow {
        id: RevocationId::new(now, &*deps.random)?,
        selector: selector.clone(),
        reason: "recovered from an older database".to_owned(),
        epoch: epoch.counter,
        at: now,
        counts,
        fanned_out: false,
    };
    tx.insert_revocation(org, &row, epoch).await?;
    if let Selector::Agent(agent) = selector {
        tx.disable_agent(org, *agent).await?;
    }
    let (kind, id) = selector.floor();
    let draft = EntryDraft {
        on_behalf: vec![RECOVERY.to_owned()],
        outcome: Some("stopped".to_owned()),
        reason: Some(if id.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}:{id}")
        }),
        correlation: Some(row.id.to_string()),
        ..EntryDraft::default()
    };
    tx.append_entry(org, record::open(deps, EntryType::Revoke, draft)?)
        .await?;
    Ok(())
}

/// Who ended what a recovery ends, in the entries.
const RECOVERY: &str = "recovery";
/// How long counting what one selector covers may take.
const COUNTING: Duration = Duration::from_secs(120);
