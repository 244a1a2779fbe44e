//! Text that people read: what a reader would not see, one list for every door that shows or refuses such characters,
//! and the one rule for names, labels and reasons.

/// Whether a reader would not see this character, or would see others moved by it.
///
/// Controls, format characters, separators that break lines, fillers and variation selectors (Unicode TR36 §2,
/// UTS 39 §3.1, and the property `Default_Ignorable_Code_Point`).
#[must_use]
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(u32::from(letter),
            0x00ad | 0x034f | 0x0600..=0x0605 | 0x061c | 0x06dd | 0x070f | 0x08e2
            | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f
            | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1345f
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

/// A text that is no line for people to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to {most} characters in one line, none that hides or moves others")]
pub struct NotALine {
    most: usize,
}

/// Reads a name, a label or a reason: 1 to `most` characters in one line, something of it to be seen, and none that hides
/// or moves others. Joiners and variation selectors are let in where there is something to see: living scripts and emoji
/// need them, and whatever shows the text spells them out.
///
/// # Errors
/// When it is something else.
// SECURITY: an agent called "Mail\u{202e}…" would be read as another one, in a terminal, a log or a policy file.
pub fn line(text: &str, most: usize) -> Result<&str, NotALine> {
    let fits = text.chars().nth(most).is_none();
    let seen = text
        .chars()
        .any(|letter| !letter.is_whitespace() && !is_unseen(letter));
    let plain = text.chars().all(|letter| !is_unseen(letter) || shapes(letter));
    if fits && seen && plain {
        Ok(text)
    } else {
        Err(NotALine { most })
    }
}

/// Characters in the name of an organisation, an agent, an engine or a host application.
pub const LONGEST_NAME: usize = 80;

/// Whether an unseen character only shapes the ones beside it.
fn shapes(letter: char) -> bool {
    matches!(letter, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether it is one plain mail address: ASCII, one `@`, nothing that a header or a list would read as more than that.
#[must_use]
pub fn is_mail_address(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b",;<>\"()\\@".contains(&byte);
    text.len() <= 254
        && matches!(text.split_once('@'), Some((local, domain))
            if !local.is_empty() && local.bytes().all(plain) && is_mail_domain(domain))
}

/// Whether it is a domain as mail uses it. SECURITY: one label would be a whole top-level domain.
#[must_use]
pub fn is_mail_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_are_lines() {
        for name in [
            "Mail Assistant",
            "Zoë O’Neill",
            "שלום",
            "東京支社",
            "می\u{200c}خواهم",
            "⚠\u{fe0f} lost laptop",
            "👩\u{200d}💻",
            &"x".repeat(80),
        ] {
            assert_eq!(line(name, 80), Ok(name));
        }
    }

    #[test]
    fn what_hides_or_moves_others_is_in_no_line() {
        let long = "x".repeat(81);
        for name in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{200d}",
            "\u{2800}",
            &long,
            "two\nlines",
            "two\u{2028}lines",
            "a\0",
            "a\u{1b}[31m",
            "a\u{7f}",
            "a\u{85}",
            "Mail \u{202e}tnatsissA",
            "a\u{202a}b",
            "a\u{2066}b",
            "a\u{200f}b",
            "a\u{61c}b",
            "Mail\u{200b} Assistant",
            "a\u{2060}b",
            "a\u{feff}b",
            "a\u{ad}b",
            "a\u{e0041}b",
        ] {
            assert_eq!(line(name, 80), Err(NotALine { most: 80 }), "{name:?}");
        }
    }

    #[test]
    fn an_address_is_one_plain_address() {
        assert!(is_mail_address("ada+post@acme.example"));
        for text in [
            "",
            "ada",
            "@acme.example",
            "ada@acme",
            "a@b.example,c@d.example",
            "a@b@c.example",
            "ada@acme.example\r\nBcc: eve@else.example",
            "Ada <ada@acme.example>",
            "a\u{e4}@acme.example",
            "ada @acme.example",
            "ada@.",
            "ada@acme..example",
            "ada@acme.example.",
            "ada@-acme.example",
            "ada@acme_mail.example",
        ] {
            assert!(!is_mail_address(text), "{text:?}");
        }
    }
}
