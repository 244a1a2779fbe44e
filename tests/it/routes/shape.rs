//! What has named members is sent as an object: an array in its place is refused by every operation there is. So is a
//! text that no database needs to see.

use serde_json::json;

use super::matrix::{absent, guarded};
use crate::harness::World;

#[tokio::test]
async fn an_array_is_no_body_of_any_operation() {
    let world = World::new().await;
    let members = world.members().await;
    let mut refused = 0;
    for operation in guarded().into_iter().filter(|operation| operation.has_body) {
        let member = members.iter().find(|member| operation.is_for(member)).unwrap();
        let path = if operation.has_id() {
            operation.with_id(&absent(&operation))
        } else {
            operation.path.clone()
        };
        let answer = world
            .api()
            .call(&member.proof, &operation.method, &path, Some(&json!([])))
            .await;
        let place = operation.place();
        assert_eq!(answer.code(), "invalid_request", "{place}: {}", answer.text());
        let words = answer.json()["errors"][0]["message"].clone();
        assert_eq!(words, "not of the expected shape: invalid type", "{place}");
        refused += 1;
    }
    assert!(refused >= 8, "only {refused} operations take a body");
}

#[tokio::test]
async fn members_in_the_order_of_a_vend_release_nothing() {
    let (world, grant) = World::connected().await;
    let body = json!([
        grant,
        null,
        null,
        null,
        "messages.list",
        {},
        null,
        null,
        null,
        null,
        null,
        null
    ]);
    let before = world.seen("api").await.len();
    let answer = world.api().post(&world.as_agent(), "/v1/vend", &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    assert_eq!(world.seen("api").await.len(), before);
}

#[tokio::test]
async fn an_array_is_no_part_of_a_body_that_has_members() {
    let world = World::new().await;
    for (path, proof, body) in [
        (
            "/v1/revocations",
            world.as_admin(),
            json!({"selector": [true], "dry_run": true}),
        ),
        (
            "/v1/connect-sessions",
            world.as_service(),
            json!({"user": ["somebody"], "connector": "acme-mail"}),
        ),
    ] {
        let answer = world.api().post(&proof, path, &body).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
}

// PostgreSQL takes no NUL in a text: what reached it was answered as if the store were away.
#[tokio::test]
async fn an_outcome_that_is_no_line_is_refused_before_the_store_is_asked() {
    let world = World::new().await;
    for outcome in [
        "%00",
        "a%00",
        "a%0D%0AX-Evil:%201",
        "%E2%80%AEa",
        "",
        &"a".repeat(81),
    ] {
        let path = format!("/v1/audit/entries?outcome={outcome}");
        let answer = world.api().get(&world.as_admin(), &path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request"),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["errors"][0]["pointer"], "?outcome", "{path}");
    }
    let answer = world
        .api()
        .get(&world.as_admin(), "/v1/audit/entries?outcome=allow")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
