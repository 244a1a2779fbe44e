//! Page × caller × tenant, from the table the router of the pages is made from: a new page is asked by everybody it is not
//! for, and fails here until somebody says what its address and its form hold.

mod audience;
mod forms;
mod tenants;

use std::collections::BTreeMap;

use postern::{
    crypto::lookup,
    domain::{GrantId, connector::Category, secret::LinkToken},
    flows::{
        connect::{
            begin::{self, Ask},
            callback::Answer as Callback,
        },
        login, upstream,
    },
    http::pages::{Audience, Line, TABLE},
};
use serde_json::json;
use url::form_urlencoded::Serializer;

use super::matrix;
use crate::harness::{Answer, Journey, Member, Proof, World, acme_mail, log_in};

/// What stands in addresses and forms: somebody's, or nobody's.
#[derive(Debug, Clone)]
struct Ids {
    grant: String,
    ended: String,
    agent: String,
    user: String,
    entry: String,
    revocation: String,
}

impl Ids {
    /// Of the right kinds; nothing has them.
    fn absent() -> Self {
        let id = |prefix: &str| format!("{prefix}_01h2xcejqtf2nbrexx3vqjhp41");
        Self {
            grant: id("grt"),
            ended: id("grt"),
            agent: id("agt"),
            user: id("usr"),
            entry: id("ent"),
            revocation: id("rev"),
        }
    }

    fn all(&self) -> [&str; 6] {
        [
            &self.grant,
            &self.ended,
            &self.agent,
            &self.user,
            &self.entry,
            &self.revocation,
        ]
    }
}

/// One-time links of Ada's, each as far as its pages need it, with the cookies of her browser.
struct Links {
    login: String,
    pending: String,
    spent: Journey,
    answered: Journey,
    /// Gone out to the provider, which has answered; nobody has come back yet.
    out: (Journey, Callback),
}

/// The demo organisation with one of everything a page shows.
struct Ours {
    world: World,
    ids: Ids,
    links: Links,
}

/// A request for a page: its address, the fields of its form, the cookies it needs beside a session.
struct Request {
    path: String,
    fields: Vec<(&'static str, String)>,
    cookies: String,
}

impl Ours {
    async fn new() -> Self {
        let (world, ended) = World::connected().await;
        let (api, admin) = (world.api(), world.as_admin());
        let body = json!({"selector": {"grant": ended}, "reason": "test"});
        let revoked = api.post(&admin, "/v1/revocations", &body).await;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        upstream::fan_out(&world.deps).await.unwrap();
        let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
        world.vend(world.read(grant)).await.unwrap();
        let entry = api.get(&admin, "/v1/audit/entries").await.json()["items"][0]["id"].clone();
        let ids = Ids {
            grant: grant.to_string(),
            ended: ended.to_string(),
            agent: world.agent.agent.to_string(),
            user: world.ada.to_string(),
            entry: entry.as_str().unwrap().to_owned(),
            revocation: revoked.json()["id"].as_str().unwrap().to_owned(),
        };
        let links = Links::of_ada(&world).await;
        Self { world, ids, links }
    }

    fn ada(&self) -> impl Future<Output = Proof> {
        log_in(&self.world.deps, self.world.org, self.world.ada)
    }

    fn ben(&self) -> impl Future<Output = Proof> {
        log_in(&self.world.deps, self.world.org, self.world.ben)
    }

