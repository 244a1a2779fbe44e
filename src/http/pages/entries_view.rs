//! Entries as the sentences of `web`.

use crate::{
    domain::{connector::ConnectorId, entry::EntryType},
    flows::{Deps, telling::Told},
    web::{
        Shown, When,
        parts::{EntryFacts, EntryLine, OutcomeMark, sentence},
    },
};

use super::words;

/// One entry as a line. `for_admin`: also why something was revoked, in the words of who did it.
pub(super) fn line(deps: &Deps, told: &Told, for_admin: bool) -> EntryLine {
    let entry = &told.entry;
    let draft = &entry.draft;
    let outcome = draft.outcome.clone().or_else(|| {
        draft
            .decision
            .as_ref()
            .map(|decision| decision.outcome.as_str().to_owned())
    });
    let reason = match entry.kind {
        // The entry's own reason is its selection, which the sentence says already.
        EntryType::Revoke => told.why.clone().filter(|_| for_admin),
        _ => draft.reason.clone(),
    };
    let by_themself = draft
        .user
        .is_some_and(|user| draft.on_behalf.first().is_some_and(|by| *by == user.to_string()));
    let facts = EntryFacts {
        user: told.user.as_deref().map(Shown::new),
        agent: told.agent.as_deref().map(Shown::new),
        // Who did it to themself is named once.
        by: told.by.as_deref().filter(|_| !by_themself).map(Shown::new),
        connector: draft
            .connector
            .as_ref()
            .map(|connector| words::connector_name(deps, connector)),
        tool: draft
            .tool
            .as_deref()
            .map(|tool| tool_title(deps, draft.connector.as_ref(), tool)),
        mode: draft.mode,
        outcome: outcome.clone(),
        reason,
    };
    EntryLine {
        id: entry.id,
        at: When::new(entry.ts, deps.clock.now()),
        sentence: sentence(entry.kind, &facts),
        outcome: outcome.as_deref().map(OutcomeMark::from_code),
    }
}

/// The title of a tool; its name if the connector has no such tool any more.
pub(super) fn tool_title(deps: &Deps, connector: Option<&ConnectorId>, tool: &str) -> Shown {
    let connector = connector.and_then(|id| deps.catalogue.get(id));
    let title = connector
        .and_then(|connector| connector.action(tool))
        .map(|action| action.title.as_str());
    Shown::new(title.unwrap_or(tool))
}
