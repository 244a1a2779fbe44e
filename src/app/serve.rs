//! `postern serve` and `postern init`: the production start.

use std::{path::Path, sync::Arc, time::Duration};

use postern_kms::{
    KeyService,
    local::{LocalKeys, create_key_file, create_passphrase_file, settle_key_file},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, sync::watch};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    audit::{
        sinks::{FileSink, Form, OtlpSink, Sink, WebhookSink},
        witness::Witness,
    },
    config::{Database, Kek, OrgPattern, Settings, SinkKind, SinkSettings, StoreUrl},
    connectors::{Catalogue, Options},
    crypto::{
        hardening::{self, Locking},
        webhook::WebhookKey,
    },
    egress::{Egress, EgressPolicy, Webhook, operator_client},
    flows::{
        Deps, found,
        recover::{self, Vouch},
        refused, seal,
    },
    http::{
        guard::RequestIds,
        router,
        routes::health::{self, Readiness},
        security::Site,
        server,
    },
    store::{self, Location, PostgresSettings, TimeSource},
    workers::Workers,
};

use super::{
    AppError, Kind, Parts, clock::SystemClock, closing_if_refused, keeping_the_name, open, ready::probe,
};

/// Serves until a stop signal, then drains.
///
/// # Errors
/// When a part cannot be had or a port cannot be bound.
pub async fn serve(settings: Settings) -> Result<(), AppError> {
    refuse_test_builds()?;
    if let StoreUrl::Sqlite(path) = &settings.store.url
        && !path.exists()
    {
        return Err(AppError::Refused(
            "there is no database yet; run `postern init --config FILE --org NAME --admin EMAIL` first"
                .to_owned(),
        ));
    }
    let site = Site::new(settings.server.public_url.url())
        .map_err(|_| AppError::Refused("the public url is not an origin".to_owned()))?;
    let deps = open_reached(parts(&settings)?).await?;
    let bound = async {
        let listener = bind(settings.server.listen).await?;
        Ok::<_, AppError>((listener, bind(settings.server.ops_listen).await?))
    };
    let (listener, ops) = closing_if_refused(&deps.store, bound.await).await?;
    let limits = server::Limits {
        connections: settings.limits.connections,
        header_timeout: settings.limits.header_timeout,
        idle_timeout: settings.limits.idle_timeout,
        body_bytes: settings.limits.body_bytes,
        drain: settings.limits.drain,
        ..server::Limits::default()
    };
    let up = || {
        tracing::info!(listen = %settings.server.listen, "serving {}", settings.server.public_url.issuer());
    };
    let usual = settings.limits.handler_timeout;
    run(deps, site, listener, ops, limits, usual, up).await
}

/// Makes the first org of a deployment. `shown` shows what is about to be made and the admin's login link, and says whether
/// somebody could read it; only then is the org committed, so that there is none whose key nobody has.
///
/// # Errors
/// When there is an org already, nobody could be shown the key, or a part cannot be had.
pub async fn init(
    settings: Settings,
    org: &str,
    admin: &str,
    shown: impl FnOnce(&found::Founded, &str) -> bool,
) -> Result<(), AppError> {
    refuse_test_builds()?;
    create_kek(&settings)?;
    let deps = open_reached(parts(&settings)?).await?;
    let making = async {
        if !deps.store.due().await?.orgs(None, 1).await?.is_empty() {
            return Err(AppError::Refused(
                "this database has an organisation already; nothing was changed".to_owned(),
            ));
        }
        let mut founding = found::begin(&deps, org, admin).await?;
        let link = founding.invite(&deps, "postern init")?;
        if !shown(founding.founded(), &link) {
            return Err(AppError::Refused(
                "the admin key could not be shown; no organisation was made".to_owned(),
            ));
        }
        match founding.finish(&deps).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is_undecided() => Err(AppError::Unconfirmed(refusal)),
            Err(refusal) => Err(AppError::Unfounded(refusal)),
        }
    };
    let made = making.await;
    deps.store.close().await;
    made
}

/// What recovering the sealed orgs of a deployment would mean and, if `confirmed` says yes to it, does it.
///
/// # Errors
/// When a part cannot be had, or the service runs: one process at a time has the database.
pub async fn recover(
    settings: Settings,
    vouch: Vouch,
    confirmed: impl AsyncFnOnce(&[recover::Plan]) -> bool,
) -> Result<(), AppError> {
    refuse_test_builds()?;
    let deps = open_reached(parts(&settings)?).await?;
    let recovering = async {
        let found = seal::check_for_recovery(&deps).await?;
        let plans = recover::planned(&deps, &found, vouch).await?;
        if confirmed(&plans).await {
            recover::all(&deps, &plans, "postern recover")
                .await
                .map_err(|(org, cause)| AppError::Recovery { org, cause })?;
        }
        Ok::<_, AppError>(())
    };
    let done = keeping_the_name(&deps.store, recovering).await;
    // Also after an error: what was found stays said (Store::leave_replica).
    deps.store.close().await;
    done
}