    /// The request for a page, with the ids of `ids`. The links are always Ada's.
    fn request(&self, line: &Line, ids: &Ids) -> Request {
        let links = &self.links;
        let spelt = |link: &LinkToken| lookup::show_link(link);
        let (from, to) = if line.path.contains('{') {
            match line.path {
                "/connections/{id}/disconnected" => ("{id}", ids.ended.clone()),
                path if path.starts_with("/connections/{id}") => ("{id}", ids.grant.clone()),
                "/activity/{id}" => ("{id}", ids.entry.clone()),
                "/admin/people/{id}/login-link" => ("{id}", ids.user.clone()),
                "/admin/revocations/{id}" => ("{id}", ids.revocation.clone()),
                "/login/{token}" => ("{token}", links.login.clone()),
                "/connect/{token}" => ("{token}", links.pending.clone()),
                "/connect/{token}/continue" => ("{token}", spelt(&links.spent.link)),
                "/connect/{token}/confirm" | "/connect/{token}/cancel" => {
                    ("{token}", spelt(&links.answered.link))
                }
                "/callback/{connector}" => ("{connector}", format!("acme-mail?{}", links.came_back())),
                other => panic!("{other}: a new page: say what its address holds"),
            }
        } else {
            ("{}", String::new())
        };
        let confirm = ids.agent.clone();
        let fields = match (line.method, line.path) {
            ("get" | "head", _) => vec![],
            ("post", "/connections/connect") => vec![("connector", acme_mail().to_string())],
            ("post", "/connections/{id}/delegations") => {
                vec![("agent", confirm.clone()), ("allow", format!("{confirm}:read"))]
            }
            ("post", "/connect/{token}/confirm") => vec![
                ("choice", "confirm".to_owned()),
                ("agent", confirm.clone()),
                ("allow", format!("{confirm}:read")),
            ],
            ("post", "/admin/revoke" | "/admin/revoke/preview") => vec![
                ("what", "grant".to_owned()),
                ("grant", ids.grant.clone()),
                ("reason", "test".to_owned()),
                ("word", "revoke".to_owned()),
            ],
            (
                "post",
                "/logout"
                | "/login/{token}"
                | "/connect/{token}"
                | "/connect/{token}/cancel"
                | "/connections/{id}/reconnect"
                | "/connections/{id}/disconnect"
                | "/admin/people/{id}/login-link",
            ) => vec![],
            other => panic!("{other:?}: a new form: say what its fields are"),
        };
        let cookies = match line.path {
            "/connect/{token}/confirm" | "/connect/{token}/cancel" => {
                format!("; postern_confirm={}", spelt(&links.answered.cookie))
            }
            "/callback/{connector}" => {
                let (journey, _) = &links.out;
                format!(
                    "; postern_connect={}.{}",
                    spelt(&journey.cookie),
                    spelt(&journey.link)
                )
            }
            _ => String::new(),
        };
        Request {
            path: line.path.replace(from, &to),
            fields,
            cookies,
        }
    }

    /// Sends it as the browser of `proof` would, with the token its own pages give it.
    async fn ask(&self, proof: &Proof, line: &Line, ids: &Ids) -> Answer {
        let token = csrf(&self.world, proof).await;
        self.ask_with(proof, line, ids, &token).await
    }

    /// The same with this token.
    async fn ask_with(&self, proof: &Proof, line: &Line, ids: &Ids, token: &str) -> Answer {
        let request = self.request(line, ids);
        let proof = match proof {
            Proof::Session(session) => Proof::Session(format!("{session}{}", request.cookies)),
            other => other.clone(),
        };
        let form = (line.method == "post").then(|| form(&request.fields, token));
        let kind = form.as_ref().map(|_| FORM);
        let (api, method) = (self.world.api(), line.method.to_uppercase());
        let body = form.unwrap_or_default().into_bytes();
        api.raw(&proof, &method, &request.path, kind, body).await.shown()
    }

    /// Everything an admin can see of this org, to find out whether anything of it has changed.
    async fn state(&self) -> BTreeMap<String, String> {
        let (api, admin) = (self.world.api(), self.world.as_admin());
        let mut seen = BTreeMap::new();
        for operation in matrix::guarded() {
            let listed = operation.method == "GET" && !operation.has_id();
            // What is signed is signed anew at every look.
            if listed && operation.path != "/v1/audit/checkpoint" {
                let answer = api.get(&admin, &operation.path).await;
                seen.insert(operation.place(), answer.text());
            }
        }
        let grant: GrantId = self.ids.grant.parse().unwrap();
        seen.insert(
            "the grant".to_owned(),
            format!("{:?}", self.world.grant(grant).await),
        );
        let requests = ["token", "revoke", "api"].map(|kind| self.world.seen(kind));
        for requests in requests {
            seen.insert(
                format!("at the provider {}", seen.len()),
                requests.await.len().to_string(),
            );
        }
        assert!(seen.len() > 10, "only {} things were looked at", seen.len());
        seen
    }

    /// What must not stand on a page of somebody else.
    fn markers(&self) -> Vec<String> {
        let own = self.ids.all().into_iter().map(str::to_owned);
        own.chain([self.world.org.to_string(), "@acme.example".to_owned()])
            .collect()
    }

