//! One audit entry in a list.

use askama::{Template, filters::HtmlSafe};

use super::{Icon, Sentence, Tone, status::Badge};
use crate::{
    domain::id::EntryId,
    web::{Shown, When, words},
};

/// One audit entry: when, what, how it came out.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "postern/parts/entry.html")]
pub struct EntryLine {
    /// Its id.
    pub id: EntryId,
    /// When it committed.
    pub at: When,
    /// What happened.
    pub sentence: Sentence,
    /// How it came out, if the entry says.
    pub outcome: Option<OutcomeMark>,
}

impl HtmlSafe for EntryLine {}

/// An outcome code as a word with an icon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeMark {
    tone: Tone,
    word: String,
}

impl OutcomeMark {
    /// From the entry's outcome code; a code not known here is shown as its words.
    #[must_use]
    pub fn from_code(code: &str) -> Self {
        let (tone, word) = match code {
            "allow" => (Tone::Good, "Allowed"),
            "deny" => (Tone::Bad, "Refused"),
            "ok" => (Tone::Good, "Done"),
            "failed" => (Tone::Bad, "Failed"),
            "unknown" => (Tone::Warn, "No answer"),
            "revoked" => (Tone::Plain, "Revoked"),
            "unconfirmed" => (Tone::Warn, "Not confirmed"),
            "unsupported" => (Tone::Plain, "Not supported"),
            "dropped" => (Tone::Warn, "Stopped"),
            "needs_reconnect" => (Tone::Warn, "Reconnect needed"),
            "login" => (Tone::Plain, "Signed in"),
            "logout" => (Tone::Plain, "Signed out"),
            "escalate" => (Tone::Warn, "Needs approval"),
            other => {
                return Self {
                    tone: Tone::Plain,
                    word: sentence_case(&words::code_words(Shown::new(other).as_str())),
                };
            }
        };
        Self {
            tone,
            word: word.to_owned(),
        }
    }

    pub(crate) fn badge(&self) -> Badge {
        let icon = match self.tone {
            Tone::Good => Icon::Check,
            Tone::Warn => Icon::Alert,
            Tone::Bad => Icon::Cross,
            Tone::Plain => Icon::Dot,
        };
        Badge {
            tone: self.tone,
            icon,
            word: self.word.clone(),
        }
    }
}

fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
