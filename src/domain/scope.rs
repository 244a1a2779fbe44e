//! Sets of OAuth scopes (RFC 6749 §3.3) and their order.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// A set of scope tokens, in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<String>")]
pub struct ScopeSet(BTreeSet<String>);

/// A scope token holds a character RFC 6749 §3.3 forbids, or is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scope token")]
pub struct InvalidScope;

impl ScopeSet {
    /// Splits text at the connector's separator; empty pieces are dropped.
    ///
    /// # Errors
    /// When a piece is not a scope token.
    pub fn parse(text: &str, separator: char) -> Result<Self, InvalidScope> {
        text.split(separator)
            .map(str::trim)
            .filter(|token| !token.is_empty())
            .map(|token| {
                if is_scope_token(token) {
                    Ok(token.to_owned())
                } else {
                    Err(InvalidScope)
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The tokens, in byte order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `token` is one of them.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        self.0.contains(token)
    }

    /// Whether every token here is in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// The tokens in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// The tokens here that `other` lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// The tokens in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// The tokens with `separator` between them.
    #[must_use]
    pub fn join(&self, separator: char) -> String {
        let mut text = String::new();
        for (index, token) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(separator);
            }
            text.push_str(token);
        }
        text
    }
}

impl TryFrom<BTreeSet<String>> for ScopeSet {
    type Error = InvalidScope;

    fn try_from(tokens: BTreeSet<String>) -> Result<Self, InvalidScope> {
        if tokens.iter().all(|token| is_scope_token(token)) {
            Ok(Self(tokens))
        } else {
            Err(InvalidScope)
        }
    }
}

impl FromIterator<String> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = String>>(tokens: I) -> Self {
        Self(tokens.into_iter().filter(|token| is_scope_token(token)).collect())
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(' '))
    }
}

// RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
fn is_scope_token(token: &str) -> bool {
    !token.is_empty()
        && token.len() <= 512
        && token
            .bytes()
            .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
