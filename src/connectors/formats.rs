//! The formats of text arguments: one strict parse yields what policy sees, what is shown and what is sent.

use serde_json::{Value, json};
use url::{Host, Url};

use crate::domain::connector::ArgFormat;

/// A text that passed its format.
pub(super) struct Parsed {
    /// What is hashed, shown and sent.
    pub(super) canonical: String,
    /// What policy reads.
    pub(super) policy: Value,
}

impl Parsed {
    fn plain(text: String) -> Self {
        Self {
            policy: Value::String(text.clone()),
            canonical: text,
        }
    }
}

/// Parses `text` as `format`.
pub(super) fn parse(format: ArgFormat, text: &str) -> Result<Parsed, &'static str> {
    match format {
        ArgFormat::Email => email(text),
        ArgFormat::Host => host(text).map(Parsed::plain),
        ArgFormat::Url => url(text).map(Parsed::plain),
        ArgFormat::Id => id(text),
        ArgFormat::Line => line(text),
    }
}

// RFC 5322 §3.4.1 addr-spec, the dot-atom form alone: no display name, no comment, no quoted local part, no
// address literal, no list. What two parsers could read differently is refused: also `%` and `!`, by which a mail server
// may be told to pass the message on to another domain (RFC 1123 §5.2.16; RFC 5321 §F.2).
fn email(text: &str) -> Result<Parsed, &'static str> {
    const NOT_ONE: &str = "is not one plain e-mail address";
    let (local, domain) = text.split_once('@').ok_or(NOT_ONE)?;
    let dot_atom = !local.is_empty()
        && local.len() <= 64 // RFC 5321 §4.5.3.1.1
        && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext));
    if !dot_atom || domain.contains('@') {
        return Err(NOT_ONE);
    }
    let domain = host(domain).map_err(|_| "has no valid domain")?;
    if !domain.contains('.') {
        return Err("has no valid domain");
    }
    let canonical = format!("{local}@{domain}");
    if canonical.len() > 254 {
        return Err("is too long"); // RFC 5321 §4.5.3.1.3, without the angle brackets
    }
    Ok(Parsed {
        canonical,
        policy: json!({"local": local, "domain": domain}),
    })
}

// RFC 5322 §3.2.3, but for the two that route.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"#$&'*+-/=?^_`{|}~".contains(&byte)
}

/// A DNS name in lower-case A-labels (RFC 5890 §2.3.2.1), never an address.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    const NOT_A_HOST: &str = "is not a host name";
    // The URL parser would decode `%`, and strip or map other characters; only what IDNA maps may change.
    if text.is_empty() || text.contains(['%', ':', '[', ']', '/', '\\', '?', '#', '@', ' ', '_']) {
        return Err(NOT_A_HOST);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NOT_A_HOST);
    }
    let Ok(Host::Domain(name)) = Host::parse(text) else {
        return Err(NOT_A_HOST);
    };
    let labels_fit = name.len() <= 253 && name.split('.').all(is_label);
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if labels_fit && !last_is_number {
        Ok(name)
    } else {
        Err(NOT_A_HOST)
    }
}

/// One DNS label in lower case (RFC 1123 §2.1).
pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn url(text: &str) -> Result<String, &'static str> {
    const NOT_A_URL: &str = "is not an absolute https url";
    if text
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return Err(NOT_A_URL);
    }
    let url = Url::parse(text).map_err(|_| NOT_A_URL)?;
    let plain = url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.as_str().len() <= 4096
        // `https:host` and `https:///host` parse too, but do not look like what they are.
        && text.to_ascii_lowercase().starts_with("https://")
        && !text.to_ascii_lowercase().starts_with("https:///");
    if plain { Ok(url.into()) } else { Err(NOT_A_URL) }
}

fn id(text: &str) -> Result<Parsed, &'static str> {
    super::path::check_parameter(text)?;
    if text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        Ok(Parsed::plain(text.to_owned()))
    } else {
        Err("holds a character an id cannot have")
    }
}

