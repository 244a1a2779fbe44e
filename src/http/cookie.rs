//! Cookies: reading one of ours, and setting one with every attribute decided here.
//!
//! Under https every cookie is `__Host-` (or `__Secure-` where a path is needed), so that neither a sub-domain nor a
//! plain-http page can plant it. `postern dev` on loopback http has no secure cookies and uses the plain name.

use axum::http::{HeaderMap, HeaderValue, header};

/// What a `Set-Cookie` could not be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cookie value or path")]
pub struct InvalidCookie;

/// One kind of cookie of ours: its base name, and where it is sent.
#[derive(Debug, Clone, Copy)]
pub struct CookieKind {
    base: &'static str,
    path: &'static str,
}

impl CookieKind {
    /// A kind; `base` is the name without prefix, `path` where the browser sends it.
    #[must_use]
    pub const fn new(base: &'static str, path: &'static str) -> Self {
        Self { base, path }
    }

    /// The name in the browser.
    #[must_use]
    pub fn name(&self, https: bool) -> String {
        // RFC 6265bis §4.1.3: `__Host-` demands Path=/ and Secure, `__Secure-` only Secure.
        let prefix = match (https, self.path) {
            (false, _) => "",
            (true, "/") => "__Host-",
            (true, _) => "__Secure-",
        };
        format!("{prefix}{}", self.base)
    }

    /// The value the browser sent; `None` also when there are two, because one of them was planted.
    #[must_use]
    pub fn read<'h>(&self, headers: &'h HeaderMap, https: bool) -> Option<&'h str> {
        let name = self.name(https);
        let mut found = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value);
        let value = found.next()?;
        found.next().is_none().then_some(value)
    }

    /// The `Set-Cookie` value that plants it for `max_age_s` seconds; `None` ends with the browser's session.
    ///
    /// # Errors
    /// When the value holds anything but RFC 6265 §4.1.1 cookie-octets.
    pub fn set(
        &self,
        value: &str,
        max_age_s: Option<u64>,
        https: bool,
    ) -> Result<HeaderValue, InvalidCookie> {
        self.build(value, max_age_s, https)
    }

    /// The `Set-Cookie` value that removes it.
    ///
    /// # Errors
    /// Never for the kinds of this program; the path is checked like any other text.
    pub fn clear(&self, https: bool) -> Result<HeaderValue, InvalidCookie> {
        self.build("", Some(0), https)
    }

    fn build(&self, value: &str, max_age_s: Option<u64>, https: bool) -> Result<HeaderValue, InvalidCookie> {
        if !value.bytes().all(is_cookie_octet) || !self.path.starts_with('/') {
            return Err(InvalidCookie);
        }
        // Lax (RFC 6265bis §4.1.2.7): the provider's redirect comes from elsewhere and must bring the cookie back.
        let mut text = format!(
            "{}={value}; Path={}; HttpOnly; SameSite=Lax",
            self.name(https),
            self.path
        );
        if https {
            text.push_str("; Secure");
        }
        if let Some(seconds) = max_age_s {
            text.push_str(&format!("; Max-Age={seconds}"));
        }
        let mut header = HeaderValue::try_from(text).map_err(|_| InvalidCookie)?;
        // SECURITY: keeps the value out of debug output of headers.
        header.set_sensitive(true);
        Ok(header)
    }
}

/// The person's login (protocol §1).
pub const SESSION: CookieKind = CookieKind::new("postern_session", "/");
/// Binds a connect flow to the browser that started it (protocol §2).
pub const CONNECT: CookieKind = CookieKind::new("postern_connect", "/callback");

// RFC 6265 §4.1.1
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::COOKIE, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_session_cookie_is_host_bound_under_https() {
        assert_eq!(
            SESSION.set("abc", Some(60), true).unwrap(),
            "__Host-postern_session=abc; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60"
        );
    }

    #[test]
    fn a_cookie_with_a_path_is_secure_prefixed() {
        assert_eq!(
            CONNECT.set("abc", None, true).unwrap(),
            "__Secure-postern_connect=abc; Path=/callback; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn loopback_http_uses_the_plain_name() {
        assert_eq!(
            SESSION.clear(false).unwrap(),
            "postern_session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
        );
    }

    #[test]
    fn values_that_could_end_the_header_or_add_attributes_are_refused() {
        for value in ["a;b", "a b", "a\r\nSet-Cookie: x=y", "a,b", "a\"b", "a\\b", "ä"] {
            assert_eq!(SESSION.set(value, None, true), Err(InvalidCookie), "{value}");
        }
    }

    #[test]
    fn the_exact_name_is_read() {
        let headers = sent(&["other=1; __Host-postern_session=abc", "postern_session=planted"]);
        assert_eq!(SESSION.read(&headers, true), Some("abc"));
    }

    #[test]
    fn a_planted_second_cookie_means_none() {
        let headers = sent(&["__Host-postern_session=a; __Host-postern_session=b"]);
        assert_eq!(SESSION.read(&headers, true), None);
    }
}
