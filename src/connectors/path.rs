//! URL paths: what a parameter may hold, what a canonical path is, which patterns it matches.

/// Percent-encodes everything but RFC 3986 §2.3 unreserved characters.
pub(super) fn encode_segment(text: &str) -> String {
    use std::fmt::Write as _;

    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Whether `text` may be one path segment.
///
/// SECURITY: `%` is refused altogether, so nothing can turn into a separator or a dot segment by decoding, however
/// often a server decodes.
pub(super) fn check_parameter(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text == "." || text == ".." {
        return Err("is a dot segment");
    }
    if text.contains(['/', '\\', '%', '?', '#']) {
        return Err("holds one of / \\ % ? #");
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    Ok(())
}

/// Checks that `path` has exactly one spelling, and yields its segments, decoded. A trailing slash is not a segment.
pub(super) fn canonical_segments(path: &str) -> Result<Vec<String>, &'static str> {
    let rest = path.strip_prefix('/').ok_or("does not start with /")?;
    if path.len() > 2048 {
        return Err("is too long");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return if path == "/" {
            Ok(Vec::new())
        } else {
            Err("has an empty segment")
        };
    }
    rest.split('/').map(decode_segment).collect()
}

fn decode_segment(segment: &str) -> Result<String, &'static str> {
    if segment.is_empty() {
        return Err("has an empty segment");
    }
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let value = match (bytes.next().and_then(upper_hex), bytes.next().and_then(upper_hex)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err("has a malformed percent-encoding"),
                };
                // An unreserved character has no business being encoded: two spellings of one path.
                if is_unreserved(value)
                    || matches!(value, b'/' | b'\\' | b'%' | b'?' | b'#' | 0..=0x1f | 0x7f)
                {
                    return Err("has a non-canonical percent-encoding");
                }
                decoded.push(value);
            }
            b'\\' | b'?' | b'#' | b';' => return Err("holds one of \\ ? # ;"),
            0x21..=0x7e => decoded.push(byte),
            _ => return Err("holds a character that must be percent-encoded"),
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| "is not UTF-8")?;
    check_parameter(&text).map(|()| text)
}

fn upper_hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether the pattern covers the segments. `*` at the end of a segment stands for the rest of that segment (alone:
/// any segment), `**` for any number of segments. Case does not count: some servers ignore it.
pub(super) fn matches(pattern: &str, segments: &[String]) -> bool {
    let pattern: Vec<&str> = pattern
        .trim_matches('/')
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    covers(&pattern, segments)
}

fn covers(pattern: &[&str], segments: &[String]) -> bool {
    match (pattern.split_first(), segments.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), segment) => {
            covers(rest, segments) || segment.is_some_and(|(_, others)| covers(pattern, others))
        }
        (Some((first, rest)), Some((segment, others))) => {
            segment_matches(first, segment) && covers(rest, others)
        }
        _ => false,
    }
}

fn segment_matches(pattern: &str, segment: &str) -> bool {
    let (pattern, segment) = (pattern.to_lowercase(), segment.to_lowercase());
    match pattern.strip_suffix('*') {
        Some(prefix) => segment.starts_with(prefix),
        None => pattern == segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(pattern: &str, path: &str) -> bool {
        matches(pattern, &canonical_segments(path).unwrap())
    }

    #[test]
    fn patterns_cover_segments() {
        assert!(covered("/a/*", "/a/b"));
        assert!(covered("/a/*", "/A/B/"));
        assert!(covered("/api/oauth.*", "/api/oauth.v2.access"));
        assert!(covered("/a/**", "/a"));
        assert!(covered("/a/**", "/a/b/c"));
        assert!(covered("/**/token", "/x/y/token"));
        assert!(!covered("/a/*", "/a"));
        assert!(!covered("/a/*", "/a/b/c"));
        assert!(!covered("/a", "/ab"));
    }

    #[test]
    fn a_path_has_one_spelling() {
        for path in [
            "",
            "a",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/a",
            "/%2E",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a?b",
            "/a#b",
            "/a;b=c",
            "/a%00",
            "/a%0A",
            "/a%25b",
            "/a%252Fb",
            "/a%41",
            "/a%zz",
            "/a%4",
            "/a%",
            "/a b",
            "/ä",
            "/a%c3%a4",
            "/a%FF",
            "/a\tb",
            "/a\nb",
            "/a\0",
            "/%7E",
        ] {
            assert!(canonical_segments(path).is_err(), "{path:?}");
        }
        assert_eq!(canonical_segments("/").unwrap(), Vec::<String>::new());
        assert_eq!(canonical_segments("/a/b%20c/").unwrap(), ["a", "b c"]);
        assert_eq!(canonical_segments("/%C3%A4@:!").unwrap(), ["ä@:!"]);
        assert_eq!(canonical_segments("/a...b").unwrap(), ["a...b"]);
    }
}
