//! What a token endpoint may do wrong when a token is renewed: each kind is told apart, and none damages the grant.

use std::time::Duration;

use postern::{
    crypto::keyring::SealedSecret,
    domain::{
        GrantId,
        connector::Category,
        grant::{Grant, GrantState, ReconnectReason},
    },
    flows::Refusal,
    store::SecretKind,
};
use serde_json::{Value, json};

use super::harness::World;

/// What a kind of misbehaviour leads to.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// It is tolerated: the token is renewed.
    Renewed,
    /// Nothing is released, nothing changes but an entry with this reason, and soon it works again.
    Waits(&'static str),
    /// Nothing is released, but the refresh token that came is the grant's now, and it works again however late that is.
    Kept,
    /// The person has to connect again.
    Reconnect(ReconnectReason),
    /// The grant is kept apart.
    Quarantined,
}

use Then::{Kept, Quarantined, Reconnect, Renewed, Waits};

/// Name, fault, consequence.
fn kinds() -> Vec<(&'static str, Value, Then)> {
    let transient = Waits("transient");
    let unknown = Waits("unknown");
    let config = Waits("config");
    let dead = Reconnect(ReconnectReason::RefreshTokenDead);
    let consent = Reconnect(ReconnectReason::ConsentRequired);
    let error = |status: u16, code: Value| json!({"status": status, "body": {"error": code}});
    vec![
        // A server that fails, throttles or is not the one asked.
        ("500 with text", json!({"status": 500, "body": "oops"}), transient),
        (
            "502 with a page",
            json!({"status": 502, "body": "<html>Bad gateway</html>", "content_type": "text/html"}),
            transient,
        ),
        (
            "503 that names a time",
            json!({"status": 503, "body": "down", "retry_after": 2}),
            transient,
        ),
        (
            "504 without a body",
            json!({"status": 504, "body": ""}),
            transient,
        ),
        (
            "429 that names a time",
            json!({"status": 429, "body": "slow down", "retry_after": 2}),
            transient,
        ),
        ("408", json!({"status": 408, "body": ""}), transient),
        ("425", json!({"status": 425, "body": ""}), transient),
        (
            "403 of a firewall",
            json!({"status": 403, "body": "<html>blocked</html>"}),
            unknown,
        ),
        ("404", json!({"status": 404, "body": "not here"}), unknown),
        ("451", json!({"status": 451, "body": {}}), unknown),
        (
            "a redirect elsewhere",
            json!({"redirect_to": "https://elsewhere.example/token"}),
            unknown,
        ),
        (
            "a moved endpoint",
            json!({"status": 301, "redirect_to": "https://elsewhere.example/token"}),
            unknown,
        ),
        // A connection that dies.
        ("closed before the answer", json!({"hang_up": true}), transient),
        (
            "closed after the rotation",
            json!({"hang_up": true, "after": true}),
            transient,
        ),
        (
            "500 after the rotation",
            json!({"status": 500, "body": "", "after": true}),
            transient,
        ),
        (
            "cut off in the middle of the answer, after the rotation",
            json!({"cut": true, "after": true}),
            transient,
        ),
        ("late, but in time", json!({"delay_ms": 1500}), Renewed),
        ("slow, but in time", json!({"drip_ms": 100}), Renewed),
        // A body that is none.
        ("an empty body", json!({"status": 200, "body": ""}), transient),
        ("no content", json!({"status": 204, "body": ""}), transient),
        ("text", json!({"status": 200, "body": "thank you"}), transient),
        (
            "a page of a captive portal",
            json!({"status": 200, "body": "<html>Welcome to the airport</html>", "content_type": "text/html"}),
            transient,
        ),
        ("a list", json!({"status": 200, "body": []}), transient),
        ("null", json!({"status": 200, "body": "null"}), transient),
        (
            "cut off",
            json!({"status": 200, "body": "{\"access_token\": \"abc", "content_type": "application/json"}),
            transient,
        ),
        (
            "more than 256 KB",
            json!({"set": {"padding": "x".repeat(256 * 1024 - 100)}}),
            transient,
        ),
        (
            "10,000 levels deep",
            json!({"status": 200, "body": "[".repeat(10_000)}),
            transient,
        ),
        (
            "a byte order mark",
            json!({"status": 200, "body": "\u{feff}{\"access_token\": \"abc\", \"token_type\": \"Bearer\"}"}),
            transient,
        ),
        // A good body under a wrong name: what it is counts, not what it is called.
        (
            "a good answer as a page",
            json!({"content_type": "text/html"}),
            Renewed,
        ),
        (
            "a good answer as text",
            json!({"content_type": "text/plain"}),
            Renewed,
        ),
        (
            "a good answer without a type",
            json!({"content_type": ""}),
            Renewed,
        ),
        // An answer that lacks something or has it in another shape.
        ("no access token", json!({"omit": ["access_token"]}), Kept),
        (
            "no token at all",
            json!({"omit": ["access_token", "refresh_token"]}),
            transient,
        ),
        (
            "an access token that is null",
            json!({"set": {"access_token": null}}),
            Kept,
        ),
        (
            "an empty access token",
            json!({"set": {"access_token": ""}}),
            Kept,
        ),
        (
            "an access token that is a number",
            json!({"set": {"access_token": 7}}),
            Kept,
        ),
        (
            "an access token that ends a header",
            json!({"set": {"access_token": "a\r\nx: y"}}),
            Kept,
        ),
        (
            "an access token of 20 KB",
            json!({"set": {"access_token": "a".repeat(20_000)}}),
            Kept,
        ),
        (
            "a refresh token that ends a header",
            json!({"set": {"refresh_token": "a\nb"}}),
            transient,
        ),
        (
            "another type of token",
            json!({"set": {"token_type": "mac"}}),
            Kept,
        ),
        ("a scope that is a number", json!({"set": {"scope": 7}}), Kept),
        ("scopes that are numbers", json!({"set": {"scope": [7]}}), Kept),
        ("no refresh token", json!({"omit": ["refresh_token"]}), Renewed),
        ("no life", json!({"omit": ["expires_in"]}), Renewed),
        ("no error, said", json!({"set": {"error": false}}), Renewed),
        // It rotated, and says no: the old token is taken for a while, and asked with again.
        (
            "tokens beside an odd error",
            json!({"set": {"error": "odd"}}),
            transient,
        ),
        (
            "a life in a string",
            json!({"set": {"expires_in": "300"}}),
            Renewed,
        ),
        (
            "a life with a fraction",
            json!({"set": {"expires_in": 300.5}}),
            Renewed,
        ),
        (
            "a life without end",
            json!({"set": {"expires_in": 1e300}}),
            Renewed,
        ),
        (
            "a life in words",
            json!({"set": {"expires_in": "a while"}}),
            Renewed,
        ),
        ("no scope", json!({"omit": ["scope"]}), Renewed),
        (
            "a narrower scope",
            json!({"set": {"scope": "mail.read"}}),
            Renewed,
        ),
        ("a wider scope", json!({"widen_scope": true}), Quarantined),
        (
            "another account's name",
            json!({"set": {"sub": "mallory", "email": "m@evil.example"}}),
            // It is no part of this provider's answer; where it is, the next test looks.
            Renewed,
        ),
        // A refusal, as it should be and not.
        ("invalid_grant", error(400, json!("invalid_grant")), dead),
        ("invalid_grant with 200", error(200, json!("invalid_grant")), dead),
        (
            "invalid_grant with 503",
            error(503, json!("invalid_grant")),
            transient,
        ),
        (
            "invalid_grant in a list",
            error(400, json!(["invalid_grant"])),
            unknown,
        ),
        ("INVALID_GRANT", error(400, json!("INVALID_GRANT")), unknown),
        (
            "interaction_required",
            error(400, json!("interaction_required")),
            consent,
        ),
        (
            "temporarily_unavailable with 200",
            error(200, json!("temporarily_unavailable")),
            transient,
        ),
        ("invalid_client", error(401, json!("invalid_client")), config),
        (
            "unauthorized_client",
            error(400, json!("unauthorized_client")),
            config,
        ),
        ("invalid_request", error(400, json!("invalid_request")), unknown),
        (
            "an error nobody knows",
            error(400, json!("x".repeat(5000))),
            unknown,
        ),
    ]
}

