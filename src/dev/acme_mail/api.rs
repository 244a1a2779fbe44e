//! The mail API and `/userinfo`: what an access token buys (RFC 6750).

use std::collections::BTreeSet;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    AcmeMail, World, accounts,
    answer::Answer,
    fault::{Fault, Target},
    grants::{Access, TokenHash},
    log::{Entry, Kind},
    mailbox::{Folder, Message},
    params::Params,
    scopes,
};

/// `GET /userinfo`: whose token this is.
pub(super) async fn userinfo(State(acme): State<AcmeMail>, headers: HeaderMap) -> Response {
    let draft = Entry::new(Kind::Api, "GET", "/userinfo");
    acme.call(draft, &headers, None, |_, access, fault| {
        let email = fault
            .and_then(|fault| fault.wrong_account.as_ref())
            .unwrap_or(&access.account);
        let account = accounts::find(email).ok_or_else(not_found)?;
        let body = json!({ "sub": account.subject, "email": account.email, "name": account.name });
        Ok(Answer::json(StatusCode::OK, body))
    })
    .await
}

/// `GET /api/messages?q=&limit=`.
pub(super) async fn list(
    State(acme): State<AcmeMail>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let draft = Entry::new(Kind::Api, "GET", "/api/messages");
    acme.call(draft, &headers, Some(scopes::READ), |world, access, _| {
        let params = Params::parse(query.unwrap_or_default().as_bytes());
        if params.has_repeated() {
            return Err(Answer::invalid_request("a parameter is repeated"));
        }
        let limit = match params.get("limit").map(str::parse) {
            None => 20,
            Some(Ok(limit @ 1..=100)) => limit,
            Some(_) => return Err(Answer::invalid_request("limit is 1 to 100")),
        };
        let found = world
            .mailboxes
            .search(&access.account, params.get("q").unwrap_or_default(), limit);
        let messages: Vec<_> = found.into_iter().map(Message::summary).collect();
        Ok(Answer::json(StatusCode::OK, json!({ "messages": messages })))
    })
    .await
}

/// `GET /api/messages/{id}`.
pub(super) async fn read(
    State(acme): State<AcmeMail>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let draft = Entry::new(Kind::Api, "GET", &message_path(&id));
    acme.call(draft, &headers, Some(scopes::READ), |world, access, _| {
        let message = world.mailboxes.find(&access.account, &id).ok_or_else(not_found)?;
        Ok(Answer::json(StatusCode::OK, message.whole()))
    })
    .await
}

/// `DELETE /api/messages/{id}`.
pub(super) async fn delete(
    State(acme): State<AcmeMail>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let draft = Entry::new(Kind::Api, "DELETE", &message_path(&id));
    acme.call(draft, &headers, Some(scopes::WRITE), |world, access, _| {
        if world.mailboxes.delete(&access.account, &id) {
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        } else {
            Err(not_found())
        }
    })
    .await
}

/// `POST /api/messages`: into the sender's sent mail and every recipient's inbox that is here.
pub(super) async fn send(State(acme): State<AcmeMail>, headers: HeaderMap, body: Bytes) -> Response {
    let draft = Entry::new(Kind::Api, "POST", "/api/messages");
    acme.call(draft, &headers, Some(scopes::SEND), |world, access, _| {
        let letter = Letter::parse(&headers, &body)?;
        let sent = acme.message(Folder::Sent, &letter, access)?;
        let mut copies = vec![(access.account.clone(), sent.clone())];
        for recipient in letter.to.iter().collect::<BTreeSet<_>>() {
            copies.push((recipient.clone(), acme.message(Folder::Inbox, &letter, access)?));
        }
        for (owner, copy) in copies {
            world.mailboxes.put(&owner, copy);
        }
        Ok(Answer::json(StatusCode::CREATED, json!({ "id": sent.id })))
    })
    .await
}

/// `POST /api/drafts`.
pub(super) async fn draft(State(acme): State<AcmeMail>, headers: HeaderMap, body: Bytes) -> Response {
    let draft = Entry::new(Kind::Api, "POST", "/api/drafts");
    acme.call(draft, &headers, Some(scopes::WRITE), |world, access, _| {
        let letter = Letter::parse(&headers, &body)?;
        let message = acme.message(Folder::Drafts, &letter, access)?;
        let id = message.id.clone();
        world.mailboxes.put(&access.account, message);
        Ok(Answer::json(StatusCode::CREATED, json!({ "id": id })))
    })
    .await
}

/// Any other path. Requests for the API are logged even where it has nothing to offer.
pub(super) async fn unknown(State(acme): State<AcmeMail>, method: Method, uri: Uri) -> Response {
    acme.turn_away(&method, &uri, not_found()).await
}

/// A path that exists, by a method that does not.
pub(super) async fn wrong_method(State(acme): State<AcmeMail>, method: Method, uri: Uri) -> Response {
    let answer = Answer::error(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid_request",
        "not by this method",
    );
    acme.turn_away(&method, &uri, answer).await
}

