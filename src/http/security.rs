//! What keeps a browser honest: headers, the host it asked, the origin it came from, and the form's own token.
//!
//! A form POST must pass both [`Site::check_form_origin`] and [`CsrfToken::verify`]; either alone would do on a good day.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use super::problem::Problem;

/// The policy of pages without scripts; what a page gets unless its handler sets another.
pub const CSP_PAGE: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                            frame-ancestors 'none'; base-uri 'none'";

/// The public face of this installation: scheme, host and port that browsers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    origin: String,
    authority: String,
    https: bool,
}

/// The URL has no host or is neither http nor https.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https origin")]
pub struct NotAnOrigin;

impl Site {
    /// The site behind a public URL.
    ///
    /// # Errors
    /// When the URL is not http(s) with a host.
    pub fn new(public_url: &Url) -> Result<Self, NotAnOrigin> {
        let host = public_url.host_str().ok_or(NotAnOrigin)?;
        if !matches!(public_url.scheme(), "http" | "https") {
            return Err(NotAnOrigin);
        }
        let authority = match public_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            origin: public_url.origin().ascii_serialization(),
            authority,
            https: public_url.scheme() == "https",
        })
    }

    /// Whether browsers reach it by https; decides cookie names and HSTS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Whether the request was made to this host: exactly one `Host`, and the same in an absolute-form target.
    #[must_use]
    pub fn is_asked(&self, request: &Request) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let same = |text: &str| text.eq_ignore_ascii_case(&self.authority) || self.with_default_port(text);
        host.to_str().is_ok_and(same)
            && request
                .uri()
                .authority()
                .is_none_or(|authority| same(authority.as_str()))
    }

    fn with_default_port(&self, text: &str) -> bool {
        let port = if self.https { ":443" } else { ":80" };
        text.strip_suffix(port)
            .is_some_and(|host| host.eq_ignore_ascii_case(&self.authority))
    }

    /// Whether a state-changing form came from one of our own pages.
    ///
    /// Browsers that send `Sec-Fetch-Site` must say `same-origin`; then `Origin` may be `null`, because our own
    /// `Referrer-Policy: no-referrer` makes it so (Fetch, "append a request `Origin` header"). Without it `Origin` must
    /// be ours.
    ///
    /// # Errors
    /// 403 when it did not.
    pub fn check_form_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let origin = single(headers, &header::ORIGIN);
        let own = origin == One(self.origin.as_str());
        let honest = match single(headers, &SEC_FETCH_SITE) {
            One("same-origin") => own || matches!(origin, One("null") | Nothing),
            Nothing => own,
            One(_) | Unclear => false,
        };
        if honest {
            Ok(())
        } else {
            Err(cross_site("the form came from another origin"))
        }
    }
}

/// Refuses every request that names another host (DNS rebinding, cache poisoning).
pub fn require_host(app: Router, site: Site) -> Router {
    let site = Arc::new(site);
    app.layer(middleware::from_fn(move |request: Request, next: Next| {
        let site = Arc::clone(&site);
        async move {
            if site.is_asked(&request) {
                next.run(request).await
            } else {
                Problem::invalid("", "this server does not answer for that host").into_response()
            }
        }
    }))
}

/// Adds the security headers to every answer; what a handler has set itself stays.
pub fn with_headers(app: Router, site: &Site) -> Router {
    let https = site.is_https();
    app.layer(middleware::from_fn(
        move |request: Request, next: Next| async move {
            let mut response = next.run(request).await;
            add_headers(response.headers_mut(), https);
            response
        },
    ))
}

fn add_headers(headers: &mut HeaderMap, https: bool) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP_PAGE),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            PERMISSIONS_POLICY,
            "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
        ),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if https {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static("max-age=63072000; includeSubDomains"));
    }
}

/// The key behind form tokens: a MAC over a message. `app` implements it with an instance key of `crypto`.
pub trait CsrfKey: Send + Sync {
    /// A 32-byte MAC.
    fn mac(&self, message: &[u8]) -> [u8; 32];

    /// Whether `tag` is the MAC of `message`, in constant time.
    fn verify(&self, message: &[u8], tag: &[u8]) -> bool;
}

/// The token a page puts into one of its forms: a MAC over (session, form), so it needs no storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrfToken(String);

impl CsrfToken {
    /// The token for `form` in the session `session`: an id or hash of it, never the cookie itself. A page that nobody
    /// is logged in to uses the hash of its own link.
    #[must_use]
    pub fn make(key: &dyn CsrfKey, session: &[u8], form: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(key.mac(&csrf_message(session, form))))
    }

    /// The text for the hidden field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks what came back.
    ///
    /// # Errors
    /// 403 when it is not the token of this session and form.
    pub fn verify(key: &dyn CsrfKey, session: &[u8], form: &str, claimed: &str) -> Result<(), Problem> {
        let tag = URL_SAFE_NO_PAD.decode(claimed).unwrap_or_default();
        if tag.len() == 32 && key.verify(&csrf_message(session, form), &tag) {
            Ok(())
        } else {
            Err(cross_site("the form's token is not of this session"))
        }
    }
}

/// Length-prefixed, so that no pair of session and form reads as another.
fn csrf_message(session: &[u8], form: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(session.len() + form.len() + 32);
    for part in [b"postern/csrf/1".as_slice(), session, form.as_bytes()] {
        message.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn cross_site(cause: &'static str) -> Problem {
    Problem::denied("cross_site_request", None, None)
        .with_detail(
            "This form did not come from a page of this server, or the page is too old. Open it again.",
        )
        .caused_by(cause)
}

/// 303 to a page of ours. RFC 9110 §15.4.4: the browser follows with GET.
///
/// # Errors
/// 500 when `path` could lead off this site or break the header: it must start with one `/` and be visible ASCII.
pub fn see_other(path: &str) -> Result<Response, Problem> {
    let local = path.starts_with('/')
        && !path.starts_with("//")
        && path
            .bytes()
            .all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\');
    let value = HeaderValue::try_from(path).ok().filter(|_| local);
    let location = value.ok_or_else(|| Problem::internal("a redirect target was not a local path"))?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Single<'h> {
    Nothing,
    One(&'h str),
    Unclear,
}
use Single::{Nothing, One, Unclear};

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Single<'h> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Nothing,
        (Some(value), None) => value.to_str().map_or(Unclear, One),
        (Some(_), Some(_)) => Unclear,
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

#[cfg(test)]
mod tests;
