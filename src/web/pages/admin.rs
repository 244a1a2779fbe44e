//! For admins: people and agents.

use askama::Template;

use crate::{
    domain::{
        id::{AgentId, UserId},
        principal::Role,
    },
    web::{
        OutwardUrl, Shell, Shown, When,
        parts::{Icon, Notice},
        words,
    },
};

/// `GET /admin/people`. Form: `POST /admin/people/{id}/login-link {csrf}`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/people.html")]
pub struct PeoplePage {
    /// The frame.
    pub shell: Shell,
    /// What just happened.
    pub notice: Option<Notice>,
    /// Whether the list begins here.
    pub first: bool,
    /// Where it goes on, if it does: `after` this id.
    pub next: Option<UserId>,
    /// The people of the organisation.
    pub people: Vec<PersonRow>,
}

/// One person.
#[derive(Debug, Clone)]
pub struct PersonRow {
    /// The id.
    pub id: UserId,
    /// The name.
    pub name: Shown,
    /// The address; a host application may have given none.
    pub email: Option<Shown>,
    /// The role.
    pub role: Role,
    /// How many living grants.
    pub connections: u64,
    /// The host application that manages the person; such people have no login here.
    pub managed_by: Option<Shown>,
}

/// The answer to `POST /admin/people/{id}/login-link`: shows the link once.
#[derive(Debug, Template)]
#[template(path = "postern/pages/login_link.html")]
pub struct LoginLinkPage {
    /// The frame.
    pub shell: Shell,
    /// For whom: the name.
    pub name: Shown,
    /// For whom: the address.
    pub email: Shown,
    /// The link.
    pub url: OutwardUrl,
    /// Until when it works.
    pub expires: When,
}

/// `GET /admin/agents`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/agents.html")]
pub struct AgentsPage {
    /// The frame.
    pub shell: Shell,
    /// Whether the list begins here.
    pub first: bool,
    /// Where it goes on, if it does: `after` this id.
    pub next: Option<AgentId>,
    /// The agents of the organisation.
    pub agents: Vec<AgentRow>,
}

/// One agent.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// The id.
    pub id: AgentId,
    /// The name.
    pub name: Shown,
    /// Whether it may ask.
    pub active: bool,
    /// How many living delegations it has.
    pub delegations: u64,
    /// When it was registered.
    pub registered: When,
    /// When it last asked.
    pub last_used: Option<When>,
}