fn line(text: &str) -> Result<Parsed, &'static str> {
    // U+2028 and U+2029 are line ends to some readers.
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        Err("holds a control character or a line break")
    } else {
        Ok(Parsed::plain(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(format: ArgFormat, text: &str) -> Option<String> {
        parse(format, text).ok().map(|parsed| parsed.canonical)
    }

    #[test]
    fn an_email_is_one_plain_address() {
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b.example",
            "a@b",
            "a@@b.example",
            "a@b@c.example",
            "a@b.example,c@d.example",
            "a@b.example c@d.example",
            "a@b.example;c@d.example",
            "Ada <a@b.example>",
            "<a@b.example>",
            "a@b.example\r\nBcc: c@d.example",
            "a@b.example\n",
            "\ta@b.example",
            "a\0@b.example",
            "\"a b\"@b.example",
            "\"a@evil.example\"@b.example",
            "a(comment)@b.example",
            "a@b.example(comment)",
            ".a@b.example",
            "a.@b.example",
            "a..b@b.example",
            "a@b..example",
            "a@.example",
            "a@b.example.",
            "a@-b.example",
            "a@b-.example",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "a@0x7f.1",
            "a@1.2",
            "a@b.123",
            "a@b_c.example",
            "a@b%2eexample",
            "a@b.example/x",
            "a@b.example?x",
            "a@b.example#x",
            "a@b.example:25",
            "a@b\u{ad}.exa mple",
            "ä@b.example",
            "a@b.example\u{202e}",
            "a,b@c.example",
            "a:b@c.example",
            "mailto:a@b.example",
            "a\\@b.example",
            "a@xn--a.example",
            "x%evil.example@acme.example",
            "evil.example!x@acme.example",
        ] {
            assert_eq!(accepts(ArgFormat::Email, text), None, "{text:?}");
        }
        let long = format!("{}@b.example", "a".repeat(65));
        assert_eq!(accepts(ArgFormat::Email, &long), None);
        for (text, canonical) in [
            ("ada@acme.example", "ada@acme.example"),
            ("Ada.L+tag@ACME.Example", "Ada.L+tag@acme.example"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
            ("a@acme。example", "a@acme.example"),
            ("o'neil@acme.example", "o'neil@acme.example"),
        ] {
            assert_eq!(
                accepts(ArgFormat::Email, text).as_deref(),
                Some(canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn policy_sees_local_part_and_domain() {
        let parsed = parse(ArgFormat::Email, "Ada@BÜCHER.example").unwrap();
        assert_eq!(
            parsed.policy,
            json!({"local": "Ada", "domain": "xn--bcher-kva.example"})
        );
    }

    #[test]
    fn hosts_are_names_in_lower_case_labels() {
        for text in [
            "",
            "a b",
            "a/b",
            "1.2.3.4",
            "[::1]",
            "0x7f000001",
            "a:1",
            "-a.example",
            "a%2eb",
            "a.",
            "é\n",
        ] {
            assert_eq!(accepts(ArgFormat::Host, text), None, "{text:?}");
        }
        assert_eq!(
            accepts(ArgFormat::Host, "API.Acme.Example").as_deref(),
            Some("api.acme.example")
        );
    }

    #[test]
    fn urls_are_absolute_https() {
        for text in [
            "",
            "x",
            "/x",
            "//x.example",
            "http://x.example/",
            "https:x.example",
            "https:///x.example",
            "https://u@x.example/",
            "https://u:p@x.example/",
            "https://x.example/\r\nb",
            "https://x.exa\tmple/",
            "https://x.example\\@evil.example/",
            " https://x.example/",
            "javascript:alert(1)",
            "https://",
            "data:,x",
        ] {
            assert_eq!(accepts(ArgFormat::Url, text), None, "{text:?}");
        }
        assert_eq!(
            accepts(ArgFormat::Url, "HTTPS://X.example").as_deref(),
            Some("https://x.example/")
        );
    }

    #[test]
    fn ids_and_lines_refuse_what_breaks_out() {
        for text in [
            "", ".", "..", "a/b", "a\\b", "a%2fb", "a?b", "a#b", "a b", "a\nb", "a\0", "ä", "a\u{7f}",
        ] {
            assert_eq!(accepts(ArgFormat::Id, text), None, "{text:?}");
        }
        for text in [
            "a\rb",
            "a\nb",
            "a\0b",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{7f}b",
            "\u{1b}[31m",
        ] {
            assert_eq!(accepts(ArgFormat::Line, text), None, "{text:?}");
        }
        assert_eq!(accepts(ArgFormat::Id, "C024BE91L").as_deref(), Some("C024BE91L"));
        assert_eq!(
            accepts(ArgFormat::Line, "Grüße, 你好 ").as_deref(),
            Some("Grüße, 你好 ")
        );
    }
}
