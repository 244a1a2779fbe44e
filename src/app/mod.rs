//! Composition root: builds every port and fills [`Deps`]. Alone knows all rooms.

mod allocator;
pub mod clock;
pub mod copy_database;
#[cfg(feature = "dev")]
pub mod demo;
mod keys;
pub mod ready;
pub mod serve;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern_kms::{KeyService, local::LocalKeyError};
use tokio::sync::oneshot;

use crate::{
    audit::{sinks::Sink, witness::Witness},
    connectors::{Catalogue, CatalogueError},
    crypto::{CryptoError, Keyring, OsRandomness, hardening::Locking, instance::Purpose, lookup::LookupKeys},
    domain::{Clock, OrgId, Randomness},
    egress::{Egress, EgressError, Webhook},
    flows::{
        Deps, Refusal,
        facts::FactsCache,
        recover::Unfinished,
        refresh::{self, Flights, doubt::Doubts},
        refused::Tally,
        seal,
        sequence::SignedHeads,
        sweep,
        uncut::Uncut,
    },
    release::Gate,
    store::{
        Claims, Contended, CopyError, Keeps, Location, Looks, Outside, OutsideError, Spool, SpoolError,
        Store, StoreError, TimeSource,
    },
    workers::REPLICA_EVERY,
};

/// Why Postern does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database.
    #[error("the database cannot be used: {0}")]
    Store(#[from] StoreError),
    /// Copying one database into another.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// What is kept beside the database.
    #[error("the spool cannot be used: {0}")]
    Spool(#[from] SpoolError),
    /// Keys.
    #[error("the keys cannot be used: {0}")]
    Crypto(#[from] CryptoError),
    /// The local key-encryption key.
    #[error("the key-encryption key cannot be used: {path}: {cause}")]
    LocalKey {
        /// Its file, or that of its parameters.
        path: String,
        /// What is wrong.
        cause: LocalKeyError,
    },
    /// A connector file.
    #[error("a connector cannot be used: {0}")]
    Catalogue(#[from] CatalogueError),
    /// The outbound client.
    #[error("the outbound client cannot be built: {0}")]
    Egress(#[from] EgressError),
    /// The file outside the database.
    #[error("what is kept outside the database cannot be used: {0}")]
    Outside(#[from] OutsideError),
    /// A flow.
    #[error("{0}")]
    Flow(#[from] Refusal),
    /// The first organisation was not made, after its key was shown.
    #[error("{0}; nothing was made, and the admin key that was shown never works")]
    Unfounded(Refusal),
    /// The same, but whether it was made is not known.
    #[error(
        "{0}: the organisation may have been made all the same. Keep the admin key that was shown, and run `postern init` again: \
         if there is an organisation by then, the key is its admin's"
    )]
    Unconfirmed(Refusal),
    /// A recovery. Those of the orgs before it are done; admin keys may have been shown for all of them.
    #[error(
        "{org}: {cause}. Organisations shown before it are recovered; those shown after it are not, and admin keys shown for \
         them never work"
    )]
    Recovery {
        /// Of which org.
        org: OrgId,
        /// What became of it.
        cause: Unfinished,
    },
    /// The network or a file.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A setting that cannot be used, or a start that must not happen.
    #[error("{0}")]
    Refused(String),
}

impl AppError {
    fn local_key(path: &Path) -> impl FnOnce(LocalKeyError) -> Self {
        let path = path.display().to_string();
        move |cause| Self::LocalKey { path, cause }
    }
}

impl Contended for AppError {
    fn is_contended(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_contended())
    }
}

/// What made a database; one never opens the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `postern dev`.
    Dev,
    /// `postern serve` and `postern init`.
    Serve,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Serve => "serve",
        }
    }
}

/// The parts a deployment is built of.
#[derive(Debug)]
pub struct Parts {
    /// Who starts.
    pub kind: Kind,
    /// Where the rows are.
    pub database: Location,
    /// Whose time counts.
    pub time: TimeSource,
    /// Where files of its own live: what is kept outside the database, the spool. It must outlive the process.
    pub data_dir: PathBuf,
    /// Where the KEK is.
    pub keys: Arc<dyn KeyService>,
    /// Which KEK new data keys are wrapped under.
    pub kek_ref: String,
    /// In words people read.
    pub key_words: String,
    /// How long a plaintext data key may live.
    pub cache_ttl: Duration,
    /// Whether keys must be in memory that is never swapped out.
    pub locking: Locking,
    /// The public base URL without trailing slash.
    pub issuer: String,
    /// The connectors of this deployment.
    pub catalogue: Catalogue,
    /// The one way out.
    pub egress: Egress,
    /// Where the audit log is copied to.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Who cosigns the log's checkpoints.
    pub witness: Option<Witness>,
    /// Who is told of changes of grants' states.
    pub webhook: Option<Webhook>,
    /// The only source of time.
    pub clock: Arc<dyn Clock>,
}

/// Opens the database, unwraps or makes the deployment's keys, starts the gate.
///
/// # Errors
/// When any part cannot be had; nothing is served then.
pub async fn open(parts: Parts) -> Result<Arc<Deps>, AppError> {
    open_with(parts, Gate::start).await
}

