//! What an action would be, without asking for it: the canonical bytes, their hash and the modes (protocol §3).

use crate::{
    connectors::{self, Tool},
    crypto::digest,
    domain::{Action, ModeSet, connector::Category},
    policy::OrgPermit,
};

use super::{
    Deps, Refusal,
    actions::{self, Ask, Caller, Prepared},
    decide,
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

/// Describes an action. Nothing is decided, signed or kept.
///
/// # Errors
/// The refusals of protocol §6 that come before a decision.
pub async fn describe(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Described, Refusal> {
    let prepared = current(deps, caller, ask).await?;
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

/// Prepares on facts that are the org's current ones: no gate follows here that would notice stale ones.
async fn current(deps: &Deps, caller: Caller, ask: &Ask) -> Result<Prepared, Refusal> {
    if !deps.facts.is_current(deps, caller.org).await? {
        deps.facts.forget(caller.org);
    }
    actions::prepare(deps, caller, ask).await
}
