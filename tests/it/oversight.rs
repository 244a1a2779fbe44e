//! What admins see of an org with very many people, and when a session was last used.

use std::time::Duration;

use super::harness::{Proof, World, log_in};

/// Adds people with ids behind everybody's.
async fn crowd(world: &World, many: u32) {
    let row = |n| {
        format!(
            "('{}', 'usr_7{n:025}', 'p{n}@crowd.example', 'member', 0)",
            world.org
        )
    };
    let rows: Vec<String> = (0..many).map(row).collect();
    let rows = rows.join(", ");
    let insert = "INSERT INTO users (org_id, id, email, role, created_at) VALUES";
    world.raw_sql(&format!("{insert} {rows}")).await;
}

async fn page(world: &World, admin: &Proof, path: &str) -> String {
    let answer = world.api().browse(admin, "", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

#[tokio::test]
async fn a_list_that_goes_on_says_so_and_shows_the_rest() {
    let world = World::new().await;
    let admin = log_in(&world.deps, world.org, world.ada).await;
    let first = page(&world, &admin, "/admin/people").await;
    assert!(!first.contains("?after="), "few people are one page");
    crowd(&world, 101).await;
    let first = page(&world, &admin, "/admin/people").await;
    assert!(!first.contains("p100@crowd.example"));
    let next = first.split("/admin/people?after=").nth(1).unwrap();
    let next = format!("/admin/people?after={}", next.split('"').next().unwrap());
    let second = page(&world, &admin, &next).await;
    assert!(second.contains("p100@crowd.example") && !second.contains("?after="));
    let refused = world.api().browse(&admin, "", "/admin/people?after=nobody").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn lists_to_choose_from_say_that_there_are_more() {
    let world = World::new().await;
    let admin = log_in(&world.deps, world.org, world.ada).await;
    for path in ["/admin/revoke", "/activity"] {
        assert!(
            !page(&world, &admin, path).await.contains("there are more"),
            "{path}"
        );
    }
    crowd(&world, 501).await;
    for path in ["/admin/revoke", "/activity"] {
        assert!(
            page(&world, &admin, path).await.contains("there are more"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_use_of_a_session_is_noted_at_most_once_a_minute() {
    let world = World::new().await;
    let admin = log_in(&world.deps, world.org, world.ada).await;
    let Proof::Session(token) = &admin else {
        panic!("not a session")
    };
    let token = postern::crypto::random::parse_link_token(token).unwrap();
    let hash = world.deps.lookup.session(&token).unwrap();
    let seen = async || {
        let mut tx = world.deps.store.read(world.org).await.unwrap();
        let now = tx.now();
        let row = tx.session(world.org, &hash).await.unwrap().unwrap();
        now.since(row.seen_at)
    };
    world.later(Duration::from_secs(59));
    page(&world, &admin, "/activity").await;
    assert_eq!(seen().await, Duration::from_secs(59));
    world.later(Duration::from_secs(1));
    page(&world, &admin, "/activity").await;
    assert_eq!(seen().await, Duration::ZERO);
    world.later(Duration::from_secs(12 * 3600 - 60));
    let answer = world.api().browse(&admin, "", "/activity").await;
    assert_eq!(answer.status, 401, "it is not prolonged");
}
