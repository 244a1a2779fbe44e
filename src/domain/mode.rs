//! The ways a release may happen (protocol §5), best rung first.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How an allowed action reaches the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Postern sends the request itself; the agent holds nothing.
    Execute,
    /// The agent holds a reference that works only through Postern.
    Handle,
    /// The agent holds a token narrowed by the provider.
    Token,
    /// The agent holds an access token as wide as the grant.
    Raw,
}

impl Mode {
    /// All modes, best rung first.
    pub const ALL: [Self; 4] = [Self::Execute, Self::Handle, Self::Token, Self::Raw];

    /// The name used in policies, requests and decisions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Handle => "handle",
            Self::Token => "token",
            Self::Raw => "raw",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Execute => 1,
            Self::Handle => 2,
            Self::Token => 4,
            Self::Raw => 8,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No mode has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mode: execute, handle, token or raw")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(UnknownMode)
    }
}

/// A set of modes; serialises as a list of names, best rung first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Mode>", into = "Vec<Mode>")]
pub struct ModeSet(u8);

impl ModeSet {
    /// No mode.
    pub const NONE: Self = Self(0);
    /// What a policy grants that says nothing: execute and handle.
    pub const DEFAULT: Self = Self(0b0011);
    /// Every mode.
    pub const ALL: Self = Self(0b1111);

    /// Whether `mode` is in the set.
    #[must_use]
    pub fn contains(self, mode: Mode) -> bool {
        self.0 & mode.bit() != 0
    }

    /// The modes in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set without `mode`.
    #[must_use]
    pub fn without(self, mode: Mode) -> Self {
        Self(self.0 & !mode.bit())
    }

    /// The set with `mode`.
    #[must_use]
    pub fn with(self, mode: Mode) -> Self {
        Self(self.0 | mode.bit())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The modes, best rung first.
    pub fn iter(self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().filter(move |mode| self.contains(*mode))
    }
}

impl fmt::Debug for ModeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl From<Vec<Mode>> for ModeSet {
    fn from(modes: Vec<Mode>) -> Self {
        modes.into_iter().collect()
    }
}

impl From<ModeSet> for Vec<Mode> {
    fn from(modes: ModeSet) -> Self {
        modes.iter().collect()
    }
}

impl FromIterator<Mode> for ModeSet {
    fn from_iter<I: IntoIterator<Item = Mode>>(modes: I) -> Self {
        modes.into_iter().fold(Self::NONE, Self::with)
    }
}
