//! A deployment as `postern dev` makes it, with one Acme Mail grant connected by the real flows; more orgs on demand.

#[expect(
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the tests' own way to a PostgreSQL server; a measurement that has none stops"
)]
#[path = "../../tests/it/harness/database.rs"]
pub(crate) mod database;

mod connect;

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use postern::{
    app::{AppError, Kind, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::{OsRandomness, hardening, lookup::show_api_key},
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::{GrantId, Mode, principal::KeyOwner},
    egress::{Egress, EgressPolicy},
    flows::{
        Deps,
        actions::{Ask, Caller, Target},
        apply, found,
    },
    http::{guard::RequestIds, server},
    policy::demo,
    store::{Keyed, Location, TimeSource},
};
use postern_kms::local::{LocalKeys, create_key_file};
use serde_json::json;
use tokio::net::TcpListener;

use crate::measure::{Done, failed};

/// A running deployment. Dropping it removes its directory.
pub(crate) struct World {
    pub(crate) deps: Arc<Deps>,
    pub(crate) agent: Caller,
    pub(crate) grant: GrantId,
    pub(crate) location: Location,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// Founds the demo organisation in a new database that `open` opens, and lets Ada connect Acme Mail. With it come
    /// the agent's key and Acme Mail's address.
    pub(crate) async fn new<F>(url: &str, open: impl FnOnce(Parts) -> F) -> Done<(Self, String, String)>
    where
        F: Future<Output = Result<Arc<Deps>, AppError>>,
    {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let acme = start_acme(url).await?;
        let location = database::location(dir.path()).await;
        let deps = open(parts(dir.path(), location.clone(), url, &acme)?).await?;
        let (agent, grant, key) = tenant(&deps, &acme).await?;
        let world = Self {
            deps,
            agent,
            grant,
            location,
            dir,
        };
        Ok((world, key, acme))
    }

    /// Which database is behind it.
    pub(crate) fn engine(&self) -> &'static str {
        match self.location {
            Location::Sqlite(_) => "SQLite, WAL, synchronous = FULL",
            Location::Postgres(_) => "PostgreSQL",
        }
    }

    /// A token for reading messages: `ask` of the vend that is measured.
    pub(crate) fn ask(&self) -> Ask {
        Ask {
            target: Target::Grant(self.grant),
            tool: "messages.list".to_owned(),
            args: json!({"limit": 3}),
            mode: Some(Mode::Token),
            ttl_s: None,
            decision: None,
            context: None,
            run: None,
            idempotency: None,
        }
    }
}

/// One more org: its agent, the grant it may use, and its key.
pub(crate) async fn tenant(deps: &Arc<Deps>, acme: &str) -> Done<(Caller, GrantId, String)> {
    let founded = found::found(deps, "Acme", "ada@acme.example").await?;
    let document = toml::to_string(&json!({
        "agent": [{"name": "Mail Assistant"}],
        "connector": {"acme-mail": {"client_id": acme_mail::DEMO_CLIENT_ID}},
        "policies": {"org": [demo::ORG], "agent": [demo::AGENT]},
    }))?;
    let applied = apply::apply(deps, founded.org, "bench".to_owned(), &document).await?;
    let key = applied.keys.iter().find(|key| key.kind == "agent");
    let agent_key = &key.ok_or("no agent key")?.key;
    let hash = deps.lookup.api_key(agent_key)?;
    let found = deps.store.find(Keyed::ApiKey(&hash)).await?;
    let (org, mut tx) = found.ok_or("the key is unknown")?;
    let row = tx.api_key(org, &hash).await?.ok_or("the key is unknown")?;
    drop(tx);
    let KeyOwner::Agent(agent) = row.owner else {
        return Err("not an agent's key".into());
    };
    let agent = Caller {
        org: founded.org,
        agent,
        key: row.id,
    };
    let grant = connect::connect(deps, acme, agent, founded.admin).await?;
    Ok((agent, grant, show_api_key(agent_key)))
}

fn parts(dir: &Path, location: Location, url: &str, acme: &str) -> Done<Parts> {
    let kek = dir.join("kek");
    create_key_file(&kek)?;
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file("local", &kek)?;
    let policy = EgressPolicy::strict()
        .allow(&connect::acme_mail()?, acme.trim_start_matches("http://"))
        .map_err(failed)?;
    Ok(Parts {
        kind: Kind::Dev,
        database: location,
        time: TimeSource::Database,
        data_dir: dir.to_owned(),
        keys: Arc::new(keys),
        kek_ref: "local".to_owned(),
        key_words: "a key of this bench".to_owned(),
        cache_ttl: Duration::from_secs(30),
        locking: hardening::Locking::Preferred,
        issuer: url.to_owned(),
        catalogue: Catalogue::load(&Options {
            acme_mail_origin: Some(acme),
            ..Options::default()
        })?,
        egress: Egress::new(policy)?,
        sinks: Vec::new(),
        witness: None,
        webhook: None,
        clock: Arc::new(SystemClock),
    })
}

async fn start_acme(postern: &str) -> Done<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let random = Arc::new(OsRandomness::new());
    let ids = RequestIds::new(&*random).map_err(failed)?;
    let acme = AcmeMail::new(acme_mail::Options {
        clock: Arc::new(SystemClock),
        random,
        issuer: issuer.clone(),
        client: acme_mail::Client {
            id: acme_mail::DEMO_CLIENT_ID.to_owned(),
            name: "Postern (bench)".to_owned(),
            secret: None,
            redirect_uris: vec![RedirectUri::Exact(format!("{postern}/callback/acme-mail"))],
        },
    });
    tokio::spawn(server::serve(
        listener,
        acme.router(),
        server::Limits::default(),
        ids,
        std::future::pending(),
    ));
    Ok(issuer)
}
