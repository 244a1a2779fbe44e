//! A whole Postern in a temporary directory beside a real Acme Mail, on a clock the test moves.

mod api;
pub mod breakable;
mod browser;
mod changing;
pub mod cluster;
mod counted;
pub mod database;
mod deployment;
mod leases;
pub mod link;
mod log;
mod neighbour;
mod seed;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern::{
    app::{AppError, Kind},
    crypto::{OsRandomness, lookup::show_api_key},
    dev::acme_mail,
    domain::{
        Clock, EntryId, GrantId, Mode, OrgId, Time, UserId,
        clock::FixedClock,
        connector::{Category, ConnectorId},
        grant::Grant,
    },
    flows::{
        Deps, Refusal,
        actions::{Ask, Caller, Target},
        apply, found,
        revoke::{self, Revoked},
        vend::{self, Vended},
    },
    policy::demo,
    store::{ClaimAsk, CopyError, Location, OutsideError, Report, Selector, StoreError},
};
use serde_json::{Value, json};
use sqlx::PgConnection;

pub use api::{Answer, Api, Member, Proof, log_in};
pub use browser::{Journey, Outcome, connect_as};
pub use counted::until_counted;
pub use deployment::{copied, copying, open_as};
pub use neighbour::agent_with;

use deployment::{OTHER, elsewhere, own_connector, own_connectors, start_acme};

/// A running deployment. Dropping it removes its directory.
pub struct World {
    pub deps: Arc<Deps>,
    pub clock: Arc<FixedClock>,
    pub acme: String,
    pub connector: ConnectorId,
    pub org: OrgId,
    pub ada: UserId,
    pub ben: UserId,
    pub agent: Caller,
    pub service_key: String,
    pub admin_key: String,
    pub agent_key: String,
    pub dir: tempfile::TempDir,
    pub location: Location,
}

pub const ISSUER: &str = "http://127.0.0.1:8700";

impl World {
    /// The demo organisation with the demo policies.
    pub async fn new() -> Self {
        Self::with_policies(demo::ORG, demo::AGENT).await
    }

    /// The demo organisation with other policies.
    pub async fn with_policies(org_policy: &str, agent_policy: &str) -> Self {
        Self::made_of(org_policy, agent_policy, None).await
    }

    /// The demo organisation with a connector of its own for Acme Mail, whose file says something else: each pair is
    /// what the built-in one says and what this one shall say.
    pub async fn with_connector(changes: &[(&str, &str)]) -> Self {
        let policy = |text: &str| text.replace("acme-mail", OTHER);
        let own = own_connector(changes);
        Self::made_of(&policy(demo::ORG), &policy(demo::AGENT), Some(own)).await
    }

