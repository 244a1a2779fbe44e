//! Text from outside, made safe to look at.
//!
//! Account names, labels, agent names and reasons are written by others. HTML escaping stops markup; this type stops
//! what escaping lets through: characters that reorder, hide or imitate, and names as long as a book.

use std::fmt;

use crate::domain::text::is_unseen;

/// Outside text with every control, bidi and invisible character spelled out, and its length capped.
///
/// It is plain text, not HTML: the template still escapes it, and puts it in a `<bdi>` so that its direction stays
/// its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// A name or a label: one line of at most 80 characters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::capped(text, 80)
    }

    /// A reason, a description, a value in full: at most 1,000 characters.
    #[must_use]
    pub fn long(text: &str) -> Self {
        Self::capped(text, 1_000)
    }

    /// The text as it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first letter or digit, for the tile beside a name.
    #[must_use]
    pub fn initial(&self) -> String {
        self.0
            .chars()
            .find(|letter| letter.is_alphanumeric())
            .map_or_else(|| "·".to_owned(), |letter| letter.to_uppercase().collect())
    }

    fn capped(text: &str, most: usize) -> Self {
        if text.trim().is_empty() {
            return Self("(empty)".to_owned());
        }
        let mut shown = String::with_capacity(text.len().min(most));
        let mut marks = 0_usize;
        for letter in text.chars().take(most) {
            marks = if is_combining(letter) { marks + 1 } else { 0 };
            // SECURITY: a pile of combining marks paints over the lines around it.
            if is_unseen(letter) || marks > MOST_MARKS {
                shown.push_str(&format!("\u{27e8}U+{:04X}\u{27e9}", u32::from(letter)));
            } else {
                shown.push(letter);
            }
        }
        let length = text.chars().count();
        if length > most {
            shown.push_str(&format!("\u{2026} ({length} characters)"));
        }
        Self(shown)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

fn is_combining(letter: char) -> bool {
    matches!(u32::from(letter),
        0x0300..=0x036f | 0x0483..=0x0489 | 0x0591..=0x05bd | 0x0610..=0x061a | 0x064b..=0x065f
        | 0x0e31 | 0x0e34..=0x0e3a | 0x0e47..=0x0e4e | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff
        | 0x20d0..=0x20ff | 0xfe20..=0xfe2f)
}

/// More than any living language puts on one letter.
const MOST_MARKS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "Ada Lovelace",
            "ada@acme.example",
            "Zoë O’Neill",
            "שלום",
            "東京支社",
            "Ж",
            "नमस्ते",
            "Việt",
        ] {
            assert_eq!(Shown::new(name).as_str(), name);
        }
    }

    #[test]
    fn characters_that_reorder_or_hide_are_spelled_out() {
        assert_eq!(Shown::new("a\u{202e}b").as_str(), "a⟨U+202E⟩b");
        assert_eq!(Shown::new("a\u{200b}b").as_str(), "a⟨U+200B⟩b");
        assert_eq!(Shown::new("a\u{2066}b").as_str(), "a⟨U+2066⟩b");
        assert_eq!(
            Shown::new("a\0b\nc\u{1b}[0m").as_str(),
            "a⟨U+0000⟩b⟨U+000A⟩c⟨U+001B⟩[0m"
        );
        assert_eq!(Shown::new("a\u{e0041}").as_str(), "a⟨U+E0041⟩");
    }

    #[test]
    fn long_text_is_capped_and_says_so() {
        let shown = Shown::new(&"x".repeat(10_000));
        assert_eq!(shown.as_str(), format!("{}… (10000 characters)", "x".repeat(80)));
    }

    #[test]
    fn a_pile_of_combining_marks_is_spelled_out() {
        let shown = Shown::new(&format!("e{}", "\u{301}".repeat(20)));
        assert_eq!(shown.as_str().matches('\u{301}').count(), MOST_MARKS);
        assert_eq!(shown.as_str().matches("U+0301").count(), 20 - MOST_MARKS);
    }

    #[test]
    fn nothing_to_see_is_named() {
        assert_eq!(Shown::new(" \u{a0}\t").as_str(), "(empty)");
        assert_eq!(Shown::new("").initial(), "E");
        assert_eq!(Shown::new("🦊").initial(), "·");
    }
}
