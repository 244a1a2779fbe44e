//! `POST /revoke` (RFC 7009) and `POST /introspect` (RFC 7662).

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{
    AcmeMail, accounts,
    answer::Answer,
    client::invalid_client,
    fault::Target,
    grants::{Access, TokenHash},
    log::{Entry, Kind},
    params::Params,
};

/// Ends a token: a refresh token with its whole family, an access token alone.
pub(super) async fn endpoint(State(acme): State<AcmeMail>, headers: HeaderMap, body: Bytes) -> Response {
    let form = Params::from_form(&headers, &body);
    let entry = draft(Kind::Revoke, "/revoke", form.as_ref().ok());
    acme.serve(entry, Some(Target::Revoke), |entry, _| {
        form.and_then(|form| acme.revoke(&headers, &form, entry))
            .unwrap_or_else(|refusal| refusal)
    })
    .await
}

/// Tells the client what a token is worth now.
pub(super) async fn introspect(State(acme): State<AcmeMail>, headers: HeaderMap, body: Bytes) -> Response {
    let form = Params::from_form(&headers, &body);
    let entry = draft(Kind::Introspect, "/introspect", form.as_ref().ok());
    acme.serve(entry, Some(Target::Introspect), |entry, _| {
        form.and_then(|form| acme.inspect(&headers, &form, entry))
            .unwrap_or_else(|refusal| refusal)
    })
    .await
}

impl AcmeMail {
    fn revoke(&self, headers: &HeaderMap, form: &Params, entry: &mut Entry) -> Result<Answer, Answer> {
        let token = self.presented(headers, form, entry)?;
        entry.account = self.world().grants.revoke(&token);
        // RFC 7009 §2.2: 200 also for a token that is not known; there is nothing left to end.
        Ok(Answer::empty(StatusCode::OK))
    }

    fn inspect(&self, headers: &HeaderMap, form: &Params, entry: &mut Entry) -> Result<Answer, Answer> {
        // RFC 7662 §2.1: never without authorization, and a client id proves nothing.
        if !self.0.client.is_confidential() {
            return Err(invalid_client());
        }
        let token = self.presented(headers, form, entry)?;
        let now = self.now();
        let world = self.world();
        let access = world
            .grants
            .access(&token, now)
            .or_else(|| world.grants.refresh(&token, now));
        let Some(access) = access else {
            // RFC 7662 §2.2: nothing but `active` about a token that is not.
            return Ok(Answer::json(StatusCode::OK, json!({ "active": false })));
        };
        entry.account = Some(access.account.clone());
        entry.scope = Some(access.scope.to_string());
        Ok(Answer::json(StatusCode::OK, self.description(&access)))
    }

    fn description(&self, access: &Access) -> serde_json::Value {
        let mut body = json!({
            "active": true,
            "scope": access.scope.to_string(),
            "client_id": self.0.client.id,
            "username": access.account,
            "sub": accounts::find(&access.account).map(|account| account.subject),
            "iss": self.0.issuer,
            "iat": access.issued_at.unix_seconds(),
        });
        if let (Some(expires_at), Some(members)) = (access.expires_at, body.as_object_mut()) {
            members.insert("token_type".to_owned(), json!("Bearer"));
            members.insert("exp".to_owned(), json!(expires_at.unix_seconds()));
        }
        body
    }

    fn presented(&self, headers: &HeaderMap, form: &Params, entry: &mut Entry) -> Result<TokenHash, Answer> {
        self.0.client.authenticate(headers, form)?;
        entry.client_id = Some(self.0.client.id.clone());
        // `token_type_hint` only speeds up a search (RFC 7009 §2.1); here it is not needed.
        let token = form
            .get("token")
            .ok_or_else(|| Answer::invalid_request("token is missing"))?;
        Ok(TokenHash::of(token))
    }
}

fn draft(kind: Kind, path: &str, form: Option<&Params>) -> Entry {
    Entry {
        token_sha256: form.and_then(|form| form.get("token")).map(TokenHash::of),
        ..Entry::new(kind, "POST", path)
    }
}
