//! What the campaign breaks: `postern serve` processes over one database, and an Acme Mail that outlives them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use postern::{
    app::{self, Kind, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::lookup::show_api_key,
    dev::acme_mail,
    domain::connector::ConnectorId,
    egress::EgressPolicy,
    flows::{Deps, apply, found},
    policy::demo,
    store::Location,
};
use postern_kms::local::create_key_file;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions,
};

use crate::{
    browser,
    door::Door,
    http::{Call, Heard},
    postgres::Postgres,
    replica::{Replica, free_address},
    shared::{loopback, parts::parts},
};

/// Where the rows are.
#[derive(Debug)]
pub(crate) enum Store {
    Sqlite(PathBuf),
    Postgres(Postgres),
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) door: Door,
    /// Acme Mail's own address, whatever its door does.
    pub(crate) acme: SocketAddr,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) tenants: [Tenant; 2],
    /// What somebody connected last, and the generation that it had then.
    grants: Mutex<BTreeMap<(usize, usize), (String, i64)>>,
    /// Who keeps SQLite's one writer from everybody else, while that is the fault.
    pub(crate) held: tokio::sync::Mutex<Option<SqliteConnection>>,
}

/// An org and its one agent.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) admin_key: String,
    pub(crate) agent_key: String,
    pub(crate) people: Vec<Person>,
}

/// Somebody with a connection.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) account: &'static str,
    /// Whom the agent may write to for them.
    pub(crate) writes_to: &'static str,
}

impl Deployment {
    /// Founds two orgs, starts the replicas, connects everybody.
    pub(crate) async fn start(postgres: Option<Postgres>, replicas: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        create_key_file(&dir.path().join("kek")).unwrap();
        let public = free_address().await;
        let door = Door::new().await;
        let acme = start_acme(&door, public).await;
        write_connector(dir.path(), door.address);
        let store = match postgres {
            Some(server) => Store::Postgres(server),
            None => Store::Sqlite(dir.path().join("0/postern.db")),
        };
        let mut made = Vec::new();
        for number in 0..replicas {
            let address = if number == 0 { public } else { free_address().await };
            made.push(
                Replica::prepare(
                    dir.path(),
                    number,
                    address,
                    &settings(&store, public, door.address),
                )
                .await,
            );
        }
        let tenants = found_both(dir.path(), &store, public, door.address).await;
        let deployment = Self {
            dir,
            store,
            door,
            acme,
            replicas: made,
            tenants,
            grants: Mutex::default(),
            held: tokio::sync::Mutex::default(),
        };
        for replica in &deployment.replicas {
            replica.start().await;
        }
        for (tenant, person) in deployment.everybody() {
            deployment.connect(tenant, person).await;
        }
        deployment
    }

    /// Everybody who is served: (tenant, person).
    pub(crate) fn everybody(&self) -> Vec<(usize, usize)> {
        let people =
            |tenant: usize| (0..self.tenants[tenant].people.len()).map(move |person| (tenant, person));
        people(0).chain(people(1)).collect()
    }

    /// Somebody signs in, connects Acme Mail and lets the agent read and write; all in the browser.
    pub(crate) async fn connect(&self, tenant: usize, person: usize) {
        let who = &self.tenants[tenant].people[person];
        let path = format!("/v1/users/{}/login-links", who.id);
        let (status, link) = self
            .as_admin(tenant, "POST", &path, Some(json!({})))
            .await
            .unwrap();
        assert!(status < 300, "{link}");
        let postern = format!("http://{}", self.replicas[0].public);
        let acme = format!("http://{}", self.door.address);
        let login = link["url"].as_str().unwrap();
        browser::connect(login, &postern, &acme, who.account).await;
        let grant = self.living_grant(tenant, person).await.unwrap();
        let generation = self.generation(&grant).await;
        let connected = (grant, generation);
        self.grants.lock().unwrap().insert((tenant, person), connected);
    }

    /// The grant that somebody connected last.
    pub(crate) fn grant_of(&self, tenant: usize, person: usize) -> String {
        self.connected(tenant, person).0
    }

    /// The same, and the generation that it was connected with.
    pub(crate) fn connected(&self, tenant: usize, person: usize) -> (String, i64) {
        self.grants.lock().unwrap()[&(tenant, person)].clone()
    }

    /// The generation that a grant has in the database.
    pub(crate) async fn generation(&self, grant: &str) -> i64 {
        let sql = format!("SELECT generation FROM grants WHERE id = '{grant}'");
        match &self.store {
            Store::Postgres(server) => server.number(&sql).await,
            Store::Sqlite(path) => {
                let mut connection = opened(path).await;
                let number = sqlx::query_scalar(AssertSqlSafe(sql.as_str()))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
                number
            }
        }
    }

    /// Acme Mail lets somebody's access tokens expire.
    pub(crate) async fn expire(&self, tenant: usize, person: usize) {
        let account = self.tenants[tenant].people[person].account;
        self.acme("POST", "/admin/expire", Some(json!({"account": account})))
            .await;
    }

