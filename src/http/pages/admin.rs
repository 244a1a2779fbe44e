//! For admins: people and agents. Nobody's content, no secret.

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Pages,
    answer::page,
    failure::Failure,
    form::SignedByAdmin,
    session::{Admin, Id},
    words,
};
use crate::{
    domain::UserId,
    flows::{login, oversight},
    http::query,
    web::{
        OutwardUrl, Shown, When,
        pages::admin::{AgentRow, AgentsPage, LoginLinkPage, PeoplePage, PersonRow},
    },
};

/// `GET /admin/people`.
pub(super) async fn people(
    State(pages): State<Pages>,
    Admin(admin): Admin,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let start = Start::read(query.as_deref())?;
    let people = oversight::people(deps, admin.org.id, start.after).await?;
    page(&PeoplePage {
        shell: admin.shell(deps)?,
        notice: None,
        first: start.after.is_none(),
        next: people.next,
        people: people
            .items
            .into_iter()
            .map(|seen| PersonRow {
                id: seen.user.id,
                name: words::short_name(&seen.user),
                email: seen.user.email.as_deref().map(Shown::new),
                role: seen.user.role,
                connections: seen.grants,
                managed_by: seen.host.as_deref().map(Shown::new),
            })
            .collect(),
    })
}

/// `POST /admin/people/{id}/login-link`: a link, shown once; the person sees the entry.
pub(super) async fn login_link(
    State(pages): State<Pages>,
    Id(user): Id<UserId>,
    signed: SignedByAdmin,
) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    let deps = &pages.deps;
    let admin = &signed.admin;
    let person = oversight::person(deps, admin.org.id, user).await?;
    let link = login::make_link(deps, admin.org.id, user, admin.user.id.to_string()).await?;
    page(&LoginLinkPage {
        shell: admin.shell(deps)?,
        name: words::short_name(&person),
        email: Shown::new(&person.display()),
        url: OutwardUrl::parse(&link.url).ok_or_else(|| Failure::internal("a login link is not http"))?,
        expires: When::new(link.expires_at, deps.clock.now()),
    })
}

/// `GET /admin/agents`.
pub(super) async fn agents(
    State(pages): State<Pages>,
    Admin(admin): Admin,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let now = deps.clock.now();
    let start = Start::read(query.as_deref())?;
    let agents = oversight::agents(deps, admin.org.id, start.after).await?;
    page(&AgentsPage {
        shell: admin.shell(deps)?,
        first: start.after.is_none(),
        next: agents.next,
        agents: agents
            .items
            .into_iter()
            .map(|seen| AgentRow {
                id: seen.agent.id,
                name: Shown::new(&seen.agent.name),
                active: seen.agent.disabled_at.is_none(),
                delegations: seen.delegations,
                registered: When::new(seen.agent.created_at, now),
                last_used: seen.last_asked.map(|at| When::new(at, now)),
            })
            .collect(),
    })
}

/// Where a list goes on.
#[derive(Debug, Deserialize)]
struct Start<Id> {
    after: Option<Id>,
}

impl<Id: DeserializeOwned> Start<Id> {
    fn read(text: Option<&str>) -> Result<Self, Failure> {
        query::parse(text.unwrap_or_default()).map_err(Failure::bad_request)
    }
}
