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
#[expect(clippy::unwrap_used, reason = "a measurement that cannot begin stops")]
#[path = "../../tests/shared/mod.rs"]
pub(crate) mod shared;

use std::{path::Path, sync::Arc};

use postern::{
    app::{AppError, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::lookup::show_api_key,
    dev::acme_mail,
    domain::{
        GrantId, Mode,
        principal::{KeyKind, Principal},
    },
    egress::EgressPolicy,
    flows::{
        Deps,
        actions::{Ask, Caller, Target},
        apply, authenticate, found,
    },
    policy::demo,
    store::Location,
};
use serde_json::json;

use self::shared::{loopback, parts::parts};
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
        let acme = start_acme(url).await;
        let location = database::location(dir.path()).await;
        let deps = open(parts_of(dir.path(), location.clone(), url, &acme)?).await?;
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
    let known = authenticate::by_key(deps, KeyKind::Agent, agent_key).await?;
    let Principal::Agent { org, agent, key } = known else {
        return Err("not an agent's key".into());
    };
    let agent = Caller { org, agent, key };
    let grant = connect::connect(deps, acme, agent, founded.admin).await?;
    Ok((agent, grant, show_api_key(agent_key)))
}

fn parts_of(dir: &Path, location: Location, url: &str, acme: &str) -> Done<Parts> {
    let policy = EgressPolicy::strict()
        .allow(&connect::acme_mail()?, acme.trim_start_matches("http://"))
        .map_err(failed)?;
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: Some(acme),
        ..Options::default()
    })?;
    Ok(parts(dir, location, url, catalogue, policy))
}

async fn start_acme(postern: &str) -> String {
    let (listener, origin) = loopback::listen().await;
    let acme = loopback::acme(&origin, Arc::new(SystemClock), postern, &["acme-mail"]);
    tokio::spawn(loopback::serve(listener, acme.router()));
    origin
}
