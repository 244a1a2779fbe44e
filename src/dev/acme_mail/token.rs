//! `POST /token` (RFC 6749 §4.1.3, §6).

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{
    AcmeMail,
    answer::Answer,
    fault::{Fault, Target},
    grants::{ACCESS_LIFE, Grants, Refusal, Renewal, TokenHash},
    log::{Entry, Kind},
    params::Params,
    scopes::Scopes,
};
use crate::domain::Time;

/// Buys tokens for a code or a refresh token.
pub(super) async fn endpoint(State(acme): State<AcmeMail>, headers: HeaderMap, body: Bytes) -> Response {
    let form = Params::from_form(&headers, &body);
    let mut entry = Entry::new(Kind::Token, "POST", "/token");
    if let Ok(form) = &form {
        entry.grant_type = form.get("grant_type").map(known_grant_type);
        entry.token_sha256 = form
            .get("refresh_token")
            .or_else(|| form.get("code"))
            .map(TokenHash::of);
    }
    acme.serve(entry, Some(Target::Token), |entry, fault| {
        form.and_then(|form| acme.exchange(&headers, &form, entry, fault))
            .unwrap_or_else(|refusal| refusal)
    })
    .await
}

impl AcmeMail {
    fn exchange(
        &self,
        headers: &HeaderMap,
        form: &Params,
        entry: &mut Entry,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        self.0.client.authenticate(headers, form)?;
        entry.client_id = Some(self.0.client.id.clone());
        // Minted before anything is spent: a generator that fails costs nobody their refresh token.
        let access = self.mint("acme_at_")?;
        let refresh = self.mint("acme_rt_")?;
        let now = self.now();
        let mut world = self.world();
        let mut renewal = match required(form, "grant_type")? {
            "authorization_code" => redeem(&mut world.grants, form, fault, now)?,
            "refresh_token" => rotate(&mut world.grants, form, now)?,
            _ => {
                return Err(bad_request(
                    "unsupported_grant_type",
                    "use a code or a refresh token",
                ));
            }
        };
        if fault.is_some_and(|fault| fault.widen_scope) {
            renewal.scope = Scopes::too_wide();
        }
        world
            .grants
            .enter(&renewal, access.hash.clone(), refresh.hash.clone(), now);
        entry.account = Some(renewal.account);
        entry.scope = Some(renewal.scope.to_string());
        entry.issued_access_sha256 = Some(access.hash);
        entry.issued_refresh_sha256 = Some(refresh.hash);
        let body = json!({
            "access_token": access.text,
            "token_type": "Bearer",
            "expires_in": ACCESS_LIFE.as_secs(),
            "refresh_token": refresh.text,
            "scope": renewal.scope.to_string(),
        });
        Ok(Answer::json(StatusCode::OK, body))
    }
}

fn redeem(grants: &mut Grants, form: &Params, fault: Option<&Fault>, now: Time) -> Result<Renewal, Answer> {
    let code = TokenHash::of(required(form, "code")?);
    let redirect_uri = required(form, "redirect_uri")?;
    let verifier = required(form, "code_verifier")?;
    let account = fault.and_then(|fault| fault.wrong_account.as_deref());
    grants
        .redeem(&code, redirect_uri, verifier, account, now)
        .map_err(refused)
}

fn rotate(grants: &mut Grants, form: &Params, now: Time) -> Result<Renewal, Answer> {
    let token = TokenHash::of(required(form, "refresh_token")?);
    let narrower = match form.get("scope") {
        None => None,
        Some(text) => Some(Scopes::parse(text).ok_or_else(|| refused(Refusal::ScopeTooWide))?),
    };
    grants.rotate(&token, narrower.as_ref(), now).map_err(refused)
}

fn refused(refusal: Refusal) -> Answer {
    let (code, description) = match refusal {
        Refusal::Unknown => ("invalid_grant", "not known here"),
        Refusal::Expired => ("invalid_grant", "expired"),
        Refusal::Reused => ("invalid_grant", "used before; everything it bought has ended"),
        Refusal::Ended => ("invalid_grant", "revoked"),
        Refusal::WrongRedirect => ("invalid_grant", "redirect_uri is not the one of the request"),
        Refusal::WrongVerifier => ("invalid_grant", "code_verifier does not match"),
        Refusal::ScopeTooWide => ("invalid_scope", "more than was granted"),
    };
    bad_request(code, description)
}

fn required<'a>(form: &'a Params, name: &str) -> Result<&'a str, Answer> {
    form.get(name)
        .ok_or_else(|| Answer::invalid_request(&format!("{name} is missing")))
}

fn bad_request(code: &str, description: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, code, description)
}

/// SECURITY: what a caller writes there could be a token in the wrong field; only known words reach the log.
fn known_grant_type(text: &str) -> String {
    match text {
        "authorization_code" | "refresh_token" => text.to_owned(),
        _ => "other".to_owned(),
    }
}