/// The same with a gate that commits nothing: what a release costs without its durability.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "bench")]
pub async fn open_without_commit(parts: Parts) -> Result<Arc<Deps>, AppError> {
    open_with(parts, Gate::start_without_commit).await
}

async fn open_with(
    parts: Parts,
    gate: impl FnOnce(Store, Arc<dyn Clock>) -> Gate,
) -> Result<Arc<Deps>, AppError> {
    let random: Arc<dyn Randomness> = Arc::new(OsRandomness::new());
    // First of all: whoever may not have the directory takes nothing in the database either.
    let outside = Outside::open(&parts.data_dir)?;
    let store = Store::open(&parts.database, Arc::clone(&parts.clock), parts.time, &random).await?;
    let store = store.keeping(outside);
    // On the heap: inline, it would overflow the stack of a thread whose callers nest it.
    let opened = Box::pin(open_over(store.clone(), random, parts, gate)).await;
    closing_if_refused(&store, opened).await
}

async fn open_over(
    store: Store,
    random: Arc<dyn Randomness>,
    parts: Parts,
    gate: impl FnOnce(Store, Arc<dyn Clock>) -> Gate,
) -> Result<Arc<Deps>, AppError> {
    own(&store, parts.kind).await?;
    store.tell_changes(parts.webhook.is_some()).await?;
    let keyring = Keyring::new(
        parts.keys,
        Arc::clone(&parts.clock),
        Arc::clone(&random),
        parts.cache_ttl,
    )
    .with_locking(parts.locking);
    let chest = keys::Chest::open(&store, &keyring, &parts.kek_ref, &*parts.clock).await?;
    let spool = Spool::open(&parts.data_dir.join("spool"))?;
    let kind = parts.kind;
    let deps = Arc::new(Deps {
        gate: gate(store.clone(), Arc::clone(&parts.clock)),
        looks: Looks::start(store.clone()),
        claims: Claims::start(store.clone()),
        keeps: Keeps::start(store.clone()),
        store,
        clock: parts.clock,
        random,
        keyring: Arc::new(keyring),
        lookup: LookupKeys {
            api_keys: chest.mac(Purpose::ApiKeys)?,
            sessions: chest.mac(Purpose::Sessions)?,
            connect_state: chest.mac(Purpose::ConnectState)?,
        },
        notary: chest.signing(Purpose::Notary)?,
        checkpoints: chest.signing(Purpose::Checkpoints)?,
        catalogue: parts.catalogue,
        egress: parts.egress,
        signed: SignedHeads::default(),
        facts: FactsCache::default(),
        flights: Flights::default(),
        doubts: Doubts::default(),
        uncut: Uncut::default(),
        sinks: parts.sinks,
        witness: parts.witness.map(Arc::new),
        refused: Tally::default(),
        webhook: parts.webhook.map(Arc::new),
        spool,
        issuer: parts.issuer,
        kek_ref: parts.kek_ref,
        key_words: parts.key_words,
    });
    if let Kind::Serve = kind
        && let Some(before) = seal::former_issuer(&deps).await?
    {
        return Err(AppError::Refused(format!(
            "server.public_url was {before} when the logs were signed that this data directory knows, and is {now} now. It is in \
             the name of every log: set it back; nothing was changed",
            now = deps.issuer
        )));
    }
    let found = keeping_the_name(&deps.store, seal::check(&deps)).await?;
    deps.store.give_word(seal::word(&found)).await?;
    sweep::earlier_life(&deps).await?;
    // Before anybody can ask for these tokens, and before anybody asks the provider for them again.
    keeping_the_name(&deps.store, refresh::spooled::drain(&deps)).await;
    Ok(deps)
}

/// Hands on what became of a start; after a refusal it closes the store first. Else the replica's name would stay taken until its
/// lease ends, while a supervisor starts the process again and again.
async fn closing_if_refused<T>(store: &Store, started: Result<T, AppError>) -> Result<T, AppError> {
    if started.is_err() {
        store.close().await;
    }
    started
}

/// Renews this process's lease of its name while it starts, which takes long with very many orgs, or while a person is asked:
/// others would take it for dead.
async fn keeping_the_name<T>(store: &Store, work: impl Future<Output = T>) -> T {
    let (working, mut ended) = oneshot::channel::<()>();
    let working = async move {
        let done = work.await;
        drop(working);
        done
    };
    // Beside the work, which may hold what a renewal waits for; and one that is under way is not broken off.
    let renewing = async {
        while tokio::time::timeout(REPLICA_EVERY, &mut ended).await.is_err() {
            if let Err(cause) = store.renew_replica().await {
                tracing::debug!(cause = %cause, "the lease of this process's name could not be renewed; it is tried again");
            }
        }
    };
    tokio::join!(Box::pin(working), Box::pin(renewing)).0
}

/// Refuses a database that the other kind of start made: no relaxation of `dev` reaches production by its files.
async fn own(store: &Store, kind: Kind) -> Result<(), AppError> {
    match store.meta("made_by").await? {
        None => Ok(store.set_meta("made_by", kind.as_str()).await?),
        Some(made_by) if made_by == kind.as_str() => Ok(()),
        Some(made_by) => Err(AppError::Refused(format!(
            "this database was made by `postern {made_by}` and is not opened by `postern {}`",
            kind.as_str()
        ))),
    }
}
