//! `postern dev`: a demo organisation, two people, one agent, an example policy and the Acme Mail provider, all on
//! loopback. The only start that acts without the API, and none of its relaxations is reachable from `serve`.

mod keys;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern_kms::local::{LocalKeys, create_key_file};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    connectors::{Catalogue, Options},
    crypto::{
        OsRandomness, digest,
        hardening::{self, Locking},
        lookup::show_api_key,
    },
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::{Randomness, connector::ConnectorId},
    egress::{Egress, EgressPolicy},
    flows::{Deps, apply, found, login},
    http::{guard::RequestIds, security::Site, server},
    policy::demo,
    store::{Location, TimeSource},
};

use keys::{DemoKeys, keep_keys, kept_keys};

use super::{
    AppError, Kind, Parts,
    clock::SystemClock,
    open,
    serve::{LOCAL_KEK, bind, run},
};

/// What `postern dev` prints when it is up.
#[derive(Debug, Clone, Serialize)]
pub struct Announcement {
    /// Where Postern is.
    pub url: String,
    /// Where its probes are.
    pub ops_url: String,
    /// Where Acme Mail is.
    pub demo_provider: String,
    /// The demo organisation.
    pub org: String,
    /// Its admin key.
    pub admin_key: String,
    /// The key of the demo host application.
    pub service_key: String,
    /// The demo agent.
    pub agents: Vec<DemoAgent>,
    /// Ada first, Ben last.
    pub users: Vec<DemoUser>,
}

/// A demo agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DemoAgent {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// A demo person.
#[derive(Debug, Clone, Serialize)]
pub struct DemoUser {
    /// Their id.
    pub id: String,
    /// Their address.
    pub email: String,
    /// `admin` or `member`.
    pub role: &'static str,
    /// A fresh one-time login link.
    pub login_url: String,
}

/// What a kept data directory remembers in the clear besides the database.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    org: String,
    acme_port: u16,
}

/// Runs the demo until a stop signal; `announce` is called once, when everything answers.
///
/// # Errors
/// When a part cannot be had or a port cannot be bound.
pub async fn run_demo(
    port: u16,
    data: Option<PathBuf>,
    announce: impl FnOnce(&Announcement),
) -> Result<(), AppError> {
    let home = Home::open(data)?;
    let kept = home.kept()?;
    let hardened = hardening::harden_process();
    if !hardened.lockable {
        tracing::warn!(
            ?hardened,
            "keys cannot be locked into memory here; `postern serve` would refuse"
        );
    }
    let listener = bind(loopback(port)).await?;
    let ops = bind(loopback(0)).await?;
    // The binding people consent to names the provider's port: a kept directory needs the same one again.
    let acme_listener = bind(loopback(kept.as_ref().map_or(0, |kept| kept.acme_port))).await?;
    let (url, ops_url) = (origin(&listener)?, origin(&ops)?);
    let acme_url = origin(&acme_listener)?;

    let acme = provider(&home, &acme_url, &url)?;
    let deps = open(parts(&home, &url, &acme_url)?).await?;
    let (kept, keys) = match kept {
        Some(kept) => (kept, kept_keys(&deps).await?),
        None => {
            let (kept, keys) = furnish(&deps, port_of(&acme_listener)?).await?;
            keep_keys(&deps, &keys).await?;
            home.keep(&kept)?;
            (kept, keys)
        }
    };
    let announcement = announcement(&deps, kept, keys, url.clone(), ops_url, acme_url).await?;

    let acme_ids =
        RequestIds::new(&*deps.random).map_err(|_| AppError::Refused("no randomness".to_owned()))?;
    let acme_server = tokio::spawn(server::serve(
        acme_listener,
        acme.router(),
        server::Limits::default(),
        acme_ids,
        std::future::pending(),
    ));
    let saver = tokio::spawn(save_often(acme.clone(), home.acme()));
    let site = url::Url::parse(&url).ok().and_then(|url| Site::new(&url).ok());
    let site = site.ok_or_else(|| AppError::Refused("the loopback url is not an origin".to_owned()))?;
    announce(&announcement);
    let ended = run(deps, site, listener, ops, server::Limits::default(), USUAL).await;
    saver.abort();
    acme_server.abort();
    save(&acme, &home.acme())?;
    ended
}