/// Opens what [`open`] does once the database's server is there, and says meanwhile what it waits for.
async fn open_reached(parts: Parts) -> Result<Arc<Deps>, AppError> {
    if let Location::Postgres(server) = &parts.database {
        store::reach(server).await?;
    }
    open(parts).await
}

/// Serves the API, the pages and the probes until a stop signal; then stops the workers and closes the database. Calls
/// `up` when it serves and a stop signal would be obeyed.
pub(super) async fn run(
    deps: Arc<Deps>,
    site: Site,
    listener: TcpListener,
    ops: TcpListener,
    limits: server::Limits,
    usual: Duration,
    up: impl FnOnce(),
) -> Result<(), AppError> {
    let io = |what: &str, cause| AppError::Io {
        what: what.to_owned(),
        cause,
    };
    let begun = || {
        let told = server::stop_signal().map_err(|cause| io("waiting for signals", cause))?;
        let ids =
            || RequestIds::new(&*deps.random).map_err(|_| AppError::Refused("no randomness".to_owned()));
        Ok::<_, AppError>((told, ids()?, ids()?))
    };
    let (told, ids, ops_ids) = closing_if_refused(&deps.store, begun()).await?;
    let workers = Workers::start(&deps);
    let (ready, readiness) = watch::channel(Readiness {
        obstacles: vec!["starting"],
    });
    let prober = tokio::spawn(probe(Arc::clone(&deps), ready.clone()));
    let (ended, end) = watch::channel(false);
    let wait = |mut end: watch::Receiver<bool>| async move {
        // The sender is gone only when everything ends.
        let _ended = end.wait_for(|ended| *ended).await;
    };
    let options = router::Options {
        usual,
        ..router::Options::default()
    };
    let app = router::app_within(Arc::clone(&deps), site, &options);
    let ops_server = tokio::spawn(server::serve(
        ops,
        health::routes(readiness),
        server::Limits::default(),
        ops_ids,
        wait(end.clone()),
    ));
    let server = tokio::spawn(server::serve(listener, app, limits, ids, wait(end)));
    up();
    let lost = tokio::select! {
        () = told => false,
        () = lost_entries(&deps) => true,
    };
    tracing::info!("stopping: no new connections, requests under way may finish");
    prober.abort();
    ready.send_replace(Readiness {
        obstacles: vec!["draining"],
    });
    let answered = async {
        ended.send_replace(true);
        for task in [server, ops_server] {
            task.await
                .map_err(|_| AppError::Refused("a server ended unexpectedly".to_owned()))?;
        }
        Ok::<_, AppError>(())
    };
    stop(&deps, workers, answered).await?;
    if lost {
        return Err(AppError::Store(store::StoreError::Lost));
    }
    Ok(())
}

/// Ends in order: first the requests under way, which `answered` waits for, then what providers were asked, then the
/// workers, then the database. Returns what `answered` came to.
pub async fn stop<T>(deps: &Deps, workers: Workers, answered: impl Future<Output = T>) -> T {
    deps.uncut.stop();
    let answered = answered.await;
    // Before the workers: meanwhile they keep this replica's name and enter what was spooled.
    deps.uncut.end().await;
    workers.stop().await;
    refused::sum_up(deps, true).await;
    deps.store.close().await;
    answered
}

/// Waits until the database is found to have forgotten what this process knows: an older one was put in its place, and
/// nothing this process knows of it holds any more (crypto §6).
async fn lost_entries(deps: &Deps) {
    while !deps.store.has_lost_entries() {
        tokio::time::sleep(LOST_EVERY).await;
    }
    tracing::error!("this database is not the one that this process wrote to any more: stopping");
}

pub(super) async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|cause| AppError::Io {
        what: format!("cannot listen on {address}"),
        cause,
    })
}

fn refuse_test_builds() -> Result<(), AppError> {
    if cfg!(feature = "bench") {
        return Err(AppError::Refused(
            "this build can leave commits out; it is for measurements only".to_owned(),
        ));
    }
    if cfg!(feature = "failpoints") {
        return Err(AppError::Refused(
            "this build can be told to stop at any place; it is for tests only".to_owned(),
        ));
    }
    Ok(())
}

