//! The claims of an engine's decision and the members of its header, signed anew with the engine's own key.

use postern::{crypto::digest::base64url, domain::connector::Category};
use serde_json::{Value, json};

use super::{ENGINE, Honest, Mutation, as_kind, changed, changes, foreign};
use crate::harness::ISSUER;

#[tokio::test]
async fn no_changed_claim_that_an_engine_signs_anew_releases_anything() {
    let honest = Honest::new().await;
    let world = &honest.world;
    let bens = world.connect(world.ben, &[Category::Read]).await;
    let foreign = foreign(world).await;
    world.apply(&json!({"agent": [{"name": "Second"}]})).await;
    let agents = world.api().get(&world.as_admin(), "/v1/agents").await.json();
    let agents = agents["items"].as_array().unwrap();
    let second = agents.iter().find(|agent| agent["name"] == "Second").unwrap();
    let now = world.deps.clock.now().unix_seconds();
    let required = [
        "/iss",
        "/aud",
        "/iat",
        "/exp",
        "/ver",
        "/org",
        "/sub",
        "/act",
        "/act/sub",
        "/grant",
        "/tool",
        "/action_hash",
        "/outcome",
    ];
    let particular = [
        (
            "/iss",
            vec![
                json!(ISSUER),
                json!("https://other.example"),
                json!(format!("{ENGINE}/")),
            ],
        ),
        (
            "/aud",
            vec![
                json!(ISSUER),
                json!(format!("{ISSUER}/orgs/{}", foreign.org)),
                json!(format!("{ISSUER}/orgs/{}/", world.org)),
                json!(world.org),
                json!("*"),
            ],
        ),
        // Expired, at the very moment, from the future, living too long, in milliseconds.
        (
            "/iat",
            vec![
                json!(0),
                json!(now - 61),
                json!(now + 31),
                json!(now + 59),
                json!(now + 60),
                json!(now * 1000),
            ],
        ),
        (
            "/exp",
            vec![
                json!(0),
                json!(now),
                json!(now - 1),
                json!(now + 121),
                json!(now + 86_400),
                json!(now * 1000),
            ],
        ),
        (
            "/jti",
            vec![
                json!(""),
                Value::Null,
                json!(1),
                json!(["one"]),
                json!({}),
                json!("j".repeat(129)),
            ],
        ),
        (
            "/ver",
            vec![json!(0), json!(2), json!(255), json!(256), json!(1.5)],
        ),
        (
            "/org",
            vec![
                json!(foreign.org),
                as_kind(world.org, "usr"),
                json!("org_01h2xcejqtf2nbrexx3vqjhp41"),
            ],
        ),
        (
            "/sub",
            vec![
                json!(world.ben),
                json!(foreign.user),
                as_kind(world.ada, "agt"),
                json!(world.agent.agent),
            ],
        ),
        (
            "/act/sub",
            vec![
                second["id"].clone(),
                json!(foreign.agent),
                as_kind(world.agent.agent, "usr"),
                json!(world.ada),
            ],
        ),
        ("/act/act", vec![json!({"sub": world.agent.agent})]),
        ("/act/run", vec![json!(7), json!({})]),
        (
            "/grant",
            vec![
                json!(bens),
                json!(foreign.grant),
                as_kind(honest.grant, "usr"),
                json!("*"),
            ],
        ),
        (
            "/tool",
            vec![
                json!("*"),
                json!("messages.get"),
                json!("messages.send"),
                json!("messages"),
            ],
        ),
        (
            "/action_hash",
            vec![
                json!("A".repeat(43)),
                json!("*"),
                json!(format!("{}=", honest.claims["action_hash"].as_str().unwrap())),
            ],
        ),
        (
            "/outcome",
            vec![json!("deny"), json!("escalate"), json!("Allow"), json!("permit")],
        ),
        (
            "/constraints",
            vec![Value::Null, json!([]), json!("none"), json!(true)],
        ),
        (
            "/constraints/modes",
            vec![
                json!([]),
                json!(["token"]),
                json!(["handle", "token"]),
                json!(["EXECUTE"]),
                json!(["*"]),
                json!("execute"),
                json!(1),
            ],
        ),
        (
            "/constraints/scopes",
            vec![
                json!([]),
                json!(["mail.send"]),
                json!(["MAIL.READ"]),
                json!(["*"]),
                json!("mail.read"),
                json!(1),
                json!([1]),
            ],
        ),
        (
            "/constraints/max_ttl_s",
            vec![json!("60"), json!(-1), json!(1.5), json!([60]), json!(true)],
        ),
        (
            "/constraints/cnf",
            vec![json!({"jkt": "A".repeat(43)}), json!({}), json!("jkt")],
        ),
        ("/constraints/recipients", vec![json!(["ben@acme.example"])]),
        ("/policy", vec![Value::Null, json!([]), json!("house"), json!({})]),
        ("/policy/id", vec![Value::Null, json!(1), json!(["house"])]),
        ("/policy/version", vec![Value::Null, json!(7), json!({})]),
        ("/policy/digest", vec![Value::Null, json!(0), json!([])]),
        ("/policy/more", vec![json!("x")]),
        (
            "/layers",
            vec![
                json!("allow"),
                json!({"org": "maybe"}),
                json!({"host": "allow"}),
                json!({"org": 1}),
            ],
        ),
        (
            "/approvals",
            vec![
                json!([{"id": as_kind(honest.grant, "apr")}]),
                json!("none"),
                json!([{}]),
                json!({}),
            ],
        ),
        ("/live_session", vec![json!("yes"), json!(1)]),
        (
            "/context_digest",
            vec![
                json!(7),
                json!([]),
                json!(null),
                json!(""),
                json!(format!("sha256:{}", "0".repeat(64))),
            ],
        ),
        ("/nbf", vec![json!(now)]),
        ("/cnf", vec![json!({"jkt": "A".repeat(43)})]),
        ("/scope", vec![json!("mail.read")]),
        ("/Outcome", vec![json!("allow")]),
    ];
    let mut decisions: Vec<(String, String)> = changes(&honest.claims, &required, &particular)
        .into_iter()
        .map(|(what, claims)| (what, honest.sign(&Honest::header(), &claims)))
        .collect();
    for missing in [
        "/jti",
        "/policy",
        "/policy/id",
        "/policy/version",
        "/policy/digest",
    ] {
        let claims = changed(&honest.claims, missing, None);
        decisions.push((
            format!("{missing} missing"),
            honest.sign(&Honest::header(), &claims),
        ));
    }
    let (header, claims) = (Honest::header().to_string(), honest.claims.to_string());
    for (member, first) in [
        ("outcome", json!("deny")),
        ("grant", json!(bens)),
        ("exp", json!(now)),
    ] {
        let twice = format!("{{\"{member}\":{first},{}", &claims[1..]);
        decisions.push((format!("{member} twice"), honest.sign_text(&header, &twice)));
    }
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(honest.key.verifying_key().as_bytes())});
    let particular = [
        (
            "/typ",
            vec![
                json!("jwt"),
                json!("JWT"),
                json!("at+jwt"),
                json!("application/action-decision+jwt"),
            ],
        ),
        (
            "/alg",
            vec![
                json!("none"),
                json!("HS256"),
                json!("ES256"),
                json!("RS256"),
                json!("Ed25519"),
            ],
        ),
        (
            "/kid",
            vec![
                json!(world.deps.notary.kid()),
                json!("house-2"),
                json!("*"),
                json!("../house-1"),
            ],
        ),
        ("/jwk", vec![jwk]),
        ("/jku", vec![json!("https://evil.example/keys")]),
        ("/x5u", vec![json!("https://evil.example/cert")]),
        ("/crit", vec![json!([]), json!(["exp"])]),
        ("/b64", vec![json!(false), json!(true)]),
        ("/zip", vec![json!("DEF")]),
        ("/cty", vec![json!("JWT")]),
    ];
    decisions.extend(
        changes(&Honest::header(), &["/typ", "/alg", "/kid"], &particular)
            .into_iter()
            .map(|(what, header)| (format!("header {what}"), honest.sign(&header, &honest.claims))),
    );
    let mutations: Vec<Mutation> = decisions
        .into_iter()
        .map(|(what, jws)| honest.mutation(what, &honest.with(&jws)))
        .collect();
    assert!(mutations.len() >= 350, "{}", mutations.len());
    honest
        .release_nothing_but_what_is_unchanged(&mutations, &["decision_rejected", "mode_unavailable"])
        .await;
}
