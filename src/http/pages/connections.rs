//! A person's connections: the list, one of them, what agents may do with it, its end.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};

use super::{
    Pages,
    answer::{go_to, page},
    boxes, connections_view as view,
    failure::Failure,
    form::Signed,
    session::{Id, Person, Session},
    words,
};
use crate::{
    domain::{
        GrantId, OrgId, RevocationId,
        connector::ConnectorId,
        grant::{Grant, GrantState},
    },
    flows::{
        Deps, choices,
        connect::begin::{self, Ask},
        overview,
        revoke::{self, Ask as End},
        upstream,
    },
    store::Selector,
    web::{
        When,
        pages::connections::{ConnectionsPage, DisconnectPage, DisconnectedPage},
        parts::Notice,
    },
};

/// `GET /connections`.
pub(super) async fn list(State(pages): State<Pages>, Person(person): Person) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let (org, user) = person.who();
    let seen = overview::connections(deps, org, user).await?;
    page(&ConnectionsPage {
        shell: person.shell(deps)?,
        notice: None,
        grants: seen.items.iter().map(|one| view::card(deps, one)).collect(),
        available: view::available(deps, &seen.ready),
    })
}

/// `POST /connections/connect {connector}`: a link for oneself, and on to its page.
pub(super) async fn connect(State(pages): State<Pages>, signed: Signed) -> Result<Response, Failure> {
    let form = signed.form.only(&["connector"], &[])?;
    let connector = form
        .get("connector")
        .ok_or_else(|| Failure::bad_request("no connector"))?;
    let connector = connector.parse().map_err(Failure::bad_request)?;
    to_link(&pages.deps, &signed.person, connector, None).await
}

/// `GET /connections/{id}`.
pub(super) async fn one(
    State(pages): State<Pages>,
    Person(person): Person,
    Id(id): Id<GrantId>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let (org, user) = person.who();
    let detail = overview::connection(deps, org, user, id).await?;
    let notice = match query.as_deref() {
        Some("saved") => Some(Notice::good("Saved. It holds from now on.")),
        Some("unchanged") => Some(Notice::good("Nothing was different, so nothing was changed.")),
        _ => None,
    };
    page(&view::grant_page(deps, person.shell(deps)?, notice, &detail))
}

/// `POST /connections/{id}/delegations {agent*, allow*}`.
pub(super) async fn delegate(
    State(pages): State<Pages>,
    Id(id): Id<GrantId>,
    signed: Signed,
) -> Result<Response, Failure> {
    let form = signed.form.only(&[], boxes::LISTS)?;
    let chosen = boxes::read(&form)?;
    let (org, user) = signed.person.who();
    let changed = choices::save(&pages.deps, org, user, id, &chosen).await?;
    let said = if changed == 0 { "unchanged" } else { "saved" };
    go_to(&format!("/connections/{id}?{said}"))
}

/// `POST /connections/{id}/reconnect`.
pub(super) async fn reconnect(
    State(pages): State<Pages>,
    Id(id): Id<GrantId>,
    signed: Signed,
) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    let (org, user) = signed.person.who();
    let seen = overview::own_grant(&pages.deps, org, user, id).await?;
    to_link(&pages.deps, &signed.person, seen.grant.connector, Some(id)).await
}

/// `GET /connections/{id}/disconnect`: what would end.
pub(super) async fn ask_disconnect(
    State(pages): State<Pages>,
    Person(person): Person,
    Id(id): Id<GrantId>,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let (org, user) = person.who();
    let seen = overview::own_grant(deps, org, user, id).await?;
    if is_over(&seen.grant) {
        return go_to(&ended(id));
    }
    page(&DisconnectPage {
        shell: person.shell(deps)?,
        id,
        connector: words::connector_name(deps, &seen.grant.connector),
        account: words::account(&seen.grant),
        upstream: view::reach(deps, &seen.grant.connector),
    })
}

/// `POST /connections/{id}/disconnect`: the person's own revocation of one grant.
pub(super) async fn disconnect(
    State(pages): State<Pages>,
    Id(id): Id<GrantId>,
    signed: Signed,
) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    let deps = &pages.deps;
    let (org, user) = signed.person.who();
    let seen = overview::own_grant(deps, org, user, id).await?;
    if !is_over(&seen.grant) {
        let ask = End {
            selector: Selector::Grant(id),
            reason: "disconnected by the person".to_owned(),
            drain: false,
            by: user.to_string(),
        };
        let revoked = revoke::run(deps, org, ask).await?;
        bury_now(deps, org, revoked.id).await;
    }
    go_to(&ended(id))
}

/// `GET /connections/{id}/disconnected`: what became of it, here and at the provider.
pub(super) async fn disconnected(
    State(pages): State<Pages>,
    Person(person): Person,
    Id(id): Id<GrantId>,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let (org, user) = person.who();
    let seen = overview::own_grant(deps, org, user, id).await?;
    let (GrantState::Revoked { at }, Some(revocation), Some(upstream)) =
        (seen.grant.state, seen.revocation, seen.upstream)
    else {
        return go_to(&format!("/connections/{id}"));
    };
    page(&DisconnectedPage {
        shell: person.shell(deps)?,
        id,
        connector: words::connector_name(deps, &seen.grant.connector),
        account: words::account(&seen.grant),
        at: When::new(at, deps.clock.now()),
        upstream: words::upstream_result(upstream),
        revocation,
    })
}

/// Gives ended grants their tombstones at once, so that the page that follows names them. The worker does it anyway.
pub(super) async fn bury_now(deps: &Arc<Deps>, org: OrgId, revocation: RevocationId) {
    if let Err(refusal) = upstream::bury_now(deps, org, revocation).await {
        tracing::warn!(cause = %refusal, "a revocation took effect; its upstream calls are queued later");
    }
}

async fn to_link(
    deps: &Deps,
    person: &Session,
    connector: ConnectorId,
    reconnect: Option<GrantId>,
) -> Result<Response, Failure> {
    let (org, user) = person.who();
    let ask = Ask {
        reconnect,
        ..Ask::new(user, connector)
    };
    let link = begin::create(deps, org, ask).await?;
    let path = link
        .url
        .strip_prefix(&deps.issuer)
        .ok_or_else(|| Failure::internal("a link that is not ours"))?;
    go_to(path)
}

fn is_over(grant: &Grant) -> bool {
    matches!(grant.state, GrantState::Revoked { .. })
}

fn ended(id: GrantId) -> String {
    format!("/connections/{id}/disconnected")
}
