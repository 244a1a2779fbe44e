//! Answers that wait beside the database: entered once, ended at the provider where they came to nothing.

use std::{path::PathBuf, time::Duration};

use serde_json::json;

use super::harness::{Journey, World};
use postern::{
    crypto::digest,
    domain::{
        GrantId, ScopeSet,
        connector::Category,
        grant::{Grant, GrantState, ReconnectReason},
        secret::{AccessToken, RefreshToken},
    },
    flows::{
        refresh::{self, Want, spooled},
        upstream, vend,
    },
    release::seal,
    store::{Answered, Claim, ClaimAsk, SecretKind, Selector},
};

/// What a provider would have answered.
const ACCESS: &str = "spooled-access-token-0123456789";
const REFRESH: &str = "spooled-refresh-token-0123456789";

/// The provider was asked, and its answer found no database.
pub async fn spooled(world: &World, id: GrantId) -> Answered {
    spooled_under(world, id, Duration::from_secs(60)).await
}

/// The same under a lease of this length.
async fn spooled_under(world: &World, id: GrantId, life: Duration) -> Answered {
    let grant = world.grant(id).await;
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let ask = ClaimAsk {
        life,
        ..world.claim_ask(id).await
    };
    let claims = tx.claim_refreshes("r1", &[ask]).await.unwrap();
    tx.commit().await.unwrap();
    let [Claim::Ours(lease)] = &claims[..] else {
        panic!("{claims:?}");
    };
    let key = world.deps.org_key(world.org).await.unwrap();
    let generation = grant.generation + 1;
    let access = AccessToken::new(ACCESS.to_owned());
    let refresh = RefreshToken::new(REFRESH.to_owned());
    let kind = SecretKind::AccessToken;
    let scopes: Option<ScopeSet> = Some(grant.scopes.clone());
    let answered = Answered {
        org: world.org,
        grant: id,
        fence: lease.fence,
        generation: grant.generation,
        connected_epoch: grant.connected_epoch,
        binding: grant.binding,
        access: Some(seal::access_token(&key, &grant, &kind, generation, &access, scopes, None).unwrap()),
        kind,
        refresh: Some(seal::refresh_token(&key, &grant, generation, &refresh).unwrap()),
        is_foreign: false,
    };
    world.deps.spool.put(&answered).await.unwrap();
    assert!(world.deps.spool.holds(id));
    answered
}

/// The same, and of the answer only the refresh token could be used.
async fn spooled_alone(world: &World, id: GrantId) -> Answered {
    let whole = spooled(world, id).await;
    world.deps.spool.remove(&whole).await.unwrap();
    let alone = Answered {
        access: None,
        ..whole
    };
    world.deps.spool.put(&alone).await.unwrap();
    alone
}

pub fn files(world: &World) -> Vec<PathBuf> {
    let dir = std::fs::read_dir(world.dir.path().join("spool")).unwrap();
    dir.map(|file| file.unwrap().path()).collect()
}

/// Which of the two tokens the provider was asked to end.
pub async fn ended(world: &World) -> Vec<&'static str> {
    upstream::drain(&world.deps).await.unwrap();
    let calls = world.seen("revoke").await;
    let asked = |token: &str| {
        let hash = digest::hex(&digest::sha256(token.as_bytes()));
        calls.iter().any(|call| call["token_sha256"] == hash.as_str())
    };
    [REFRESH, ACCESS]
        .into_iter()
        .filter(|token| asked(token))
        .collect()
}

#[tokio::test]
async fn an_answer_is_entered_once_and_its_file_goes() {
    let (world, grant) = World::connected().await;
    let answered = spooled(&world, grant).await;
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(grant).await.generation, answered.generation + 1);
    assert_eq!(files(&world), [] as [PathBuf; 0]);
    // The same once more, as after a crash before the file was gone: nothing changes, nothing is ended.
    world.deps.spool.put(&answered).await.unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(grant).await.generation, answered.generation + 1);
    assert_eq!(ended(&world).await, [] as [&str; 0]);
    let entries = world.entries().await;
    let said = entries
        .iter()
        .filter(|entry| entry.draft.reason.as_deref() == Some("spooled"));
    assert_eq!(said.count(), 1);
}

