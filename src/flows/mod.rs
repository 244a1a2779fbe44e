//! Straight paths from a request to its answer. A flow opens one transaction, changes state and appends the entry in
//! it, and commits once; nothing is asked of a provider or key service while a transaction is open.

pub mod actions;
pub mod apply;
pub mod audit;
pub mod authenticate;
pub mod choices;
pub mod connect;
pub mod decide;
pub mod delegate;
pub mod describe;
pub mod engines;
pub mod execute;
pub mod facts;
pub mod found;
pub mod idempotency;
pub mod keys;
pub mod login;
pub mod notify;
pub mod oversight;
pub mod overview;
pub mod people;
pub mod question;
pub mod record;
pub mod recover;
pub mod refresh;
pub mod refused;
pub mod revoke;
pub mod seal;
mod selection;
pub mod sequence;
pub mod sight;
pub mod sinks;
pub mod sweep;
pub mod telling;
pub mod token;
pub mod uncut;
pub mod upstream;
pub mod vend;
pub mod walk;
pub mod witness;

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    audit::{sinks::Sink, witness::Witness},
    connectors::Catalogue,
    crypto::{CryptoError, Keyring, OdkHandle, OdkRecord, SigningKey, lookup::LookupKeys},
    domain::{
        Clock, EntryId, GrantId, KeyId, ModeSet, OrgId, Randomness, RandomnessUnavailable, Time,
        connector::ConnectorId, secret::LinkToken,
    },
    egress::{Egress, Webhook},
    release::{DecisionError, Full, Gate},
    store::{Claims, Contended, Keeps, Looks, Spool, Store, StoreError},
};

/// Everything a flow may use, filled by `app`.
#[derive(Debug)]
pub struct Deps {
    /// The database.
    pub store: Store,
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
    /// The only source of randomness.
    pub random: Arc<dyn Randomness>,
    /// KEK → org data keys.
    pub keyring: Arc<Keyring>,
    /// Keyed hashes of API keys, links, sessions and codes.
    pub lookup: LookupKeys,
    /// Signs decisions.
    pub notary: SigningKey,
    /// Signs checkpoints of the log.
    pub checkpoints: SigningKey,
    /// The connectors of this deployment.
    pub catalogue: Catalogue,
    /// The one way out.
    pub egress: Egress,
    /// The one door.
    pub gate: Gate,
    /// The heads of logs it signed last.
    pub signed: sequence::SignedHeads,
    /// Facts and compiled policies, by epoch.
    pub facts: facts::FactsCache,
    /// Where refreshes look before they ask.
    pub looks: Looks,
    /// Where leases on refreshes are claimed.
    pub claims: Claims,
    /// Where their answers are kept.
    pub keeps: Keeps,
    /// One refresh per grant in this process.
    pub flights: refresh::Flights,
    /// How far its questions without an answer were gone through.
    pub doubts: refresh::doubt::Doubts,
    /// What the end of the process waits for.
    pub uncut: uncut::Uncut,
    /// Where the log is copied to.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Who cosigns the log's checkpoints.
    pub witness: Option<Arc<Witness>>,
    /// Refusals that were not entries of their own.
    pub refused: refused::Tally,
    /// Who is told of changes of grants' states.
    pub webhook: Option<Arc<Webhook>>,
    /// What providers answered while the database was gone.
    pub spool: Spool,
    /// The public base URL without trailing slash.
    pub issuer: String,
    /// The KEK new data keys are wrapped under.
    pub kek_ref: String,
    /// Under whose key grants are sealed, in words people read.
    pub key_words: String,
}

impl Deps {
    /// The org's data key for new secrets, unwrapped.
    ///
    /// # Errors
    /// When the database or the key service is unavailable.
    pub async fn org_key(&self, org: OrgId) -> Result<OdkHandle, Refusal> {
        let record = self.store.read(org).await?.current_odk(Some(org)).await?;
        self.unwrapped(&record.ok_or(StoreError::Inconsistent { table: "odks" })?)
            .await
    }

    /// The data key a secret was sealed under, unwrapped.
    ///
    /// # Errors
    /// When the database or the key service is unavailable.
    pub async fn key_of(&self, org: OrgId, odk: KeyId) -> Result<OdkHandle, Refusal> {
        let record = self.store.read(org).await?.odk(Some(org), odk).await?;
        self.unwrapped(&record.ok_or(StoreError::Inconsistent { table: "odks" })?)
            .await
    }

