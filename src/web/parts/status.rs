//! Where a grant stands and what became of a revocation at the provider, in words with an icon.

use askama::{Template, filters::HtmlSafe};

use super::Icon;
use crate::{
    domain::grant::ReconnectReason,
    web::{When, words},
};

/// How a badge is coloured. The word beside it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It is well.
    Good,
    /// Look at it.
    Warn,
    /// It ended or was refused.
    Bad,
    /// Neither.
    Plain,
}

impl Tone {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }
}

/// Where a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantStatus {
    /// It works.
    Active,
    /// The person has to connect again.
    NeedsReconnect(ReconnectReason),
    /// Came back wider than asked.
    Quarantined {
        /// When it is discarded.
        until: When,
    },
    /// Ended.
    Revoked {
        /// When.
        at: When,
        /// What the provider said.
        upstream: UpstreamResult,
    },
}

impl GrantStatus {
    /// The word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::NeedsReconnect(_) => "Needs reconnect",
            Self::Quarantined { .. } => "Quarantined",
            Self::Revoked { .. } => "Revoked",
        }
    }

    /// Whether it has ended for good.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }

    /// Whether connecting again mends it (protocol §2: `needs_reconnect` and `quarantined`).
    #[must_use]
    pub fn may_reconnect(&self) -> bool {
        matches!(self, Self::NeedsReconnect(_) | Self::Quarantined { .. })
    }

    pub(crate) fn badge(&self) -> Badge {
        let (tone, icon) = match self {
            Self::Active => (Tone::Good, Icon::Check),
            Self::NeedsReconnect(_) => (Tone::Warn, Icon::Alert),
            Self::Quarantined { .. } => (Tone::Warn, Icon::Shield),
            Self::Revoked { .. } => (Tone::Plain, Icon::Cross),
        };
        Badge {
            tone,
            icon,
            word: self.word().to_owned(),
        }
    }

    fn reconnect_words(&self) -> &'static str {
        match self {
            Self::NeedsReconnect(reason) => words::reconnect_reason(*reason),
            _ => "",
        }
    }

    pub(crate) fn explanation(&self) -> Explanation<'_> {
        Explanation { status: self }
    }
}

/// What the provider said when it was asked to end the access as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamResult {
    /// Not answered yet; tried again until it is.
    Pending,
    /// The provider ended it.
    Revoked,
    /// The provider has no way to be told.
    Unsupported,
    /// It was told and did not confirm.
    Unconfirmed,
}

impl UpstreamResult {
    /// The word on a badge.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Waiting for the app",
            Self::Revoked => "Ended at the app",
            Self::Unsupported => "App cannot be told",
            Self::Unconfirmed => "Not confirmed by the app",
        }
    }

    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Pending => {
                "Postern has stopped using this access. The app has been asked to end it too and has not answered yet."
            }
            Self::Revoked => {
                "Postern has stopped using this access, and the app confirmed that it ended it too."
            }
            Self::Unsupported => {
                "Postern has stopped using this access. This app offers no way to end it from outside: you can remove it in the app’s own settings."
            }
            Self::Unconfirmed => {
                "Postern has stopped using this access. The app did not confirm that it ended it too: you can remove it in the app’s own settings."
            }
        }
    }

    pub(crate) fn badge(&self) -> Badge {
        let (tone, icon) = match self {
            Self::Pending => (Tone::Plain, Icon::Clock),
            Self::Revoked => (Tone::Good, Icon::Check),
            Self::Unsupported => (Tone::Plain, Icon::Dot),
            Self::Unconfirmed => (Tone::Warn, Icon::Alert),
        };
        Badge {
            tone,
            icon,
            word: self.word().to_owned(),
        }
    }
}

/// A word with an icon.
#[derive(Debug, Template)]
#[template(
    source = r#"<span class="badge badge-{{ tone.class() }}">{{ icon }}{{ word }}</span>"#,
    ext = "html"
)]
pub(crate) struct Badge {
    pub(crate) tone: Tone,
    pub(crate) icon: Icon,
    pub(crate) word: String,
}

impl HtmlSafe for Badge {}

/// What a status means, as a paragraph's content.
#[derive(Debug, Template)]
#[template(path = "postern/parts/status.html")]
pub(crate) struct Explanation<'a> {
    status: &'a GrantStatus,
}

impl HtmlSafe for Explanation<'_> {}
