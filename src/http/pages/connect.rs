//! The pages behind a connect link: what is asked, on to the provider, the confirmation, the end.

use axum::{extract::State, http::HeaderMap, response::Response};

use super::{
    Pages,
    answer::{go_to, page, with_cookie},
    boxes,
    callback::Binding,
    connect_failure::{Happened, NotConnected, Stage, explain},
    failure::Failure,
    form::SignedLink,
    login::url_token,
    session::{Link, Visitor},
    words,
};
use crate::{
    crypto::{lookup, random},
    domain::{ScopeSet, connector::Connector, grant::Account, secret::LinkToken},
    flows::{
        Deps,
        connect::{
            ConnectFailure, LINK_LIFE, Opened,
            around::{self, Around},
            begin, callback,
            confirm::{self as confirming, Confirmed},
        },
    },
    http::cookie::{CONNECT, CookieKind},
    web::{
        OutwardUrl, Shell, Shown, When,
        pages::{
            connect::{
                AskedBy, ConfirmPage, ConnectPage, ConnectedPage, ContinuePage, HandBackPage, WaitingPage,
            },
            connect_failure::{ConnectFailure as Words, ConnectFailurePage, NextStep},
        },
    },
};

/// Tells the confirm page which browser came back; the binding cookie is sent to the callback alone.
pub(super) const CONFIRM: CookieKind = CookieKind::new("postern_confirm", "/connect");

/// `GET /connect/{token}`: what is asked, for whom and under whose key. Spends nothing (scanners, prefetch).
pub(super) async fn landing(
    State(pages): State<Pages>,
    visitor: Visitor,
    Link(link): Link,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let at = At(deps, Stage::Link, &link, &visitor);
    let opened = at
        .or_explain(begin::look(deps, &link, visitor.to_flow()).await)
        .await?;
    let around = around::look(deps, &opened).await?;
    let named = opened.session.reconnect.and(around.renews.as_ref());
    page(&ConnectPage {
        shell: visitor.shell(deps, &link)?,
        token: url_token(&link)?,
        asked_by: match (&around.host, &opened.agent) {
            (Some(host), _) => AskedBy::Host(Shown::new(host)),
            (None, Some(agent)) => AskedBy::Agent(Shown::new(agent)),
            (None, None) => AskedBy::Person,
        },
        name: Shown::new(&opened.user.display()),
        email: None,
        org: Shown::new(&opened.org.name),
        connector: Shown::new(&opened.connector.name),
        account_type: Shown::new(&format!("Your own {} account", opened.connector.name)),
        permissions: words::permissions(Some(opened.connector), &opened.session.scopes),
        key: Shown::new(&deps.key_words),
        expires: When::new(opened.session.expires_at, deps.clock.now()),
        reconnect: named.map(words::account),
    })
}

/// `POST /connect/{token}`: spends the link and binds it to this browser.
pub(super) async fn go(State(pages): State<Pages>, signed: SignedLink) -> Result<Response, Failure> {
    let SignedLink { visitor, link, form } = signed;
    form.only(&[], &[])?;
    let deps = &pages.deps;
    let at = At(deps, Stage::Link, &link, &visitor);
    let browser = at
        .or_explain(begin::go(deps, &link, visitor.to_flow()).await)
        .await?;
    // Not to the provider at once: a redirect after a form falls under CSP `form-action` (protocol §2).
    let onward = go_to(&format!("/connect/{}/continue", lookup::show_link(&link)))?;
    let value = Binding::value(&browser, &link);
    let cookie = CONNECT.set(&value, Some(LINK_LIFE.as_secs()), pages.site.is_https());
    with_cookie(onward, cookie)
}

/// `GET /connect/{token}/continue`: on to the provider, by refresh and by a link.
pub(super) async fn onward(
    State(pages): State<Pages>,
    visitor: Visitor,
    Link(link): Link,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let at = At(deps, Stage::Link, &link, &visitor);
    let url = at
        .or_explain(begin::provider_url(deps, &link, visitor.to_flow()).await)
        .await?;
    let opened = crate::flows::connect::open(deps, &link, visitor.to_flow()).await;
    let opened = at.or_explain(opened).await?;
    page(&ContinuePage {
        shell: visitor.shell(deps, &link)?,
        connector: Shown::new(&opened.connector.name),
        url: OutwardUrl::parse(&url).ok_or_else(|| Failure::internal("a provider's address is not http"))?,
    })
}

/// `GET /connect/{token}/confirm`: which account came back, and what agents may do with it.
pub(super) async fn ask_confirm(
    State(pages): State<Pages>,
    visitor: Visitor,
    Link(link): Link,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let browser = browser(&pages, &headers);
    let at = At(deps, Stage::Confirm, &link, &visitor);
    let opened = confirming::page(deps, &link, browser.as_ref(), visitor.to_flow()).await;
    let opened = at.or_explain(opened).await?;
    let around = around::look(deps, &opened).await?;
    page(&confirm_page(
        deps,
        visitor.shell(deps, &link)?,
        &link,
        &opened,
        &around,
    )?)
}

