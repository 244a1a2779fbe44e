//! The sentence an approver reads first. What could deceive the eye is written out.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    Tool,
    args::ValidArgs,
    template::{self, Piece},
};
use crate::domain::text::is_unseen;

/// How much of one argument stands in a summary; the full arguments always follow it.
const SHOWN: usize = 200;

/// One line on what the tool does with these arguments.
#[must_use]
pub fn summary(tool: Tool<'_>, args: &ValidArgs) -> String {
    match tool {
        Tool::HttpRequest => {
            let show = |name| args.get(name).map_or_else(String::new, shown);
            format!("{} {}", show("method"), show("path"))
        }
        Tool::Typed(action) => {
            let mut line = String::new();
            for piece in template::pieces(&action.summary).unwrap_or_default() {
                match piece {
                    Piece::Text(text) => line.push_str(text),
                    Piece::Name(name) => match args.get(name) {
                        Some(value) => line.push_str(&shown(value)),
                        None => line.push('–'),
                    },
                }
            }
            line
        }
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    };
    let count = text.chars().count();
    if count <= SHOWN {
        return visible(&text);
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{}… ({count} characters)", visible(&head))
}

/// Writes out, as `⟨U+202E⟩`, what has no shape of its own or turns its neighbours around: controls, bidirectional
/// controls, invisible and private characters, and the sign used for it.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_deceptive(character) {
            let _infallible = write!(out, "⟨U+{:04X}⟩", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// Private use shows as anything, other spaces pass for the space, and the brackets are ours.
fn is_deceptive(character: char) -> bool {
    is_unseen(character)
        || (character.is_whitespace() && character != ' ')
        || matches!(character,
            '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' | '\u{27e8}' | '\u{27e9}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_characters_are_written_out() {
        for (text, shown) in [
            ("plain – Grüße 你好 🙂", "plain – Grüße 你好 🙂"),
            ("a\nb", "a⟨U+000A⟩b"),
            ("a\r\n\tb", "a⟨U+000D⟩⟨U+000A⟩⟨U+0009⟩b"),
            ("\u{202e}gpj.exe", "⟨U+202E⟩gpj.exe"),
            ("\u{2066}x\u{2069}", "⟨U+2066⟩x⟨U+2069⟩"),
            ("a\u{200b}b", "a⟨U+200B⟩b"),
            ("a\u{a0}b", "a⟨U+00A0⟩b"),
            ("\u{1b}[31m", "⟨U+001B⟩[31m"),
            ("tag\u{e0041}", "tag⟨U+E0041⟩"),
            ("⟨U+202E⟩", "⟨U+27E8⟩U+202E⟨U+27E9⟩"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }
}
