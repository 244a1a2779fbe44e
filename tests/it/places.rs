//! I8: a sealed secret opens at its own place only. Whoever may write to the database can move values about; what was
//! sealed for another grant, person, kind or generation is not opened, and what is put back works again.

use std::time::Duration;

use postern::domain::{GrantId, connector::Category};
use serde_json::json;

use super::harness::{Answer, Outcome, World, connect_as};

/// What is moved: a whole value, or half of one.
const PARTS: [&[&str]; 3] = [&["sealed", "wrapped_dek"], &["sealed"], &["wrapped_dek"]];

/// Where a secret is.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    grant: GrantId,
    kind: String,
}

/// Two people with a grant each, and each grant with a token of every kind.
async fn two_people() -> (World, GrantId, GrantId) {
    let world = World::new().await;
    let adas = world.connect(world.ada, &[Category::Read]).await;
    let connected = connect_as(&world, world.ben, "ben@acme.example", &[Category::Read], false).await;
    let Outcome::Granted(bens) = connected else {
        panic!("{connected:?}")
    };
    for grant in [adas, bens] {
        assert_eq!(vend(&world, grant, "token").await.status, 200);
    }
    (world, adas, bens)
}

async fn places_of(world: &World, grants: &[GrantId]) -> Vec<Place> {
    let mut tx = world.deps.store.read(world.org).await.unwrap();
    let mut places = Vec::new();
    for &grant in grants {
        for (kind, _) in tx.secrets_of(world.org, grant).await.unwrap() {
            let kind = kind.to_string();
            places.push(Place { grant, kind });
        }
    }
    places
}

/// Lays a copy of every secret aside, where nobody looks for one.
async fn keep(world: &World, copy: &str) {
    world
        .raw_sql(&format!(
            "INSERT INTO secrets (org_id, row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at, created_at)
             SELECT org_id, '{copy} ' || row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at, created_at
             FROM secrets WHERE row_id LIKE 'grt%'"
        ))
        .await;
}

/// Puts these columns of a copy into a place.
async fn put(world: &World, into: &Place, columns: &[&str], copy: &str, from: &Place) {
    for column in columns {
        world
            .raw_sql(&format!(
                "UPDATE secrets SET {column} = (
                   SELECT kept.{column} FROM secrets AS kept WHERE kept.row_id = '{copy} {}' AND kept.kind = '{}')
                 WHERE row_id = '{}' AND kind = '{}'",
                from.grant, from.kind, into.grant, into.kind
            ))
            .await;
    }
}

async fn vend(world: &World, grant: GrantId, mode: &str) -> Answer {
    let body = json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}, "mode": mode});
    world.api().post(&world.as_agent(), "/v1/vend", &body).await
}

/// A vend that opens what is at this place, as long as the access token lives.
async fn use_of(world: &World, place: &Place) -> Answer {
    let mode = if place.kind == "access_token" {
        "execute"
    } else {
        "token"
    };
    vend(world, place.grant, mode).await
}

/// How many requests Acme Mail saw: to its API and for tokens.
async fn seen(world: &World) -> (usize, usize) {
    (world.seen("api").await.len(), world.seen("token").await.len())
}

/// This vend is refused with this code, and nothing leaves.
async fn opens_nothing(world: &World, vend: impl AsyncFnOnce() -> Answer, code: &str, what: &str) {
    let before = seen(world).await;
    let answer = vend().await;
    assert!(answer.status >= 400, "{what}: {}", answer.text());
    assert_eq!(answer.code(), code, "{what}: {}", answer.text());
    assert!(!answer.text().contains("acme_"), "{what}: {}", answer.text());
    assert_eq!(seen(world).await, before, "{what}");
}

#[tokio::test]
async fn a_token_swapped_with_another_place_is_not_opened() {
    let (world, adas, bens) = two_people().await;
    let places = places_of(&world, &[adas, bens]).await;
    assert_eq!(places.len(), 6, "{places:?}");
    keep(&world, "kept").await;
    let mut refused = 0;
    for (at, one) in places.iter().enumerate() {
        for other in &places[at + 1..] {
            for columns in PARTS {
                put(&world, one, columns, "kept", other).await;
                put(&world, other, columns, "kept", one).await;
                // Refresh tokens are opened by a refresh alone.
                for place in [one, other]
                    .into_iter()
                    .filter(|place| place.kind != "refresh_token")
                {
                    let what = format!("{columns:?} of {one:?} and {other:?}");
                    opens_nothing(
                        &world,
                        async || use_of(&world, place).await,
                        "key_unavailable",
                        &what,
                    )
                    .await;
                    refused += 1;
                }
                for place in [one, other] {
                    put(&world, place, columns, "kept", place).await;
                    if place.kind != "refresh_token" {
                        let answer = use_of(&world, place).await;
                        assert_eq!(answer.status, 200, "{place:?}: {}", answer.text());
                    }
                }
            }
        }
    }
    assert_eq!(
        refused, 60,
        "each of four places with each of five others, in three ways"
    );
}

#[tokio::test]
async fn a_token_of_an_older_generation_is_not_opened() {
    let (world, grant) = World::connected().await;
    assert_eq!(vend(&world, grant, "token").await.status, 200);
    keep(&world, "old").await;
    world.later(Duration::from_secs(400));
    for mode in ["execute", "token"] {
        assert_eq!(vend(&world, grant, mode).await.status, 200, "{mode}");
    }
    keep(&world, "new").await;
    for place in places_of(&world, &[grant]).await {
        if place.kind == "refresh_token" {
            continue;
        }
        for columns in PARTS {
            put(&world, &place, columns, "old", &place).await;
            let what = format!("{columns:?} of {place:?}");
            opens_nothing(
                &world,
                async || use_of(&world, &place).await,
                "key_unavailable",
                &what,
            )
            .await;
            put(&world, &place, columns, "new", &place).await;
            let answer = use_of(&world, &place).await;
            assert_eq!(answer.status, 200, "{place:?}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_refresh_token_from_another_place_or_generation_is_not_opened() {
    let (world, adas, bens) = two_people().await;
    let place = |grant, kind: &str| Place {
        grant,
        kind: kind.to_owned(),
    };
    let own = place(adas, "refresh_token");
    let mut before = "none".to_owned();
    for (round, from) in [
        place(adas, "access_token"),
        place(bens, "refresh_token"),
        place(bens, "access_token"),
        own.clone(),
    ]
    .into_iter()
    .enumerate()
    {
        for columns in PARTS {
            let now = format!("{round} {}", columns.join(" "));
            keep(&world, &now).await;
            let copy = if from == own { &before } else { &now };
            put(&world, &own, columns, copy, &from).await;
            world.later(Duration::from_secs(400));
            let what = format!("{columns:?} of {from:?}");
            opens_nothing(
                &world,
                async || vend(&world, adas, "execute").await,
                "provider_unavailable",
                &what,
            )
            .await;
            put(&world, &own, columns, &now, &own).await;
            // A refresh that failed is not tried again at once.
            world.later(Duration::from_secs(15));
            let answer = vend(&world, adas, "execute").await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            before = now;
        }
    }
}
