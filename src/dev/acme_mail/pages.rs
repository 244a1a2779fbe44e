//! The pages people see at Acme Mail: plain forms, no script, and a look of their own, so that it is plain to see
//! that this is another site.

use askama::Template;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use url::{Url, form_urlencoded};

use super::{
    AcmeMail,
    accounts::{self, Account},
    answer::Answer,
    authorize::{BOX_PREFIX, REQUEST_PARAMS, Request},
    mailbox::{Folder, Message},
    params::Params,
    scopes::{self, Scope},
};

#[derive(Template)]
#[template(path = "acme/pick.html")]
struct Pick<'a> {
    hidden: Vec<(&'a str, &'a str)>,
    client: &'a str,
}

#[derive(Template)]
#[template(path = "acme/consent.html")]
struct Consent<'a> {
    hidden: Vec<(&'a str, &'a str)>,
    client: &'a str,
    account: &'a Account,
    scopes: Vec<&'static Scope>,
    box_prefix: &'static str,
    returns_to: String,
    restart: String,
}

#[derive(Template)]
#[template(path = "acme/refusal.html")]
struct Refused<'a> {
    reason: &'a str,
}

#[derive(Template)]
#[template(path = "acme/home.html")]
struct Home<'a> {
    issuer: &'a str,
    mailboxes: Vec<(&'static Account, Vec<Line>)>,
}

struct Line {
    folder: &'static str,
    subject: String,
    who: String,
    date: String,
}

/// One button per account.
pub(super) fn pick(request: &Request, client: &str, params: &Params) -> Answer {
    let page = Pick {
        hidden: params.pick(&REQUEST_PARAMS),
        client,
    };
    rendered(StatusCode::OK, &page, Some(&request.redirect_uri))
}

/// One box per scope, Allow and Deny.
pub(super) fn consent(request: &Request, client: &str, account: &Account, params: &Params) -> Answer {
    let hidden = params.pick(&REQUEST_PARAMS);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&hidden)
        .finish();
    let page = Consent {
        client,
        account,
        scopes: scopes::ALL
            .iter()
            .filter(|scope| request.scope.contains(scope.name))
            .collect(),
        box_prefix: BOX_PREFIX,
        returns_to: origin(&request.redirect_uri).unwrap_or_default(),
        restart: format!("/authorize?{query}"),
        hidden,
    };
    rendered(StatusCode::OK, &page, Some(&request.redirect_uri))
}

/// What is wrong with a request that cannot be sent back.
pub(super) fn refusal(status: StatusCode, reason: &str) -> Answer {
    rendered(status, &Refused { reason }, None).failing("refused")
}

/// `GET /`: what this is, and what lies in the mailboxes.
pub(super) async fn home(State(acme): State<AcmeMail>) -> Answer {
    let mailboxes = {
        let world = acme.world();
        accounts::ALL
            .iter()
            .map(|account| {
                let messages = world.mailboxes.all(account.email).iter().rev();
                (account, messages.take(HOME_MESSAGES).map(Line::of).collect())
            })
            .collect()
    };
    let page = Home {
        issuer: acme.issuer(),
        mailboxes,
    };
    rendered(StatusCode::OK, &page, None)
}

/// `GET /acme.css`.
pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// `GET /acme.svg`.
pub(super) async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], ICON).into_response()
}

impl Line {
    fn of(message: &Message) -> Self {
        let (folder, who) = match message.folder {
            Folder::Inbox => ("Received", format!("from {}", message.from)),
            Folder::Sent => ("Sent", format!("to {}", message.to.join(", "))),
            Folder::Drafts => ("Draft", format!("to {}", message.to.join(", "))),
        };
        Self {
            folder,
            who,
            subject: message.subject.clone(),
            date: message.date.to_string(),
        }
    }
}

impl Line {
    /// As `2026-11-20 09:30 UTC`.
    fn shown_date(&self) -> String {
        let minutes: String = self.date.chars().take(16).collect();
        format!("{} UTC", minutes.replace('T', " "))
    }
}

impl Account {
    fn initial(&self) -> String {
        self.name.chars().take(1).collect()
    }
}

fn rendered(status: StatusCode, page: &impl Template, redirect_uri: Option<&str>) -> Answer {
    let Ok(html) = page.render() else {
        return Answer::empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    // Browsers hold `form-action` against every hop of the redirect that answers a form, so the client's origin is
    // in it. A registered redirect URI is the only thing that gets here.
    let form_action = match redirect_uri.and_then(origin) {
        Some(origin) => format!("'self' {origin}"),
        None => "'none'".to_owned(),
    };
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; \
         form-action {form_action}"
    );
    Answer::html(status, html)
        .with(header::CONTENT_SECURITY_POLICY, &policy)
        .with(header::X_FRAME_OPTIONS, "DENY")
}

fn origin(uri: &str) -> Option<String> {
    let origin = Url::parse(uri).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

const HOME_MESSAGES: usize = 8;
const STYLE: &str = include_str!("../../../templates/acme/acme.css");
const ICON: &str = include_str!("../../../templates/acme/acme.svg");
