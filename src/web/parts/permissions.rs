//! What a connection may do, in plain words, split into looking, acting and what is sensitive.

use askama::{Template, filters::HtmlSafe};

use super::Icon;
use crate::web::Shown;

/// How much a permission can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PermissionKind {
    /// Looks only.
    Read,
    /// Adds or changes.
    Act,
    /// Removes, administers, or sees what is private.
    Sensitive,
}

impl PermissionKind {
    const ALL: [Self; 3] = [Self::Read, Self::Act, Self::Sensitive];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Act => "Act",
            Self::Sensitive => "Sensitive",
        }
    }

    pub(crate) fn icon(self) -> Icon {
        match self {
            Self::Read => Icon::Eye,
            Self::Act => Icon::Pencil,
            Self::Sensitive => Icon::Key,
        }
    }
}

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// How much it can do.
    pub kind: PermissionKind,
    /// In plain words: "Read your messages".
    pub words: Shown,
    /// As the provider calls it: `mail.read`.
    pub scope: Option<Shown>,
}

/// A list of permissions; shown in groups, mildest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "postern/parts/permissions.html")]
pub struct Permissions(pub Vec<Permission>);

impl HtmlSafe for Permissions {}

impl Permissions {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn groups(&self) -> impl Iterator<Item = (PermissionKind, Vec<&Permission>)> {
        PermissionKind::ALL.into_iter().filter_map(|kind| {
            let group: Vec<_> = self
                .0
                .iter()
                .filter(|permission| permission.kind == kind)
                .collect();
            (!group.is_empty()).then_some((kind, group))
        })
    }
}
