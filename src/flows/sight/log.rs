//! Entries as one principal may see them.

use crate::{
    domain::{EntryId, entry::Entry, principal::Principal},
    flows::{Deps, Refusal, audit, record::Details},
    store::EntryFilter,
};

use super::{is_admin, narrowed};

/// Entries the caller may see, newest first: an admin all, a person and an agent those about themself.
///
/// # Errors
/// When the database is unavailable.
pub async fn entries(
    deps: &Deps,
    who: &Principal,
    mut filter: EntryFilter,
) -> Result<Vec<(Entry, Option<Details>)>, Refusal> {
    match who {
        _ if is_admin(who) => {}
        Principal::User { user, .. } => match narrowed(filter.user, *user) {
            Some(user) => filter.user = Some(user),
            None => return Ok(Vec::new()),
        },
        Principal::Agent { agent, .. } => match narrowed(filter.agent, *agent) {
            Some(agent) => filter.agent = Some(agent),
            None => return Ok(Vec::new()),
        },
        Principal::Service { .. } | Principal::Admin { .. } => return Ok(Vec::new()),
    }
    let entries = audit::entries(deps, who.org(), &filter).await?;
    Ok(entries
        .into_iter()
        .map(|(entry, details)| (entry, details.map(|details| for_reader(who, details))))
        .collect())
}

/// One entry with its place in the log, if the caller may see it.
///
/// # Errors
/// When there is none the caller may see.
pub async fn entry(
    deps: &Deps,
    who: &Principal,
    id: EntryId,
) -> Result<(Option<u64>, Entry, Option<Details>), Refusal> {
    let (row, entry, details) = audit::entry(deps, who.org(), id).await?;
    let seen = match who {
        _ if is_admin(who) => true,
        Principal::User { user, .. } => entry.draft.user == Some(*user),
        Principal::Agent { agent, .. } => entry.draft.agent == Some(*agent),
        Principal::Service { .. } | Principal::Admin { .. } => false,
    };
    if seen {
        Ok((
            row.log_index,
            entry,
            details.map(|details| for_reader(who, details)),
        ))
    } else {
        Err(Refusal::NotFound)
    }
}

/// An agent does not learn people's names and accounts from the log.
fn for_reader(who: &Principal, mut details: Details) -> Details {
    if matches!(who, Principal::Agent { .. }) {
        details.names.user = None;
        details.names.account = None;
        details.note = None;
    }
    details
}
