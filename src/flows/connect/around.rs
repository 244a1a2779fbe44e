//! What stands around a connect session on its pages: the host application, the grant it renews, the agents.

use crate::{
    domain::{delegation::Delegation, grant::Grant},
    flows::{Deps, Refusal},
    store::AgentRow,
};

use super::{ConnectFailure, Opened, keep::existing};

/// What the pages of a session show besides the session itself.
#[derive(Debug)]
pub struct Around {
    /// The host application that manages the person.
    pub host: Option<String>,
    /// The living grant that will be renewed: the one named, or the person's own for the same account.
    pub renews: Option<Grant>,
    /// What agents may do with that grant now.
    pub delegations: Vec<Delegation>,
    /// The grant the session came to, in quarantine or as a tombstone too.
    pub became: Option<Grant>,
    /// The agents of the org that are not disabled, the one that asked first.
    pub agents: Vec<AgentRow>,
}

/// Looks around a session that [`super::open`] opened for its visitor.
///
/// # Errors
/// When the database is unavailable.
pub async fn look(deps: &Deps, opened: &Opened<'_>) -> Result<Around, Refusal> {
    let session = &opened.session;
    let org = session.org;
    let mut tx = deps.store.read(org).await?;
    let host = match session.service.or(opened.user.managed_by) {
        None => None,
        Some(id) => tx
            .services(org)
            .await?
            .into_iter()
            .find(|service| service.id == id)
            .map(|service| service.name),
    };
    let renews = match existing(&mut tx, session).await {
        Ok(grant) => grant,
        Err(ConnectFailure::Refused(refusal)) => return Err(refusal),
        // The grant it was made for is gone: the flow that would renew it says so.
        Err(_) => None,
    };
    let now = tx.now();
    let mut delegations = match &renews {
        Some(grant) => tx.delegations_of(org, grant.id, None).await?,
        None => Vec::new(),
    };
    delegations.retain(|delegation| delegation.is_live(now));
    let became = match session.grant {
        Some(grant) => tx.grant(org, grant).await?,
        None => None,
    };
    let mut agents = tx.agents(org, None, MOST_AGENTS).await?;
    agents.retain(|agent| agent.disabled_at.is_none());
    agents.sort_by_key(|agent| Some(agent.id) != session.agent);
    Ok(Around {
        host,
        renews,
        delegations,
        became,
        agents,
    })
}

/// More boxes than anybody reads.
const MOST_AGENTS: u64 = 100;
