//! `GET /callback/{connector}`: back from the provider. Read strictly, because everything in it is a stranger's.
//!
//! SECURITY: `code` and `state` are never logged and never shown; the answer is a redirect, so that they do not stay in
//! the address bar.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use url::form_urlencoded;

use super::{
    Pages,
    answer::{go_to, with_cookie},
    connect::CONFIRM,
    connect_failure::{self, Stage, explain},
    failure::Failure,
    session::{Id, Visitor},
};
use crate::{
    crypto::{lookup, random},
    domain::{
        connector::ConnectorId,
        secret::{AuthorizationCode, LinkToken},
    },
    flows::connect::{LINK_LIFE, callback},
    http::cookie::CONNECT,
};

/// What the binding cookie holds: the browser's secret, and which link it went out by.
#[derive(Debug)]
pub(super) struct Binding {
    browser: LinkToken,
    link: LinkToken,
}

impl Binding {
    /// The cookie's value. Both halves are base64url, so the dot parts them.
    pub(super) fn value(browser: &LinkToken, link: &LinkToken) -> String {
        format!("{}.{}", lookup::show_link(browser), lookup::show_link(link))
    }

    fn parse(text: &str) -> Option<Self> {
        let (browser, link) = text.split_once('.')?;
        Some(Self {
            browser: random::parse_link_token(browser)?,
            link: random::parse_link_token(link)?,
        })
    }
}

/// Receives the provider's answer; on success the person goes on to the confirm page of their link.
pub(super) async fn receive(
    State(pages): State<Pages>,
    visitor: Visitor,
    connector: Result<Id<ConnectorId>, Failure>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let Ok(Id(connector)) = connector else {
        return Err(connect_failure::security(&visitor, "context"));
    };
    let answer = parse(uri.query().unwrap_or_default())
        .map_err(|fault| connect_failure::security(&visitor, fault.0))?;
    let https = pages.site.is_https();
    let binding = CONNECT.read(&headers, https).and_then(Binding::parse);
    // The cookie's link must be the one whose `state` came back: then the confirm page that follows is its own.
    let binding = binding.filter(|binding| {
        let own = deps.state_of(&binding.link).ok();
        own.is_some() && own == answer.state
    });
    let (browser, link) = match binding {
        Some(Binding { browser, link }) => (Some(browser), Some(link)),
        None => (None, None),
    };
    let cookie = browser.as_ref().map(lookup::show_link);
    let provider_error = answer.error.clone();
    let received = callback::receive(deps, &connector, answer, browser, visitor.to_flow()).await;
    match (received, link, cookie) {
        (Ok(_), Some(link), Some(cookie)) => {
            let onward = go_to(&format!("/connect/{}/confirm", lookup::show_link(&link)))?;
            with_cookie(onward, CONFIRM.set(&cookie, Some(LINK_LIFE.as_secs()), https))
        }
        (Ok(_), ..) => Err(Failure::internal("a callback passed without its cookie")),
        (Err(failure), link, _) => {
            let error = provider_error.as_deref();
            Err(explain(deps, failure, Stage::Callback, link.as_ref(), &visitor, error).await)
        }
    }
}

/// HEAD: it would run what only a navigation may, so for it there is nothing here.
pub(super) async fn refuse() -> Failure {
    Failure::not_found()
}

/// Which check of the query failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault(&'static str);

/// Reads the query of a callback; nothing of it has been looked up yet.
fn parse(query: &str) -> Result<callback::Answer, Fault> {
    if query.len() > LONGEST_QUERY {
        return Err(Fault("the query of a callback is too long"));
    }
    let mut answer = callback::Answer::default();
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        // RFC 6749 §3.1: parameters MUST NOT be included more than once; §4.1.2: unknown ones are ignored.
        if seen.iter().any(|before| *before == name) {
            return Err(Fault("a parameter came twice"));
        }
        if seen.len() >= MOST_PARAMETERS {
            return Err(Fault("too many parameters"));
        }
        match &*name {
            "code" => answer.code = Some(AuthorizationCode::new(text(&value, is_vschar)?)),
            "state" => answer.state = Some(text(&value, is_vschar)?),
            "iss" => answer.iss = Some(text(&value, is_vschar)?),
            "error" => answer.error = Some(text(&value, is_nqschar)?),
            _ => {}
        }
        seen.push(name.into_owned());
    }
    if answer.code.is_some() && answer.error.is_some() {
        return Err(Fault("a code and an error together"));
    }
    Ok(answer)
}

/// A value of the form RFC 6749 appendix A gives it. An empty one means nothing, so nobody sends it.
fn text(value: &str, fits: impl Fn(u8) -> bool) -> Result<String, Fault> {
    if value.is_empty() || !value.bytes().all(fits) {
        return Err(Fault("a parameter of another form"));
    }
    Ok(value.to_owned())
}

// RFC 6749 appendix A: VSCHAR = %x20-7E
fn is_vschar(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

// RFC 6749 appendix A: NQSCHAR = %x20-21 / %x23-5B / %x5D-7E
fn is_nqschar(byte: u8) -> bool {
    matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

/// Codes of some providers are long, but not this long.
const LONGEST_QUERY: usize = 16 * 1024;
const MOST_PARAMETERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = parse("code=a%2Bb&state=s&iss=https%3A%2F%2Fop.example&session_state=x").unwrap();
        assert_eq!(answer.code.unwrap().expose_secret(), "a+b");
        assert_eq!(answer.state.as_deref(), Some("s"));
        assert_eq!(answer.iss.as_deref(), Some("https://op.example"));
        assert_eq!(answer.error, None);
    }

    #[test]
    fn a_parameter_twice_is_refused_whatever_it_is() {
        for query in [
            "state=a&state=a",
            "code=a&code=b",
            "iss=a&iss=a",
            "x=1&x=1",
            "st%61te=a&state=a",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_code_and_an_error_together_are_refused() {
        assert!(parse("state=s&code=c&error=access_denied").is_err());
    }

    #[test]
    fn empty_values_and_values_of_another_form_are_refused() {
        for query in [
            "state=",
            "code=&state=s",
            "state=%00",
            "code=%0d%0a",
            "state=%C3%A4",
            "state=%FF",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
        assert!(parse("error=server_error%22%3E%3Cscript%3E").is_err());
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        let many: String = (0..100).map(|number| format!("&x{number}=1")).collect();
        assert!(parse(&format!("state=s{many}")).is_err());
        assert!(parse(&format!("state=s&x={}", "1".repeat(20_000))).is_err());
    }

    fn token(letter: &str) -> LinkToken {
        random::parse_link_token(&format!("{}A", letter.repeat(42))).unwrap()
    }

    #[test]
    fn the_binding_cookie_holds_browser_and_link() {
        let (browser, link) = (token("b"), token("l"));
        let binding = Binding::parse(&Binding::value(&browser, &link)).unwrap();
        assert_eq!(binding.browser.expose_secret(), browser.expose_secret());
        assert_eq!(binding.link.expose_secret(), link.expose_secret());
    }

    #[test]
    fn a_binding_cookie_of_another_form_is_none() {
        let good = Binding::value(&token("b"), &token("l"));
        let half = lookup::show_link(&token("b"));
        for text in [
            String::new(),
            ".".to_owned(),
            half.clone(),
            format!("{half}."),
            format!(".{half}"),
            format!("{good}."),
            format!("{good}x"),
            format!("{half}.{half}.{half}"),
            good.replace('.', "/"),
        ] {
            assert!(Binding::parse(&text).is_none(), "{text}");
        }
    }
}
