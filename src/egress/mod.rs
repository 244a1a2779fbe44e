//! The one outbound HTTP client: address filter, no redirects, no proxies, no decompression, limits.
//!
//! Promises: a request goes to the host of its URL and nowhere else, over TLS, to a global address, unless the
//! operator named that very `host:port` for that connector. An error tells whether the request may have been sent. A
//! request with a last moment begins before it or not at all.
//! It must never follow a redirect, read a proxy variable, or put a URL, header or body into an error.

mod address;
mod begin;
mod client;
mod message;
mod operator;
mod policy;
mod receiver;
mod resolver;
#[cfg(test)]
mod tests;

pub use address::is_global;
pub use begin::BeginBy;
pub use client::Egress;
pub use message::{Credential, InboundResponse, MAX_BODY, OutboundRequest, secret_body};
pub use operator::{OperatorClient, operator_client};
pub use policy::{EgressPolicy, InvalidAuthority, Purpose};
pub use receiver::{Rest, Undelivered, Webhook};

/// Why a request did not leave or its answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The destination or the request is against the rules; nothing was sent.
    #[error("the outbound request was refused: {0}")]
    Refused(Refusal),
    /// No connection came about, or it ended before anything was sent.
    #[error("the destination could not be reached")]
    Unreachable,
    /// The last moment to begin had passed; nothing was sent.
    #[error("it was too late to begin")]
    TooLate,
    /// Something may have been sent, no complete answer came.
    #[error("no complete answer came from the destination")]
    Interrupted {
        /// Whether the time ran out.
        timed_out: bool,
    },
    /// The client could not be built; nothing can be sent.
    #[error("the outbound client could not be set up")]
    Setup,
}

impl EgressError {
    /// Whether the other side may have acted on the request (protocol §6: `504 outcome_unknown`).
    #[must_use]
    pub fn may_have_been_sent(self) -> bool {
        matches!(self, Self::Interrupted { .. })
    }
}

/// Which rule refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not https, and not a destination the operator named.
    #[error("only https is allowed")]
    Scheme,
    /// A user name or password in the URL.
    #[error("credentials in the url")]
    Userinfo,
    /// A special-purpose address.
    #[error("the address is not global")]
    Address,
    /// A secret or header holds bytes a header cannot carry.
    #[error("a header value is not a header value")]
    Header,
}
