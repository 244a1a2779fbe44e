//! A person of a host connects what was connected before: what waits or fails never harms what lives.

use super::*;

#[tokio::test]
async fn the_silence_of_a_superseded_session_ends_nothing_that_lives() {
    let world = World::new().await;
    let superseded = arrive(&world).await;
    living(&world).await;
    silence(&world).await;
    assert_eq!(state(&world, &superseded.session).await["status"], "expired");
    let given = vend(&world, &superseded.session).await;
    assert_eq!(given.status, 200, "{}", given.text());
}

#[tokio::test]
async fn a_wrong_code_for_a_superseded_session_ends_nothing_that_lives() {
    let world = World::new().await;
    let superseded = arrive(&world).await;
    living(&world).await;
    let user = json!({"external_id": "4711"});
    let service = world.as_service();
    let wrong = complete(&world, &service, &superseded.session, &"A".repeat(43), user).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    upstream::drain(&world.deps).await.unwrap();
    let given = vend(&world, &superseded.session).await;
    assert_eq!(given.status, 200, "{}", given.text());
}

#[tokio::test]
async fn a_reconnect_that_waits_or_fails_leaves_the_grant_as_it_was() {
    let world = World::new().await;
    let grant = living(&world).await;
    let held = async || Grant {
        last_used_at: None,
        ..world.grant(grant).await
    };
    let before = held().await;
    for more in [json!({}), json!({"reconnect": grant})] {
        let arrived = arrive_with(&world, more).await;
        assert_eq!(held().await, before, "while it waits");
        let user = json!({"external_id": "4711"});
        let wrong = complete(
            &world,
            &world.as_service(),
            &arrived.session,
            &"A".repeat(43),
            user,
        )
        .await;
        assert_eq!(wrong.status, 400, "{}", wrong.text());
        upstream::drain(&world.deps).await.unwrap();
        assert_eq!(held().await, before, "after a wrong code");
        let given = vend(&world, &arrived.session).await;
        assert_eq!(given.status, 200, "{}", given.text());
    }
}

#[tokio::test]
async fn silence_after_a_reconnect_leaves_the_grant_as_it_was() {
    let world = World::new().await;
    let grant = living(&world).await;
    let arrived = arrive_with(&world, json!({"reconnect": grant})).await;
    silence(&world).await;
    assert_eq!(state(&world, &arrived.session).await["status"], "expired");
    let given = vend(&world, &arrived.session).await;
    assert_eq!(given.status, 200, "{}", given.text());
}

#[tokio::test]
async fn completing_a_reconnect_keeps_the_id_and_renews_what_was_held() {
    let world = World::new().await;
    let grant = living(&world).await;
    let before = world.grant(grant).await;
    let arrived = arrive_with(&world, json!({"reconnect": grant})).await;
    let done = right(&world, &arrived).await;
    assert_eq!((done.status, &done.json()["grant"]), (200, &json!(grant)));
    assert_eq!(world.grant(grant).await.generation, before.generation + 1);
    assert_eq!(vend(&world, &arrived.session).await.status, 200);
}

#[tokio::test]
async fn tokens_nobody_completed_are_left_alone_where_ending_them_could_end_a_grant_that_lives() {
    let world = World::new().await;
    let grant = living(&world).await;
    arrive_with(&world, json!({"reconnect": grant})).await;
    silence(&world).await;
    assert_eq!(world.seen("revoke").await, [] as [Value; 0]);
    let said = world.entries().await;
    assert!(
        said.iter()
            .any(|entry| entry.draft.reason.as_deref() == Some("not_revocable_alone"))
    );
}