/// The directory of a demo; a temporary one is removed at exit.
#[derive(Debug)]
struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    fn open(data: Option<PathBuf>) -> Result<Self, AppError> {
        let temporary = data.is_none();
        let path = match data {
            Some(path) => std::path::absolute(path).map_err(|cause| AppError::Io {
                what: "the data directory".to_owned(),
                cause,
            })?,
            None => {
                let mut name = [0_u8; 8];
                OsRandomness::new()
                    .fill(&mut name)
                    .map_err(|_| AppError::Refused("no randomness".to_owned()))?;
                std::env::temp_dir().join(format!("postern-dev-{}", digest::hex(&name)))
            }
        };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&path)
            .map_err(|cause| AppError::Io {
                what: format!("cannot make {}", path.display()),
                cause,
            })?;
        Ok(Self { path, temporary })
    }

    fn database(&self) -> PathBuf {
        self.path.join("postern.db")
    }

    fn kek(&self) -> PathBuf {
        self.path.join("kek")
    }

    fn acme(&self) -> PathBuf {
        self.path.join("acme-mail.json")
    }

    fn kept(&self) -> Result<Option<Kept>, AppError> {
        let path = self.path.join("demo.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(|cause| AppError::Io {
            what: format!("{}", path.display()),
            cause,
        })?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|_| AppError::Refused(format!("{} is not a demo's file", path.display())))
    }

    fn keep(&self, kept: &Kept) -> Result<(), AppError> {
        if self.temporary {
            return Ok(());
        }
        let text = serde_json::to_vec(kept).map_err(|_| AppError::Refused("demo.json".to_owned()))?;
        write_private(&self.path.join("demo.json"), &text)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing can be done about a failure at exit.
            let _removed = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn parts(home: &Home, url: &str, acme_url: &str) -> Result<Parts, AppError> {
    if !home.kek().exists() {
        create_key_file(&home.kek())?;
    }
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file(LOCAL_KEK, &home.kek())?;
    let catalogue = Catalogue::load(&Options {
        acme_mail_origin: Some(acme_url),
        ..Options::default()
    })?;
    let acme: ConnectorId = ACME
        .parse()
        .map_err(|_| AppError::Refused("the demo connector has no id".to_owned()))?;
    let address = acme_url.trim_start_matches("http://");
    let policy = EgressPolicy::strict()
        .allow(&acme, address)
        .map_err(|_| AppError::Refused("the demo provider has no address".to_owned()))?;
    Ok(Parts {
        kind: Kind::Dev,
        database: Location::Sqlite(home.database()),
        time: TimeSource::Database,
        data_dir: home.path.clone(),
        keys: Arc::new(keys),
        kek_ref: LOCAL_KEK.to_owned(),
        key_words: "a demo key in a file on this machine".to_owned(),
        cache_ttl: Duration::from_secs(30),
        locking: Locking::Preferred,
        issuer: url.to_owned(),
        catalogue,
        egress: Egress::new(policy)?,
        webhook: None,
        clock: Arc::new(SystemClock),
    })
}

fn provider(home: &Home, acme_url: &str, url: &str) -> Result<AcmeMail, AppError> {
    let acme = AcmeMail::new(acme_mail::Options {
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandomness::new()),
        issuer: acme_url.to_owned(),
        client: acme_mail::Client {
            id: acme_mail::DEMO_CLIENT_ID.to_owned(),
            name: "Postern (demo)".to_owned(),
            secret: None,
            redirect_uris: vec![RedirectUri::Exact(format!("{url}/callback/{ACME}"))],
        },
    });
    if let Ok(saved) = std::fs::read_to_string(home.acme()) {
        acme.restore(&saved)
            .map_err(|_| AppError::Refused("acme-mail.json is not usable".to_owned()))?;
    }
    Ok(acme)
}