/// `POST /connect/{token}/confirm`: `choice` is `confirm` or `cancel`.
pub(super) async fn confirm(
    State(pages): State<Pages>,
    headers: HeaderMap,
    signed: SignedLink,
) -> Result<Response, Failure> {
    let SignedLink { visitor, link, form } = signed;
    let form = form.only(&["choice"], boxes::LISTS)?;
    match form.get("choice") {
        Some("confirm") => {}
        Some("cancel") => return end(&pages, &headers, &visitor, &link).await,
        _ => return Err(Failure::bad_request("neither confirmed nor cancelled")),
    }
    let choices = boxes::read(&form)?;
    let deps = &pages.deps;
    let browser = browser(&pages, &headers);
    let at = At(deps, Stage::Confirm, &link, &visitor);
    let opened = confirming::page(deps, &link, browser.as_ref(), visitor.to_flow()).await;
    let opened = at.or_explain(opened).await?;
    let around = around::look(deps, &opened).await?;
    let done = confirming::confirm(deps, &link, browser.as_ref(), visitor.to_flow(), choices).await;
    let done = at.or_explain(done).await?;
    let shell = visitor.shell(deps, &link)?;
    let connector = Shown::new(&opened.connector.name);
    let answer = match (done, around.host) {
        (Confirmed::Waiting(Some(back)), host) => page(&HandBackPage {
            shell,
            connector,
            host: Shown::new(host.as_deref().unwrap_or(A_HOST)),
            url: return_address(&back)?,
        }),
        (Confirmed::Waiting(None), host) => page(&WaitingPage {
            shell,
            connector,
            host: Shown::new(host.as_deref().unwrap_or(A_HOST)),
        }),
        (Confirmed::Connected(_), _) => page(&ConnectedPage {
            shell,
            connector,
            account: opened.session.account.as_ref().and_then(named),
            agent: opened.agent.as_deref().map(Shown::new),
        }),
    }?;
    with_cookie(answer, CONFIRM.clear(pages.site.is_https()))
}

/// `POST /connect/{token}/cancel`: nothing is kept, the tokens go to the outbox.
pub(super) async fn cancel(
    State(pages): State<Pages>,
    headers: HeaderMap,
    signed: SignedLink,
) -> Result<Response, Failure> {
    signed.form.only(&[], &[])?;
    end(&pages, &headers, &signed.visitor, &signed.link).await
}

async fn end(
    pages: &Pages,
    headers: &HeaderMap,
    visitor: &Visitor,
    link: &LinkToken,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let browser = browser(pages, headers);
    let at = At(deps, Stage::Confirm, link, visitor);
    let opened = confirming::page(deps, link, browser.as_ref(), visitor.to_flow()).await;
    let opened = at.or_explain(opened).await?;
    let around = around::look(deps, &opened).await?;
    let cancelled = confirming::cancel(deps, link, browser.as_ref(), visitor.to_flow()).await;
    at.or_explain(cancelled).await?;
    let shown = NotConnected {
        connector: Some(Shown::new(&opened.connector.name)),
        failure: Happened::Said(Box::new(Words::Cancelled)),
        next: match &around.host {
            Some(host) => NextStep::BackTo(Shown::new(host)),
            None => NextStep::ConnectAgain(opened.session.connector.clone()),
        },
    };
    let answer = page(&ConnectFailurePage {
        shell: visitor.shell(deps, link)?,
        connector: shown.connector,
        failure: Words::Cancelled,
        next: shown.next,
    })?;
    with_cookie(answer, CONFIRM.clear(pages.site.is_https()))
}

fn confirm_page(
    deps: &Deps,
    shell: Shell,
    link: &LinkToken,
    opened: &Opened<'_>,
    around: &Around,
) -> Result<ConfirmPage, Failure> {
    let session = &opened.session;
    let connector: &Connector = opened.connector;
    let none = ScopeSet::default();
    let agents = match &around.renews {
        Some(_) => boxes::holding(&around.agents, Some(connector), around.delegations.iter()),
        None => boxes::proposed(&around.agents, connector, session.agent),
    };
    Ok(ConfirmPage {
        shell,
        token: url_token(link)?,
        connector: Shown::new(&connector.name),
        account: session.account.as_ref().and_then(named),
        tenant: session
            .account
            .as_ref()
            .and_then(|account| account.tenant.as_deref())
            .map(Shown::new),
        name: Shown::new(&opened.user.display()),
        org: Shown::new(&opened.org.name),
        granted: words::permissions(Some(connector), session.granted.as_ref().unwrap_or(&none)),
        missing: words::permissions(Some(connector), &callback::missing(session)),
        agents,
        expires: When::new(session.expires_at, deps.clock.now()),
        reconnect: around.renews.is_some(),
    })
}

/// The account's name, if the provider told which account it is.
fn named(account: &Account) -> Option<Shown> {
    account.id.as_ref().map(|_| Shown::new(&account.label))
}

fn return_address(back: &confirming::Back) -> Result<OutwardUrl, Failure> {
    let mut url = url::Url::parse(&back.return_url).map_err(Failure::internal)?;
    url.query_pairs_mut()
        .append_pair("session", &back.session.to_string())
        .append_pair("code", &lookup::show_link(&back.code));
    OutwardUrl::parse(url.as_str()).ok_or_else(|| Failure::internal("a return address is not http"))
}

fn browser(pages: &Pages, headers: &HeaderMap) -> Option<LinkToken> {
    CONFIRM
        .read(headers, pages.site.is_https())
        .and_then(random::parse_link_token)
}

/// Where a failure is explained from.
struct At<'a>(&'a Deps, Stage, &'a LinkToken, &'a Visitor);

impl At<'_> {
    async fn or_explain<T>(&self, result: Result<T, ConnectFailure>) -> Result<T, Failure> {
        match result {
            Ok(value) => Ok(value),
            Err(failure) => Err(explain(self.0, failure, self.1, Some(self.2), self.3, None).await),
        }
    }
}

/// What a host application is called that has no name here.
const A_HOST: &str = "the application you came from";