    /// A data key, unwrapped.
    ///
    /// # Errors
    /// When the key service is unavailable.
    pub async fn unwrapped(&self, record: &OdkRecord) -> Result<OdkHandle, Refusal> {
        self.keyring.odk(record).await.map_err(Refusal::from)
    }
}

impl Deps {
    pub(crate) fn link_hash(&self, token: &LinkToken) -> Result<[u8; 32], CryptoError> {
        self.lookup.link("connect", token)
    }

    pub(crate) fn browser_hash(&self, token: &LinkToken) -> Result<[u8; 32], CryptoError> {
        self.lookup.link("browser", token)
    }

    pub(crate) fn code_hash(&self, token: &LinkToken) -> Result<[u8; 32], CryptoError> {
        self.lookup.link("complete", token)
    }

    pub(crate) fn state_of(&self, token: &LinkToken) -> Result<String, CryptoError> {
        self.lookup.state_of(token)
    }

    pub(crate) fn state_hash(&self, state: &str) -> Result<[u8; 32], CryptoError> {
        self.lookup.state(state)
    }

    /// What a person consents to at a connector (crypto §2); `None` if there is no such connector.
    #[must_use]
    pub fn binding(&self, connector: &ConnectorId) -> Option<[u8; 32]> {
        self.catalogue.binding(connector)
    }

    /// Where a connector's authorization server sends the browser back to: one address per connector, so that an
    /// answer of one server never passes for another's (RFC 9700 §4.4).
    #[must_use]
    pub fn redirect_uri(&self, connector: &ConnectorId) -> String {
        format!("{}/callback/{connector}", self.issuer)
    }
}

/// Every "no" of protocol §6. `http::problem` alone knows the status codes.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body or the request does not have the shape asked for.
    #[error("invalid request")]
    InvalidRequest(Vec<Fault>),
    /// The arguments do not fit the tool.
    #[error("invalid args")]
    InvalidArgs(Vec<Fault>),
    /// Nobody known is calling.
    #[error("unauthenticated")]
    Unauthenticated,
    /// Policy, the person or the agent's capability says no.
    #[error("denied: {reason}")]
    Denied {
        /// Stable, may be shown to a model.
        reason: String,
        /// In words, may be shown to a model.
        message: Option<String>,
        /// The decision that says so.
        decision: Option<String>,
        /// The entry that keeps it.
        entry: Option<EntryId>,
    },
    /// The decision brought along does not hold.
    #[error("decision rejected: {0}")]
    DecisionRejected(DecisionError),
    /// There is no such thing, or it is another tenant's.
    #[error("not found")]
    NotFound,
    /// The person has not connected this app yet.
    #[error("connection required")]
    ConnectionRequired(ConnectLink),
    /// The person has to connect this app again.
    #[error("reconnect required")]
    ReconnectRequired(ConnectLink),
    /// The grant needs its person; the caller turns this into a link.
    #[error("the grant needs to be connected again")]
    GrantNeedsReconnect(GrantId),
    /// The provider did not prove that the token is narrower.
    #[error("the token was not narrowed")]
    NotNarrowed,
    /// The person has several accounts there.
    #[error("account selection required")]
    AccountSelectionRequired(Vec<AccountChoice>),
    /// The decision was used.
    #[error("decision spent")]
    DecisionSpent {
        /// By this entry.
        entry: EntryId,
    },
    /// The idempotency key came with another body before.
    #[error("idempotency conflict")]
    IdempotencyConflict {
        /// The entry of the first call.
        entry: EntryId,
    },
    /// The first call with this key released already.
    #[error("already released")]
    AlreadyReleased {
        /// Its entry.
        entry: EntryId,
        /// How it ended.
        status: u16,
    },
    /// The first call with this key is still running.
    #[error("in progress")]
    InProgress {
        /// Its entry.
        entry: EntryId,
    },
    /// The grant was ended.
    #[error("revoked")]
    Revoked {
        /// Which.
        grant: GrantId,
        /// When.
        at: Time,
    },
    /// Not by this mode; the others are.
    #[error("mode unavailable")]
    ModeUnavailable(ModeSet),
    /// Too much waits or was asked.
    #[error("rate limited")]
    RateLimited(Duration),
    /// The org's key service does not unwrap.
    #[error("the key service is unavailable")]
    KeyUnavailable,
    /// The provider does not answer usefully; nothing was released.
    #[error("the provider is unavailable")]
    ProviderUnavailable,
    /// The database is older than what is known outside of it: an admin has to recover first.
    #[error("sealed")]
    Sealed,
    /// The database does not answer, or the org has as many of its connections as it may; after [`StoreError::Undecided`] what
    /// was asked for may have been done all the same.
    #[error("the store is unavailable")]
    StoreUnavailable(#[source] Option<StoreError>),
    /// The org's facts changed each time they were read: nothing could be decided on facts that hold.
    #[error("the facts changed each time they were read")]
    Unsettled,
    /// Too long passed between the entry of a release and its sending: the receipt died, nothing left on it.
    #[error("the release came too late")]
    TooLate,
    /// Sent, but there was no answer; or a fault of ours stopped it, nobody knows where. Never repeated by Postern.
    #[error("outcome unknown")]
    OutcomeUnknown {
        /// The release, where it is known.
        entry: Option<EntryId>,
    },
    /// A fault of ours stopped the work before anything could be released on it.
    #[error("the task stopped unexpectedly")]
    Broken,
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to it.
    pub pointer: String,
    /// What is wrong, in words.
    pub detail: String,
}