#[tokio::test]
async fn a_refresh_token_that_came_alone_is_entered_once_and_its_file_goes() {
    let (world, grant) = World::connected().await;
    let before = world.grant(grant).await;
    let answered = spooled_alone(&world, grant).await;
    for _ in 0..2 {
        assert_eq!(spooled::drain(&world.deps).await, 1);
        assert!(is_kept(&world, &answered).await);
        let kept = Grant {
            generation: before.generation + 1,
            ..before.clone()
        };
        assert_eq!(world.grant(grant).await, kept);
        assert!(!is_in_doubt(&world, grant).await);
        assert_eq!(files(&world), [] as [PathBuf; 0]);
        assert_eq!(ended(&world).await, [] as [&str; 0]);
        // The same once more, as after a crash before the file was gone.
        world.deps.spool.put(&answered).await.unwrap();
    }
    let entries = world.entries().await;
    let said = entries
        .iter()
        .filter(|entry| entry.draft.reason.as_deref() == Some("refresh_token_kept"));
    assert_eq!(said.count(), 1);
}

#[tokio::test]
async fn an_answer_whose_file_somebody_moved_away_keeps_nobody_waiting() {
    let (world, grant) = World::connected().await;
    spooled_under(&world, grant, Duration::from_secs(10)).await;
    for file in files(&world) {
        std::fs::rename(&file, world.dir.path().join("elsewhere")).unwrap();
    }
    world.later(Duration::from_secs(11));
    let seen = world.grant(grant).await;
    let want = Want::Renewed {
        than: Some(seen.generation),
    };
    refresh::ensure(&world.deps, &seen, want).await.unwrap();
    assert_eq!(world.grant(grant).await.generation, seen.generation + 1);
    assert!(!world.deps.spool.holds(grant));
}

/// Whether the answer is the grant's now.
pub async fn is_kept(world: &World, answered: &Answered) -> bool {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let held = tx
        .secret(world.org, answered.grant, &SecretKind::RefreshToken)
        .await;
    let spooled = answered.refresh.as_ref().unwrap();
    held.unwrap().unwrap().sealed == spooled.sealed
}

#[tokio::test]
async fn an_answer_outlives_a_sibling_that_asked_again_and_was_refused() {
    let (world, grant) = World::connected().await;
    let answered = spooled(&world, grant).await;
    // A sibling knows nothing of the file.
    world.deps.spool.remove(&answered).await.unwrap();
    world.later(Duration::from_secs(400));
    world
        .fault(json!({"next": "token", "status": 400, "body": {"error": "invalid_grant"}, "times": 1}))
        .await;
    // Where there can be siblings, the file is waited for first.
    for _ in 0..2 {
        world.vend(world.read(grant)).await.unwrap_err();
        world.later(Duration::from_secs(100));
    }
    let lost = GrantState::NeedsReconnect {
        reason: ReconnectReason::RotationLost,
    };
    assert_eq!(world.grant(grant).await.state, lost);

    world.deps.spool.put(&answered).await.unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 1);
    let after = world.grant(grant).await;
    assert_eq!(
        (after.state, after.generation),
        (GrantState::Active, answered.generation + 1)
    );
    assert!(is_kept(&world, &answered).await);
    assert_eq!(ended(&world).await, [] as [&str; 0]);
    assert_eq!(files(&world), [] as [PathBuf; 0]);
    assert!(!is_in_doubt(&world, grant).await);
    // Nobody who remembers that it was dead refuses it: the token is tried.
    let before = world.seen("api").await.len();
    let _unknown_there = world.vend(world.read(grant)).await;
    assert!(world.seen("api").await.len() > before);
}

#[tokio::test]
async fn an_answer_waits_while_a_sibling_asks_again() {
    let (world, grant) = World::connected().await;
    let answered = spooled(&world, grant).await;
    world.later(Duration::from_secs(61));
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let ask = ClaimAsk {
        life: Duration::from_secs(60),
        ..world.claim_ask(grant).await
    };
    let claims = tx.claim_refreshes("r2", &[ask]).await.unwrap();
    assert!(matches!(claims[..], [Claim::Ours(_)]), "{claims:?}");
    tx.commit().await.unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 0);
    assert_eq!(files(&world).len(), 1);
    assert_eq!(world.grant(grant).await.generation, answered.generation);
    // It died over it.
    world.later(Duration::from_secs(61));
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert!(is_kept(&world, &answered).await);
    assert!(!is_in_doubt(&world, grant).await);
    assert_eq!(files(&world), [] as [PathBuf; 0]);
}

