//! Hosts, form tokens, redirects and headers.

use axum::{body::Body, routing::get};
use tower::ServiceExt as _;

use super::*;

fn site(url: &str) -> Site {
    Site::new(&Url::parse(url).unwrap()).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn asked(site: &Site, host: &str) -> bool {
    site.is_asked(
        &Request::builder()
            .uri("/")
            .header("host", host)
            .body(Body::empty())
            .unwrap(),
    )
}

#[test]
fn only_the_public_host_is_answered() {
    let public = site("https://postern.example/");
    for host in ["postern.example", "POSTERN.example", "postern.example:443"] {
        assert!(asked(&public, host), "{host}");
    }
    for host in [
        "postern.example:80",
        "postern.example.evil.test",
        "evil.test",
        "",
        "postern.example.",
    ] {
        assert!(!asked(&public, host), "{host}");
    }
}

#[test]
fn a_loopback_site_needs_its_exact_port() {
    let dev = site("http://127.0.0.1:8700");
    assert!(asked(&dev, "127.0.0.1:8700"));
    for host in [
        "127.0.0.1",
        "localhost:8700",
        "127.0.0.1:8701",
        "rebound.test:8700",
    ] {
        assert!(!asked(&dev, host), "{host}");
    }
}

#[test]
fn a_form_from_our_own_page_passes() {
    let own = site("https://postern.example");
    for pairs in [
        &[
            ("origin", "https://postern.example"),
            ("sec-fetch-site", "same-origin"),
        ][..],
        &[("origin", "https://postern.example")],
        // What browsers send for a page with `Referrer-Policy: no-referrer`.
        &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "same-origin")],
    ] {
        assert!(own.check_form_origin(&headers(pairs)).is_ok(), "{pairs:?}");
    }
}

#[test]
fn a_form_from_elsewhere_is_refused() {
    let own = site("https://postern.example");
    for pairs in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "https://evil.test")],
        &[("origin", "http://postern.example")],
        &[("origin", "https://postern.example:8443")],
        &[
            ("origin", "https://postern.example"),
            ("sec-fetch-site", "cross-site"),
        ],
        &[
            ("origin", "https://postern.example"),
            ("sec-fetch-site", "same-site"),
        ],
        &[("origin", "https://postern.example"), ("sec-fetch-site", "none")],
        &[("origin", "https://evil.test"), ("sec-fetch-site", "same-origin")],
    ] {
        assert!(own.check_form_origin(&headers(pairs)).is_err(), "{pairs:?}");
    }
}

/// A toy MAC: enough to see that what is bound is bound.
struct Toy(u8);

impl CsrfKey for Toy {
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let mut state = [self.0; 32];
        for (index, byte) in message.iter().enumerate() {
            let slot = &mut state[index % 32];
            *slot = slot.rotate_left(3) ^ byte.wrapping_add(u8::try_from(index % 251).unwrap());
        }
        state
    }

    fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        self.mac(message) == tag
    }
}

#[test]
fn a_form_token_holds_for_its_session_and_form() {
    let token = CsrfToken::make(&Toy(1), b"session", "revoke");
    assert!(CsrfToken::verify(&Toy(1), b"session", "revoke", token.as_str()).is_ok());
}

#[test]
fn a_form_token_of_another_session_form_or_key_is_refused() {
    let token = CsrfToken::make(&Toy(1), b"session", "revoke");
    for (key, session, form, claimed) in [
        (Toy(1), b"another".as_slice(), "revoke", token.as_str()),
        (Toy(1), b"session", "confirm", token.as_str()),
        (Toy(1), b"sessionr", "evoke", token.as_str()),
        (Toy(2), b"session", "revoke", token.as_str()),
        (Toy(1), b"session", "revoke", ""),
        (Toy(1), b"session", "revoke", "!"),
    ] {
        assert!(
            CsrfToken::verify(&key, session, form, claimed).is_err(),
            "{form} {claimed}"
        );
    }
}

#[test]
fn redirects_stay_on_this_site() {
    assert_eq!(
        see_other("/connections?a=b").unwrap().headers()["location"],
        "/connections?a=b"
    );
    for path in [
        "https://evil.test",
        "//evil.test",
        "/\\evil.test",
        "/a\r\nSet-Cookie: x=y",
        "",
        "a",
        "/ä",
    ] {
        assert!(see_other(path).is_err(), "{path}");
    }
}

#[tokio::test]
async fn pages_carry_the_security_headers_and_may_choose_their_own_policy() {
    const OWN: &str = "default-src 'none'";
    let app = Router::new().route("/", get(|| async { "page" })).route(
        "/live",
        get(|| async { ([(header::CONTENT_SECURITY_POLICY, OWN)], "page") }),
    );
    let app = with_headers(app, &site("https://postern.example"));
    let answer = |path: &str| {
        app.clone()
            .oneshot(Request::builder().uri(path).body(Body::empty()).unwrap())
    };

    let plain = answer("/").await.unwrap();
    let shown = plain.headers();
    assert_eq!(shown["content-security-policy"], CSP_PAGE);
    assert_eq!(shown["x-content-type-options"], "nosniff");
    assert_eq!(shown["referrer-policy"], "no-referrer");
    assert_eq!(shown["x-frame-options"], "DENY");
    assert_eq!(shown["cross-origin-opener-policy"], "same-origin");
    assert_eq!(shown["cache-control"], "no-store");
    assert!(shown.contains_key("permissions-policy") && shown.contains_key("strict-transport-security"));

    let live = answer("/live").await.unwrap();
    assert_eq!(live.headers()["content-security-policy"], OWN);
}

#[tokio::test]
async fn hsts_is_not_promised_over_plain_http() {
    let app = with_headers(
        Router::new().route("/", get(|| async { "page" })),
        &site("http://127.0.0.1:1"),
    );
    let answer = app
        .oneshot(Request::builder().uri("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert!(!answer.headers().contains_key("strict-transport-security"));
}