    /// The last test of who has tried to spend or spoil a link: Ada still can use each of them.
    async fn assert_links_work(&self) {
        let ada = self.ada().await;
        let line = |method: &str, path: &str| {
            TABLE
                .iter()
                .find(|line| (line.method, line.path) == (method, path))
                .unwrap()
        };
        for (method, path, status) in [
            ("get", "/login/{token}", 200),
            ("get", "/connect/{token}", 200),
            ("post", "/connect/{token}", 303),
            ("get", "/connect/{token}/continue", 200),
            ("get", "/callback/{connector}", 303),
            ("get", "/connect/{token}/confirm", 200),
            ("post", "/connect/{token}/confirm", 200),
        ] {
            let answer = self.ask(&ada, line(method, path), &self.ids).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
        let answer = self
            .ask(&Proof::Nothing, line("get", "/login/{token}"), &self.ids)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn assert_silent(&self, answer: &Answer, place: &str) {
        let text = answer.text();
        let headers = format!("{:?}", answer.headers);
        for marker in self.markers() {
            assert!(
                !text.contains(&marker) && !headers.contains(&marker),
                "{place}: {marker}"
            );
        }
    }
}

impl Links {
    async fn of_ada(world: &World) -> Self {
        let (deps, org, ada) = (&world.deps, world.org, world.ada);
        let last = |url: &str| url.rsplit('/').next().unwrap().to_owned();
        let login = login::make_link(deps, org, ada, "test".to_owned()).await.unwrap();
        let pending = begin::create(deps, org, Ask::new(ada, acme_mail()))
            .await
            .unwrap();
        let answered = Journey::begin(world, ada, None).await;
        let consent = answered.consent(world, "ada@acme.example", false).await;
        answered.come_back(world, consent).await.unwrap();
        let out = Journey::begin(world, ada, None).await;
        let consent = out.consent(world, "ada@acme.example", false).await;
        Self {
            login: last(&login.url),
            pending: last(&pending.url),
            spent: Journey::begin(world, ada, None).await,
            answered,
            out: (out, consent),
        }
    }

    /// The query with which the provider sends Ada's browser back.
    fn came_back(&self) -> String {
        let (_, answer) = &self.out;
        let code = answer.code.as_ref().unwrap().expose_secret();
        let mut query = Serializer::new(String::new());
        query.append_pair("code", code);
        query.append_pair("state", answer.state.as_deref().unwrap());
        query.append_pair("iss", answer.iss.as_deref().unwrap());
        query.finish()
    }
}

fn pages(audiences: &[Audience]) -> Vec<&'static Line> {
    TABLE
        .iter()
        .filter(|line| audiences.contains(&line.audience))
        .collect()
}

fn place(line: &Line, who: &str) -> String {
    format!("{} {} as {who}", line.method, line.path)
}

/// Nobody, and programs with their keys wherever a key could be put.
fn no_people(world: &World) -> Vec<Member> {
    let one = |name, proof| Member { name, is: &[], proof };
    let keys = [
        ("agent key", "agent key as a session", &world.agent_key),
        ("service key", "service key as a session", &world.service_key),
        ("admin key", "admin key as a session", &world.admin_key),
    ];
    let mut found = vec![one("nobody", Proof::Nothing)];
    for (bearer, cookie, key) in keys {
        found.push(one(bearer, Proof::Key(key.clone())));
        found.push(one(cookie, Proof::Session(key.clone())));
    }
    found
}

/// The people of the other tenant.
async fn other_people(world: &World) -> Vec<Member> {
    let mut found = world.neighbours().await;
    found.retain(|member| matches!(member.proof, Proof::Session(_)));
    assert_eq!(found.len(), 2);
    found
}

/// The token of a signed-in person's forms; nothing for those who see no form.
async fn csrf(world: &World, proof: &Proof) -> String {
    let page = world.api().get(proof, "/connections").await.text();
    let found = page.split_once("name=\"csrf\" value=\"");
    found
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(token, _)| token.to_owned())
        .unwrap_or_default()
}

fn form(fields: &[(&'static str, String)], token: &str) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("csrf", token);
    form.extend_pairs(fields);
    form.finish()
}

const FORM: &str = "application/x-www-form-urlencoded";
