//! Named places where a test stops, kills or delays this very process: what no test from outside could time.
//!
//! Only with the feature `failpoints`, and never in `serve`. The file named by `POSTERN_FAILPOINT` holds one order,
//! `<place> stop`, `<place> kill` or `<place> sleep <milliseconds>`. The first thread to reach the place removes the
//! file and obeys: an order is carried out once, and a file that is gone proves that the place was reached.

macro_rules! failpoints {
    ($($(#[$says:meta])* $place:ident = $name:literal,)*) => {
        /// A place. Its name is what an order calls it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Failpoint {
            $($(#[$says])* $place,)*
        }

        impl Failpoint {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$place),*];

            /// The name in an order.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$place => $name,)*
                }
            }
        }
    };
}

failpoints! {
    /// The gate's next batch is about to be gathered.
    GateGathering = "gate.gathering",
    /// A batch of the gate is written, not committed.
    GateWritten = "gate.written",
    /// The entry of a release is durable, its secret not opened.
    GateCommitted = "gate.committed",
    /// The token of an `execute` is open, its request not begun.
    ExecuteOpened = "execute.opened",
    /// The token of a `token` or `raw` release is open, the caller not answered.
    TokenOpened = "token.opened",
    /// It is a token's turn to be renewed; nothing is read for it yet.
    RefreshPlaced = "refresh.placed",
    /// A token is to be renewed, nothing is done for it yet.
    RefreshBegun = "refresh.begun",
    /// The keys are at hand, the lease is not.
    RefreshUnwrapped = "refresh.unwrapped",
    /// It is its turn to call the provider, for which it needs the lease.
    RefreshCalling = "refresh.calling",
    /// The lease is free and locked, not written.
    RefreshLeasing = "refresh.leasing",
    /// The lease and the intent are written, not committed.
    RefreshClaiming = "refresh.claiming",
    /// They are durable, and whoever claimed the lease does not know.
    RefreshLeased = "refresh.leased",
    /// The refresh lease and its intent are durable, the provider not asked.
    RefreshClaimed = "refresh.claimed",
    /// The refresh token is open.
    RefreshOpened = "refresh.opened",
    /// The request to the provider is about to be made.
    RefreshAsking = "refresh.asking",
    /// The provider's answer has come, not looked at.
    RefreshHeard = "refresh.heard",
    /// The provider's answer is read, a narrowing not proven.
    RefreshReceived = "refresh.received",
    /// The provider has answered a refresh, nothing of that is kept.
    RefreshAnswered = "refresh.answered",
    /// The answer is sealed.
    RefreshSealed = "refresh.sealed",
    /// The transaction that keeps the answer has begun.
    RefreshKeeping = "refresh.keeping",
    /// Lease and grant are found in it as they were.
    RefreshStanding = "refresh.standing",
    /// The lease is given back in it.
    RefreshEntering = "refresh.entering",
    /// The sealed answer is written in it.
    RefreshStored = "refresh.stored",
    /// The grant's generation has moved on in it.
    RefreshRenewed = "refresh.renewed",
    /// The entry is appended in it, the commit is next.
    RefreshRecorded = "refresh.recorded",
    /// The renewed token is kept, nobody was told.
    RefreshKept = "refresh.kept",
    /// Whoever waited for it was told.
    RefreshLanded = "refresh.landed",
    /// The provider gave nothing, which is not recorded.
    RefreshRefused = "refresh.refused",
    /// The lease is given back after a failure, which has no entry yet.
    RefreshPausing = "refresh.pausing",
    /// A failure is written, not committed.
    RefreshFailing = "refresh.failing",
    /// A failure is recorded.
    RefreshFailed = "refresh.failed",
    /// The lease of a grant that is dead is given back.
    RefreshYielded = "refresh.yielded",
    /// The org's epoch has moved on for that.
    RefreshEnding = "refresh.ending",
    /// The grant says so, its entry does not.
    RefreshEnded = "refresh.ended",
    /// That the person has to connect again is written, not committed.
    RefreshGivingUp = "refresh.giving_up",
    /// That the person has to connect again is recorded.
    RefreshGivenUp = "refresh.given_up",
    /// What was asked and never answered is found.
    DoubtFound = "doubt.found",
    /// It is in doubt still, and about to be asked again.
    DoubtTaken = "doubt.taken",
    /// It is answered.
    DoubtSettled = "doubt.settled",
    /// The file of an answer that is to be spooled is there, and empty.
    SpoolDrafted = "spool.drafted",
    /// A spooled answer is written under its draft's name, not synced.
    SpoolWritten = "spool.written",
    /// It is synced under its draft's name.
    SpoolSynced = "spool.synced",
    /// A spooled answer has its name, the directory is not synced.
    SpoolRenamed = "spool.renamed",
    /// An answer is spooled for good.
    SpoolKept = "spool.kept",
    /// A spooled answer is read back.
    SpoolRead = "spool.read",
    /// The database is there and knows its grant.
    SpoolFound = "spool.found",
    /// A spooled answer is in the database, its file still there.
    SpoolEntered = "spool.entered",
    /// Its file is gone.
    SpoolRemoved = "spool.removed",
    /// A batch of a copy of the database is durable in the target.
    CopyBatch = "copy.batch",
    /// The source of a copy is closed for good, the target not yet open.
    CopySourceClosed = "copy.source_closed",
    /// An org of the target has begun its new epoch, for good.
    CopyEpochBegun = "copy.epoch_begun",
    /// Every org of the target has begun its new epoch; the target is about to be opened.
    CopyOpening = "copy.opening",
    /// A receiver has entries of the log of which the cursor does not know yet.
    SinkDelivered = "sink.delivered",
    /// Some of a revocation's grants have their tombstones and places in the outbox, not committed.
    FanOutBurying = "fan_out.burying",
    /// Some of a revocation's grants have them for good.
    FanOutBuried = "fan_out.buried",
    /// A provider has answered an upstream revocation, which is not recorded.
    UpstreamAnswered = "upstream.answered",
}

impl Failpoint {
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