/// Where a person goes to connect. `Debug` leaves the link out: refusals that carry one are printed.
#[derive(Clone)]
pub struct ConnectLink {
    /// The connect session.
    pub session: crate::domain::ConnectSessionId,
    /// The opaque link.
    pub url: String,
    /// When it ends.
    pub expires_at: Time,
}

impl fmt::Debug for ConnectLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectLink")
            .field("session", &self.session)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// One of several accounts.
#[derive(Debug, Clone)]
pub struct AccountChoice {
    /// The grant to name.
    pub grant: GrantId,
    /// At which connector.
    pub connector: ConnectorId,
    /// What people read.
    pub label: String,
}

impl Refusal {
    /// A request that lacks the shape asked for, at one place.
    #[must_use]
    pub fn invalid(pointer: &str, detail: impl Into<String>) -> Self {
        Self::InvalidRequest(vec![Fault {
            pointer: pointer.to_owned(),
            detail: detail.into(),
        }])
    }

    /// A plain denial that names no decision.
    #[must_use]
    pub fn denied(reason: &str) -> Self {
        Self::Denied {
            reason: reason.to_owned(),
            message: None,
            decision: None,
            entry: None,
        }
    }

    /// Whether there is no database to speak to: whatever is tried next would wait in vain.
    fn is_outage(&self) -> bool {
        matches!(self, Self::StoreUnavailable(Some(error)) if error.outage().is_some()) && !self.is_unheard()
    }

    /// Whether what was asked for may have been done.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::StoreUnavailable(Some(error)) if error.is_undecided())
    }

    /// Whether what was asked for is in the database, and the data directory, which hangs, has not heard of it.
    fn is_unheard(&self) -> bool {
        matches!(self, Self::StoreUnavailable(Some(error)) if error.is_unheard())
    }

    /// As whoever asks for a release, or about one, hears it who got none: a commit that nobody confirmed released nothing.
    #[must_use]
    pub fn without_release(self) -> Self {
        match self {
            Self::StoreUnavailable(Some(error)) if error.is_undecided() => {
                Self::StoreUnavailable(error.said())
            }
            refusal => refusal,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost => Self::Sealed,
            error => Self::StoreUnavailable(Some(error)),
        }
    }
}

impl Contended for Refusal {
    fn is_contended(&self) -> bool {
        matches!(self, Self::StoreUnavailable(Some(error)) if error.is_contended())
    }
}

impl From<Full> for Refusal {
    fn from(_: Full) -> Self {
        Self::RateLimited(BUSY_FOR)
    }
}

impl From<RandomnessUnavailable> for Refusal {
    fn from(_: RandomnessUnavailable) -> Self {
        Self::KeyUnavailable
    }
}

impl From<CryptoError> for Refusal {
    fn from(_: CryptoError) -> Self {
        Self::KeyUnavailable
    }
}

/// When to come back to a full house: many leave it every second, but who comes back at once meets the same crowd.
const BUSY_FOR: Duration = Duration::from_secs(1);