/// What a client posts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    to: Vec<String>,
    subject: String,
    body: String,
}

impl Letter {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Answer> {
        let is_json = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            return Err(Answer::error(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "invalid_request",
                "send application/json",
            ));
        }
        let letter: Self = serde_json::from_slice(body)
            .map_err(|_| Answer::invalid_request("send {\"to\":[…],\"subject\":…,\"body\":…}"))?;
        if letter.to.is_empty() || letter.to.len() > 50 || !letter.to.iter().all(|to| is_address(to)) {
            return Err(Answer::invalid_request("to is a list of 1 to 50 addresses"));
        }
        if letter.subject.chars().any(char::is_control) || letter.subject.chars().count() > 998 {
            return Err(Answer::invalid_request("subject is one line"));
        }
        Ok(letter)
    }
}

impl AcmeMail {
    /// SECURITY: method and path come from the caller and could hold anything; the log gets fixed words.
    async fn turn_away(&self, method: &Method, uri: &Uri, answer: Answer) -> Response {
        let (kind, path) = match uri.path() {
            "/token" => (Kind::Token, "/token"),
            "/revoke" => (Kind::Revoke, "/revoke"),
            "/introspect" => (Kind::Introspect, "/introspect"),
            path if path.starts_with("/api/") => (Kind::Api, "/api/{unknown}"),
            _ => return answer.into_response(),
        };
        let method = STANDARD_METHODS.iter().find(|known| *known == method);
        let draft = Entry::new(kind, method.map_or("other", Method::as_str), path);
        let target = (kind == Kind::Api).then_some(Target::Api);
        self.serve(draft, target, |_, _| answer).await
    }

    /// One API request: log, fault, token, scope, then the work.
    async fn call<F>(&self, draft: Entry, headers: &HeaderMap, scope: Option<&str>, work: F) -> Response
    where
        F: FnOnce(&mut World, &Access, Option<&Fault>) -> Result<Answer, Answer> + Send,
    {
        let bearer = bearer(headers);
        let draft = Entry {
            token_sha256: bearer.clone(),
            ..draft
        };
        self.serve(draft, Some(Target::Api), |entry, fault| {
            let Some(token) = bearer else {
                return unauthorized("Bearer realm=\"acme-mail\"");
            };
            let mut world = self.world();
            let Some(access) = world.grants.access(&token, self.now()) else {
                return unauthorized("Bearer realm=\"acme-mail\", error=\"invalid_token\"");
            };
            entry.client_id = Some(self.0.client.id.clone());
            entry.account = Some(access.account.clone());
            entry.scope = Some(access.scope.to_string());
            if let Some(scope) = scope.filter(|scope| !access.scope.contains(scope)) {
                return forbidden(scope);
            }
            work(&mut world, &access, fault).unwrap_or_else(|refusal| refusal)
        })
        .await
    }

    fn message(&self, folder: Folder, letter: &Letter, access: &Access) -> Result<Message, Answer> {
        Ok(Message {
            id: self.mint("msg-")?.text.chars().take(24).collect(),
            folder,
            from: access.account.clone(),
            to: letter.to.clone(),
            subject: letter.subject.clone(),
            body: letter.body.clone(),
            date: self.now(),
        })
    }
}

// RFC 6750 §2.1: in the header only; §2 forbids more than one way, and two headers are one too many.
fn bearer(headers: &HeaderMap) -> Option<TokenHash> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| TokenHash::of(token.trim()))
}

fn unauthorized(challenge: &str) -> Answer {
    Answer::json(StatusCode::UNAUTHORIZED, json!({ "error": "invalid_token" }))
        .failing("invalid_token")
        .with(header::WWW_AUTHENTICATE, challenge)
}

// RFC 6750 §3.1.
fn forbidden(scope: &str) -> Answer {
    let challenge = format!("Bearer realm=\"acme-mail\", error=\"insufficient_scope\", scope=\"{scope}\"");
    Answer::json(StatusCode::FORBIDDEN, json!({ "error": "insufficient_scope" }))
        .failing("insufficient_scope")
        .with(header::WWW_AUTHENTICATE, &challenge)
}

fn not_found() -> Answer {
    Answer::json(StatusCode::NOT_FOUND, json!({ "error": "not_found" })).failing("not_found")
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    !local.is_empty()
        && !domain.is_empty()
        && text.len() <= 254
        && !domain.contains('@')
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, ',' | ';' | '<' | '>' | '"'))
}

/// SECURITY: a caller could put a token where an id belongs; only what looks like an id of ours reaches the log.
fn message_path(id: &str) -> String {
    let is_id = id.len() <= 24
        && id.starts_with("msg-")
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    format!("/api/messages/{}", if is_id { id } else { "{unknown}" })
}

const STANDARD_METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];
