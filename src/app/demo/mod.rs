//! `postern dev`: a demo organisation, two people, one agent, an example policy and the Acme Mail provider, all on
//! loopback. The only start that acts without the API, and none of its relaxations is reachable from `serve`.

mod home;
mod keys;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use postern_kms::local::{LocalKeys, create_key_file};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    connectors::{Catalogue, Options},
    crypto::{
        OsRandomness,
        hardening::{self, Locking},
        lookup::show_api_key,
    },
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::connector::ConnectorId,
    egress::{Egress, EgressPolicy},
    flows::{Deps, apply, found, login},
    http::{guard::RequestIds, security::Site, server},
    policy::demo,
    store::{Location, TimeSource},
};

use home::{Home, Kept, Shelf};
use keys::{DemoKeys, keep_keys, kept_keys};

use super::{
    AppError, Kind, Parts,
    clock::SystemClock,
    open,
    serve::{LOCAL_KEK, bind, run},
};

/// What `postern dev` prints when it is up.
#[derive(Clone, Serialize)]
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
#[derive(Clone, Serialize, Deserialize)]
pub struct DemoAgent {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// A demo person.
#[derive(Clone, Serialize)]
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
    let listener = listen(port, kept.as_ref().and_then(|kept| kept.port)).await?;
    let ops = bind(loopback(0)).await?;
    // The binding people consent to names the provider's port: a kept directory needs the same one again.
    let acme_listener = bind(loopback(kept.as_ref().map_or(0, |kept| kept.acme_port))).await?;
    let (url, ops_url) = (origin(&listener)?, origin(&ops)?);
    let acme_url = origin(&acme_listener)?;

    let acme = provider(&home, &acme_url, &url)?;
    let deps = open(parts(&home, &url, &acme_url)?).await?;
    let (org, keys) = match kept {
        Some(kept) => (kept.org, kept_keys(&deps).await?),
        None => {
            let (org, keys) = furnish(&deps).await?;
            keep_keys(&deps, &keys).await?;
            (org, keys)
        }
    };
    home.keep(&Kept {
        org: org.clone(),
        acme_port: port_of(&acme_listener)?,
        port: Some(port_of(&listener)?),
    })?;
    let announcement = announcement(&deps, org, keys, url.clone(), ops_url, acme_url).await?;

    let acme_ids =
        RequestIds::new(&*deps.random).map_err(|_| AppError::Refused("no randomness".to_owned()))?;
    let acme_server = tokio::spawn(server::serve(
        acme_listener,
        acme.router(),
        server::Limits::default(),
        acme_ids,
        std::future::pending(),
    ));
    let shelf = Arc::new(Shelf::new(home.acme()));
    let own = Arc::clone(&shelf);
    acme.keep_tokens(move |acme| {
        if let Err(error) = own.save(acme) {
            tracing::warn!(cause = %error, "the tokens of acme mail are not kept: {error}");
        }
    });
    let saver = tokio::spawn(save_often(acme.clone(), Arc::clone(&shelf)));
    let site = url::Url::parse(&url).ok().and_then(|url| Site::new(&url).ok());
    let site = site.ok_or_else(|| AppError::Refused("the loopback url is not an origin".to_owned()))?;
    let up = || announce(&announcement);
    let ended = run(deps, site, listener, ops, server::Limits::default(), USUAL, up).await;
    saver.abort();
    acme_server.abort();
    shelf.save(&acme)?;
    ended
}

fn parts(home: &Home, url: &str, acme_url: &str) -> Result<Parts, AppError> {
    if !home.kek().exists() {
        create_key_file(&home.kek()).map_err(AppError::local_key(&home.kek()))?;
    }
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file(LOCAL_KEK, &home.kek())
        .map_err(AppError::local_key(&home.kek()))?;
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
        data_dir: home.dir(),
        keys: Arc::new(keys),
        kek_ref: LOCAL_KEK.to_owned(),
        key_words: "a demo key in a file on this machine".to_owned(),
        cache_ttl: Duration::from_secs(30),
        locking: Locking::Preferred,
        issuer: url.to_owned(),
        catalogue,
        egress: Egress::new(policy)?,
        sinks: Vec::new(),
        witness: None,
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
async fn furnish(deps: &Deps) -> Result<(String, DemoKeys), AppError> {
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
    Ok((founded.org.to_string(), keys))
}

async fn announcement(
    deps: &Deps,
    org_id: String,
    keys: DemoKeys,
    url: String,
    ops_url: String,
    demo_provider: String,
) -> Result<Announcement, AppError> {
    let org = org_id
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
        org: org_id,
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

async fn save_often(acme: AcmeMail, shelf: Arc<Shelf>) {
    let mut saved = acme.revision();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let revision = acme.revision();
        if revision != saved && shelf.save(&acme).is_ok() {
            saved = revision;
        }
    }
}

/// Any port will do for 0, but the one of the last time first: the issuer is in every decision and names the log.
async fn listen(port: u16, before: Option<u16>) -> Result<TcpListener, AppError> {
    match before {
        Some(before) if port == 0 => match bind(loopback(before)).await {
            Ok(listener) => Ok(listener),
            Err(error) => {
                tracing::warn!(cause = %error, "another issuer than before: port {before} is taken");
                bind(loopback(0)).await
            }
        },
        _ => bind(loopback(port)).await,
    }
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