    /// The demo organisation, and a connector of its own for Acme Mail whose tokens are ended at another address.
    pub async fn ending_tokens_at(address: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere(dir.path()), address).unwrap();
        let location = database::location(dir.path()).await;
        let url = format!("url = \"http://{address}/revoke\"");
        let own = own_connector(&[("url = \"{origin}/revoke\"", &url)]);
        Self::in_place(dir, location, demo::ORG, demo::AGENT, Some(own)).await
    }

    async fn made_of(org_policy: &str, agent_policy: &str, connector: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::location(dir.path()).await;
        Self::in_place(dir, location, org_policy, agent_policy, connector).await
    }

    /// The demo organisation on SQLite, whatever the other tests run over.
    pub async fn on_sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::sqlite(dir.path());
        Self::in_place(dir, location, demo::ORG, demo::AGENT, None).await
    }

    /// The demo organisation on PostgreSQL, whatever the other tests run over.
    pub async fn on_postgres() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = database::postgres(dir.path()).await;
        Self::in_place(dir, location, demo::ORG, demo::AGENT, None).await
    }

    /// The demo organisation in a database that is there already.
    pub async fn on(location: Location) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_place(dir, location, demo::ORG, demo::AGENT, None).await
    }

    async fn in_place(
        dir: tempfile::TempDir,
        location: Location,
        org_policy: &str,
        agent_policy: &str,
        connector: Option<String>,
    ) -> Self {
        // The day does not matter; that it stands still does.
        let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_800_000_000)));
        let acme = start_acme(&clock, connector.as_deref()).await;
        let connector = match connector {
            None => acme_mail(),
            Some(text) => {
                let text = text
                    .replace("{origin}", &acme)
                    .replace("{authority}", acme.trim_start_matches("http://"));
                std::fs::create_dir(own_connectors(dir.path())).unwrap();
                std::fs::write(own_connectors(dir.path()).join(format!("{OTHER}.toml")), text).unwrap();
                OTHER.parse().unwrap()
            }
        };
        let deps = open_as(Kind::Dev, dir.path(), &location, &clock, &acme)
            .await
            .unwrap();
        let founded = found::found(&deps, "Acme", "ada@acme.example").await.unwrap();
        let document = toml::to_string(&json!({
            "agent": [{"name": "Mail Assistant"}],
            "person": [{"email": "ben@acme.example", "role": "member"}],
            "service": [{"name": "Host", "return_urls": ["https://host.example/done"]}],
            "connector": {connector.as_str(): {"client_id": acme_mail::DEMO_CLIENT_ID}},
            "policies": {"org": [org_policy], "agent": [agent_policy]},
        }))
        .unwrap();
        let applied = apply::apply(&deps, founded.org, "test".to_owned(), &document)
            .await
            .unwrap();
        let key = |kind: &str| applied.keys.iter().find(|key| key.kind == kind).unwrap();
        let mut tx = deps.store.read(founded.org).await.unwrap();
        let ben = tx
            .user_by_email(founded.org, "ben@acme.example")
            .await
            .unwrap()
            .unwrap()
            .id;
        drop(tx);
        let agent = agent_with(&deps, &key("agent").key).await;
        Self {
            clock,
            acme,
            connector,
            org: founded.org,
            ada: founded.admin,
            ben,
            agent,
            service_key: show_api_key(&key("service").key),
            admin_key: show_api_key(&founded.admin_key),
            agent_key: show_api_key(&key("agent").key),
            deps,
            dir,
            location,
        }
    }

    /// Ada connects Acme Mail and lets the agent read and write.
    pub async fn connected() -> (Self, GrantId) {
        let world = Self::new().await;
        let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
        (world, grant)
    }

    /// The same on SQLite, whatever the other tests run over.
    pub async fn connected_on_sqlite() -> (Self, GrantId) {
        let world = Self::on_sqlite().await;
        let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
        (world, grant)
    }

    /// Somebody connects Acme Mail with the account of the same address.
    pub async fn connect(&self, user: UserId, categories: &[Category]) -> GrantId {
        match connect_as(self, user, "ada@acme.example", categories, false).await {
            Outcome::Granted(grant) => grant,
            other => panic!("not connected: {other:?}"),
        }
    }

    /// A vend by the demo agent.
    pub async fn vend(&self, ask: Ask) -> Result<Vended, Refusal> {
        vend::vend(&self.deps, self.agent, ask).await
    }

    /// Ends what is selected, at the demo organisation.
    pub async fn revoke(&self, selector: Selector) -> Revoked {
        revoke::run(&self.deps, self.org, ending(selector)).await.unwrap()
    }

    /// Reading Ada's list of messages.
    pub fn read(&self, grant: GrantId) -> Ask {
        ask(grant, "messages.list", json!({"limit": 3}))
    }

    /// A grant as the database has it.
    pub async fn grant(&self, grant: GrantId) -> Grant {
        let mut tx = self.deps.store.read(self.org).await.unwrap();
        tx.grant(self.org, grant).await.unwrap().unwrap()
    }

    /// A claim of a grant's lease by somebody who has just read the grant.
    pub async fn claim_ask(&self, grant: GrantId) -> ClaimAsk {
        ClaimAsk {
            org: self.org,
            grant,
            generation: self.grant(grant).await.generation,
            intent: "access_token".to_owned(),
            life: Duration::from_secs(10),
        }
    }

    /// Waits until a grant's tokens have been renewed up to this generation.
    pub async fn until_generation(&self, grant: GrantId, generation: u64) {
        for _ in 0..1000 {
            if self.grant(grant).await.generation >= generation {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{grant} never reached generation {generation}");
    }

    /// The grants of a person, newest first.
    pub async fn grants_of(&self, user: UserId) -> Vec<Grant> {
        let mut tx = self.deps.store.read(self.org).await.unwrap();
        tx.grants_of(self.org, user, None).await.unwrap()
    }

    /// How many sealed secrets a grant has.
    pub async fn secrets_of(&self, grant: GrantId) -> usize {
        let mut tx = self.deps.store.read(self.org).await.unwrap();
        tx.secrets_of(self.org, grant).await.unwrap().len()
    }

    /// Waits until Acme Mail has received this many requests of one kind, answered or not.
    pub async fn until_seen(&self, kind: &str, count: usize) {
        for _ in 0..1000 {
            if self.seen(kind).await.len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("Acme Mail never saw {count} {kind} requests");
    }

    /// What Acme Mail saw of one kind (`token`, `revoke`, `api` …).
    pub async fn seen(&self, kind: &str) -> Vec<Value> {
        let log = fetch("GET", &format!("{}/admin/log", self.acme), None).await;
        let entries = log
            .as_array()
            .cloned()
            .or_else(|| log["entries"].as_array().cloned())
            .unwrap();
        entries
            .into_iter()
            .filter(|entry| entry["kind"] == kind)
            .collect()
    }

    /// Makes Acme Mail misbehave once.
    pub async fn fault(&self, fault: Value) {
        let complaint = fetch("POST", &format!("{}/admin/fault", self.acme), Some(fault)).await;
        assert_eq!(complaint, Value::Null);
    }

    /// The process dies without a word and starts again on the same directory.
    pub async fn restarted(self) -> Self {
        self.restarted_after(|_| ()).await
    }

    /// The process stops in order, its database is copied into another one, and it starts again over that.
    pub async fn moved_to(self, location: Location) -> (Self, Report) {
        self.stopped().await;
        let mut tries = 0;
        let report = loop {
            match copied(&self.clock, &self.location, &location).await {
                // The transaction that holds a database is not run again by itself; the copy can be, and goes on where it was.
                Err(CopyError::Store {
                    error: StoreError::Conflict,
                    ..
                }) => {
                    tries += 1;
                    assert!(tries < 100, "somebody is always in the copy's way");
                }
                ended => break ended.unwrap(),
            }
        };
        let moved = Self { location, ..self };
        (moved.restarted().await, report)
    }

    /// Stops as a process that is told to.
    pub async fn stopped(&self) {
        self.deps.store.close().await;
    }

    /// The same, and while nobody has the database something happens to its directory.
    pub async fn restarted_after(self, meanwhile: impl FnOnce(&Path)) -> Self {
        let Self {
            deps,
            clock,
            acme,
            connector,
            dir,
            location,
            ..
        } = self;
        drop(deps);
        // Its tasks let go of the database a moment later.
        let lock = match &location {
            Location::Postgres(_) => None,
            Location::Sqlite(path) => Some(
                std::fs::File::options()
                    .write(true)
                    .open(path.with_extension("lock"))
                    .unwrap(),
            ),
        };
        if let (Some(lock), Location::Sqlite(path)) = (&lock, &location) {
            let mut polls = 0;
            // The lock goes before SQLite's threads have closed their files. What they still write would go into the
            // database that is put in this one's place.
            while lock.try_lock().is_err() || database::is_open(path) {
                polls += 1;
                assert!(polls < 6000, "the database before is never closed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        meanwhile(dir.path());
        drop(lock);
        for _ in 0..500 {
            match open_as(Kind::Dev, dir.path(), &location, &clock, &acme).await {
                Ok(deps) => {
                    return Self {
                        deps,
                        clock,
                        acme,
                        connector,
                        dir,
                        location,
                        org: self.org,
                        ada: self.ada,
                        ben: self.ben,
                        agent: self.agent,
                        service_key: self.service_key,
                        admin_key: self.admin_key,
                        agent_key: self.agent_key,
                    };
                }
                Err(error) if is_held(&error) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("not opened again: {error}"),
            }
        }
        panic!("the database stays locked");
    }

    /// Changes rows behind Postern's back.
    pub async fn raw_sql(&self, sql: &str) {
        let changed = database::raw_sql(&self.location, sql).await;
        assert!(changed > 0, "{sql}");
    }

    /// A superuser's connection to this world's database, which is one of PostgreSQL's.
    pub async fn superuser(&self) -> PgConnection {
        let Location::Postgres(settings) = &self.location else {
            panic!("not PostgreSQL")
        };
        database::superuser(&database::name_of(settings)).await
    }

    /// Another replica over the same database, if it lets one in.
    pub async fn replica(&self) -> Result<Arc<Deps>, AppError> {
        self.replica_in(&self.data_dir()).await
    }

    /// A data directory for another replica, with the same key-encryption key.
    pub fn data_dir(&self) -> PathBuf {
        let dir = self.dir.path().join(
            EntryId::new(self.clock.now(), &OsRandomness::new())
                .unwrap()
                .to_string(),
        );
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(self.dir.path().join("kek"), dir.join("kek")).unwrap();
        dir
    }

    /// The replica whose data directory this is; all that hold a lease live and renew it meanwhile.
    pub async fn replica_in(&self, dir: &Path) -> Result<Arc<Deps>, AppError> {
        leases::renewed_during(&self.location, self.clock.now(), self.replica_apart(dir)).await
    }

    /// The same, while nobody does anything of its own.
    pub async fn replica_apart(&self, dir: &Path) -> Result<Arc<Deps>, AppError> {
        open_as(Kind::Dev, dir, &self.location, &self.clock, &self.acme).await
    }

    pub fn later(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// An ask with defaults.
pub fn ask(grant: GrantId, tool: &str, args: Value) -> Ask {
    Ask {
        target: Target::Grant(grant),
        tool: tool.to_owned(),
        args,
        mode: None,
        ttl_s: None,
        decision: None,
        context: None,
        run: None,
        idempotency: None,
    }
}

/// An ask to end what is selected, without waiting for calls under way.
pub fn ending(selector: Selector) -> revoke::Ask {
    revoke::Ask {
        selector,
        reason: "test".to_owned(),
        drain: false,
        by: "test".to_owned(),
    }
}

/// An ask for a token.
pub fn token(ask: Ask) -> Ask {
    Ask {
        mode: Some(Mode::Token),
        ..ask
    }
}

/// Whether tasks of a process before this one have not let go yet.
pub fn is_held(error: &AppError) -> bool {
    matches!(
        error,
        AppError::Store(StoreError::Locked) | AppError::Outside(OutsideError::InUse { .. })
    )
}

pub fn acme_mail() -> ConnectorId {
    "acme-mail".parse().unwrap()
}

/// A plain request to Acme Mail, as JSON.
pub async fn fetch(method: &str, url: &str, body: Option<Value>) -> Value {
    let (_, _, body) = browser::send(
        method,
        url,
        body.map(|body| ("application/json", body.to_string())),
        &[],
    )
    .await;
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}
