//! Line icons, drawn inline: they load nothing, follow the text's colour and are hidden from screen readers.

use std::fmt;

use askama::filters::HtmlSafe;

/// An icon. It never stands alone: words beside it say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// It is well.
    Check,
    /// Something to do.
    Alert,
    /// It takes its time.
    Clock,
    /// Held back for safety.
    Shield,
    /// Ended or refused.
    Cross,
    /// Looks.
    Eye,
    /// Acts.
    Pencil,
    /// Sensitive.
    Key,
    /// Goes on, out of this site.
    Outward,
    /// A plain remark.
    Dot,
}

impl Icon {
    fn shape(self) -> &'static str {
        match self {
            Self::Check => r#"<circle cx="12" cy="12" r="9"/><path d="m8 12.5 2.8 2.8L16 9.6"/>"#,
            Self::Alert => r#"<path d="M12 3.6 2.8 19.6h18.4z"/><path d="M12 10v4.4M12 17.1v.1"/>"#,
            Self::Clock => r#"<circle cx="12" cy="12" r="9"/><path d="M12 7v5.3l3.4 2"/>"#,
            Self::Shield => {
                r#"<path d="M12 3 4.5 6v5.4c0 4.6 3.1 8 7.5 9.6 4.4-1.6 7.5-5 7.5-9.6V6z"/><path d="M12 8.5v4M12 15.6v.1"/>"#
            }
            Self::Cross => r#"<circle cx="12" cy="12" r="9"/><path d="m9 9 6 6m0-6-6 6"/>"#,
            Self::Eye => {
                r#"<path d="M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z"/><circle cx="12" cy="12" r="2.8"/>"#
            }
            Self::Pencil => {
                r#"<path d="M4 20l1-4.4L16.2 4.4a2 2 0 0 1 2.9 0l.5.5a2 2 0 0 1 0 2.9L8.4 19z"/><path d="m14 6.6 3.4 3.4"/>"#
            }
            Self::Key => r#"<circle cx="7.8" cy="16.2" r="4.3"/><path d="M11 13 20 4m-3.6 3.6 2.8 2.8"/>"#,
            Self::Outward => r#"<path d="M5 12h13m-5.2-5.5L18.4 12l-5.6 5.5"/>"#,
            Self::Dot => r#"<circle cx="12" cy="12" r="9"/><path d="M12 11v5.2M12 7.9v.1"/>"#,
        }
    }
}

impl fmt::Display for Icon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"<svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">{}</svg>"#,
            self.shape()
        )
    }
}

// Constant markup of ours.
impl HtmlSafe for Icon {}
