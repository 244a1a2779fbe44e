//! Who is at the browser, and the frame their pages have.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use super::{Pages, failure::Failure, words};
use crate::{
    crypto::{lookup::LookupKeys, random},
    domain::{OrgId, UserId, principal::Role, secret::LinkToken},
    flows::{Deps, connect, login},
    http::{
        cookie::SESSION,
        security::{CsrfKey, CsrfToken},
    },
    store::{OrgRow, UserRow},
    web::{self, Shell, Shown, UrlToken},
};

/// A person signed in with Postern.
#[derive(Debug)]
pub(super) struct Session {
    token: LinkToken,
    hash: [u8; 32],
    /// In which org.
    pub(super) org: OrgRow,
    /// Who.
    pub(super) user: UserRow,
}

/// Whoever is at the browser: a person signed in, or nobody Postern knows.
#[derive(Debug)]
pub(super) struct Visitor(pub(super) Option<Session>);

/// A person signed in; everybody else is asked to sign in.
#[derive(Debug)]
pub(super) struct Person(pub(super) Session);

/// An admin signed in; members may not see the page.
#[derive(Debug)]
pub(super) struct Admin(pub(super) Session);

/// The one-time token in the path. What cannot be one of ours is not found.
#[derive(Debug)]
pub(super) struct Link(pub(super) LinkToken);

/// Leaves the frame of the signed-in person for a page that says no.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<OnceLock<Shell>>);

impl Seen {
    /// The frame, if somebody was seen to be signed in.
    pub(super) fn shell(&self) -> Option<Shell> {
        self.0.get().cloned()
    }
}

impl Session {
    /// The session's secret, to end it.
    pub(super) fn token(&self) -> &LinkToken {
        &self.token
    }

    /// Tenant and person.
    pub(super) fn who(&self) -> (OrgId, UserId) {
        (self.org.id, self.user.id)
    }

    /// Whether they govern the org.
    pub(super) fn is_admin(&self) -> bool {
        self.user.role == Role::Admin
    }

    /// The frame of their pages.
    pub(super) fn shell(&self, deps: &Deps) -> Result<Shell, Failure> {
        let person = web::Person {
            name: words::short_name(&self.user),
            email: Shown::new(&self.user.display()),
            is_admin: self.is_admin(),
        };
        Ok(Shell {
            org: Some(Shown::new(&self.org.name)),
            person: Some(person),
            csrf: form_token(deps, &self.hash)?,
        })
    }
}

impl Visitor {
    /// As the connect flows see them.
    pub(super) fn to_flow(&self) -> connect::Visitor {
        connect::Visitor {
            user: self.0.as_ref().map(Session::who),
        }
    }

    /// The frame of a page behind a link: the person's, or nobody's with forms bound to the link.
    pub(super) fn shell(&self, deps: &Deps, link: &LinkToken) -> Result<Shell, Failure> {
        match &self.0 {
            Some(session) => session.shell(deps),
            None => Ok(Shell {
                org: None,
                person: None,
                csrf: form_token(deps, &link_hash(deps, link)?)?,
            }),
        }
    }

    /// Checks the token of a form behind a link.
    pub(super) fn check_form(&self, deps: &Deps, link: &LinkToken, claimed: &str) -> Result<(), Failure> {
        match &self.0 {
            Some(session) => check_token(deps, &session.hash, claimed),
            None => check_token(deps, &link_hash(deps, link)?, claimed),
        }
    }
}

/// Checks the token of a form of a signed-in person.
pub(super) fn check_form(deps: &Deps, session: &Session, claimed: &str) -> Result<(), Failure> {
    check_token(deps, &session.hash, claimed)
}

/// The frame of nobody, whose pages have no form.
pub(super) fn empty_shell() -> Option<Shell> {
    Some(Shell {
        org: None,
        person: None,
        csrf: UrlToken::parse("none")?,
    })
}

fn form_token(deps: &Deps, session: &[u8; 32]) -> Result<UrlToken, Failure> {
    let token = CsrfToken::make(&FormKey(&deps.lookup), session, FORM);
    UrlToken::parse(token.as_str()).ok_or_else(|| Failure::internal("a form token is not a token"))
}

fn check_token(deps: &Deps, session: &[u8; 32], claimed: &str) -> Result<(), Failure> {
    CsrfToken::verify(&FormKey(&deps.lookup), session, FORM, claimed)
        .map_err(|problem| Failure::stale_form(&problem))
}

fn link_hash(deps: &Deps, link: &LinkToken) -> Result<[u8; 32], Failure> {
    deps.lookup.link("form", link).map_err(Failure::internal)
}

struct FormKey<'a>(&'a LookupKeys);

impl CsrfKey for FormKey<'_> {
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        // Should it ever fail, `verify` fails too: zeros are no token.
        self.0.csrf(message).unwrap_or_default()
    }

    fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        self.0.csrf_holds(message, tag)
    }
}

/// A page may hold forms of several kinds; all of them carry the one token of its session.
const FORM: &str = "page";

impl FromRequestParts<Pages> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Failure> {
        let cookie = SESSION.read(&parts.headers, pages.site.is_https());
        let Some(token) = cookie.and_then(random::parse_link_token) else {
            return Ok(Self(None));
        };
        let Some((org, user)) = login::who(&pages.deps, &token).await? else {
            return Ok(Self(None));
        };
        let hash = pages.deps.lookup.session(&token).map_err(Failure::internal)?;
        let session = Session {
            token,
            hash,
            org,
            user,
        };
        if let Some(seen) = parts.extensions.get::<Seen>() {
            let shell = session.shell(&pages.deps)?;
            seen.0.get_or_init(|| shell);
        }
        Ok(Self(Some(session)))
    }
}

impl FromRequestParts<Pages> for Person {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Failure> {
        let visitor = Visitor::from_request_parts(parts, pages).await?;
        visitor.0.map(Self).ok_or_else(Failure::not_signed_in)
    }
}

impl FromRequestParts<Pages> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Failure> {
        let Person(session) = Person::from_request_parts(parts, pages).await?;
        if session.is_admin() {
            Ok(Self(session))
        } else {
            Err(Failure::forbidden())
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Link {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Failure::not_found())?;
        params
            .iter()
            .find(|(name, _)| *name == "token")
            .and_then(|(_, text)| random::parse_link_token(text))
            .map(Self)
            .ok_or_else(Failure::not_found)
    }
}

/// The last id in the path, in its one form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<T>(pub(super) T);

impl<T: std::str::FromStr, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Failure::not_found())?;
        let id = params.iter().last().and_then(|(_, text)| text.parse().ok());
        id.map(Self).ok_or_else(Failure::not_found)
    }
}
