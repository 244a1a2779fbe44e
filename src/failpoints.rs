//! Named places where a test stops, kills or delays this very process: what no test from outside could time.
//!
//! Only with the feature `failpoints`, and never in `serve`. The file named by `POSTERN_FAILPOINT` holds one order,
//! `<place> stop`, `<place> kill` or `<place> sleep <milliseconds>`. The first thread to reach the place removes the
//! file and obeys: an order is carried out once, and a file that is gone proves that the place was reached.

/// A place. Its name is what an order calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// A batch of the gate is written, not committed.
    GateWritten,
    /// The entry of a release is durable, its secret not opened.
    GateCommitted,
    /// The token of an `execute` is open, its request not begun.
    ExecuteOpened,
    /// The token of a `token` or `raw` release is open, the caller not answered.
    TokenOpened,
    /// A token is to be renewed, nothing is done for it yet.
    RefreshBegun,
    /// The keys are at hand, the lease is not.
    RefreshUnwrapped,
    /// The lease and the intent are written, not committed.
    RefreshClaiming,
    /// The refresh lease and its intent are durable, the provider not asked.
    RefreshClaimed,
    /// The refresh token is open.
    RefreshOpened,
    /// The request to the provider is about to be made.
    RefreshAsking,
    /// The provider's answer is read, a narrowing not proven.
    RefreshReceived,
    /// The provider has answered a refresh, nothing of that is kept.
    RefreshAnswered,
    /// The answer is sealed.
    RefreshSealed,
    /// The lease is given back in the transaction that keeps the answer.
    RefreshEntering,
    /// The sealed answer is written in that transaction.
    RefreshStored,
    /// The entry is appended in it, the commit is next.
    RefreshRecorded,
    /// The renewed token is kept, nobody was told.
    RefreshKept,
    /// The provider gave nothing, which is not recorded.
    RefreshRefused,
    /// A failure is written, not committed.
    RefreshFailing,
    /// A failure is recorded.
    RefreshFailed,
    /// That the person has to connect again is written, not committed.
    RefreshGivingUp,
    /// That the person has to connect again is recorded.
    RefreshGivenUp,
    /// A spooled answer is written under its draft's name, not synced.
    SpoolWritten,
    /// A spooled answer has its name, the directory is not synced.
    SpoolRenamed,
    /// An answer is spooled for good.
    SpoolKept,
    /// A spooled answer is in the database, its file still there.
    SpoolEntered,
    /// A batch of a copy of the database is durable in the target.
    CopyBatch,
    /// The source of a copy is closed for good, the target not yet open.
    CopySourceClosed,
    /// Some of a revocation's grants have their tombstones and places in the outbox, not committed.
    FanOutBurying,
    /// Some of a revocation's grants have them for good.
    FanOutBuried,
    /// A provider has answered an upstream revocation, which is not recorded.
    UpstreamAnswered,
}

impl Failpoint {
    /// The name in an order.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GateWritten => "gate.written",
            Self::GateCommitted => "gate.committed",
            Self::ExecuteOpened => "execute.opened",
            Self::TokenOpened => "token.opened",
            Self::RefreshBegun => "refresh.begun",
            Self::RefreshUnwrapped => "refresh.unwrapped",
            Self::RefreshClaiming => "refresh.claiming",
            Self::RefreshClaimed => "refresh.claimed",
            Self::RefreshOpened => "refresh.opened",
            Self::RefreshAsking => "refresh.asking",
            Self::RefreshReceived => "refresh.received",
            Self::RefreshAnswered => "refresh.answered",
            Self::RefreshSealed => "refresh.sealed",
            Self::RefreshEntering => "refresh.entering",
            Self::RefreshStored => "refresh.stored",
            Self::RefreshRecorded => "refresh.recorded",
            Self::RefreshKept => "refresh.kept",
            Self::RefreshRefused => "refresh.refused",
            Self::RefreshFailing => "refresh.failing",
            Self::RefreshFailed => "refresh.failed",
            Self::RefreshGivingUp => "refresh.giving_up",
            Self::RefreshGivenUp => "refresh.given_up",
            Self::SpoolWritten => "spool.written",
            Self::SpoolRenamed => "spool.renamed",
            Self::SpoolKept => "spool.kept",
            Self::SpoolEntered => "spool.entered",
            Self::CopyBatch => "copy.batch",
            Self::CopySourceClosed => "copy.source_closed",
            Self::FanOutBurying => "fan_out.burying",
            Self::FanOutBuried => "fan_out.buried",
            Self::UpstreamAnswered => "upstream.answered",
        }
    }

    /// Carries out the order for this place, if there is one. Without the feature: nothing at all.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    pub fn reached(self) {}

    /// Carries out the order for this place, if there is one.
    #[cfg(feature = "failpoints")]
    pub fn reached(self) {
        let Some(file) = std::env::var_os("POSTERN_FAILPOINT") else {
            return;
        };
        let order = std::fs::read_to_string(&file).unwrap_or_default();
        let mut words = order.split_whitespace();
        // Whoever removes the file has the order; it is nobody else's any more.
        if words.next() != Some(self.as_str()) || std::fs::remove_file(&file).is_err() {
            return;
        }
        tracing::warn!(order = order.trim(), "reached a failpoint");
        match (words.next(), words.next().and_then(|time| time.parse().ok())) {
            (Some("stop"), None) => signal(rustix::process::Signal::STOP),
            (Some("kill"), None) => signal(rustix::process::Signal::KILL),
            (Some("sleep"), Some(time)) => std::thread::sleep(Duration::from_millis(time)),
            _ => std::process::abort(),
        }
    }
}

/// Sends a signal to this process and waits where it strikes.
#[cfg(feature = "failpoints")]
fn signal(signal: rustix::process::Signal) {
    let sent = rustix::process::kill_process(rustix::process::getpid(), signal);
    // Another thread may be the one it is delivered to; this one gets no further before it has struck.
    std::thread::sleep(STRIKES_WITHIN);
    if sent.is_err() {
        std::process::abort();
    }
}

#[cfg(feature = "failpoints")]
use std::time::Duration;

/// Delivery takes microseconds.
#[cfg(feature = "failpoints")]
const STRIKES_WITHIN: Duration = Duration::from_millis(100);
