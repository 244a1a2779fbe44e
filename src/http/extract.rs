//! What handlers are given: bodies through the strict gate, ids in their one form, credentials as secrets.
//!
//! Every extractor refuses with a typed [`Problem`]. None of them repairs.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{problem::Problem, query};
use crate::{
    crypto::{Gate, api_key},
    domain::{principal::KeyKind, secret::ApiKey, text},
};

/// A JSON body that passed the strict gate (crypto §5) as bytes and then became a `T`.
///
/// `T` should derive `Deserialize` with `deny_unknown_fields`.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, state).await?;
        through_gate(&bytes).map(Self)
    }
}

/// As [`StrictJson`], with the body as it came, for its digest: the same idempotency key belongs to the same bytes.
#[derive(Debug)]
pub struct DigestedJson<T> {
    /// The body.
    pub body: T,
    /// What it was read from.
    pub raw: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for DigestedJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, state).await?;
        Ok(Self {
            body: through_gate(&bytes)?,
            raw: bytes,
        })
    }
}

async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::invalid(
            "",
            "send the body as `Content-Type: application/json`",
        ));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::invalid("", "the body is too large")
        } else {
            Problem::invalid("", "the body could not be read to its end")
        }
    })
}

fn through_gate<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // How many bytes there may be is the body limit's to say, route by route.
    let gate = Gate {
        max_bytes: bytes.len(),
        ..Gate::ARGS
    };
    gate.from_slice(bytes)
        .map_err(|error| Problem::invalid(error.pointer.as_deref().unwrap_or(""), error.to_string()))
}

/// Reads a member of a body in its one form, refusing with a pointer to it.
///
/// # Errors
/// 400 when it has another form.
pub fn read<T: FromStr<Err: std::fmt::Display>>(pointer: &str, text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: T::Err| Problem::invalid(pointer, error.to_string()))
}

/// A short text of people, by the one rule for such texts, refusing with a pointer to it.
///
/// # Errors
/// 400 when it is something else.
pub fn line(pointer: &str, text: String, most: usize) -> Result<String, Problem> {
    match text::line(&text, most) {
        Ok(_) => Ok(text),
        Err(refused) => Err(Problem::invalid(pointer, refused.to_string())),
    }
}

/// The last id in the path. A wrong prefix or a non-canonical suffix is the one 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId<T>(pub T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        params
            .iter()
            .last()
            .and_then(|(_, text)| text.parse().ok())
            .map(Self)
            .ok_or_else(Problem::not_found)
    }
}

/// Query parameters: unknown ones, repeated ones and malformed ones are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrictQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query::parse(parts.uri.query().unwrap_or(""))
            .map(Self)
            .map_err(|error| Problem::invalid(error.pointer(), error.to_string()))
    }
}

/// `Authorization: Bearer ps…_…` (RFC 6750 §2.1): what kind of key it claims to be, and the key, not yet checked.
///
/// As `Option<BearerKey>`: `None` without the header, 401 when the header is there but is not one of our keys.
#[derive(Debug)]
pub struct BearerKey {
    /// What the prefix claims.
    pub claimed_kind: KeyKind,
    /// The key as presented.
    pub key: ApiKey,
}

impl BearerKey {
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Problem::unauthenticated().caused_by("more than one authorization header"));
        }
        value
            .to_str()
            .ok()
            .and_then(bearer_token)
            .map(Some)
            .ok_or_else(|| {
                Problem::unauthenticated().caused_by("the authorization header is not a key of ours")
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BearerKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)?
            .ok_or_else(|| Problem::unauthenticated().caused_by("no authorization header"))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for BearerKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::read(&parts.headers)
    }
}

fn bearer_token(value: &str) -> Option<BearerKey> {
    let (scheme, token) = value.split_once(' ')?;
    // RFC 9110 §11.1: the scheme is case-insensitive. The token is not, and carries no blanks.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (claimed_kind, key) = api_key::parse(token)?;
    Some(BearerKey { claimed_kind, key })
}

fn is_json(headers: &HeaderMap) -> bool {
    has_media_type(headers, "application/json")
}