pub(super) fn location(store: &Database) -> Result<Location, AppError> {
    match &store.url {
        StoreUrl::Sqlite(path) => Ok(Location::Sqlite(path.clone())),
        StoreUrl::Postgres(url) => {
            let password = match (&store.password, &store.password_file) {
                (Some(password), _) => Some(password.clone()),
                (None, Some(file)) => Some(secret_line(file)?),
                // The database may know the role by its certificate, or the environment may say it in libpq's own way.
                (None, None) => None,
            };
            Ok(Location::Postgres(postgres(store, url, password)))
        }
    }
}

fn postgres(store: &Database, url: &Url, password: Option<SecretString>) -> PostgresSettings {
    PostgresSettings {
        url: url.to_string(),
        password,
        connections: u32::try_from(store.connections).unwrap_or(u32::MAX),
        pooler: store.pooler,
        isolation: store::Isolation::ReadCommitted,
    }
}

/// Brings a PostgreSQL schema up to date, logged in as the role `owner`; returns how many migrations were missing.
///
/// # Errors
/// When the store is SQLite, which brings itself up to date, or a migration fails.
pub async fn migrate(settings: &Settings, owner: &str) -> Result<usize, AppError> {
    let StoreUrl::Postgres(url) = &settings.store.url else {
        return Err(AppError::Refused(
            "a SQLite database is brought up to date when it is opened; there is nothing to migrate"
                .to_owned(),
        ));
    };
    let mut url = url.clone();
    if url.set_username(owner).is_err() {
        return Err(AppError::Refused("the store url can name no role".to_owned()));
    }
    // The service's own password is not asked for: whoever migrates may not be able to read it.
    let owner = postgres(&settings.store, &url, settings.store.owner_password.clone());
    store::reach(&owner).await?;
    Ok(store::migrate(&owner).await?)
}

fn parts(settings: &Settings) -> Result<Parts, AppError> {
    let dir = &settings.data_dir;
    if !dir.is_dir() {
        // Not made here: an empty one in the place of one that is not mounted would forget what it kept.
        return Err(AppError::Refused(format!(
            "the data directory {dir} does not exist: mount it again if it was in use, or make a new replica's with \
             `install -d -m 700 {dir}`",
            dir = dir.display()
        )));
    }
    let locking = if settings.keys.allow_unlocked {
        Locking::Preferred
    } else {
        Locking::Required
    };
    let hardened = hardening::harden_process();
    tracing::debug!(?hardened, "hardened the process");
    if locking == Locking::Required && !hardened.lockable {
        return Err(AppError::Refused(
            "keys cannot be locked into memory: raise RLIMIT_MEMLOCK, or set keys.allow_unlocked = true"
                .to_owned(),
        ));
    }
    let mut policy = EgressPolicy::strict();
    let mut plain_http = Vec::new();
    for allow in &settings.egress_allow {
        if allow.org != OrgPattern::Any {
            return Err(AppError::Refused(
                "egress.allow: an address for one org only is not there yet; write org = \"*\"".to_owned(),
            ));
        }
        let address = format!("{}:{}", allow.address.host, allow.address.port);
        plain_http.push(format!("http://{address}"));
        policy = policy
            .allow(&allow.connector, &address)
            .map_err(|_| AppError::Refused(format!("egress.allow: {address} is not host:port")))?;
    }
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: None,
        dir: settings.connectors_dir.as_deref(),
        plain_http_allowed: &plain_http,
    })?;
    let (keys, key_words) = kek(settings, locking)?;
    Ok(Parts {
        kind: Kind::Serve,
        database: location(&settings.store)?,
        time: TimeSource::Database,
        data_dir: settings.data_dir.clone(),
        keys,
        kek_ref: LOCAL_KEK.to_owned(),
        key_words,
        cache_ttl: settings.keys.cache_ttl,
        locking,
        issuer: settings.server.public_url.issuer().to_owned(),
        catalogue,
        egress: Egress::new(policy)?,
        sinks: sinks(settings)?,
        witness: witness(settings)?,
        webhook: webhook(settings)?,
        clock: Arc::new(SystemClock),
    })
}

