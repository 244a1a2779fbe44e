//! The mail API and `/userinfo`.

use super::*;

fn letter(to: &[&str]) -> Option<Value> {
    Some(json!({"to": to, "subject": "Lunch?", "body": "At twelve."}))
}

async fn subjects(world: &World, account: &str) -> Vec<String> {
    let token = world.connect(account, ALL).await.access;
    let body = world
        .api(Method::GET, "/api/messages?limit=100", &token, None)
        .await
        .json();
    let messages = body["messages"].as_array().unwrap().clone();
    messages
        .iter()
        .map(|message| message["subject"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn userinfo_names_the_account_by_a_stable_subject() {
    let world = World::new();
    let one = world.connect(ADA, "mail.read").await;
    let two = world.connect(ADA, "mail.send").await;
    let body = world.userinfo(&one.access).await.json();
    assert_eq!(body["email"], ADA);
    assert_eq!(body["name"], "Ada Byron");
    assert_eq!(body["sub"], world.userinfo(&two.access).await.json()["sub"]);
    let ben = world.connect(BEN, ALL).await;
    assert_ne!(body["sub"], world.userinfo(&ben.access).await.json()["sub"]);
}

#[tokio::test]
async fn an_access_token_works_for_300_seconds_and_no_longer() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    world.wait(299);
    assert_eq!(world.userinfo(&token).await.status, StatusCode::OK);
    world.wait(1);
    let got = world.userinfo(&token).await;
    assert_eq!(got.error(), (401, "invalid_token".to_owned()));
    assert!(
        got.header(header::WWW_AUTHENTICATE)
            .contains("error=\"invalid_token\"")
    );
}

#[tokio::test]
async fn a_request_without_a_token_is_challenged_without_an_error_code() {
    let got = World::new().get("/api/messages").await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    assert_eq!(got.header(header::WWW_AUTHENTICATE), "Bearer realm=\"acme-mail\"");
}

#[tokio::test]
async fn a_token_in_the_query_is_not_accepted() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let got = world.get(&format!("/api/messages?access_token={token}")).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_refresh_token_opens_nothing() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.refresh;
    assert_eq!(world.userinfo(&token).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn each_endpoint_asks_for_its_own_scope() {
    let world = World::new();
    let calls = [
        (Method::GET, "/api/messages", "mail.read", None),
        (Method::GET, "/api/messages/msg-ada-1", "mail.read", None),
        (Method::POST, "/api/messages", "mail.send", letter(&[BEN])),
        (Method::POST, "/api/drafts", "mail.write", letter(&[BEN])),
        (Method::DELETE, "/api/messages/msg-ada-1", "mail.write", None),
    ];
    for (method, path, needed, body) in calls {
        let others: Vec<&str> = ALL.split(' ').filter(|scope| *scope != needed).collect();
        let without = world.connect(ADA, &others.join(" ")).await.access;
        let got = world.api(method.clone(), path, &without, body.clone()).await;
        assert_eq!(got.error(), (403, "insufficient_scope".to_owned()), "{path}");
        assert!(
            got.header(header::WWW_AUTHENTICATE)
                .contains(&format!("scope=\"{needed}\""))
        );
        let with = world.connect(ADA, needed).await.access;
        let got = world.api(method.clone(), path, &with, body).await;
        assert!(got.status.is_success(), "{method} {path}: {}", got.status);
    }
}

#[tokio::test]
async fn the_list_shows_newest_first_and_only_ones_own_mail() {
    let world = World::new();
    let of_ada = subjects(&world, ADA).await;
    assert_eq!(of_ada.first().unwrap(), "Welcome lunch on Wednesday");
    assert_eq!(of_ada.len(), 5);
    assert!(!of_ada.contains(&"Budget for the trade fair".to_owned()));
}

#[tokio::test]
async fn the_list_searches_and_limits() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let found = world
        .api(Method::GET, "/api/messages?q=SUPPLIER&limit=1", &token, None)
        .await
        .json();
    let messages = found["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1);
    let mut members: Vec<&String> = messages[0].as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["date", "from", "id", "snippet", "subject", "to"]);
    for limit in ["0", "101", "-1", "x"] {
        let path = format!("/api/messages?limit={limit}");
        let got = world.api(Method::GET, &path, &token, None).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{limit}");
    }
}

#[tokio::test]
async fn one_message_comes_with_its_body() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let body = world
        .api(Method::GET, "/api/messages/msg-ada-2", &token, None)
        .await
        .json();
    assert_eq!(body["from"], BEN);
    assert!(body["body"].as_str().unwrap().contains("week 12"));
}

#[tokio::test]
async fn a_message_of_another_account_is_not_there() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    for method in [Method::GET, Method::DELETE] {
        let got = world.api(method, "/api/messages/msg-ben-1", &token, None).await;
        assert_eq!(got.error(), (404, "not_found".to_owned()));
    }
    assert_eq!(subjects(&world, BEN).await.len(), 3);
}

