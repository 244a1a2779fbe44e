//! Connecting an app: the landing page, the step to the provider, the confirmation and the end.

use askama::Template;

use crate::web::{
    OutwardUrl, Shell, Shown, UrlToken, When,
    parts::{AgentBoxes, Icon, Permissions},
};

/// `GET /connect/{token}`; the button posts `{csrf}` to the same path. GET spends nothing.
#[derive(Debug, Template)]
#[template(path = "postern/pages/connect.html")]
pub struct ConnectPage {
    /// The frame.
    pub shell: Shell,
    /// The session's token.
    pub token: UrlToken,
    /// Who asks.
    pub asked_by: AskedBy,
    /// For whom: the name.
    pub name: Shown,
    /// For whom: the address, if Postern knows one.
    pub email: Option<Shown>,
    /// The organisation's name.
    pub org: Shown,
    /// The connector's name.
    pub connector: Shown,
    /// Which kind of account: "your own Acme Mail account".
    pub account_type: Shown,
    /// What is asked for.
    pub permissions: Permissions,
    /// Under whose key the grant is sealed: "Acme’s key in a local key file".
    pub key: Shown,
    /// Until when the link works.
    pub expires: When,
    /// The account to use again, when this is a reconnect.
    pub reconnect: Option<Shown>,
}

/// Who asked for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedBy {
    /// The person themself.
    Person,
    /// An agent that needs it.
    Agent(Shown),
    /// A host application that manages the person.
    Host(Shown),
}

/// `GET /connect/{token}/continue`: goes on to the provider by refresh, and by a link.
///
/// A redirect would fall under `form-action` (protocol §2).
#[derive(Debug, Template)]
#[template(path = "postern/pages/continue.html")]
pub struct ContinuePage {
    /// The frame.
    pub shell: Shell,
    /// The connector's name.
    pub connector: Shown,
    /// The authorization request.
    pub url: OutwardUrl,
}

/// `GET /connect/{token}/confirm`; posts `{csrf, agent*, allow*, choice}` to the same path, `choice` being `confirm`
/// or `cancel`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/confirm.html")]
pub struct ConfirmPage {
    /// The frame.
    pub shell: Shell,
    /// The session's token.
    pub token: UrlToken,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account the provider named; `None` if it named none.
    pub account: Option<Shown>,
    /// The provider's tenant: a workspace, an organisation.
    pub tenant: Option<Shown>,
    /// For whom: the name.
    pub name: Shown,
    /// The organisation's name.
    pub org: Shown,
    /// What the provider granted.
    pub granted: Permissions,
    /// What was asked for and not granted.
    pub missing: Permissions,
    /// The boxes for each agent.
    pub agents: Vec<AgentBoxes>,
    /// Until when this can be confirmed.
    pub expires: When,
    /// Whether an existing connection is renewed.
    pub reconnect: bool,
}

/// After the confirmation, when no host application waits.
#[derive(Debug, Template)]
#[template(path = "postern/pages/connected.html")]
pub struct ConnectedPage {
    /// The frame.
    pub shell: Shell,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account.
    pub account: Option<Shown>,
    /// The agent that asked, to go back to.
    pub agent: Option<Shown>,
}

/// After the confirmation, when a host application waits: back to it by refresh, and by a link.
///
/// The connection is not active yet: the host still has to complete it (protocol §2).
#[derive(Debug, Template)]
#[template(path = "postern/pages/hand_back.html")]
pub struct HandBackPage {
    /// The frame, without a person.
    pub shell: Shell,
    /// The connector's name.
    pub connector: Shown,
    /// The host application's name.
    pub host: Shown,
    /// `return_url?session=…&code=…`.
    pub url: OutwardUrl,
}

/// After the confirmation, when a host application has to finish but gave no address to go back to.
#[derive(Debug, Template)]
#[template(path = "postern/pages/waiting.html")]
pub struct WaitingPage {
    /// The frame.
    pub shell: Shell,
    /// The connector's name.
    pub connector: Shown,
    /// The host application's name.
    pub host: Shown,
}
