//! Revocations as `web` shows them.

use super::{failure::Failure, session::Session, words};
use crate::{
    flows::{
        Deps,
        oversight::{self, Receipt, Roster},
    },
    store::{Selector, SelectorCounts, UserRow},
    web::{
        Shell, Shown, When,
        pages::revoke::{
            RevocationCounts, RevokePage, RevokeProblem, RevokeReceiptPage, RevokedGrant, UpstreamCounts,
            What,
        },
        parts::Choice,
    },
};

/// What a selection is called, and how the form names it.
#[derive(Debug)]
pub(super) struct Named {
    /// Its id; empty for everything.
    pub(super) value: String,
    /// Its name.
    pub(super) target: Shown,
}

impl Named {
    /// The name of a selection of this admin's org.
    pub(super) async fn of(deps: &Deps, admin: &Session, selector: &Selector) -> Result<Self, Failure> {
        let org = admin.org.id;
        let target = match selector {
            Selector::All(_) => Shown::new(&admin.org.name),
            Selector::User(id) => Shown::new(&oversight::person(deps, org, *id).await?.display()),
            Selector::Agent(id) => Shown::new(&oversight::agent(deps, org, *id).await?.name),
            Selector::Connector(id) => words::connector_name(deps, id),
            Selector::Grant(id) => {
                let (grant, user) = oversight::grant(deps, org, *id).await?;
                let connector = words::connector_name(deps, &grant.connector);
                let account = words::account(&grant);
                Shown::new(&format!("{connector}, {account}, of {}", user.display()))
            }
        };
        Ok(Self {
            value: selector.floor().1,
            target,
        })
    }
}

/// The page to choose on.
pub(super) fn choose(
    deps: &Deps,
    shell: Shell,
    problem: Option<RevokeProblem>,
    what: What,
    roster: &Roster,
    reason: &str,
) -> RevokePage {
    let whose = |id| {
        let user: Option<&UserRow> = roster.people.iter().find(|user| user.id == id);
        user.map_or_else(|| id.to_string(), UserRow::display)
    };
    RevokePage {
        shell,
        problem,
        what,
        people: roster
            .people
            .iter()
            .map(|user| Choice::new(user.id, Shown::new(&user.display())))
            .collect(),
        agents: roster
            .agents
            .iter()
            .filter(|agent| agent.disabled_at.is_none())
            .map(|agent| Choice::new(agent.id, Shown::new(&agent.name)))
            .collect(),
        connectors: deps
            .catalogue
            .iter()
            .map(|connector| Choice::new(&connector.id, Shown::new(&connector.name)))
            .collect(),
        grants: roster
            .grants
            .iter()
            .map(|grant| {
                let connector = words::connector_name(deps, &grant.connector);
                let label = format!("{}: {connector}, {}", whose(grant.user), words::account(grant));
                Choice::new(grant.id, Shown::new(&label))
            })
            .collect(),
        more: roster.more,
        reason: reason.to_owned(),
    }
}

/// What ended, or would.
pub(super) fn counts(counts: &SelectorCounts) -> RevocationCounts {
    RevocationCounts {
        grants: counts.grants,
        agents: counts.agents,
        delegations: counts.delegations,
        sessions: counts.sessions,
        pending_connects: counts.connects,
    }
}

/// The receipt.
pub(super) fn receipt(deps: &Deps, shell: Shell, target: Shown, receipt: Receipt) -> RevokeReceiptPage {
    let progress = receipt.progress;
    let totals = progress.upstream;
    let all = progress.total.unwrap_or(progress.queued);
    let grants: Vec<RevokedGrant> = receipt
        .grants
        .iter()
        .map(|(user, grant, outbox)| RevokedGrant {
            person: user
                .as_ref()
                .map_or_else(|| Shown::new("unknown"), |user| Shown::new(&user.display())),
            connector: words::connector_name(deps, &outbox.connector),
            account: grant
                .as_ref()
                .map_or_else(|| Shown::new("unknown"), words::account),
            upstream: words::upstream_result(outbox.result),
        })
        .collect();
    let shown = u64::try_from(grants.len()).unwrap_or(u64::MAX);
    RevokeReceiptPage {
        shell,
        id: receipt.row.id,
        what: what(&receipt.row.selector),
        target,
        reason: Shown::long(&receipt.row.reason),
        by: receipt.by.as_deref().map(Shown::new),
        at: When::new(receipt.row.at, deps.clock.now()),
        counts: receipt.row.counts.as_ref().map(counts),
        done: progress.done(),
        total: progress.total,
        in_flight: receipt.in_flight,
        more: all.saturating_sub(shown),
        grants,
        upstream: UpstreamCounts {
            pending: totals.pending,
            revoked: totals.revoked,
            unsupported: totals.unsupported,
            unconfirmed: totals.unconfirmed,
        },
    }
}

fn what(selector: &Selector) -> What {
    match selector {
        Selector::All(_) => What::All,
        Selector::User(_) => What::User,
        Selector::Agent(_) => What::Agent,
        Selector::Connector(_) => What::Connector,
        Selector::Grant(_) => What::Grant,
    }
}
