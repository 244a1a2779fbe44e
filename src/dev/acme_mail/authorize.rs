//! `GET /authorize` and `POST /authorize` (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 9207).
//!
//! Three steps without a session: the request travels in the pages' hidden fields and is checked from the start at
//! each. Pick an account, then allow or deny. Only the last step makes anything, a code.

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};

use super::{
    AcmeMail,
    accounts::{self, Account},
    answer::Answer,
    client::Registered,
    fault::Target,
    grants::Code,
    log::{Entry, Kind},
    pages,
    params::Params,
    scopes::Scopes,
};

/// Shows who could be asked.
pub(super) async fn show(State(acme): State<AcmeMail>, RawQuery(query): RawQuery) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    acme.authorize("GET", params, |_, request| Ok(Step::Pick(request)))
        .await
}

/// Takes the account, then the verdict.
pub(super) async fn submit(State(acme): State<AcmeMail>, body: Bytes) -> Response {
    acme.authorize("POST", Params::parse(&body), next_step).await
}

/// An authorization request that may be put to a person.
pub(super) struct Request {
    pub(super) redirect_uri: String,
    state: Option<String>,
    pub(super) scope: Scopes,
    challenge: String,
}

enum Step {
    Pick(Request),
    Consent(Request, &'static Account),
    Allow(Request, &'static Account, Scopes),
    Deny(Request, &'static Account),
}

enum Refusal {
    /// RFC 6749 §4.1.2.1: a bad client or redirect URI is told to the person, never sent there.
    Here(&'static str),
    Back {
        redirect_uri: String,
        state: Option<String>,
        code: &'static str,
        description: &'static str,
    },
}

impl AcmeMail {
    async fn authorize(
        &self,
        method: &str,
        params: Params,
        decide: impl FnOnce(&Params, Request) -> Result<Step, Refusal>,
    ) -> Response {
        let step = check(&self.0.client, &params).and_then(|request| decide(&params, request));
        let mut entry = Entry::new(Kind::Authorize, method, "/authorize");
        let mut target = None;
        match &step {
            Ok(Step::Pick(request)) => entry.describe(self, &request.scope, None),
            Ok(Step::Consent(request, account)) => entry.describe(self, &request.scope, Some(account)),
            Ok(Step::Allow(_, account, scope)) => entry.describe(self, scope, Some(account)),
            Ok(Step::Deny(request, account)) => entry.describe(self, &request.scope, Some(account)),
            Err(_) => {}
        }
        if matches!(
            step,
            Ok(Step::Allow(..) | Step::Deny(..)) | Err(Refusal::Back { .. })
        ) {
            target = Some(Target::Authorize);
        }
        self.serve(entry, target, |_, _| match step {
            Ok(Step::Pick(request)) => pages::pick(&request, &self.0.client.name, &params),
            Ok(Step::Consent(request, account)) => {
                pages::consent(&request, &self.0.client.name, account, &params)
            }
            Ok(Step::Allow(request, account, scope)) => self.allow(request, account, scope),
            Ok(Step::Deny(request, _)) => self.back(
                &request.redirect_uri,
                request.state,
                vec![
                    ("error", "access_denied".to_owned()),
                    ("error_description", "the person said no".to_owned()),
                ],
            ),
            Err(Refusal::Here(reason)) => pages::refusal(StatusCode::BAD_REQUEST, reason),
            Err(Refusal::Back {
                redirect_uri,
                state,
                code,
                description,
            }) => self.back(
                &redirect_uri,
                state,
                vec![
                    ("error", code.to_owned()),
                    ("error_description", description.to_owned()),
                ],
            ),
        })
        .await
    }

    fn allow(&self, request: Request, account: &Account, scope: Scopes) -> Answer {
        let code = match self.mint("acme_ac_") {
            Ok(code) => code,
            Err(failed) => return failed.into(),
        };
        let allowed = Code {
            account: account.email.to_owned(),
            scope,
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge,
            issued_at: self.now(),
            redeemed: None,
        };
        self.world().grants.add_code(code.hash, allowed);
        self.back(&request.redirect_uri, request.state, vec![("code", code.text)])
    }

    /// The authorization response. RFC 9207 §2: `iss` in every one, errors included.
    fn back(&self, redirect_uri: &str, state: Option<String>, mut params: Vec<(&str, String)>) -> Answer {
        params.extend(state.map(|state| ("state", state)));
        params.push(("iss", self.0.issuer.clone()));
        Answer::redirect(redirect_uri, params)
    }
}

impl Entry {
    fn describe(&mut self, acme: &AcmeMail, scope: &Scopes, account: Option<&Account>) {
        self.client_id = Some(acme.0.client.id.clone());
        self.scope = Some(scope.to_string());
        self.account = account.map(|account| account.email.to_owned());
    }
}

fn check(client: &Registered, params: &Params) -> Result<Request, Refusal> {
    if params.get("client_id") != Some(&client.id) {
        return Err(Refusal::Here("No app is registered here under this client id."));
    }
    let redirect_uri = params
        .get("redirect_uri")
        .filter(|uri| client.may_redirect_to(uri))
        .ok_or(Refusal::Here(
            "This app has not registered the address it wants to be sent back to.",
        ))?;
    let state = params.get("state").map(str::to_owned);
    let back = |code, description| Refusal::Back {
        redirect_uri: redirect_uri.to_owned(),
        state: state.clone(),
        code,
        description,
    };
    // RFC 6749 §3.1: no parameter more than once.
    if params.has_repeated() {
        return Err(back("invalid_request", "a parameter is repeated"));
    }
    match params.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(back("unsupported_response_type", "only code")),
        None => return Err(back("invalid_request", "response_type is missing")),
    }
    if params.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(back("invalid_request", "response_mode is query"));
    }
    // RFC 7636 §4.4.1 and RFC 9700 §2.1.1: PKCE from every client; without a method it would mean `plain` (§4.3).
    let challenge = params
        .get("code_challenge")
        .ok_or_else(|| back("invalid_request", "code_challenge is required"))?;
    if params.get("code_challenge_method") != Some("S256") {
        return Err(back("invalid_request", "code_challenge_method must be S256"));
    }
    if !is_challenge(challenge) {
        return Err(back("invalid_request", "code_challenge is not a SHA-256 digest"));
    }
    let scope = params
        .get("scope")
        .and_then(Scopes::parse)
        .ok_or_else(|| back("invalid_scope", "ask for mail.read, mail.send or mail.write"))?;
    Ok(Request {
        redirect_uri: redirect_uri.to_owned(),
        challenge: challenge.to_owned(),
        state: state.clone(),
        scope,
    })
}

fn next_step(params: &Params, request: Request) -> Result<Step, Refusal> {
    let account = params
        .get("account")
        .and_then(accounts::find)
        .ok_or(Refusal::Here("There is no such account at Acme Mail."))?;
    match params.get("decision") {
        None => Ok(Step::Consent(request, account)),
        Some("allow") => {
            let scope = request
                .scope
                .only(|name| params.get(&format!("{BOX_PREFIX}{name}")).is_some());
            // Allowing nothing is a no.
            Ok(if scope.is_empty() {
                Step::Deny(request, account)
            } else {
                Step::Allow(request, account, scope)
            })
        }
        Some(_) => Ok(Step::Deny(request, account)),
    }
}

/// The base64url of 32 bytes: 43 characters.
fn is_challenge(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The parameters that make up a request and travel from page to page.
pub(super) const REQUEST_PARAMS: [&str; 8] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
];

/// A scope's box is named by this and the scope; one name per box, so that no parameter repeats.
pub(super) const BOX_PREFIX: &str = "scope.";
