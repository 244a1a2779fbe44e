//! The mask: finds what is shaped like a secret in a line of log.

use std::borrow::Cow;

/// The line with everything masked that is shaped like a secret.
#[must_use]
pub fn redact(line: &str) -> Cow<'_, str> {
    let mut masked: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        let starts_word = !line
            .get(..at)
            .is_some_and(|before| before.ends_with(|c: char| c.is_ascii_alphanumeric()));
        if let Some(secret) = starts_word.then(|| find(rest)).flatten() {
            let text = masked.get_or_insert_default();
            text.push_str(line.get(copied..at + secret.keep).unwrap_or(""));
            text.push_str(MASK);
            copied = at + secret.end;
            at = copied;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    match masked {
        None => Cow::Borrowed(line),
        Some(mut text) => {
            text.push_str(line.get(copied..).unwrap_or(""));
            Cow::Owned(text)
        }
    }
}

/// A secret at the start of a text: `keep` bytes say what it is, and it ends before `end`.
struct Secret {
    keep: usize,
    end: usize,
}

fn find(text: &str) -> Option<Secret> {
    prefixed(text)
        .or_else(|| jwt(text))
        .or_else(|| scheme(text))
        .or_else(|| named(text))
}

/// Our own keys and the well-known tokens of providers.
fn prefixed(text: &str) -> Option<Secret> {
    let prefix = PREFIXES.into_iter().find(|prefix| text.starts_with(prefix))?;
    let length = run(text.get(prefix.len()..)?, is_token_char);
    (length >= 8).then_some(Secret {
        keep: prefix.len(),
        end: prefix.len() + length,
    })
}

/// RFC 7515 §3.1: base64url of a JSON object always begins with `eyJ`.
fn jwt(text: &str) -> Option<Secret> {
    let end = run(text, |c| is_token_char(c) || c == '.');
    let token = text.get(..end)?;
    (token.starts_with("eyJ") && token.len() >= 20 && token.contains('.')).then_some(Secret { keep: 0, end })
}

/// RFC 9110 §11.4: scheme, blank, token68.
fn scheme(text: &str) -> Option<Secret> {
    let name = SCHEMES
        .into_iter()
        .find(|name| starts_with_ignoring_case(text, name))?;
    let rest = text.get(name.len()..)?;
    let blanks = run(rest, |c| c == ' ');
    let token = rest.get(blanks..)?;
    let length = run(token, |c| {
        is_token_char(c) || matches!(c, '.' | '~' | '+' | '/' | '=')
    });
    // "bearer authentication" is prose: one short word in lower case.
    let prose = length <= 20 && token.get(..length)?.bytes().all(|byte| byte.is_ascii_lowercase());
    let keep = name.len() + blanks;
    (blanks > 0 && length >= 8 && !prose).then_some(Secret {
        keep,
        end: keep + length,
    })
}

/// `name=value`, `"name":"value"`, `name: value`, also with escaped quotes.
fn named(text: &str) -> Option<Secret> {
    let name = NAMES
        .into_iter()
        .find(|name| starts_with_ignoring_case(text, name))?;
    let after_name = text.get(name.len()..)?;
    let before = run(after_name, is_quote_or_blank);
    let sign = after_name.get(before..)?;
    if !sign.starts_with(['=', ':']) {
        return None;
    }
    let rest = sign.get(1..)?;
    let quotes = run(rest, is_quote_or_blank);
    let quoted = rest.get(..quotes)?.contains(['"', '\'']);
    let value = rest.get(quotes..)?;
    let whole_line = name.eq_ignore_ascii_case("authorization") || name.ends_with("ookie");
    let length = if quoted || whole_line {
        run(value, |c| !matches!(c, '"' | '\'' | '\\' | '\n'))
    } else {
        run(value, |c| {
            !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\' | '&' | ',' | ';' | '}' | ')' | ']')
        })
    };
    let keep = name.len() + before + 1 + quotes;
    let already = value.starts_with(MASK) || value.starts_with("[REDACTED");
    (length > 0 && !already).then_some(Secret {
        keep,
        end: keep + length,
    })
}

/// How many bytes from the start belong to characters that pass.
fn run(text: &str, passes: impl Fn(char) -> bool) -> usize {
    text.find(|c| !passes(c)).unwrap_or(text.len())
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_quote_or_blank(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\' | ' ')
}

const MASK: &str = "[redacted]";
const PREFIXES: [&str; 15] = [
    "psa_", "pss_", "psd_", "psh_", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxe-", "ghp_", "gho_", "ghu_",
    "ghs_", "ghr_", "ya29.",
];
const SCHEMES: [&str; 3] = ["bearer", "dpop", "basic"];
const NAMES: [&str; 15] = [
    "refresh_token",
    "access_token",
    "id_token",
    "client_secret",
    "client_assertion",
    "code_verifier",
    "subject_token",
    "api_key",
    "apikey",
    "password",
    "passphrase",
    "authorization",
    "set-cookie",
    "cookie",
    "login_token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shaped_like_a_secret_is_masked() {
        for (line, expected) in [
            ("key psa_0123456789abcdef.", "key psa_[redacted]."),
            (
                "pss_0123456789 psd_0123456789 psh_0123456789",
                "pss_[redacted] psd_[redacted] psh_[redacted]",
            ),
            (
                "sent eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln now",
                "sent [redacted] now",
            ),
            ("Authorization: Bearer abc.DEF-123", "Authorization: [redacted]"),
            ("with bearer 0123456789abcdefghij", "with bearer [redacted]"),
            (
                "refresh_token=abc&grant_type=x",
                "refresh_token=[redacted]&grant_type=x",
            ),
            (
                r#"{"access_token":"a b","n":1}"#,
                r#"{"access_token":"[redacted]","n":1}"#,
            ),
            (
                r#""{\"client_secret\": \"s\"}""#,
                r#""{\"client_secret\": \"[redacted]\"}""#,
            ),
            ("Cookie: a=b; c=d", "Cookie: [redacted]"),
            (
                "slack xoxb-1234567890-abc github ghp_0123456789",
                "slack xoxb-[redacted] github ghp_[redacted]",
            ),
            ("ä psa_0123456789 ö", "ä psa_[redacted] ö"),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn ordinary_lines_stay() {
        for line in [
            "",
            "vended grt_01h2xcejqtf2nbrexx3vqjhp41 for agt_01h2xcejqtf2nbrexx3vqjhp41",
            "bearer authentication is required",
            "the refresh_token was rotated",
            "a key begins with psa_",
            "Basic checks passed",
            r#"{"code":"denied","status":403}"#,
        ] {
            assert_eq!(redact(line), line);
        }
    }

    #[test]
    fn masking_twice_changes_nothing_more() {
        let once = redact("Authorization: Bearer psa_0123456789 refresh_token=\"x\"").into_owned();
        assert_eq!(redact(&once), once);
    }
}
