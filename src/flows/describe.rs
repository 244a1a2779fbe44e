//! What an action would be, without asking for it: the canonical bytes, their hash and the modes (protocol §3).

use std::sync::Arc;

use crate::{
    connectors::{self, Tool},
    crypto::digest,
    domain::{Action, ModeSet, connector::Category},
    policy::OrgPermit,
    release::Place,
};

use super::{
    Deps, Refusal,
    actions::{self, Ask, Caller, Prepared},
    decide::{self, ATTEMPTS},
    facts::AgentView,
};

/// An action as an external signer needs it.
#[derive(Debug)]
pub struct Described {
    /// The action.
    pub action: Action,
    /// Its canonical JSON (RFC 8785).
    pub canonical: String,
    /// base64url of the SHA-256 of those bytes.
    pub action_hash: String,
    /// One line on what it would do.
    pub summary: String,
    /// What the tool does to the world; `None` for the generic tool.
    pub category: Option<Category>,
    /// The modes a vend could use now.
    pub modes: ModeSet,
}

/// Describes an action. Nothing is decided, signed or kept. It costs what deciding costs, so it is let in and takes its turn
/// as a decision is.
///
/// # Errors
/// The refusals of protocol §6 that come before a decision.
pub async fn describe(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Described, Refusal> {
    let mut place = deps.gate.enter(caller.org, caller.agent)?;
    for attempt in 0..ATTEMPTS {
        let agent = deps.facts.agent(deps, caller.org, caller.agent).await?;
        let epoch = agent.facts.epoch;
        match described_on(deps, caller, ask, &agent, &mut place).await {
            // No gate follows that would notice stale facts.
            Ok(described) => {
                if deps.facts.holds(deps, caller.org, epoch).await? {
                    return Ok(described);
                }
            }
            Err(refusal) => {
                if let Some(refusal) = actions::stands(deps, caller.org, epoch, refusal).await? {
                    return Err(refusal);
                }
            }
        }
        deps.facts.again(deps, caller.org, attempt).await?;
    }
    Err(Refusal::Unsettled)
}

async fn described_on(
    deps: &Deps,
    caller: Caller,
    ask: &Ask,
    agent: &Arc<AgentView>,
    place: &mut Place,
) -> Result<Described, Refusal> {
    let prepared = actions::prepare_on(deps, caller, ask, agent).await?;
    deps.gate.turn(caller.org, place).await;
    let described = laid_out(deps, prepared, ask);
    place.without_turn();
    described
}

fn laid_out(deps: &Deps, prepared: Prepared, ask: &Ask) -> Result<Described, Refusal> {
    let tool = Tool::find(&prepared.connector, &prepared.action.tool).ok_or(Refusal::NotFound)?;
    let summary = connectors::summary(tool, &prepared.args);
    let modes = decide::evaluate(deps, &prepared, ask, &OrgPermit::Policy)?.modes;
    let canonical = String::from_utf8(prepared.canonical).map_err(|_| Refusal::KeyUnavailable)?;
    Ok(Described {
        action: prepared.action,
        canonical,
        action_hash: digest::action_hash_text(&prepared.hash),
        summary,
        category: prepared.category,
        modes,
    })
}
