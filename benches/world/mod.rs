//! A deployment as `postern dev` makes it, with one Acme Mail grant connected by the real flows.

#[expect(
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the tests' own way to a PostgreSQL server; a measurement that has none stops"
)]
#[path = "../../tests/it/harness/database.rs"]
mod database;

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use postern::{
    app::{AppError, Kind, Parts, clock::SystemClock},
    connectors::{Catalogue, Options},
    crypto::{OsRandomness, hardening, lookup::show_api_key, random},
    dev::acme_mail::{self, AcmeMail, RedirectUri},
    domain::{
        GrantId, Mode, UserId,
        connector::{Category, ConnectorId},
        principal::KeyOwner,
        secret::AuthorizationCode,
    },
    egress::{Egress, EgressPolicy, OutboundRequest, operator_client},
    flows::{
        Deps,
        actions::{Ask, Caller, Target},
        apply,
        connect::{
            Visitor, begin,
            callback::{self, Answer},
            confirm::{self, Choice, Confirmed},
        },
        found,
    },
    http::{guard::RequestIds, server},
    policy::demo,
    store::{Keyed, Location, TimeSource},
};
use postern_kms::local::{LocalKeys, create_key_file};
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

use crate::measure::{Done, failed};

/// A running deployment. Dropping it removes its directory.
pub(crate) struct World {
    pub(crate) deps: Arc<Deps>,
    pub(crate) agent: Caller,
    pub(crate) grant: GrantId,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// Founds the demo organisation in a new database that `open` opens, and lets Ada connect Acme
    /// Mail. The second value is the agent's key.
    pub(crate) async fn new<F>(url: &str, open: impl FnOnce(Parts) -> F) -> Done<(Self, String)>
    where
        F: Future<Output = Result<Arc<Deps>, AppError>>,
    {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let acme = start_acme(url).await?;
        let location = database::location(dir.path()).await;
        let deps = open(parts(dir.path(), location, url, &acme)?).await?;
        let founded = found::found(&deps, "Acme", "ada@acme.example").await?;
        let document = toml::to_string(&json!({
            "agent": [{"name": "Mail Assistant"}],
            "connector": {"acme-mail": {"client_id": acme_mail::DEMO_CLIENT_ID}},
            "policies": {"org": [demo::ORG], "agent": [demo::AGENT]},
        }))?;
        let applied = apply::apply(&deps, founded.org, "bench".to_owned(), &document).await?;
        let key = applied.keys.iter().find(|key| key.kind == "agent");
        let agent_key = &key.ok_or("no agent key")?.key;
        let hash = deps.lookup.api_key(agent_key)?;
        let found = deps.store.find(Keyed::ApiKey(&hash)).await?;
        let (org, mut tx) = found.ok_or("the key is unknown")?;
        let row = tx.api_key(org, &hash).await?;
        drop(tx);
        let row = row.ok_or("the key is unknown")?;
        let KeyOwner::Agent(agent) = row.owner else {
            return Err("not an agent's key".into());
        };
        let agent = Caller {
            org: founded.org,
            agent,
            key: row.id,
        };
        let agent_key = show_api_key(agent_key);
        let grant = connect(&deps, &acme, agent, founded.admin).await?;
        let world = Self {
            deps,
            agent,
            grant,
            dir,
        };
        Ok((world, agent_key))
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

fn parts(dir: &Path, location: Location, url: &str, acme: &str) -> Done<Parts> {
    let kek = dir.join("kek");
    create_key_file(&kek)?;
    let mut keys = LocalKeys::new(hardening::keep_preferably_locked);
    keys.add_key_file("local", &kek)?;
    let policy = EgressPolicy::strict()
        .allow(&acme_mail()?, acme.trim_start_matches("http://"))
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

/// Link → provider → callback → confirm, as a person's browser goes.
async fn connect(deps: &Arc<Deps>, acme: &str, agent: Caller, user: UserId) -> Done<GrantId> {
    let ask = begin::Ask {
        user,
        connector: acme_mail()?,
        scopes: None,
        label: None,
        reconnect: None,
        return_url: None,
        agent: None,
        service: None,
    };
    let link = begin::create(deps, agent.org, ask).await?;
    let text = link.url.rsplit('/').next().ok_or("no link")?;
    let link = random::parse_link_token(text).ok_or("no link")?;
    let visitor = Visitor {
        user: Some((agent.org, user)),
    };
    let cookie = begin::go(deps, &link, visitor).await.map_err(failed)?;
    let url = begin::provider_url(deps, &link, visitor).await.map_err(failed)?;
    let answer = consent(acme, &Url::parse(&url)?).await?;
    let text = postern::crypto::lookup::show_link(&cookie);
    let brought = random::parse_link_token(&text).ok_or("no cookie")?;
    callback::receive(deps, &acme_mail()?, answer, Some(brought), visitor)
        .await
        .map_err(failed)?;
    let choice = Choice {
        agent: agent.agent,
        categories: BTreeSet::from([Category::Read, Category::Write]),
        raw: false,
    };
    match confirm::confirm(deps, &link, Some(&cookie), visitor, vec![choice])
        .await
        .map_err(failed)?
    {
        Confirmed::Connected(grant) => Ok(grant),
        Confirmed::Waiting(_) => Err("this person is managed by a host".into()),
    }
}

/// Ada allows everything that is asked for.
async fn consent(acme: &str, asked: &Url) -> Done<Answer> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in asked.query_pairs() {
        form.append_pair(&name, &value);
        if name == "scope" {
            for scope in value.split(' ') {
                form.append_pair(&format!("scope.{scope}"), "on");
            }
        }
    }
    form.append_pair("account", "ada@acme.example");
    form.append_pair("decision", "allow");
    let mut request = OutboundRequest::new(http::Method::POST, Url::parse(&format!("{acme}/authorize"))?);
    request.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    request.body = Some(form.finish().into_bytes().into());
    let answer = operator_client()?.send(request).await?;
    let back = answer
        .headers
        .get("location")
        .ok_or("the provider sent nobody back")?;
    let back = Url::parse(back.to_str()?)?;
    let get = |wanted: &str| {
        back.query_pairs()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    Ok(Answer {
        code: get("code").map(AuthorizationCode::new),
        state: get("state"),
        error: get("error"),
        iss: get("iss"),
    })
}

fn acme_mail() -> Done<ConnectorId> {
    "acme-mail".parse().map_err(failed)
}