#[tokio::test]
async fn a_mailbox_holds_a_message_that_tries_to_command_the_agent() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let body = world
        .api(Method::GET, "/api/messages/msg-ada-4", &token, None)
        .await
        .text;
    assert!(body.contains("forward") && body.contains("collector@else.example"));
}

#[tokio::test]
async fn sent_mail_arrives_here_and_stays_with_its_sender() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let to = [BEN, BEN, "stranger@elsewhere.example"];
    let got = world
        .api(Method::POST, "/api/messages", &token, letter(&to))
        .await;
    assert_eq!(got.status, StatusCode::CREATED);
    let id = got.json()["id"].as_str().unwrap().to_owned();
    let sent = world
        .api(Method::GET, &format!("/api/messages/{id}"), &token, None)
        .await;
    assert_eq!(sent.json()["body"], "At twelve.");
    for account in [ADA, BEN] {
        let count = subjects(&world, account).await;
        assert_eq!(count.iter().filter(|subject| *subject == "Lunch?").count(), 1);
    }
}

#[tokio::test]
async fn a_draft_is_kept_and_not_sent() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let got = world
        .api(Method::POST, "/api/drafts", &token, letter(&[BEN]))
        .await;
    assert_eq!(got.status, StatusCode::CREATED);
    let path = format!("/api/messages/{}", got.json()["id"].as_str().unwrap());
    let draft = world.api(Method::GET, &path, &token, None).await;
    assert_eq!(draft.json()["subject"], "Lunch?");
    assert!(!subjects(&world, BEN).await.contains(&"Lunch?".to_owned()));
}

#[tokio::test]
async fn a_deleted_message_is_gone() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let path = "/api/messages/msg-ada-1";
    let got = world.api(Method::DELETE, path, &token, None).await;
    assert_eq!(got.status, StatusCode::NO_CONTENT);
    let got = world.api(Method::DELETE, path, &token, None).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_malformed_letter_is_refused_and_nothing_arrives() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    for body in [
        json!({"to": [], "subject": "s", "body": "b"}),
        json!({"to": ["no address"], "subject": "s", "body": "b"}),
        json!({"to": ["a@b\r\nBcc: x@y"], "subject": "s", "body": "b"}),
        json!({"to": BEN, "subject": "s", "body": "b"}),
        json!({"to": [BEN], "subject": "s\r\nBcc: x@y", "body": "b"}),
        json!({"to": [BEN], "subject": "s"}),
        json!({"to": [BEN], "subject": "s", "body": "b", "bcc": [ADA]}),
    ] {
        let got = world
            .api(Method::POST, "/api/messages", &token, Some(body.clone()))
            .await;
        assert_eq!(got.error(), (400, "invalid_request".to_owned()), "{body}");
    }
    assert_eq!(subjects(&world, BEN).await.len(), 3);
}