fn sinks(settings: &Settings) -> Result<Vec<Arc<dyn Sink>>, AppError> {
    let one = |sink: &SinkSettings| -> Result<Arc<dyn Sink>, AppError> {
        let name = sink.name.clone();
        Ok(match &sink.kind {
            SinkKind::File(path) => Arc::new(FileSink::new(name, path.clone(), Form::Entries)),
            SinkKind::Ocsf(path) => Arc::new(FileSink::new(name, path.clone(), Form::Ocsf)),
            SinkKind::Otlp(url) => Arc::new(OtlpSink::new(name, url.clone(), operator_client()?)),
            SinkKind::Webhook { url, secret_file } => {
                Arc::new(WebhookSink::new(name, receiver(url, secret_file)?))
            }
        })
    };
    settings.sinks.iter().map(one).collect()
}

fn witness(settings: &Settings) -> Result<Option<Witness>, AppError> {
    let Some(witness) = &settings.witness else {
        return Ok(None);
    };
    let client = operator_client()?;
    Ok(Some(Witness::new(
        witness.key.clone(),
        witness.url.clone(),
        witness.monitoring_url.clone(),
        client,
    )))
}

fn webhook(settings: &Settings) -> Result<Option<Webhook>, AppError> {
    let webhook = settings.webhook.as_ref();
    webhook
        .map(|webhook| receiver(&webhook.url, &webhook.secret_file))
        .transpose()
}

/// A receiver and the secret shared with it.
fn receiver(url: &Url, secret_file: &Path) -> Result<Webhook, AppError> {
    let secret = secret_line(secret_file)?;
    let key = WebhookKey::parse(secret.expose_secret())
        .map_err(|error| AppError::Refused(format!("{}: {error}", secret_file.display())))?;
    Ok(Webhook::new(url.clone(), key, operator_client()?))
}

fn kek(settings: &Settings, locking: Locking) -> Result<(Arc<dyn KeyService>, String), AppError> {
    let keep = match locking {
        Locking::Required => hardening::keep_locked,
        Locking::Preferred => hardening::keep_preferably_locked,
    };
    let mut keys = LocalKeys::new(keep);
    let words = match &settings.keys.kek {
        Kek::KeyFile(path) => {
            keys.add_key_file(LOCAL_KEK, path)
                .map_err(AppError::local_key(path))?;
            "your organisation's key, in a file on this server"
        }
        Kek::PassphraseFile(_) | Kek::Passphrase(_) => {
            let parameters = parameters(settings);
            if !parameters.exists() {
                return Err(AppError::Refused(format!(
                    "the passphrase alone is not the key-encryption key: {} is missing. Copy kek.params there from the \
                     [data] dir of a replica that has it (`postern init` makes it with the first one), mode 0600",
                    parameters.display()
                )));
            }
            keys.add_passphrase(LOCAL_KEK, &passphrase(settings)?, &parameters)
                .map_err(AppError::local_key(&parameters))?;
            "your organisation's key, from a passphrase given to this server"
        }
    };
    Ok((Arc::new(keys), words.to_owned()))
}

/// Makes the KEK's file where there is none yet; an existing one is never touched.
fn create_kek(settings: &Settings) -> Result<(), AppError> {
    std::fs::create_dir_all(&settings.data_dir).map_err(|cause| AppError::Io {
        what: format!("cannot make {}", settings.data_dir.display()),
        cause,
    })?;
    let path = match &settings.keys.kek {
        Kek::KeyFile(path) => path.clone(),
        Kek::PassphraseFile(_) | Kek::Passphrase(_) => parameters(settings),
    };
    let made = match &settings.keys.kek {
        _ if path.exists() => Ok(()),
        Kek::KeyFile(_) => create_key_file(&path),
        Kek::PassphraseFile(_) | Kek::Passphrase(_) => create_passphrase_file(&passphrase(settings)?, &path),
    };
    made.and_then(|()| settle_key_file(&path))
        .map_err(AppError::local_key(&path))
}

fn passphrase(settings: &Settings) -> Result<SecretString, AppError> {
    match &settings.keys.kek {
        Kek::Passphrase(text) => Ok(SecretString::from(text.expose_secret().to_owned())),
        Kek::PassphraseFile(path) => secret_line(path),
        Kek::KeyFile(_) => Err(AppError::Refused(
            "the key is a file, not a passphrase".to_owned(),
        )),
    }
}

/// The secret a file holds, without the line's end.
fn secret_line(path: &Path) -> Result<SecretString, AppError> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|cause| AppError::Io {
        what: format!("cannot read {}", path.display()),
        cause,
    })?);
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn parameters(settings: &Settings) -> std::path::PathBuf {
    settings.data_dir.join("kek.params")
}

/// How often a stop for lost entries is looked for.
const LOST_EVERY: Duration = Duration::from_millis(500);
/// The name of the one local KEK.
pub(super) const LOCAL_KEK: &str = "local";
