//! Where the log is copied to: a port, and one file per kind of receiver.
//!
//! Promises: a batch is delivered whole or reported as not delivered; delivering one again is harmless to whoever
//! looks at the entries' `id`. A sink sees entries as they were hashed and nothing that is sealed beside them. It must never
//! reorder, skip or wait for another sink.

mod file;
mod ocsf;
mod otlp;
mod standing;
mod webhook;

pub use file::{FileSink, Form};
pub use otlp::OtlpSink;
pub use standing::Standing;
pub use webhook::WebhookSink;

use std::{future::Future, io, pin::Pin, time::Duration};

use crate::{
    domain::{OrgId, Time},
    egress::Undelivered,
};

/// Entries of one org that stand one behind the other in its log.
#[derive(Debug)]
pub struct SinkBatch {
    /// The tenant.
    pub org: OrgId,
    /// Index and bytes, in the order of the log; never empty.
    pub entries: Vec<(u64, String)>,
    /// When it is sent.
    pub now: Time,
}

/// Why a batch was not delivered. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file cannot be written.
    #[error("the file cannot be written: {0}")]
    File(#[from] io::Error),
    /// The receiver has not got it.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// A stored entry is none.
    #[error("an entry cannot be read")]
    Entry,
}

impl SinkError {
    /// Whether others may be taken, but not this: it cannot be read, is too large or not of the kind wanted (RFC 9110
    /// §15.5.1, §15.5.14, §15.5.21).
    #[must_use]
    pub fn is_about_the_batch(&self) -> bool {
        matches!(
            self,
            Self::Entry | Self::Undelivered(Undelivered::Status(400 | 413 | 422))
        )
    }

    /// How long the receiver is left alone, whosever entries come next: it was sent too much (RFC 6585 §4), or says itself
    /// for how long.
    #[must_use]
    pub fn rest(&self) -> Option<Duration> {
        match self {
            Self::Undelivered(Undelivered::Busy { status: 429, after }) => Some(REST.max(*after)),
            Self::Undelivered(Undelivered::Busy { after, .. }) => Some(*after),
            Self::Undelivered(Undelivered::Status(429)) => Some(REST),
            _ => None,
        }
    }
}

/// A delivery under way.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// A receiver of the log.
pub trait Sink: std::fmt::Debug + Send + Sync {
    /// The operator's name for it; the cursor is kept under it.
    fn name(&self) -> &str;

    /// Whose turn it is at this receiver.
    fn standing(&self) -> &Standing;

    /// Delivers a batch. When this succeeds, the receiver has it for good.
    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a>;
}

/// How long a receiver that was sent too much is left alone at least.
const REST: Duration = Duration::from_secs(10);
