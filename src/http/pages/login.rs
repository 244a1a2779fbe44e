//! Signing in by a one-time link, and out.

use axum::{extract::State, response::Response};

use super::{
    Pages,
    answer::{go_to, page, with_cookie},
    failure::Failure,
    form::{Signed, SignedLink},
    session::{self, Link, Visitor},
    words,
};
use crate::{
    crypto::lookup,
    domain::secret::LinkToken,
    flows::{Deps, Refusal, login},
    http::cookie::SESSION,
    web::{
        Shown, UrlToken, When,
        pages::login::{LoginPage, LoginRefusal, NotSignedInPage, SignedOutPage},
    },
};

/// `GET /`.
pub(super) async fn home() -> Result<Response, Failure> {
    go_to(HOME)
}

/// `GET /login`: how to sign in.
pub(super) async fn nobody(visitor: Visitor) -> Result<Response, Failure> {
    match visitor.0 {
        Some(_) => go_to(HOME),
        None => page(&NotSignedInPage {
            shell: empty_shell()?,
        }),
    }
}

/// `GET /login/{token}`: whom the link signs in; spends nothing.
pub(super) async fn offer(
    State(pages): State<Pages>,
    visitor: Visitor,
    Link(link): Link,
) -> Result<Response, Failure> {
    let offered = offered(&pages.deps, &link, &visitor).await?;
    let mut shell = visitor.shell(&pages.deps, &link)?;
    shell.org = Some(Shown::new(&offered.org.name));
    shell.person = None;
    page(&LoginPage {
        shell,
        token: url_token(&link)?,
        name: words::short_name(&offered.user),
        email: Shown::new(&offered.user.display()),
        expires: When::new(offered.expires_at, pages.deps.clock.now()),
    })
}

/// `POST /login/{token}`: spends the link and begins a session under a fresh id.
pub(super) async fn enter(State(pages): State<Pages>, signed: SignedLink) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    offered(&pages.deps, &signed.link, &signed.visitor).await?;
    let session = login::enter(&pages.deps, &signed.link).await.map_err(gone)?;
    if let Some(before) = &signed.visitor.0 {
        login::leave(&pages.deps, before.token()).await?;
    }
    let cookie = SESSION.set(
        &lookup::show_link(&session),
        Some(login::SESSION_LIFE.as_secs()),
        pages.site.is_https(),
    );
    with_cookie(go_to(HOME)?, cookie)
}

/// `POST /logout`.
pub(super) async fn leave(State(pages): State<Pages>, signed: Signed) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    login::leave(&pages.deps, signed.person.token()).await?;
    let answer = page(&SignedOutPage {
        shell: empty_shell()?,
    })?;
    with_cookie(answer, SESSION.clear(pages.site.is_https()))
}

/// The link's offer, unless another person is signed in here: that would be login CSRF by link (protocol §2).
async fn offered(deps: &Deps, link: &LinkToken, visitor: &Visitor) -> Result<login::Offered, Failure> {
    let offered = login::look(deps, link).await.map_err(gone)?;
    match &visitor.0 {
        Some(session) if session.who() != (offered.org.id, offered.user.id) => {
            Err(Failure::login(LoginRefusal::AnotherPerson))
        }
        _ => Ok(offered),
    }
}

fn gone(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NotFound => Failure::login(LoginRefusal::LinkGone),
        other => other.into(),
    }
}

fn empty_shell() -> Result<crate::web::Shell, Failure> {
    session::empty_shell().ok_or_else(|| Failure::internal("the empty frame has no token"))
}

/// A one-time token as it stands in the paths of its own pages.
pub(super) fn url_token(link: &LinkToken) -> Result<UrlToken, Failure> {
    UrlToken::parse(&lookup::show_link(link)).ok_or_else(|| Failure::internal("a link is not a url token"))
}

const HOME: &str = "/connections";
