//! I1: only a decision for exactly this action, user, agent and grant releases anything.

use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use postern::{
    crypto::{digest::base64url, jose},
    domain::{
        GrantId, Mode, ModeSet,
        connector::Category,
        decision::{DecisionClaims, Outcome, UnverifiedDecision},
    },
    flows::{Refusal, actions::Ask, decide, vend},
    release::DecisionError,
    store::Selector,
};
use serde_json::{Value, json};

use super::harness::{World, ask};

async fn decision(world: &World, grant: GrantId) -> (String, Value) {
    decision_for(world, &world.read(grant)).await
}

async fn decision_for(world: &World, ask: &Ask) -> (String, Value) {
    let answer = decide::decide(&world.deps, world.agent, ask).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Allow);
    let payload = answer.jws.split('.').nth(1).unwrap();
    let payload = postern::crypto::digest::base64url_decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    (answer.jws, claims)
}

async fn present(world: &World, grant: GrantId, jws: String) -> Result<vend::Vended, Refusal> {
    let mut ask = world.read(grant);
    ask.decision = Some(UnverifiedDecision(jws));
    world.vend(ask).await
}

/// Signs claims of a test's own making with the real notary key.
fn sign(world: &World, claims: &Value) -> String {
    let payload = serde_json::to_vec(claims).unwrap();
    jose::sign("action-decision+jwt", &world.deps.notary, &payload).unwrap()
}

#[tokio::test]
async fn a_decision_of_postern_releases_its_action() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    present(&world, grant, jws).await.unwrap();
}

#[tokio::test]
async fn every_mutated_claim_is_rejected() {
    let (world, grant) = World::connected().await;
    let (_, honest) = decision(&world, grant).await;
    let now = honest["iat"].as_i64().unwrap();
    let other = |prefix: &str| json!(format!("{prefix}_01h2xcejqtf2nbrexx3vqjhp41"));
    let mutations: Vec<(&str, Value, DecisionError)> = vec![
        ("iss", json!("https://evil.example"), DecisionError::WrongIssuer),
        (
            "aud",
            json!("http://127.0.0.1:8700/orgs/org_01h2xcejqtf2nbrexx3vqjhp41"),
            DecisionError::WrongAudience,
        ),
        ("aud", json!([honest["aud"]]), DecisionError::Malformed),
        ("ver", json!(2), DecisionError::UnsupportedVersion),
        ("ver", json!("1"), DecisionError::Malformed),
        ("iat", json!(now + 31), DecisionError::NotYetValid),
        ("exp", json!(now - 31), DecisionError::Expired),
        ("exp", json!(now + 121), DecisionError::TooLong),
        ("exp", json!(now), DecisionError::Expired),
        ("org", other("org"), DecisionError::WrongOrg),
        ("sub", other("usr"), DecisionError::WrongUser),
        (
            "act",
            json!({"sub": "agt_01h2xcejqtf2nbrexx3vqjhp41"}),
            DecisionError::WrongAgent,
        ),
        ("grant", other("grt"), DecisionError::WrongGrant),
        ("tool", json!("messages.get"), DecisionError::WrongAction),
        ("action_hash", json!("A".repeat(43)), DecisionError::WrongAction),
        ("outcome", json!("deny"), DecisionError::NotAllow),
        ("outcome", json!("escalate"), DecisionError::NotAllow),
        ("outcome", json!("maybe"), DecisionError::Malformed),
        ("constraints", json!({"unknown": 1}), DecisionError::Malformed),
        (
            "constraints",
            json!({"cnf": {"jkt": "x"}}),
            DecisionError::UnmetConstraint,
        ),
        (
            "approvals",
            json!([{"id": "apr_01h2xcejqtf2nbrexx3vqjhp41"}]),
            DecisionError::UnknownApproval,
        ),
        ("extra", json!(1), DecisionError::Malformed),
        ("jti", json!(7), DecisionError::Malformed),
    ];
    for (member, value, expected) in mutations {
        let mut claims = honest.clone();
        claims[member] = value.clone();
        let refused = present(&world, grant, sign(&world, &claims)).await;
        assert!(
            matches!(&refused, Err(Refusal::DecisionRejected(error)) if *error == expected),
            "{member} = {value}: {refused:?}, expected {expected:?}"
        );
    }
}