/// Makes the demo organisation by the same flows that `init` and `apply` use.
async fn furnish(deps: &Deps, acme_port: u16) -> Result<(Kept, DemoKeys), AppError> {
    let founded = found::found(deps, "Acme", "ada@acme.example").await?;
    let document = Document {
        agent: vec![Named {
            name: "Mail Assistant",
        }],
        person: vec![Person {
            email: "ben@acme.example",
            role: "member",
        }],
        service: vec![Service {
            name: "Demo host",
            return_urls: vec!["http://127.0.0.1:8799/done"],
        }],
        connector: [(
            ACME,
            Client {
                client_id: acme_mail::DEMO_CLIENT_ID,
            },
        )]
        .into_iter()
        .collect(),
        policies: Policies {
            org: vec![demo::ORG],
            agent: vec![demo::AGENT],
        },
    };
    let toml = toml::to_string(&document).map_err(|_| AppError::Refused("the demo document".to_owned()))?;
    let applied = apply::apply(deps, founded.org, "postern dev".to_owned(), &toml).await?;
    let key_of = |kind: &'static str| applied.keys.iter().filter(move |key| key.kind == kind);
    let keys = DemoKeys {
        admin_key: show_api_key(&founded.admin_key),
        service_key: key_of("service")
            .map(|key| show_api_key(&key.key))
            .next()
            .unwrap_or_default(),
        agents: key_of("agent")
            .map(|key| DemoAgent {
                id: key.id.clone(),
                name: key.name.clone(),
                key: show_api_key(&key.key),
            })
            .collect(),
    };
    Ok((
        Kept {
            org: founded.org.to_string(),
            acme_port,
        },
        keys,
    ))
}

async fn announcement(
    deps: &Deps,
    kept: Kept,
    keys: DemoKeys,
    url: String,
    ops_url: String,
    demo_provider: String,
) -> Result<Announcement, AppError> {
    let org = kept
        .org
        .parse()
        .map_err(|_| AppError::Refused("demo.json names no org".to_owned()))?;
    let mut users = Vec::new();
    for email in ["ada@acme.example", "ben@acme.example"] {
        let user = deps.store.read(org).await?.user_by_email(org, email).await?;
        let user = user.ok_or_else(|| AppError::Refused(format!("{email} is missing from this demo")))?;
        let link = login::make_link(deps, org, user.id, "postern dev".to_owned()).await?;
        users.push(DemoUser {
            id: user.id.to_string(),
            email: email.to_owned(),
            role: user.role.as_str(),
            login_url: link.url,
        });
    }
    Ok(Announcement {
        url,
        ops_url,
        demo_provider,
        org: kept.org,
        admin_key: keys.admin_key,
        service_key: keys.service_key,
        agents: keys.agents,
        users,
    })
}

#[derive(Serialize)]
struct Document<'a> {
    agent: Vec<Named<'a>>,
    person: Vec<Person<'a>>,
    service: Vec<Service<'a>>,
    connector: std::collections::BTreeMap<&'a str, Client<'a>>,
    policies: Policies<'a>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Person<'a> {
    email: &'a str,
    role: &'a str,
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    return_urls: Vec<&'a str>,
}

#[derive(Serialize)]
struct Client<'a> {
    client_id: &'a str,
}

#[derive(Serialize)]
struct Policies<'a> {
    org: Vec<&'a str>,
    agent: Vec<&'a str>,
}

async fn save_often(acme: AcmeMail, path: PathBuf) {
    let mut saved = acme.revision();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let revision = acme.revision();
        if revision != saved && save(&acme, &path).is_ok() {
            saved = revision;
        }
    }
}

fn save(acme: &AcmeMail, path: &Path) -> Result<(), AppError> {
    let snapshot = acme
        .snapshot()
        .map_err(|_| AppError::Refused("the state of acme mail cannot be saved".to_owned()))?;
    write_private(path, snapshot.as_bytes())
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AppError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    let io = |cause| AppError::Io {
        what: format!("cannot write {}", path.display()),
        cause,
    };
    let draft = path.with_extension("draft");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    std::fs::rename(&draft, path).map_err(io)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn port_of(listener: &TcpListener) -> Result<u16, AppError> {
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|cause| AppError::Io {
            what: "the listener".to_owned(),
            cause,
        })
}

fn origin(listener: &TcpListener) -> Result<String, AppError> {
    Ok(format!("http://127.0.0.1:{}", port_of(listener)?))
}

/// How long a handler may take that is neither a long poll nor a release.
const USUAL: Duration = Duration::from_secs(15);
/// The demo provider's connector.
const ACME: &str = "acme-mail";
