//! What a client may ask of Acme Mail, and sets of it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// One scope as the consent page shows it.
pub(super) struct Scope {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: &'static str,
}

/// Every scope there is.
pub(super) const ALL: [Scope; 3] = [
    Scope {
        name: READ,
        title: "Read your mail",
        detail: "See the messages in your mailbox and search them.",
    },
    Scope {
        name: SEND,
        title: "Send mail as you",
        detail: "Send messages that carry your name and address.",
    },
    Scope {
        name: WRITE,
        title: "Change your mailbox",
        detail: "Write drafts, and delete messages for good.",
    },
];

pub(super) const READ: &str = "mail.read";
pub(super) const SEND: &str = "mail.send";
pub(super) const WRITE: &str = "mail.write";

/// A set of scopes, in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Parses a `scope` parameter; `None` when it is empty or names a scope that does not exist.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // RFC 6749 §3.3: space-delimited, order does not matter.
        let names: BTreeSet<String> = text
            .split(' ')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        (!names.is_empty()
            && names
                .iter()
                .all(|name| ALL.iter().any(|scope| scope.name == name)))
        .then_some(Self(names))
    }

    /// More than any client can ask for, for the fault `widen_scope`.
    pub(super) fn too_wide() -> Self {
        Self(
            ALL.iter()
                .map(|scope| scope.name)
                .chain(["mail.admin"])
                .map(str::to_owned)
                .collect(),
        )
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Those of these for which `keep` says yes.
    pub(super) fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|name| keep(name)).cloned().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}