    /// A request of an org's admin to the first replica.
    pub(crate) async fn as_admin(
        &self,
        tenant: usize,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Heard {
        let key = &self.tenants[tenant].admin_key;
        self.replicas[0].call(method, path, key, body).ask(PATIENCE).await
    }

    /// The living grant of somebody, as an admin sees it.
    pub(crate) async fn living_grant(&self, tenant: usize, person: usize) -> Option<String> {
        let (status, grants) = self.as_admin(tenant, "GET", "/v1/grants?limit=200", None).await?;
        assert_eq!(status, 200, "{grants}");
        let who = &self.tenants[tenant].people[person].id;
        let living = grants["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|grant| grant["user"] == who.as_str() && grant["state"] == "active")?;
        living["id"].as_str().map(str::to_owned)
    }

    /// What Acme Mail says, past its door.
    pub(crate) async fn acme(&self, method: &'static str, path: &str, body: Option<Value>) -> Value {
        let call = Call {
            at: self.acme,
            host: self.door.address.to_string(),
            method,
            path: path.to_owned(),
            key: String::new(),
            body,
        };
        let (status, answer) = call.ask(PATIENCE).await.unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// The file of the organisations' key.
    pub(crate) fn kek(&self) -> PathBuf {
        self.dir.path().join("kek")
    }

    /// Changes rows behind Postern's back.
    pub(crate) async fn raw_sql(&self, sql: &str) {
        match &self.store {
            Store::Postgres(server) => server.raw_sql(sql).await,
            Store::Sqlite(path) => {
                let mut connection = opened(path).await;
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}

/// A connection to the file, past Postern.
async fn opened(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

fn settings(store: &Store, public: SocketAddr, acme: SocketAddr) -> String {
    let url = match store {
        Store::Sqlite(path) => format!("sqlite://{}", path.display()),
        Store::Postgres(server) => server.url_of("postern", "campaign"),
    };
    format!(
        "public_url = \"http://{public}\"\n\
         [store]\nurl = \"{url}\"\n\
         [[egress.allow]]\norg = \"*\"\nconnector = \"{CONNECTOR}\"\naddress = \"{acme}\"\n"
    )
}

fn write_connector(dir: &Path, acme: SocketAddr) {
    let text = include_str!("../../../connectors/acme-mail.toml")
        .replace("id = \"acme-mail\"", &format!("id = \"{CONNECTOR}\""))
        .replace("{origin}", &format!("http://{acme}"))
        .replace("{authority}", &acme.to_string());
    std::fs::create_dir(dir.join("connectors")).unwrap();
    std::fs::write(dir.join("connectors").join(format!("{CONNECTOR}.toml")), text).unwrap();
}

/// Acme Mail in this process, behind the door: it outlives every fault.
async fn start_acme(door: &Door, public: SocketAddr) -> SocketAddr {
    let (listener, _) = loopback::listen().await;
    let address = listener.local_addr().unwrap();
    let (issuer, postern) = (format!("http://{}", door.address), format!("http://{public}"));
    let acme = loopback::acme(&issuer, Arc::new(SystemClock), &postern, &[CONNECTOR]);
    tokio::spawn(loopback::serve(listener, acme.router()));
    door.leads_to(address);
    address
}

/// Opens the database once, as `postern init` would, for two orgs: no API founds a second one.
async fn found_both(dir: &Path, store: &Store, public: SocketAddr, acme: SocketAddr) -> [Tenant; 2] {
    let connector: ConnectorId = CONNECTOR.parse().unwrap();
    let policy = EgressPolicy::strict()
        .allow(&connector, &acme.to_string())
        .unwrap();
    let origin = format!("http://{acme}");
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: None,
        dir: Some(&dir.join("connectors")),
        plain_http_allowed: &[origin],
    });
    let database = match store {
        Store::Sqlite(path) => Location::Sqlite(path.clone()),
        Store::Postgres(server) => Location::Postgres(server.settings("postern")),
    };
    let issuer = format!("http://{public}");
    let deps = app::open(Parts {
        kind: Kind::Serve,
        data_dir: dir.join("0"),
        ..parts(dir, database, &issuer, catalogue.unwrap(), policy)
    })
    .await
    .unwrap();
    let acme = [
        ("ada@acme.example", "ben@acme.example"),
        ("ben@acme.example", "ada@acme.example"),
    ];
    let other = [("other@else.example", "other@else.example")];
    let tenants = [
        found_one(&deps, "Acme", &acme).await,
        found_one(&deps, "Else", &other).await,
    ];
    deps.store.close().await;
    tenants
}

async fn found_one(deps: &Deps, name: &str, people: &[(&'static str, &'static str)]) -> Tenant {
    let founded = found::found(deps, name, people[0].0).await.unwrap();
    let policy = |text: &str| text.replace("acme-mail", CONNECTOR);
    let members: Vec<Value> = people[1..]
        .iter()
        .map(|(email, _)| json!({"email": email, "role": "member"}))
        .collect();
    let document = json!({
        "agent": [{"name": "Mail Assistant"}],
        "person": members,
        "connector": {CONNECTOR: {"client_id": acme_mail::DEMO_CLIENT_ID}},
        "policies": {"org": [policy(demo::ORG)], "agent": [policy(demo::AGENT)]},
    });
    let document = toml::to_string(&document).unwrap();
    let applied = apply::apply(deps, founded.org, "campaign".to_owned(), &document)
        .await
        .unwrap();
    let agent = applied.keys.iter().find(|key| key.kind == "agent").unwrap();
    let mut served = Vec::new();
    for &(account, writes_to) in people {
        let mut tx = deps.store.read(founded.org).await.unwrap();
        let row = tx.user_by_email(founded.org, account).await.unwrap().unwrap();
        served.push(Person {
            id: row.id.to_string(),
            account,
            writes_to,
        });
    }
    Tenant {
        id: founded.org.to_string(),
        admin_key: show_api_key(&founded.admin_key),
        agent_key: show_api_key(&agent.key),
        people: served,
    }
}

/// The connector's id.
const CONNECTOR: &str = "acme-campaign";
/// How long whoever is not under load waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
