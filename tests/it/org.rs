//! What an org lays down about itself and its connectors: whose accounts, how much, who may be asked. Set by `apply`,
//! read back at `/v1/org`, held to when people connect and when agents ask.

use postern::{
    crypto::random,
    domain::{ScopeSet, connector::Category, grant::GrantState},
    flows::{
        connect::{ConnectFailure, Visitor, begin},
        upstream,
    },
};
use serde_json::{Value, json};

use crate::harness::{Answer, Journey, Outcome, Proof, World, connect_as, log_in};

async fn try_apply(world: &World, document: &Value, dry_run: bool) -> Answer {
    let body = json!({"toml": toml::to_string(document).unwrap(), "dry_run": dry_run});
    world.api().post(&world.as_admin(), "/v1/apply", &body).await
}

/// Lays down rules about Acme Mail.
async fn rule(world: &World, rules: Value) {
    let changes = world.apply(&json!({"connector": {"acme-mail": rules}})).await["changes"].clone();
    assert_eq!(changes.as_array().unwrap().len(), 1, "{changes}");
}

async fn settings(world: &World) -> Value {
    world.api().get(&world.as_admin(), "/v1/org").await.json()
}

async fn epoch(world: &World) -> postern::domain::entry::Epoch {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.epoch(world.org).await.unwrap().unwrap()
}

/// How often something was applied, by the log.
async fn applied(world: &World) -> usize {
    let entries = world.entries().await;
    entries
        .iter()
        .filter(|entry| entry.draft.outcome.as_deref() == Some("applied"))
        .count()
}

fn from_acme() -> Value {
    json!({"accounts": {"domains": ["acme.example"]}})
}

fn code(failure: &ConnectFailure) -> &'static str {
    failure.code()
}

#[tokio::test]
async fn settings_are_planned_applied_shown_and_then_left_alone() {
    let world = World::new().await;
    let document = json!({
        "org": {"agents_may_ask": false},
        "connector": {"acme-mail": {"scopes": ["mail.read"], "accounts": {"domains": ["Acme.Example"]}}},
    });
    let (before, known) = (epoch(&world).await, applied(&world).await);
    let plan = try_apply(&world, &document, true).await.json();
    let changes = json!([
        {"change": "update", "kind": "org", "name": "Acme",
         "detail": "agents may not ask people who have not connected yet"},
        {"change": "update", "kind": "connector", "name": "acme-mail",
         "detail": "at most mail.read may be asked for; only accounts of domain acme.example"},
    ]);
    assert_eq!(plan["changes"], changes);
    assert_eq!(
        settings(&world).await["agents_may_ask"],
        true,
        "a plan changes nothing"
    );
    assert_eq!((epoch(&world).await, applied(&world).await), (before, known));

    assert_eq!(world.apply(&document).await["changes"], changes);
    let shown = settings(&world).await;
    assert_eq!(shown["agents_may_ask"], false);
    let acme = &shown["connectors"][0];
    assert_eq!(
        (&acme["id"], &acme["scopes"], &acme["accounts"]),
        (
            &json!("acme-mail"),
            &json!(["mail.read"]),
            &json!({"domains": ["acme.example"], "tenants": null})
        )
    );
    assert!(
        before.is_before(epoch(&world).await),
        "an allow may have become a deny"
    );
    assert_eq!(applied(&world).await, known + 1);

    let after = epoch(&world).await;
    assert_eq!(world.apply(&document).await["changes"], json!([]));
    assert_eq!((epoch(&world).await, applied(&world).await), (after, known + 1));
}

