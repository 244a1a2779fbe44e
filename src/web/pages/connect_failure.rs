//! Every way a connection can fail on its way back from the provider, each with its own words and next step.

use askama::Template;

use crate::{
    domain::{connector::ConnectorId, id::GrantId},
    web::{
        Shell, Shown, When,
        parts::{Icon, Permissions},
    },
};

/// A connection that was not made.
#[derive(Debug, Template)]
#[template(path = "postern/pages/connect_failure.html")]
pub struct ConnectFailurePage {
    /// The frame.
    pub shell: Shell,
    /// The connector's name, once it is known and may be told.
    pub connector: Option<Shown>,
    /// What happened.
    pub failure: ConnectFailure,
    /// Where to go from here.
    pub next: NextStep,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The person said no at the provider.
    Denied,
    /// The person said no on the confirm page; the tokens are being revoked.
    Cancelled,
    /// The link is older than ten minutes.
    LinkExpired,
    /// A revocation ended it before it was confirmed.
    Revoked,
    /// The link was used before.
    LinkUsed,
    /// The answer came to another browser than the one that started.
    AnotherBrowser,
    /// The link was made for somebody else than the person signed in. Does not say for whom.
    AnotherPerson,
    /// State, issuer, context or a duplicate parameter was wrong: nothing was exchanged.
    SecurityCheck {
        /// What to tell an admin.
        support: Shown,
    },
    /// The provider did not answer.
    ProviderUnavailable,
    /// The provider answered with an error.
    ProviderError {
        /// Its OAuth error code.
        code: Shown,
    },
    /// The provider's own administrator has to agree first.
    ProviderAdminNeeded,
    /// More was granted than asked.
    WiderScopes {
        /// What was not asked for.
        extra: Permissions,
        /// When the quarantined grant is discarded.
        until: When,
    },
    /// A reconnect came back with another account.
    WrongAccount {
        /// The account of the connection.
        expected: Shown,
        /// The account that came back.
        got: Shown,
    },
    /// The organisation does not allow this account.
    AccountNotAllowed {
        /// The account.
        account: Option<Shown>,
    },
    /// The connection was not confirmed, or its host did not complete it, within ten minutes.
    CompletionExpired,
    /// Nobody is signed in.
    NotSignedIn,
    /// The person may not do this.
    NotPermitted,
}

/// Where to go from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Start again: `POST /connections/connect {csrf, connector}`.
    ConnectAgain(ConnectorId),
    /// Start again: `POST /connections/{id}/reconnect {csrf}`.
    ReconnectAgain(GrantId),
    /// Sign out first: `POST /logout {csrf}`.
    SignOut,
    /// Go back to the host application, or ask the agent for a new link: words only.
    BackTo(Shown),
    /// To the list of connections.
    Connections,
    /// Nothing but the words.
    Nothing,
}

impl ConnectFailure {
    /// The title and heading.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::Denied => "You did not allow access",
            Self::Cancelled => "Nothing was connected",
            Self::LinkExpired => "This link has expired",
            Self::Revoked => "Access was revoked meanwhile",
            Self::LinkUsed => "This link was already used",
            Self::AnotherBrowser => "This started in another browser",
            Self::AnotherPerson => "This link is for someone else",
            Self::SecurityCheck { .. } => "A security check failed",
            Self::ProviderUnavailable => "The app did not answer",
            Self::ProviderError { .. } => "The app reported an error",
            Self::ProviderAdminNeeded => "The app’s own admin has to agree first",
            Self::WiderScopes { .. } => "More was granted than was asked",
            Self::WrongAccount { .. } => "That is a different account",
            Self::AccountNotAllowed { .. } => "This account is not allowed here",
            Self::CompletionExpired => "Nobody confirmed in time",
            Self::NotSignedIn => "Sign in first",
            Self::NotPermitted => "You may not connect this",
        }
    }

    fn icon(&self) -> Icon {
        match self {
            Self::Denied
            | Self::Cancelled
            | Self::Revoked
            | Self::NotPermitted
            | Self::AccountNotAllowed { .. } => Icon::Cross,
            Self::LinkExpired | Self::CompletionExpired => Icon::Clock,
            Self::SecurityCheck { .. } | Self::WiderScopes { .. } => Icon::Shield,
            Self::AnotherPerson | Self::NotSignedIn => Icon::Key,
            _ => Icon::Alert,
        }
    }
}

impl ConnectFailurePage {
    /// The connector's name, or words that stand for it.
    fn app(&self) -> String {
        self.connector
            .as_ref()
            .map_or_else(|| "the app".to_owned(), ToString::to_string)
    }
}
