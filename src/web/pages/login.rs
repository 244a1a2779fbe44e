//! Signing in by a one-time link, and out.

use askama::Template;

use crate::web::{Shell, Shown, UrlToken, When};

/// `GET /login/{token}`: who the link signs in, and one button (`POST` to the same path). GET spends nothing.
#[derive(Debug, Template)]
#[template(path = "postern/pages/login.html")]
pub struct LoginPage {
    /// The frame; its `org` is the organisation the link belongs to, its `person` is `None`.
    pub shell: Shell,
    /// The link's token.
    pub token: UrlToken,
    /// The person's name.
    pub name: Shown,
    /// The person's address.
    pub email: Shown,
    /// Until when the link works.
    pub expires: When,
}

/// `GET` or `POST /login/{token}` when it cannot sign anyone in.
#[derive(Debug, Template)]
#[template(path = "postern/pages/login_refused.html")]
pub struct LoginRefusedPage {
    /// The frame; its `person` is the one signed in now, if any.
    pub shell: Shell,
    /// Why.
    pub why: LoginRefusal,
}

/// Why a login link signs nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Expired, used, or never made: the same words for all, so that nothing can be probed.
    LinkGone,
    /// Another person is signed in here and has to sign out first.
    AnotherPerson,
}

/// `GET /login`: nobody is signed in.
#[derive(Debug, Template)]
#[template(path = "postern/pages/not_signed_in.html")]
pub struct NotSignedInPage {
    /// The frame, without a person.
    pub shell: Shell,
}

/// After `POST /logout`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/signed_out.html")]
pub struct SignedOutPage {
    /// The frame, without a person.
    pub shell: Shell,
}