#[tokio::test]
async fn every_missing_claim_is_rejected() {
    let (world, grant) = World::connected().await;
    let (_, honest) = decision(&world, grant).await;
    for member in [
        "iss",
        "aud",
        "iat",
        "exp",
        "jti",
        "ver",
        "org",
        "sub",
        "act",
        "grant",
        "tool",
        "action_hash",
        "outcome",
        "policy",
    ] {
        let mut claims = honest.clone();
        claims.as_object_mut().unwrap().remove(member);
        let refused = present(&world, grant, sign(&world, &claims)).await;
        assert!(
            matches!(refused, Err(Refusal::DecisionRejected(DecisionError::Malformed))),
            "{member}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn every_flipped_character_of_the_token_is_rejected() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    let step = if std::env::var_os("POSTERN_LONG").is_some() {
        1
    } else {
        7
    };
    for index in (0..jws.len()).step_by(step) {
        let mut bytes = jws.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let refused = present(&world, grant, String::from_utf8(bytes).unwrap()).await;
        assert!(
            matches!(refused, Err(Refusal::DecisionRejected(_))),
            "{index}: {refused:?}"
        );
    }
    present(&world, grant, jws).await.unwrap();
}

#[tokio::test]
async fn a_decision_for_other_arguments_is_rejected() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    let mut other = ask(grant, "messages.list", json!({"limit": 4}));
    other.decision = Some(UnverifiedDecision(jws));
    assert!(matches!(
        world.vend(other).await,
        Err(Refusal::DecisionRejected(DecisionError::WrongAction))
    ));
}

#[tokio::test]
async fn a_decision_ends() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    world.later(Duration::from_secs(95));
    assert!(matches!(
        present(&world, grant, jws).await,
        Err(Refusal::DecisionRejected(DecisionError::Expired))
    ));
}

#[tokio::test]
async fn a_revocation_of_somebody_else_leaves_a_decision_good() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    world.later(Duration::from_secs(2));
    world.revoke(Selector::User(world.ben)).await;
    // It moves the epoch on all the same.
    present(&world, grant, jws).await.unwrap();
}

#[tokio::test]
async fn a_token_signed_by_a_key_of_another_purpose_is_unknown() {
    let (world, grant) = World::connected().await;
    let (jws, _) = decision(&world, grant).await;
    let parts: Vec<&str> = jws.split('.').collect();
    let header = json!({"alg": "EdDSA", "kid": world.deps.checkpoints.kid(), "typ": "action-decision+jwt"});
    let header = postern::crypto::digest::base64url(header.to_string().as_bytes());
    let forged = format!("{header}.{}.{}", parts[1], parts[2]);
    assert!(matches!(
        present(&world, grant, forged).await,
        Err(Refusal::DecisionRejected(DecisionError::UnknownKey))
    ));
}

#[tokio::test]
async fn a_denied_evaluation_is_signed_evidence_that_releases_nothing() {
    let (world, grant) = World::connected().await;
    let outside = ask(
        grant,
        "messages.send",
        json!({"to": ["eve@else.example"], "subject": "s", "body": "b"}),
    );
    let answer = decide::decide(&world.deps, world.agent, &outside).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Deny);
    let mut presented = outside.clone();
    presented.decision = Some(UnverifiedDecision(answer.jws));
    assert!(matches!(
        world.vend(presented).await,
        Err(Refusal::DecisionRejected(DecisionError::NotAllow))
    ));
}

#[tokio::test]
async fn the_claims_of_postern_are_exactly_the_contracts() {
    let (world, grant) = World::connected().await;
    let (_, claims) = decision(&world, grant).await;
    let claims: DecisionClaims = serde_json::from_value(claims).unwrap();
    assert!(claims.exp - claims.iat <= 120);
    assert_eq!(claims.act.sub, world.agent.agent);
}

