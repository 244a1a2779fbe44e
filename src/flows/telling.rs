//! Entries with the names of everybody in them, ready to be put into words.

use std::collections::HashMap;

use crate::{
    domain::{
        AgentId, OrgId, RevocationId, ServiceId, UserId,
        entry::{Entry, EntryType},
    },
    store::Tx,
};

use super::{Deps, Refusal, record::Details};

/// An entry and who is who in it: names as they were then where they are still there, else as they are now.
#[derive(Debug)]
pub struct Told {
    /// The entry.
    pub entry: Entry,
    /// The person concerned.
    pub user: Option<String>,
    /// The agent that acted.
    pub agent: Option<String>,
    /// Who stood behind it: a person, an application, an API key.
    pub by: Option<String>,
    /// Why something was revoked, in the words of who did it.
    pub why: Option<String>,
}

/// Looks up the names of entries.
///
/// # Errors
/// When the database is unavailable.
pub async fn tell(
    deps: &Deps,
    org: OrgId,
    entries: Vec<(Entry, Option<Details>)>,
) -> Result<Vec<Told>, Refusal> {
    let mut names = Names {
        tx: deps.store.read(org).await?,
        org,
        known: HashMap::new(),
    };
    let mut told = Vec::with_capacity(entries.len());
    for (entry, details) in entries {
        let then = details.map(|details| details.names).unwrap_or_default();
        let user = match (then.user, entry.draft.user) {
            (Some(name), _) => Some(name),
            (None, Some(id)) => names.user(id).await?,
            (None, None) => None,
        };
        let agent = match (then.agent, entry.draft.agent) {
            (Some(name), _) => Some(name),
            (None, Some(id)) => names.agent(id).await?,
            (None, None) => None,
        };
        let by = match entry.draft.on_behalf.first() {
            Some(id) => Some(names.actor(id).await?),
            None => None,
        };
        let why = names.why(&entry).await?;
        told.push(Told {
            entry,
            user,
            agent,
            by,
            why,
        });
    }
    Ok(told)
}

/// What people call the one an entry names in `on_behalf`.
///
/// # Errors
/// When the database is unavailable.
pub async fn actor(deps: &Deps, org: OrgId, id: &str) -> Result<String, Refusal> {
    let mut names = Names {
        tx: deps.store.read(org).await?,
        org,
        known: HashMap::new(),
    };
    names.actor(id).await
}

struct Names {
    tx: Tx,
    org: OrgId,
    known: HashMap<String, Option<String>>,
}

impl Names {
    async fn user(&mut self, id: UserId) -> Result<Option<String>, Refusal> {
        if let Some(known) = self.known.get(&id.to_string()) {
            return Ok(known.clone());
        }
        let name = self.tx.user(self.org, id).await?.map(|user| user.display());
        self.known.insert(id.to_string(), name.clone());
        Ok(name)
    }

    async fn agent(&mut self, id: AgentId) -> Result<Option<String>, Refusal> {
        if let Some(known) = self.known.get(&id.to_string()) {
            return Ok(known.clone());
        }
        let name = self.tx.agent(self.org, id).await?.map(|agent| agent.name);
        self.known.insert(id.to_string(), name.clone());
        Ok(name)
    }

    async fn actor(&mut self, id: &str) -> Result<String, Refusal> {
        if let Ok(user) = id.parse::<UserId>() {
            return Ok(self.user(user).await?.unwrap_or_else(|| id.to_owned()));
        }
        if let Ok(service) = id.parse::<ServiceId>() {
            let services = self.tx.services(self.org).await?;
            let name = services.into_iter().find(|known| known.id == service);
            return Ok(name.map_or_else(|| id.to_owned(), |known| known.name));
        }
        if id.starts_with("key_") {
            return Ok(format!("an API key ({id})"));
        }
        Ok(id.to_owned())
    }

    async fn why(&mut self, entry: &Entry) -> Result<Option<String>, Refusal> {
        let id = match (entry.kind, &entry.draft.correlation) {
            (EntryType::Revoke, Some(id)) => id.parse::<RevocationId>().ok(),
            _ => None,
        };
        let Some(id) = id else { return Ok(None) };
        let row = self.tx.revocation(self.org, id).await?;
        Ok(row.map(|row| row.reason).filter(|reason| !reason.is_empty()))
    }
}
