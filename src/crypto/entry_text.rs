//! Text from outside on its way into the log: capped in length, and with everything invisible made visible.
//!
//! Promises: the result is valid UTF-8, one line, at most `max` bytes, holds no control, ANSI, bidi or zero-width
//! character, and passing it through again changes nothing. The form is for reading, not for decoding: a text that
//! already holds `\u{0}` stays as it is.

use std::{borrow::Cow, fmt::Write as _};

/// Caps and escapes `text`: hidden characters become `\u{202e}`, too long a text ends in `…(N bytes)`.
#[must_use]
pub fn cap_text(text: &str, max: usize) -> Cow<'_, str> {
    if is_capped(text, max) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(cap(text.chars().map(Piece::Char), text.len(), max))
    }
}

/// Like [`cap_text`] for bytes that may not be UTF-8; broken bytes become `\x{ff}`.
#[must_use]
pub fn cap_bytes(bytes: &[u8], max: usize) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return cap_text(text, max);
    }
    let pieces = bytes.utf8_chunks().flat_map(|chunk| {
        let broken = chunk.invalid().iter().copied().map(Piece::Byte);
        chunk.valid().chars().map(Piece::Char).chain(broken)
    });
    Cow::Owned(cap(pieces, bytes.len(), max))
}

/// Whether [`cap_text`] would leave `text` as it is.
#[must_use]
pub fn is_capped(text: &str, max: usize) -> bool {
    text.len() <= max
        && (text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) || !text.chars().any(is_hidden))
}

enum Piece {
    Char(char),
    Byte(u8),
}

fn cap(pieces: impl Iterator<Item = Piece>, total: usize, max: usize) -> String {
    let marker = format!("…({total} bytes)");
    let mut text = String::new();
    let mut room_for_marker = 0;
    for piece in pieces {
        // Writing to a `String` cannot fail.
        let _ = match piece {
            Piece::Char(c) if is_hidden(c) => write!(text, "\\u{{{:x}}}", u32::from(c)),
            Piece::Char(c) => text.write_char(c),
            Piece::Byte(byte) => write!(text, "\\x{{{byte:02x}}}"),
        };
        if text.len() + marker.len() <= max {
            room_for_marker = text.len();
        }
        if text.len() > max {
            text.truncate(room_for_marker);
            if marker.len() <= max {
                text.push_str(&marker);
            }
            break;
        }
    }
    text
}

// SECURITY: what a terminal, a page or a person would not see, or would see in another order. The list is part of the
// log's format (docs/audit-log.md, tools/verify_audit.py), so it does not follow `domain::text::is_unseen`.
fn is_hidden(c: char) -> bool {
    c.is_control() // C0, DEL, C1: NUL, ANSI escapes, line breaks
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, bidi embeddings and overrides
            | '\u{2060}'..='\u{206f}' // word joiner, invisible operators, bidi isolates
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}') // tags and variation selectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        for text in ["", "messages.send", "Zoë ✓ 日本", r"\u{0}"] {
            assert!(
                matches!(cap_text(text, 64), Cow::Borrowed(same) if same == text),
                "{text}"
            );
        }
    }

    #[test]
    fn hidden_characters_are_made_visible() {
        assert_eq!(cap_text("a\0b", 64), r"a\u{0}b");
        assert_eq!(cap_text("\u{1b}[31mred\r\n", 64), r"\u{1b}[31mred\u{d}\u{a}");
        assert_eq!(cap_text("exe\u{202e}fdp", 64), r"exe\u{202e}fdp");
        assert_eq!(
            cap_text("a\u{200b}b\u{2028}\u{85}\u{e0041}", 64),
            r"a\u{200b}b\u{2028}\u{85}\u{e0041}"
        );
        assert_eq!(cap_bytes(b"ok\xff\xc3(", 64), r"ok\x{ff}\x{c3}(");
    }

    #[test]
    fn a_megabyte_is_cut_and_says_so() {
        let text = "é".repeat(524_288);
        let capped = cap_text(&text, 128);
        assert!(
            capped.len() <= 128 && capped.ends_with("…(1048576 bytes)"),
            "{capped}"
        );
    }

    proptest::proptest! {
        #[test]
        fn capping_twice_is_capping_once(text in "\\PC*|[\\x00-\\x{2070}]*", max in 0_usize..200) {
            let once = cap_text(&text, max).into_owned();
            proptest::prop_assert!(once.len() <= max);
            proptest::prop_assert!(is_capped(&once, max));
            proptest::prop_assert_eq!(cap_text(&once, max), once.as_str());
        }

        #[test]
        fn any_bytes_become_one_visible_line(bytes: Vec<u8>, max in 0_usize..200) {
            proptest::prop_assert!(is_capped(&cap_bytes(&bytes, max), max));
        }
    }
}