fn modes(claims: &Value) -> &Value {
    &claims["constraints"]["modes"]
}

/// Protocol §5: the mode is part of what is decided.
#[tokio::test]
async fn a_decision_for_one_mode_releases_by_no_other() {
    let (world, grant) = World::connected().await;
    for (decided, other) in [(Mode::Execute, Mode::Token), (Mode::Token, Mode::Execute)] {
        let by = |mode| Ask {
            mode: Some(mode),
            ..world.read(grant)
        };
        let (jws, claims) = decision_for(&world, &by(decided)).await;
        assert_eq!(*modes(&claims), json!([decided]));
        let refused = world
            .vend(Ask {
                decision: Some(UnverifiedDecision(jws.clone())),
                ..by(other)
            })
            .await;
        let only = ModeSet::NONE.with(decided);
        assert!(
            matches!(refused, Err(Refusal::ModeUnavailable(modes)) if modes == only),
            "{decided}: {refused:?}"
        );
        present(&world, grant, jws).await.unwrap();
    }
}

#[tokio::test]
async fn a_decision_without_a_mode_holds_for_every_mode_there_is() {
    let (world, grant) = World::connected().await;
    let (_, claims) = decision(&world, grant).await;
    assert_eq!(*modes(&claims), json!(["execute", "token"]));
}

#[tokio::test]
async fn a_decision_for_a_mode_that_is_not_to_be_had_releases_nothing() {
    let (world, grant) = World::connected().await;
    let handle = Ask {
        mode: Some(Mode::Handle),
        ..world.read(grant)
    };
    let (jws, claims) = decision_for(&world, &handle).await;
    assert_eq!(*modes(&claims), json!([]));
    let refused = present(&world, grant, jws).await;
    assert!(matches!(refused, Err(Refusal::ModeUnavailable(modes)) if modes.is_empty()));
}

#[tokio::test]
async fn the_time_asked_for_narrows_a_decision_and_never_widens_it() {
    let (world, grant) = World::connected().await;
    for (ttl_s, most) in [(Some(60), 60), (Some(7200), 3600), (None, 3600)] {
        let asked = Ask {
            ttl_s,
            ..world.read(grant)
        };
        let (_, claims) = decision_for(&world, &asked).await;
        assert_eq!(claims["constraints"]["max_ttl_s"], most, "{ttl_s:?}");
    }
}

const ENGINE: &str = "https://engine.example";

/// The key of an engine of the org's own.
fn engine() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A registered engine signs these claims in its own name.
fn by_engine(claims: &Value) -> String {
    let mut claims = claims.clone();
    claims["iss"] = json!(ENGINE);
    let header = json!({"alg": "EdDSA", "kid": "house-1", "typ": "action-decision+jwt"});
    let [header, claims] = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
    let input = format!("{header}.{claims}");
    let signature = engine().sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature.to_bytes()))
}

/// An engine names its decisions as it likes. PostgreSQL keeps no NUL, and with it no batch that holds one.
#[tokio::test]
async fn a_decision_with_control_characters_in_its_id_is_malformed_on_each_store() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let grant = world.connect(world.ada, &[Category::Read]).await;
        let x = base64url(engine().verifying_key().as_bytes());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "house-1"});
        world
            .apply(&json!({"engine": [{
                "name": "House", "iss": ENGINE, "alg": "EdDSA", "public_key_jwk": jwk,
                "connectors": ["acme-mail"], "tools": ["*"],
            }]}))
            .await;
        let (_, mut claims) = decision(&world, grant).await;
        for jti in ["a\0b", "\0", "a\nb", "\u{1b}[2J", "\u{85}", ""] {
            claims["jti"] = json!(jti);
            let refused = present(&world, grant, by_engine(&claims)).await;
            assert!(
                matches!(refused, Err(Refusal::DecisionRejected(DecisionError::Malformed))),
                "{jti:?}: {refused:?}"
            );
        }
        claims["jti"] = json!("a b");
        present(&world, grant, by_engine(&claims)).await.unwrap();
    }
}
