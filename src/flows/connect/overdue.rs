//! Connects past their time or under a revocation come to their end, one after another.

use std::collections::{HashMap, HashSet};

use crate::{
    domain::{ConnectSessionId, KeyId, OrgId},
    flows::{Deps, Refusal},
    store::{ConnectRow, ConnectStatus},
};

use super::{discard, pending};

/// Ends connects, and knows of those that have to wait: each is tried once, a key that is not to be had is asked for once, and
/// an org is complained of once.
#[derive(Debug, Default)]
pub struct Ending {
    waiting: HashMap<OrgId, HashSet<ConnectSessionId>>,
    /// Orgs without a key for new secrets: no tokens of theirs can go to the outbox.
    keyless: HashSet<OrgId>,
    /// Keys of earlier days that are not to be had.
    missing: HashSet<KeyId>,
}

impl Ending {
    /// Whether all connects of the org that hold tokens have to wait: it is known that its key is not to be had.
    #[must_use]
    pub fn is_keyless(&self, org: OrgId) -> bool {
        self.keyless.contains(&org)
    }

    /// Ends a session past its time or under a revocation: an unused link, an abandoned confirmation or completion. Returns
    /// how many were moved on, by this process or by another that was faster; `None` if it has to wait.
    pub async fn end(&mut self, deps: &Deps, org: OrgId, id: ConnectSessionId) -> Option<u64> {
        if self
            .waiting
            .get(&org)
            .is_some_and(|waiting| waiting.contains(&id))
        {
            return None;
        }
        match self.try_to_end(deps, org, id).await {
            Ok(moved) => Some(moved),
            Err(refusal) => {
                let waiting = self.waiting.entry(org).or_default();
                if waiting.is_empty() {
                    tracing::warn!(org.id = %org, connect.id = %id, cause = %refusal,
                        "the end of {id} has to wait, and maybe that of others in {org}");
                }
                waiting.insert(id);
                None
            }
        }
    }

    async fn try_to_end(&mut self, deps: &Deps, org: OrgId, id: ConnectSessionId) -> Result<u64, Refusal> {
        let mut tx = deps.store.read(org).await?;
        let now = tx.now();
        let Some(session) = tx.connect(org, id).await? else {
            return Ok(0);
        };
        drop(tx);
        // Moved on in time, after somebody had seen it overdue.
        if now < session.expires_at {
            return Ok(0);
        }
        let from = session.status;
        let end = discard::end_of(&session);
        match from {
            ConnectStatus::Completed | ConnectStatus::Failed => return Ok(0),
            ConnectStatus::Confirming | ConnectStatus::AwaitingComplete => {
                self.find_keys(deps, &session).await?;
                let pending = pending::open(deps, &session).await?;
                discard::tokens(deps, session, from, &pending.tokens, end).await?;
            }
            _ => discard::fail(deps, session, from, end).await?,
        }
        Ok(1)
    }

    /// Sees to it that the keys are at hand under which a session's tokens are sealed, and are to be.
    async fn find_keys(&mut self, deps: &Deps, session: &ConnectRow) -> Result<(), Refusal> {
        let org = session.org;
        let sealed = session.tokens.as_ref().map(|tokens| tokens.odk);
        if self.keyless.contains(&org) || sealed.is_some_and(|key| self.missing.contains(&key)) {
            return Err(Refusal::KeyUnavailable);
        }
        if let Err(refusal) = deps.org_key(org).await {
            if matches!(refusal, Refusal::KeyUnavailable) {
                self.keyless.insert(org);
            }
            return Err(refusal);
        }
        let Some(key) = sealed else { return Ok(()) };
        if let Err(refusal) = deps.key_of(org, key).await {
            if matches!(refusal, Refusal::KeyUnavailable) {
                self.missing.insert(key);
            }
            return Err(refusal);
        }
        Ok(())
    }
}
