//! Pages for what went wrong.

use askama::Template;

use crate::web::{Shell, Shown, parts::Icon};

/// A page that says what went wrong.
#[derive(Debug, Template)]
#[template(path = "postern/pages/error.html")]
pub struct ErrorPage {
    /// The frame.
    pub shell: Shell,
    /// What went wrong.
    pub kind: ErrorKind,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400: the form could not be read.
    BadRequest,
    /// 403: the form's token is missing or old.
    StaleForm,
    /// 403: the person may not.
    Forbidden,
    /// 404, also for what belongs to others.
    NotFound,
    /// 429.
    TooMany,
    /// 500.
    Internal {
        /// What to tell an admin.
        support: Shown,
    },
    /// 503: nothing was changed, sent or released.
    Unavailable,
    /// 504: it may have been done.
    Unknown,
}

impl ErrorKind {
    fn title(&self) -> &'static str {
        match self {
            Self::BadRequest => "That could not be read",
            Self::StaleForm => "This page was open too long",
            Self::Forbidden => "You may not see this",
            Self::NotFound => "There is nothing here",
            Self::TooMany => "Too many tries",
            Self::Internal { .. } => "Something went wrong",
            Self::Unavailable => "Not available right now",
            Self::Unknown => "The outcome is not known",
        }
    }

    fn icon(&self) -> Icon {
        match self {
            Self::Forbidden => Icon::Cross,
            Self::TooMany | Self::Unavailable | Self::Unknown => Icon::Clock,
            _ => Icon::Alert,
        }
    }
}
