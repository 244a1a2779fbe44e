//! The process that the tests kill: this very program, told by its environment to serve what a directory says.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use postern::{
    app::{self, Parts},
    audit::sinks::{FileSink, Form, Sink, WebhookSink},
    connectors::{Catalogue, Options},
    crypto::{lookup::show_api_key, webhook::WebhookKey},
    dev::acme_mail,
    domain::connector::ConnectorId,
    egress::{EgressPolicy, Webhook, operator_client},
    flows::{Deps, apply, found},
    http::{router, security::Site, server},
    policy::demo,
    store::{Isolation, Location, PostgresSettings},
    workers::Workers,
};
use rustix::process::{PTracer, set_ptracer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::shared::{loopback, parts::parts};

/// What the process is told when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The address the deployment is known by.
    pub(crate) issuer: String,
    /// Where this process listens.
    pub(crate) listen: String,
    pub(crate) acme: String,
    /// The database, unless it is a file in the directory.
    pub(crate) postgres: Option<String>,
    /// That file.
    pub(crate) file: String,
    /// Where copies of the log go, if anywhere.
    pub(crate) copies: Option<Copies>,
}

/// Who gets copies of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Copies {
    /// The file [`COPY`] in the directory.
    File,
    /// Whoever listens at this address.
    Webhook(String),
}

/// What the process tells when it is up, kept for its next start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Up {
    pub(crate) admin_key: String,
    pub(crate) agent_key: String,
    pub(crate) user: String,
}

impl Setup {
    /// The same over another database. A file has to be in the directory.
    pub(crate) fn over(self, location: &Location) -> Self {
        match location {
            Location::Sqlite(path) => Self {
                postgres: None,
                file: path.file_name().unwrap().to_str().unwrap().to_owned(),
                ..self
            },
            Location::Postgres(settings) => Self {
                postgres: Some(settings.url.clone()),
                ..self
            },
        }
    }

    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("setup"), serde_json::to_vec(self).unwrap()).unwrap();
    }

    pub(crate) fn read(dir: &Path) -> Self {
        serde_json::from_slice(&std::fs::read(dir.join("setup")).unwrap()).unwrap()
    }
}

/// Not a test: the process that the others kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other tests as a process of its own"]
async fn serve_here() {
    let Some(dir) = std::env::var_os(SERVE).map(PathBuf::from) else {
        return;
    };
    // Where only a parent may trace a process, the tests may trace this one. Some kernels know no such rule.
    let _unknown = set_ptracer(PTracer::Any);
    let setup = Setup::read(&dir);
    let deps = app::open(parts_of(&dir, &setup)).await.unwrap();
    let up = match std::fs::read(dir.join("up")) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => {
            let up = found_org(&deps).await;
            std::fs::write(dir.join("up"), serde_json::to_vec(&up).unwrap()).unwrap();
            up
        }
    };
    let address: SocketAddr = setup.listen.trim_start_matches("http://").parse().unwrap();
    let listener = socket(address).listen(1024).unwrap();
    let stop = server::stop_signal().unwrap();
    let workers = Workers::start(&deps);
    let site = Site::new(&setup.listen.parse().unwrap()).unwrap();
    let app = router::app(Arc::clone(&deps), site);
    std::fs::write(dir.join("ready.draft"), serde_json::to_vec(&up).unwrap()).unwrap();
    std::fs::rename(dir.join("ready.draft"), dir.join("ready")).unwrap();
    // Callers are let go of at once.
    tokio::select! {
        () = loopback::serve(listener, app) => {}
        () = stop => {}
    }
    app::serve::stop(&deps, workers, async {}).await;
}

/// Bound beside whoever else of this user holds the address so. Only one of them may listen.
pub(crate) fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// What the process is made of.
pub(crate) fn parts_of(dir: &Path, setup: &Setup) -> Parts {
    let connector: ConnectorId = CONNECTOR.parse().unwrap();
    let policy = EgressPolicy::strict()
        .allow(&connector, setup.acme.trim_start_matches("http://"))
        .unwrap();
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: Some(&setup.acme),
        dir: Some(&dir.join("connectors")),
        plain_http_allowed: &[],
    });
    let database = match &setup.postgres {
        None => Location::Sqlite(dir.join(&setup.file)),
        Some(url) => Location::Postgres(PostgresSettings {
            url: url.clone(),
            password: None,
            connections: 8,
            pooler: false,
            isolation: Isolation::default(),
        }),
    };
    Parts {
        sinks: setup.copies.iter().map(|copies| sink(dir, copies)).collect(),
        ..parts(dir, database, &setup.issuer, catalogue.unwrap(), policy)
    }
}

fn sink(dir: &Path, copies: &Copies) -> Arc<dyn Sink> {
    let name = "copy".to_owned();
    match copies {
        Copies::File => Arc::new(FileSink::new(name, dir.join(COPY), Form::Entries)),
        Copies::Webhook(url) => {
            let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
            let receiver = Webhook::new(url.parse().unwrap(), key, operator_client().unwrap());
            Arc::new(WebhookSink::new(name, receiver))
        }
    }
}

async fn found_org(deps: &Deps) -> Up {
    let founded = found::found(deps, "Acme", "ada@acme.example").await.unwrap();
    let policy = |text: &str| text.replace("acme-mail", CONNECTOR);
    let document = toml::to_string(&json!({
        "agent": [{"name": "Mail Assistant"}],
        "connector": {CONNECTOR: {"client_id": acme_mail::DEMO_CLIENT_ID}},
        "policies": {"org": [policy(demo::ORG)], "agent": [policy(demo::AGENT)]},
    }))
    .unwrap();
    let applied = apply::apply(deps, founded.org, "test".to_owned(), &document)
        .await
        .unwrap();
    let agent = applied.keys.iter().find(|key| key.kind == "agent").unwrap();
    Up {
        admin_key: show_api_key(&founded.admin_key),
        agent_key: show_api_key(&agent.key),
        user: founded.admin.to_string(),
    }
}

/// Tells the process where its directory is.
pub(crate) const SERVE: &str = "POSTERN_FAULTS_SERVE";
/// The connector's id.
pub(crate) const CONNECTOR: &str = "acme-faults";
/// The file that copies of the log go to.
pub(crate) const COPY: &str = "copy.jsonl";
