//! Refusals that no decision of Postern's keeps, as entries: what an agent may not even ask, and decisions brought along
//! that do not hold.
//!
//! A flood must not fill the log: per agent and minute a few are entries of their own, the others are counted and
//! become one entry together. What such an entry says of a person or a grant is what the caller named, never what
//! Postern knows: the agent may read it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;

use crate::{
    domain::{
        AgentId, EntryId, OrgId,
        entry::{EntryDraft, EntryType, Epoch},
    },
    release::{DecisionError, GateRefusal, Statement},
    store::NewEntry,
};

use super::{
    Deps, Refusal,
    actions::{Ask, Caller, Prepared, Target},
    decide,
    facts::AgentView,
    record,
};

/// How many refusals of each agent were entries of their own lately, and how many more there were.
#[derive(Debug, Default)]
pub struct Tally(Mutex<HashMap<(OrgId, AgentId), Window>>);

#[derive(Debug, Clone, Copy)]
struct Window {
    /// On the clock that counts suspension.
    since: Duration,
    written: u32,
    more: u64,
}

impl Tally {
    /// Whether one more refusal is an entry of its own; else it is counted.
    fn admit(&self, caller: Caller, now: Duration) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Window {
            since: now,
            written: 0,
            more: 0,
        };
        let window = windows.entry((caller.org, caller.agent)).or_insert(fresh);
        // What was counted stays until it is an entry.
        if window.more == 0 && now >= window.since + WINDOW {
            *window = fresh;
        }
        if window.written < ONE_BY_ONE {
            window.written += 1;
            return true;
        }
        window.more += 1;
        false
    }

    /// Forgets the windows that are over, or all of them; returns what was counted in each.
    fn take(&self, over_at: Option<Duration>) -> Vec<((OrgId, AgentId), u64)> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counted = Vec::new();
        windows.retain(|key, window| {
            let over = over_at.is_none_or(|now| now >= window.since + WINDOW);
            if over && window.more > 0 {
                counted.push((*key, window.more));
            }
            !over
        });
        counted
    }

    /// Puts back what could not be written.
    fn put_back(&self, key: (OrgId, AgentId), now: Duration, more: u64) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(key).or_insert(Window {
            since: now,
            written: ONE_BY_ONE,
            more: 0,
        });
        window.more += more;
    }
}

/// The refusal of a call about which the agent may not ask, on these facts and kept at their epoch; `None`: the facts moved
/// on, read again.
///
/// # Errors
/// When it cannot be kept.
pub async fn denial(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &AgentView,
    reason: String,
) -> Result<Option<Refusal>, Refusal> {
    let entry = if deps.refused.admit(caller, deps.clock.since_boot()) {
        let mut draft = EntryDraft {
            agent: Some(caller.agent),
            tool: Some(ask.tool.clone()),
            outcome: Some("deny".to_owned()),
            reason: Some(reason.clone()),
            ..EntryDraft::default()
        };
        match &ask.target {
            Target::Grant(grant) => draft.grant = Some(*grant),
            Target::Account { connector, user, .. } => {
                draft.connector = Some(connector.clone());
                draft.user = Some(*user);
            }
        }
        let key = deps.unwrapped(&agent.facts.odk).await?;
        let details = record::Details {
            names: record::Names {
                agent: Some(agent.facts.agent.name.clone()),
                ..record::Names::default()
            },
            ..record::Details::default()
        };
        let hashed = record::Hashed::default();
        let kind = EntryType::Decision;
        Some(record::sealed(
            deps, &key, caller.org, kind, draft, &hashed, details,
        )?)
    } else {
        None
    };
    let kept = keep(deps, caller.org, agent.facts.epoch, entry).await?;
    if let Some(Some(_)) = kept {
        deps.facts.proved(agent, None);
    }
    Ok(kept.map(|entry| Refusal::Denied {
        reason,
        message: None,
        decision: None,
        entry,
    }))
}

/// The refusal of a decision that does not hold, kept; `None`: the facts moved on, read again.
///
/// # Errors
/// When it cannot be kept.
pub async fn rejection(
    deps: &Deps,
    caller: Caller,
    prepared: &Prepared,
    error: DecisionError,
) -> Result<Option<Refusal>, Refusal> {
    let entry = if deps.refused.admit(caller, deps.clock.since_boot()) {
        let action = &prepared.action;
        let draft = EntryDraft {
            user: Some(action.user),
            agent: Some(action.agent),
            grant: Some(action.grant),
            connector: Some(action.connector.clone()),
            tool: Some(action.tool.clone()),
            outcome: Some("rejected".to_owned()),
            reason: Some(error.to_string()),
            ..EntryDraft::default()
        };
        Some(decide::sealed(deps, prepared, record::open(deps, EntryType::Decision, draft)?).await?)
    } else {
        None
    };
    let kept = keep(deps, caller.org, prepared.epoch(), entry).await?;
    if let Some(Some(_)) = kept {
        deps.facts.proved(&prepared.agent, Some(&prepared.grant));
    }
    Ok(kept.map(|_| Refusal::DecisionRejected(error)))
}

/// Writes the entry, if there is one; `None`: the facts moved on.
async fn keep(
    deps: &Deps,
    org: OrgId,
    epoch: Epoch,
    entry: Option<NewEntry>,
) -> Result<Option<Option<EntryId>>, Refusal> {
    let Some(entry) = entry else {
        return Ok(Some(None));
    };
    let id = entry.id;
    let statement = Statement {
        org,
        epoch,
        idempotency: None,
        entry,
    };
    match deps.gate.state(statement).await {
        Ok(_) => Ok(Some(Some(id))),
        Err(GateRefusal::Stale) => Ok(None),
        Err(refusal) => Err(decide::gate_refusal(deps, org, None, refusal).await),
    }
}

/// Makes an entry of what was only counted, where the minute is over or, at the end of the process, everywhere; returns
/// how many entries it made.
pub async fn sum_up(deps: &Deps, everywhere: bool) -> u64 {
    let now = deps.clock.since_boot();
    let mut made = 0;
    for ((org, agent), more) in deps.refused.take((!everywhere).then_some(now)) {
        match summary(deps, org, agent, more).await {
            Ok(()) => made += 1,
            Err(refusal) => {
                tracing::warn!(org.id = %org, agent.id = %agent, cause = %refusal, "{more} refusals of {agent} have to wait for their entry");
                deps.refused.put_back((org, agent), now, more);
            }
        }
    }
    made
}

async fn summary(deps: &Deps, org: OrgId, agent: AgentId, more: u64) -> Result<(), Refusal> {
    let draft = EntryDraft {
        agent: Some(agent),
        outcome: Some("deny".to_owned()),
        reason: Some("refused_more_often".to_owned()),
        ..EntryDraft::default()
    };
    let key = deps.org_key(org).await?;
    let details = record::Details {
        note: Some(json!({"count": more})),
        ..record::Details::default()
    };
    let hashed = record::Hashed::default();
    let entry = record::sealed(deps, &key, org, EntryType::Decision, draft, &hashed, details)?;
    match deps.gate.follow_up(org, entry).await {
        Ok(_) => Ok(()),
        Err(refusal) => Err(decide::gate_refusal(deps, org, None, refusal).await),
    }
}

/// So many refusals of one agent are entries of their own …
const ONE_BY_ONE: u32 = 20;
/// … within this time.
const WINDOW: Duration = Duration::from_secs(60);
