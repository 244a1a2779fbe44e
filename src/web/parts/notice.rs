//! One line on top of a page that says what just happened.

use askama::{Template, filters::HtmlSafe};

use super::{Icon, Tone};

/// What just happened. It is a `role="status"`, so screen readers speak it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Template)]
#[template(
    source = r#"<p class="notice notice-{{ tone.class() }}" role="status">{{ self.icon() }}<span>{{ text }}</span></p>"#,
    ext = "html"
)]
pub struct Notice {
    /// How it went.
    pub tone: Tone,
    /// The words: a constant of ours.
    pub text: &'static str,
}

impl HtmlSafe for Notice {}

impl Notice {
    /// It went well.
    #[must_use]
    pub const fn good(text: &'static str) -> Self {
        Self {
            tone: Tone::Good,
            text,
        }
    }

    /// It did not go as asked.
    #[must_use]
    pub const fn warn(text: &'static str) -> Self {
        Self {
            tone: Tone::Warn,
            text,
        }
    }

    fn icon(&self) -> Icon {
        match self.tone {
            Tone::Good => Icon::Check,
            Tone::Warn => Icon::Alert,
            Tone::Bad => Icon::Cross,
            Tone::Plain => Icon::Dot,
        }
    }
}
