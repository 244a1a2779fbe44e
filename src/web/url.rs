//! Texts that go into URLs of a page: one-time tokens of ours, and addresses outside.

use std::fmt;

/// A one-time text in a path or a hidden field: letters, digits, `-`, `_`, `.` and `~` only (RFC 3986 §2.3).
///
/// SECURITY: whoever has one may use it; it is never logged, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlToken(String);

impl UrlToken {
    /// Takes the text if every character may stand in a path unescaped and it has 1 to 512 of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=512).contains(&text.len())
            && !matches!(text, "." | "..")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'));
        fits.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for UrlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UrlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlToken(…)")
    }
}

/// An absolute `http` or `https` address a page may send the browser to: the provider, or a host's return URL.
///
/// SECURITY: no `javascript:` or `data:` URL ever reaches a link or a refresh. It may carry `state` or a code, so
/// `Debug` shows the host alone.
#[derive(Clone, PartialEq, Eq)]
pub struct OutwardUrl(::url::Url);

impl OutwardUrl {
    /// Takes the address if it is absolute, `http` or `https`, and has no user name or password in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = ::url::Url::parse(text).ok()?;
        let fits = matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none();
        fits.then_some(Self(url))
    }

    /// The host, and the port if it is not the usual one.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for OutwardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Debug for OutwardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutwardUrl({})", self.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_narrow() {
        for text in ["", "a/b", "a\"b", "a b", "a%2f", "é", "..", ".", &"a".repeat(513)] {
            assert!(UrlToken::parse(text).is_none(), "{text}");
        }
        assert!(UrlToken::parse("Zm9v-_.~9").is_some());
    }

    #[test]
    fn only_web_addresses_lead_outward() {
        for text in [
            "javascript:alert(1)",
            "data:text/html,x",
            "/connections",
            "//evil.example",
            "https://a:b@c.example/",
            "",
        ] {
            assert!(OutwardUrl::parse(text).is_none(), "{text}");
        }
        let url = OutwardUrl::parse("http://127.0.0.1:7700/authorize?state=x\"'<y").unwrap();
        assert_eq!(
            url.to_string(),
            "http://127.0.0.1:7700/authorize?state=x%22%27%3Cy"
        );
        assert_eq!(url.host(), "127.0.0.1:7700");
    }

    #[test]
    fn neither_shows_itself_in_a_log() {
        let url = OutwardUrl::parse("https://mail.example/cb?code=abc").unwrap();
        let text = format!("{:?} {url:?}", UrlToken::parse("abc").unwrap());
        assert!(!text.contains("abc"), "{text}");
    }
}
