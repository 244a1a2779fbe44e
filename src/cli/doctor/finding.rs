//! What a look came to: what was looked at, how it is, what was found, what to do.

use serde_json::{Value, json};

/// What was looked at. The names are stable: scripts read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Whether a Postern answers.
    Server,
    /// Whether it is of this program's version.
    Version,
    /// Whether its clock and ours agree.
    Clock,
    /// Whether the API key is accepted, and whose it is.
    Key,
    /// Whether the replica can do what a release needs.
    Replica,
    /// The policies in force.
    Policies,
    /// The agents.
    Agents,
    /// The apps people can connect.
    Connectors,
    /// What they have connected.
    Grants,
    /// What providers were told of grants that have ended.
    Upstream,
    /// The log.
    Log,
}

impl Check {
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Version => "version",
            Self::Clock => "clock",
            Self::Key => "api key",
            Self::Replica => "replica",
            Self::Policies => "policies",
            Self::Agents => "agents",
            Self::Connectors => "connectors",
            Self::Grants => "grants",
            Self::Upstream => "upstream",
            Self::Log => "log",
        }
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Somebody should know.
    Warning,
    /// Something does not work.
    Wrong,
    /// It could not be looked at.
    Unknown,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }
}

/// One line of the answer.
#[derive(Debug)]
pub(super) struct Finding {
    check: Check,
    pub(super) verdict: Verdict,
    found: String,
    fix: String,
}

impl Finding {
    pub(super) fn ok(check: Check, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found, "")
    }

    pub(super) fn warning(check: Check, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, found, fix)
    }

    pub(super) fn wrong(check: Check, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Verdict::Wrong, found, fix)
    }

    pub(super) fn unknown(check: Check, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, found, fix)
    }

    fn new(check: Check, verdict: Verdict, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            found: found.into(),
            fix: fix.into(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "check": self.check.as_str(),
            "result": self.verdict.as_str(),
            "found": self.found,
            "fix": self.fix,
        })
    }
}