#[tokio::test]
async fn what_a_document_does_not_name_is_kept_and_rules_can_be_lifted() {
    let world = World::new().await;
    rule(&world, json!({"scopes": ["mail.read"]})).await;
    rule(&world, from_acme()).await;
    let acme = settings(&world).await["connectors"][0].clone();
    assert_eq!(acme["scopes"], json!(["mail.read"]));
    assert_eq!(acme["accounts"]["domains"], json!(["acme.example"]));
    assert_eq!(acme["client_id"], postern::dev::acme_mail::DEMO_CLIENT_ID);
    rule(&world, json!({"scopes": ["*"], "accounts": {}})).await;
    let acme = settings(&world).await["connectors"][0].clone();
    assert_eq!((&acme["scopes"], &acme["accounts"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn a_new_client_and_its_rules_come_in_one_document() {
    let world = World::new().await;
    let document = json!({"connector": {"gmail": {"client_id": "1", "client_secret": "s",
        "scopes": ["https://www.googleapis.com/auth/gmail.readonly"], "accounts": {"tenants": ["acme.example"]}}}});
    let changes = world.apply(&document).await["changes"].clone();
    assert_eq!(changes.as_array().unwrap().len(), 2, "{changes}");
    let gmail = settings(&world).await["connectors"][1].clone();
    assert_eq!(gmail["accounts"]["tenants"], json!(["acme.example"]));
    assert_eq!(gmail["has_secret"], true);
    assert!(!gmail.to_string().contains("\"s\""), "no secret is shown");
}

#[tokio::test]
async fn rules_that_could_never_be_kept_are_refused_at_their_place() {
    let world = World::new().await;
    let mail = |rules: Value| json!({"connector": {"acme-mail": rules}});
    for (document, pointer) in [
        (
            mail(json!({"scopes": ["mail.read", "mail.burn"]})),
            "/connector/acme-mail/scopes/1",
        ),
        (
            mail(json!({"scopes": ["*", "mail.read"]})),
            "/connector/acme-mail/scopes/0",
        ),
        (
            mail(json!({"accounts": {"domains": ["acme.example", "example"]}})),
            "/connector/acme-mail/accounts/domains/1",
        ),
        (
            mail(json!({"accounts": {"domains": ["@acme.example"]}})),
            "/connector/acme-mail/accounts/domains/0",
        ),
        (
            mail(json!({"accounts": {"tenants": ["T1"]}})),
            "/connector/acme-mail/accounts/tenants",
        ),
        (
            json!({"connector": {"slack": {"client_id": "1", "accounts": {"domains": ["acme.example"]}}}}),
            "/connector/slack/accounts/domains",
        ),
        (
            json!({"connector": {"slack": {"client_id": "1", "accounts": {"tenants": ["T1", ""]}}}}),
            "/connector/slack/accounts/tenants/1",
        ),
        (
            json!({"connector": {"slack": {"scopes": []}}}),
            "/connector/slack/client_id",
        ),
        (
            mail(json!({"client_secret": "s"})),
            "/connector/acme-mail/client_id",
        ),
        (json!({"org": {"agents_may_asks": true}}), "/toml"),
        (
            mail(json!({"accounts": {"emails": ["ada@acme.example"]}})),
            "/toml",
        ),
    ] {
        for dry_run in [true, false] {
            let answer = try_apply(&world, &document, dry_run).await;
            assert_eq!(answer.status, 400, "{document}: {}", answer.text());
            assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{document}");
        }
    }
}

#[tokio::test]
async fn an_account_inside_the_rule_is_connected() {
    let world = World::new().await;
    rule(&world, from_acme()).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn an_account_outside_the_rule_is_discarded_and_its_tokens_are_revoked() {
    let world = World::new().await;
    rule(&world, from_acme()).await;
    let outcome = connect_as(&world, world.ada, "other@else.example", &[Category::Read], false).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if code(failure) == "account_not_allowed"),
        "{outcome:?}"
    );
    let grants = world.grants_of(world.ada).await;
    assert!(
        grants
            .iter()
            .all(|grant| matches!(grant.state, GrantState::Revoked { .. })),
        "{grants:?}"
    );
    upstream::drain(&world.deps).await.unwrap();
    let asked = world.seen("revoke").await;
    assert!(asked.iter().any(|request| request["status"] == 200), "{asked:?}");
    assert_eq!(world.secrets_of(grants[0].id).await, 0, "our copy is destroyed");
    let entries = world.entries().await;
    let told = entries
        .iter()
        .find(|entry| entry.draft.outcome.as_deref() == Some("failed"));
    assert_eq!(told.unwrap().draft.reason.as_deref(), Some("account_not_allowed"));
}

#[tokio::test]
async fn an_account_outside_the_rule_is_told_so_on_the_page_and_over_the_api() {
    let world = World::new().await;
    rule(&world, from_acme()).await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let body = json!({"user": world.ada, "connector": "acme-mail"});
    let made = world.api().post(&ada, "/v1/connect-sessions", &body).await.json();
    let link = random::parse_link_token(made["url"].as_str().unwrap().rsplit('/').next().unwrap()).unwrap();
    let visitor = Visitor {
        user: Some((world.org, world.ada)),
    };
    let cookie = begin::go(&world.deps, &link, visitor).await.unwrap();
    let journey = Journey {
        link,
        cookie,
        visitor,
    };
    let back = journey.way_back(&world, "other@else.example", false).await;
    let path = format!("{}?{}", back.path(), back.query().unwrap());
    let page = world.api().browse(&ada, &journey.binding(), &path).await;
    let text = page.text();
    assert_eq!(page.status, 403, "{text}");
    assert!(text.contains("This account is not allowed here"), "{text}");
    assert!(text.contains("other@else.example"), "{text}");
    let path = format!("/v1/connect-sessions/{}", made["id"].as_str().unwrap());
    let state = world.api().get(&ada, &path).await.json();
    assert_eq!(
        (&state["status"], &state["code"]),
        (&json!("failed"), &json!("account_not_allowed"))
    );
}

#[tokio::test]
async fn a_rule_made_while_the_person_confirms_holds() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "other@else.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    rule(&world, from_acme()).await;
    let failure = journey.confirm(&world, &[Category::Read]).await.unwrap_err();
    assert_eq!(code(&failure), "account_not_allowed");
    upstream::drain(&world.deps).await.unwrap();
    assert!(!world.seen("revoke").await.is_empty());
}

#[tokio::test]
async fn a_ceiling_that_came_down_while_the_person_confirms_holds() {
    let world = World::new().await;
    let journey = Journey::begin(&world, world.ada, None).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.come_back(&world, answer).await.unwrap();
    rule(&world, json!({"scopes": ["mail.read"]})).await;
    let failure = journey.confirm(&world, &[Category::Read]).await.unwrap_err();
    assert_eq!(code(&failure), "scopes_not_allowed");
    upstream::drain(&world.deps).await.unwrap();
    assert!(!world.seen("revoke").await.is_empty());
}

#[tokio::test]
async fn a_grant_made_before_the_rule_is_renewed_only_inside_it() {
    let world = World::new().await;
    let outcome = connect_as(&world, world.ada, "other@else.example", &[Category::Read], false).await;
    let Outcome::Granted(grant) = outcome else {
        panic!("{outcome:?}")
    };
    rule(&world, from_acme()).await;
    world.vend(world.read(grant)).await.unwrap();
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "other@else.example", false).await;
    let failure = journey.come_back(&world, answer).await.unwrap_err();
    assert_eq!(code(&failure), "account_not_allowed");
    // What was not finished cuts off nobody.
    world.vend(world.read(grant)).await.unwrap();
}

/// The scopes the provider is asked for by a link.
async fn asked(world: &World, url: &str, user: postern::domain::UserId) -> ScopeSet {
    let link = random::parse_link_token(url.rsplit('/').next().unwrap()).unwrap();
    let visitor = Visitor {
        user: Some((world.org, user)),
    };
    begin::go(&world.deps, &link, visitor).await.unwrap();
    let url = begin::provider_url(&world.deps, &link, visitor).await.unwrap();
    let url = url::Url::parse(&url).unwrap();
    let scope = url.query_pairs().find(|(name, _)| name == "scope").unwrap().1;
    ScopeSet::parse(&scope, ' ').unwrap()
}

#[tokio::test]
async fn a_session_asks_for_no_more_than_the_ceiling() {
    let world = World::new().await;
    rule(&world, json!({"scopes": ["mail.read", "mail.write"]})).await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let ask = async |more: Value| {
        let mut body = json!({"user": world.ada, "connector": "acme-mail"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.api().post(&ada, "/v1/connect-sessions", &body).await
    };
    let usual = ask(json!({})).await.json();
    let scopes = asked(&world, usual["url"].as_str().unwrap(), world.ada).await;
    assert_eq!(scopes.join(' '), "mail.read mail.write");
    let over = ask(json!({"scopes": ["mail.read", "mail.send"]})).await;
    assert_eq!((over.status, over.code()), (400, "invalid_request".to_owned()));
    assert_eq!(over.json()["errors"][0]["pointer"], "/scopes");
    let under = ask(json!({"scopes": ["mail.read"]})).await;
    assert_eq!(under.status, 201, "{}", under.text());
}

#[tokio::test]
async fn an_empty_ceiling_leaves_nothing_to_connect() {
    let world = World::new().await;
    rule(&world, json!({"scopes": []})).await;
    let ada = log_in(&world.deps, world.org, world.ada).await;
    let body = json!({"user": world.ada, "connector": "acme-mail"});
    let refused = world.api().post(&ada, "/v1/connect-sessions", &body).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.json()["errors"][0]["pointer"], "/connector");
    let page = world.api().get(&ada, "/connections").await;
    assert!(!page.text().contains("value=\"acme-mail\""), "it is not offered");
}

fn list(user: postern::domain::UserId) -> Value {
    json!({"connector": "acme-mail", "user": user, "tool": "messages.list", "args": {}})
}

fn send(user: postern::domain::UserId) -> Value {
    let args = json!({"to": ["ben@acme.example"], "subject": "s", "body": "b"});
    json!({"connector": "acme-mail", "user": user, "tool": "messages.send", "args": args})
}

#[tokio::test]
async fn a_tool_above_the_ceiling_is_nobodys() {
    let (world, grant) = World::connected().await;
    rule(&world, json!({"scopes": ["mail.read"]})).await;
    let vend = async |body: Value| world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    let mut by_grant = send(world.ada);
    let members = by_grant.as_object_mut().unwrap();
    members.remove("connector");
    members.remove("user");
    members.insert("grant".to_owned(), json!(grant));
    let nobody = "usr_01h2xcejqtf2nbrexx3vqjhp41".parse().unwrap();
    for body in [send(world.ada), send(world.ben), send(nobody), by_grant] {
        let answer = vend(body.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (403, "denied".to_owned()),
            "{body}"
        );
        assert_eq!(answer.json()["reason"], "scope_not_allowed", "{body}");
    }
    assert_eq!(vend(list(world.ada)).await.status, 200);
    let link = vend(list(world.ben)).await;
    assert_eq!(link.code(), "connection_required", "{}", link.text());
    let url = link.json()["connect"]["url"].as_str().unwrap().to_owned();
    assert_eq!(asked(&world, &url, world.ben).await.join(' '), "mail.read");
}

#[tokio::test]
async fn an_agents_link_to_reconnect_restores_nothing_above_the_ceiling() {
    let (world, grant) = World::connected().await;
    rule(&world, json!({"scopes": ["mail.read"]})).await;
    world
        .raw_sql("UPDATE grants SET state = 'needs_reconnect', state_reason = 'expired'")
        .await;
    world.deps.facts.forget(world.org);
    let body = json!({"grant": grant, "tool": "messages.list", "args": {}});
    let answer = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!(answer.code(), "reconnect_required", "{}", answer.text());
    let url = answer.json()["connect"]["url"].as_str().unwrap().to_owned();
    assert_eq!(asked(&world, &url, world.ada).await.join(' '), "mail.read");
}

#[tokio::test]
async fn agents_that_may_not_ask_get_no_link() {
    let world = World::new().await;
    let vend = async || {
        world
            .api()
            .post(&world.as_agent(), "/v1/vend", &list(world.ben))
            .await
    };
    assert_eq!(vend().await.code(), "connection_required");
    world.apply(&json!({"org": {"agents_may_ask": false}})).await;
    let refused = vend().await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(refused.json()["reason"], "not_delegated");
    world.apply(&json!({"org": {"agents_may_ask": true}})).await;
    assert_eq!(vend().await.code(), "connection_required");
}

#[tokio::test]
async fn settings_are_for_admins_of_their_own_org() {
    let world = World::new().await;
    rule(&world, from_acme()).await;
    let neighbours = world.neighbours().await;
    let admin = neighbours
        .iter()
        .find(|member| member.is.contains(&"admin"))
        .unwrap();
    let theirs = world.api().get(&admin.proof, "/v1/org").await.json();
    assert_eq!(
        (&theirs["name"], &theirs["connectors"][0]["accounts"]),
        (&json!("Other"), &json!(null))
    );
    let ben = log_in(&world.deps, world.org, world.ben).await;
    for proof in [ben, world.as_agent(), world.as_service()] {
        assert_eq!(world.api().get(&proof, "/v1/org").await.status, 403, "{proof:?}");
    }
    assert_eq!(world.api().get(&Proof::Nothing, "/v1/org").await.status, 401);
}
