//! A person's connections: the list, one of them, and its end.

use askama::Template;

use crate::{
    domain::{
        connector::ConnectorId,
        id::{GrantId, RevocationId},
    },
    web::{
        Shell, Shown, When,
        parts::{AgentBoxes, AgentMay, EntryLine, GrantStatus, Notice, Permissions, UpstreamResult},
    },
};

/// `GET /connections`.
///
/// Forms: `POST /connections/connect {csrf, connector}`, `POST /connections/{id}/reconnect {csrf}`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/connections.html")]
pub struct ConnectionsPage {
    /// The frame.
    pub shell: Shell,
    /// What just happened.
    pub notice: Option<Notice>,
    /// The person's grants, revoked ones too; the page puts those at the end.
    pub grants: Vec<GrantCard>,
    /// The connectors there are.
    pub available: Vec<AvailableConnector>,
}

impl ConnectionsPage {
    fn living(&self) -> Vec<&GrantCard> {
        self.grants
            .iter()
            .filter(|grant| !grant.status.is_revoked())
            .collect()
    }

    fn ended(&self) -> Vec<&GrantCard> {
        self.grants
            .iter()
            .filter(|grant| grant.status.is_revoked())
            .collect()
    }
}

/// One grant as a card.
#[derive(Debug, Clone)]
pub struct GrantCard {
    /// Its id.
    pub id: GrantId,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account.
    pub account: Shown,
    /// The person's own name for it.
    pub label: Option<Shown>,
    /// Where it stands.
    pub status: GrantStatus,
    /// When it was connected.
    pub connected: When,
    /// When it was last used, and by whom.
    pub last_used: Option<LastUse>,
    /// What the provider granted.
    pub permissions: Permissions,
    /// What agents may do with it.
    pub agents: Vec<AgentMay>,
}

/// The last use of a grant.
#[derive(Debug, Clone)]
pub struct LastUse {
    /// When.
    pub at: When,
    /// By which agent.
    pub agent: Option<Shown>,
    /// For what: the title of the tool.
    pub tool: Option<Shown>,
}

/// A connector the person may connect.
#[derive(Debug, Clone)]
pub struct AvailableConnector {
    /// Its id.
    pub id: ConnectorId,
    /// Its name.
    pub name: Shown,
    /// What it is good for, in one sentence.
    pub about: Option<Shown>,
    /// Whether an admin has configured it; if not, the page says to ask one.
    pub ready: bool,
}

/// `GET /connections/{id}`.
///
/// Forms: `POST /connections/{id}/delegations {csrf, agent*, allow*}` (see [`AgentBoxes`]),
/// `POST /connections/{id}/reconnect {csrf}`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/grant.html")]
pub struct GrantPage {
    /// The frame.
    pub shell: Shell,
    /// What just happened.
    pub notice: Option<Notice>,
    /// The grant.
    pub grant: GrantCard,
    /// Under whose key its secrets are sealed: "Acme’s key in a local key file".
    pub key: Shown,
    /// The boxes for each agent; none are shown for a revoked grant.
    pub agents: Vec<AgentBoxes>,
    /// The newest entries about it.
    pub recent: Vec<EntryLine>,
}

/// `GET /connections/{id}/disconnect`; the button posts `{csrf}` to the same path.
#[derive(Debug, Template)]
#[template(path = "postern/pages/disconnect.html")]
pub struct DisconnectPage {
    /// The frame.
    pub shell: Shell,
    /// The grant.
    pub id: GrantId,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account.
    pub account: Shown,
    /// What can be done at the provider.
    pub upstream: UpstreamReach,
}

/// What a revocation can do at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamReach {
    /// The provider can be told to end exactly this access.
    ThisAccess,
    /// The provider ends every access of this person through the organisation's client.
    EveryAccessOfThePerson,
    /// The provider offers no way.
    None,
}

/// After a disconnect: a page of its own, `GET /connections/{id}/disconnected`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/disconnected.html")]
pub struct DisconnectedPage {
    /// The frame.
    pub shell: Shell,
    /// The grant.
    pub id: GrantId,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account.
    pub account: Shown,
    /// When it ended.
    pub at: When,
    /// What the provider said so far.
    pub upstream: UpstreamResult,
    /// The revocation.
    pub revocation: RevocationId,
}