/// The sibling's answer is as good as one's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_a_token_while_an_answer_waits_for_a_sibling_takes_the_siblings() {
    let world = World::on_postgres().await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let sibling = world.replica().await.unwrap();
    world.later(Duration::from_secs(400));
    let answered = spooled_under(&world, grant, Duration::from_secs(10)).await;
    world.later(Duration::from_secs(11));
    let before = world.seen("token").await.len();
    world
        .fault(json!({"next": "token", "delay_ms": 1500, "times": 1}))
        .await;
    let asking = {
        let (agent, ask) = (world.agent, world.read(grant));
        tokio::spawn(async move { vend::vend(&sibling, agent, ask).await })
    };
    world.until_seen("token", before + 1).await;
    world.vend(world.read(grant)).await.unwrap();
    asking.await.unwrap().unwrap();
    assert_eq!(world.seen("token").await.len(), before + 1);
    assert!(!is_kept(&world, &answered).await);
}

/// A sibling asked again and died, while the clock was hours ahead.
#[tokio::test]
async fn an_answer_does_not_wait_for_a_lease_that_was_claimed_while_the_clock_was_ahead() {
    let (world, grant) = World::connected().await;
    let answered = spooled(&world, grant).await;
    world.later(Duration::from_secs(3 * 3600));
    let mut tx = world.deps.store.write(world.org).await.unwrap();
    let ask = world.claim_ask(grant).await;
    let claims = tx.claim_refreshes("r2", &[ask]).await.unwrap();
    assert!(matches!(claims[..], [Claim::Ours(_)]), "{claims:?}");
    tx.commit().await.unwrap();
    world.clock.put_back(Duration::from_secs(3 * 3600));
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert!(is_kept(&world, &answered).await);
}

pub async fn is_in_doubt(world: &World, grant: GrantId) -> bool {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    tx.is_refresh_in_doubt(world.org, grant).await.unwrap()
}

#[tokio::test]
async fn an_answer_of_a_grant_that_was_connected_anew_is_ended_at_the_provider() {
    let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    spooled(&world, grant).await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    let after = world.grant(grant).await;
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(grant).await, after, "the new grant is as it was");
    assert_eq!(ended(&world).await, [REFRESH, ACCESS]);
    assert_eq!(files(&world), [] as [PathBuf; 0]);
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_that_came_alone_for_a_grant_that_was_connected_anew_is_ended_at_the_provider() {
    let world = World::with_connector(&[("kills = \"grant\"", "kills = \"token\"")]).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    spooled_alone(&world, grant).await;
    let journey = Journey::begin(&world, world.ada, Some(grant)).await;
    let answer = journey.consent(&world, "ada@acme.example", false).await;
    journey.finish(&world, answer, &[Category::Read]).await.unwrap();
    let after = world.grant(grant).await;
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(world.grant(grant).await, after, "the new grant is as it was");
    assert_eq!(ended(&world).await, [REFRESH]);
    assert_eq!(files(&world), [] as [PathBuf; 0]);
    // What came to nothing keeps nobody from renewing the new one.
    world.later(Duration::from_secs(400));
    world.vend(world.read(grant)).await.unwrap();
}

#[tokio::test]
async fn an_answer_of_a_grant_that_was_revoked_is_ended_at_the_provider() {
    let (world, grant) = World::connected().await;
    spooled(&world, grant).await;
    world.revoke(Selector::Grant(grant)).await;
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 1);
    assert_eq!(ended(&world).await, [REFRESH, ACCESS]);
    assert_eq!(world.secrets_of(grant).await, 0);
}

#[tokio::test]
async fn an_answer_that_nothing_here_knows_is_put_aside() {
    let (world, grant) = World::connected().await;
    let known = spooled(&world, grant).await;
    world.deps.spool.remove(&known).await.unwrap();
    let strange = Answered {
        grant: GrantId::from_bytes([9; 16]),
        ..known
    };
    world.deps.spool.put(&strange).await.unwrap();
    assert_eq!(spooled::drain(&world.deps).await, 1);
    let left = files(&world);
    assert!(
        left.len() == 1 && left[0].extension().is_some_and(|kind| kind == "aside"),
        "{left:?}"
    );
    assert_eq!(spooled::drain(&world.deps).await, 0);
}