/// Whether the one `Content-Type` names `expected`; the only parameter accepted is `charset=utf-8`.
pub(super) fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    parts
        .next()
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case(expected))
        && parts.all(|parameter| {
            parameter.eq_ignore_ascii_case("charset=utf-8")
                || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, response::IntoResponse as _, routing::get};
    use http_body_util::BodyExt as _;
    use serde::Deserialize;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        crypto::{OsRandomness, lookup::show_api_key},
        domain::GrantId,
    };

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: i64,
    }

    async fn json(content_type: Option<&str>, body: &'static str) -> Result<i64, u16> {
        let mut request = Request::builder().method("POST");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        StrictJson::<Point>::from_request(request.body(Body::from(body)).unwrap(), &())
            .await
            .map(|StrictJson(point)| point.x)
            .map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn a_json_body_is_read() {
        assert_eq!(json(Some("application/json"), r#"{"x":1}"#).await, Ok(1));
        assert_eq!(
            json(Some("Application/JSON; charset=UTF-8"), r#"{"x":1}"#).await,
            Ok(1)
        );
    }

    #[tokio::test]
    async fn another_content_type_is_refused() {
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/json; charset=latin1"),
            Some("application/jsonx"),
        ] {
            assert_eq!(
                json(content_type, r#"{"x":1}"#).await,
                Err(400),
                "{content_type:?}"
            );
        }
    }

    #[tokio::test]
    async fn malformed_and_unknown_members_are_refused() {
        for body in ["", "{", r#"{"x":"1"}"#, r#"{"x":1,"y":2}"#, r#"{"x":1} {"#] {
            assert_eq!(json(Some("application/json"), body).await, Err(400), "{body}");
        }
    }

    async fn at_path(path: &str) -> u16 {
        let app = Router::new().route(
            "/grants/{id}",
            get(|PathId(id): PathId<GrantId>| async move { id.to_string() }),
        );
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        app.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_canonical_ids_of_the_right_kind_reach_a_handler() {
        assert_eq!(at_path("/grants/grt_00000000000000000000000001").await, 200);
        for id in [
            "usr_00000000000000000000000001",
            "grt_8000000000000000000000000",
            "GRT_00000000000000000000000001",
            "x",
        ] {
            assert_eq!(at_path(&format!("/grants/{id}")).await, 404, "{id}");
        }
    }

    fn minted(kind: KeyKind) -> String {
        show_api_key(&api_key::mint(kind, &OsRandomness::new()).unwrap())
    }

    fn with_authorization(values: &[&str]) -> Result<Option<KeyKind>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        BearerKey::read(&headers).map(|key| key.map(|key| key.claimed_kind))
    }

    #[test]
    fn our_keys_are_told_apart_by_their_prefix() {
        for (scheme, kind) in [
            ("Bearer", KeyKind::Agent),
            ("bearer", KeyKind::Service),
            ("BEARER", KeyKind::Admin),
        ] {
            let value = format!("{scheme} {}", minted(kind));
            assert_eq!(with_authorization(&[&value]).unwrap(), Some(kind));
        }
        assert_eq!(with_authorization(&[]).unwrap(), None);
    }

    #[tokio::test]
    async fn every_other_authorization_has_the_same_answer() {
        let key = minted(KeyKind::Agent);
        let bearer = format!("Bearer {key}");
        let mut mistyped = bearer.clone();
        let last = mistyped.pop();
        mistyped.push(if last == Some('0') { '1' } else { '0' });
        let other_kind = bearer.replace("psa_", "psd_");
        let mut bodies = Vec::new();
        for values in [
            &["Bearer"][..],
            &[&mistyped],
            &[&other_kind],
            &[&bearer.replace(' ', "  ")],
            &[&bearer, &bearer],
            &[&key],
            &["Bearer "],
            &["Bearer psa_"],
            &["Bearer psx_abc"],
            &["Bearer psa_a b"],
            &["Basic cHNhXzE6"],
        ] {
            let problem = with_authorization(values).unwrap_err();
            bodies.push(
                problem
                    .into_response()
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes(),
            );
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_presented_key_does_not_show_in_debug_output() {
        let key = minted(KeyKind::Agent);
        let shown = format!("{:?}", bearer_token(&format!("Bearer {key}")).unwrap());
        assert!(!shown.contains(&key), "{shown}");
    }
}