#[tokio::test]
async fn every_kind_of_misbehaviour_is_told_apart_and_damages_nothing() {
    let kinds = kinds();
    assert!(kinds.len() >= 40);
    let mut wrong = Vec::new();
    for (name, fault, then) in kinds {
        if let Err(what) = misbehaves(fault, then).await {
            wrong.push(format!("{name}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An answer is waited for for thirty seconds, to its last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_takes_too_long_is_given_up_and_damages_nothing() {
    let late = json!({"delay_ms": 32_000, "after": true});
    let slow = json!({"drip_ms": 2_500});
    let ends = tokio::join!(
        misbehaves(late, Waits("transient")),
        misbehaves(slow, Waits("transient"))
    );
    assert_eq!(ends, (Ok(()), Ok(())));
}

#[tokio::test]
async fn fewer_scopes_are_the_tokens_and_not_the_grants() {
    let (world, grant) = World::connected().await;
    let before = world.grant(grant).await;
    let kept = async || {
        let mut tx = world.deps.store.read(world.org).await.unwrap();
        let row = tx
            .secret(world.org, grant, &SecretKind::AccessToken)
            .await
            .unwrap();
        row.unwrap().scopes.unwrap()
    };
    assert_eq!(kept().await, before.scopes);
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "set": {"scope": "mail.read"}}))
        .await;
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(kept().await.to_string(), "mail.read");
    assert_eq!(world.grant(grant).await.scopes, before.scopes);
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
    assert_eq!(kept().await, before.scopes);
}

/// What is sealed of a grant: kinds, generations and ciphertexts.
async fn sealed(world: &World, grant: GrantId) -> Vec<(SecretKind, u64, SealedSecret)> {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let rows = tx.secrets_of(world.org, grant).await.unwrap();
    rows.into_iter()
        .map(|(kind, row)| (kind, row.generation, row.sealed))
        .collect()
}

/// What went otherwise than it should, if anything did.
async fn misbehaves(mut fault: Value, then: Then) -> Result<(), String> {
    let world = World::new().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    world.later(Duration::from_secs(400));
    let (before, secrets) = (world.grant(grant).await, sealed(&world, grant).await);
    fault["next"] = json!("token");
    world.fault(fault).await;
    let vended = world.vend(world.read(grant)).await;
    let after = world.grant(grant).await;
    let entries = world.entries().await;
    let reasons: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.draft.reason.as_deref())
        .collect();
    let as_it_should = match then {
        Renewed => {
            vended.is_ok()
                && after.state == GrantState::Active
                && after.generation == before.generation + 1
                && after.scopes == before.scopes
                && sealed(&world, grant).await != secrets
        }
        Waits(reason) => {
            matches!(vended, Err(Refusal::ProviderUnavailable))
                && after == before
                && sealed(&world, grant).await == secrets
                && reasons.contains(&reason)
        }
        Kept => {
            let moved_on = Grant {
                generation: before.generation + 1,
                ..before.clone()
            };
            matches!(vended, Err(Refusal::ProviderUnavailable))
                && after == moved_on
                && sealed(&world, grant).await != secrets
                && reasons.contains(&"refresh_token_kept")
        }
        Reconnect(reason) => {
            matches!(vended, Err(Refusal::ReconnectRequired(_)))
                && after.state == GrantState::NeedsReconnect { reason }
                && after.generation == before.generation
                && reasons.contains(&reason.as_str())
        }
        // What came is kept, to be ended if nobody consents.
        Quarantined => {
            matches!(vended, Err(Refusal::ReconnectRequired(_)))
                && matches!(after.state, GrantState::Quarantined { .. })
                && after.generation == before.generation + 1
                && after.scopes == before.scopes
                && sealed(&world, grant).await != secrets
        }
    };
    if !as_it_should {
        let released = vended.is_ok();
        let refused = vended.err();
        return Err(format!(
            "{then:?} it was not: released {released}, {refused:?}, {:?}, generation {}, {reasons:?}",
            after.state, after.generation
        ));
    }
    let later = match then {
        Waits(_) => 3,
        // The refresh token before it is dead by then.
        Kept => 120,
        Renewed | Reconnect(_) | Quarantined => return Ok(()),
    };
    world.later(Duration::from_secs(later));
    world
        .vend(world.read(grant))
        .await
        .map_err(|refusal| format!("and not again: {refusal}"))?;
    Ok(())
}

#[tokio::test]
async fn a_token_that_names_another_account_is_kept_apart() {
    let by_answer = "how = \"token_response\"";
    let world =
        World::with_connector(&[("how = \"userinfo\"\nurl = \"{origin}/userinfo\"", by_answer)]).await;
    let names = async |sub: &str| {
        let named = json!({"next": "token", "set": {"sub": sub, "email": "ada@acme.example"}, "times": 1});
        world.fault(named).await;
    };
    names("acme-7").await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    assert_eq!(world.grant(grant).await.account.id.as_deref(), Some("acme-7"));
    // The same account, then none.
    world.later(Duration::from_secs(400));
    names("acme-7").await;
    world.vend(world.read(grant)).await.unwrap();
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
    world.later(Duration::from_secs(400));
    names("acme-8").await;
    world.vend(world.read(grant)).await.unwrap_err();
    let state = world.grant(grant).await.state;
    assert!(matches!(state, GrantState::Quarantined { .. }), "{state:?}");
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("other_account")),
        "{said:#?}"
    );
}
