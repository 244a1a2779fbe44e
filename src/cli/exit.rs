//! How a run ends: typed exit codes, and errors that say what, why and what to do.

use std::process::ExitCode;

use serde_json::Value;

use crate::config::ConfigError;

/// The exit codes of the contract; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Did not work.
    Failure = 1,
    /// Called wrongly.
    Usage = 2,
    /// The person has to connect, reconnect or choose an account.
    NotConnected = 3,
    /// A person has to approve.
    ApprovalPending = 4,
    /// Policy or permission says no.
    Denied = 5,
    /// The grant has ended for good.
    Revoked = 6,
    /// The provider cannot be reached.
    ProviderUnavailable = 7,
    /// The API key was not accepted.
    Unauthenticated = 8,
    /// A copy is not the same as its source.
    Differs = 9,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Called wrongly.
    #[error("{0}")]
    Usage(String),
    /// The server refused, with a problem document.
    #[error("{}", .0.title())]
    Refused(Refusal),
    /// The evaluation came to a no, in an answer that is not a refusal.
    #[error("not allowed: {reason}")]
    NotAllowed {
        /// The stable reason.
        reason: String,
        /// Whether an approval would help.
        approvable: bool,
    },
    /// The server could not be reached.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong on the way.
        cause: String,
    },
    /// The server answered something that is not of the protocol.
    #[error("the server's answer was not understood: {0}")]
    Answer(String),
    /// A file could not be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A copy is not the same as its source.
    #[error("{0}")]
    Differs(String),
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else did not work.
    #[error("{0}")]
    Failed(String),
    /// The person said no.
    #[error("nothing was changed")]
    Declined,
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Config(_) => Exit::Usage,
            Self::Refused(refusal) => refusal.exit(),
            Self::NotAllowed { approvable: true, .. } => Exit::ApprovalPending,
            Self::NotAllowed { .. } => Exit::Denied,
            Self::Differs(_) => Exit::Differs,
            Self::Interrupted => Exit::Interrupted,
            Self::Unreachable { .. }
            | Self::Answer(_)
            | Self::File { .. }
            | Self::Failed(_)
            | Self::Declined => Exit::Failure,
        }
    }
}

/// A problem document (protocol §6) as it arrived.
#[derive(Debug)]
pub struct Refusal {
    pub(super) document: Value,
    pub(super) request_id: Option<String>,
}

impl Refusal {
    pub(super) fn member(&self, pointer: &str) -> Option<&str> {
        self.document.pointer(pointer).and_then(Value::as_str)
    }

    fn code(&self) -> &str {
        self.member("/code").unwrap_or("")
    }

    fn title(&self) -> String {
        format!(
            "{} ({})",
            self.member("/title").unwrap_or("the server refused"),
            self.code()
        )
    }

    fn exit(&self) -> Exit {
        match self.code() {
            "approval_pending" => Exit::ApprovalPending,
            "invalid_request" | "invalid_args" => Exit::Usage,
            "unauthenticated" => Exit::Unauthenticated,
            "denied" | "decision_rejected" | "mode_unavailable" => Exit::Denied,
            "connection_required" | "reconnect_required" | "account_selection_required" => Exit::NotConnected,
            "revoked" => Exit::Revoked,
            "provider_unavailable" => Exit::ProviderUnavailable,
            _ => Exit::Failure,
        }
    }

    /// Lines a person can act on, most useful first.
    pub(super) fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        for (pointer, label) in [
            ("/detail", "detail"),
            ("/reason", "reason"),
            ("/model_message", "message"),
            ("/decision_error", "decision"),
            ("/connect/url", "open"),
            ("/approval/url", "approve at"),
            ("/entry_id", "entry"),
        ] {
            if let Some(text) = self.member(pointer) {
                hints.push(format!("{label}: {text}"));
            }
        }
        for error in self.list("/errors") {
            let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            hints.push(format!("at {}: {}", text("pointer"), text("message")));
        }
        for account in self.list("/accounts") {
            let text = |name: &str| account.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
            hints.push(format!(
                "account: {} (--grant {})",
                text("account"),
                text("grant")
            ));
        }
        if let Some(id) = &self.request_id {
            hints.push(format!("request: {id}"));
        }
        hints
    }

    fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.document
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
}
