//! One choice of a list in a form.

use crate::web::Shown;

/// One choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What the form sends: an id or a code of ours.
    pub value: String,
    /// What people read.
    pub label: Shown,
    /// Whether it is the one chosen.
    pub selected: bool,
}

impl Choice {
    /// A choice that is not chosen.
    #[must_use]
    pub fn new(value: impl ToString, label: Shown) -> Self {
        Self {
            value: value.to_string(),
            label,
            selected: false,
        }
    }

    /// The same choice, chosen if its value is `chosen`.
    #[must_use]
    pub fn selected_if(mut self, chosen: Option<&str>) -> Self {
        self.selected = chosen == Some(self.value.as_str());
        self
    }
}
