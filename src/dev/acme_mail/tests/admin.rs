//! The log, the faults, and the other levers of `/admin`.

use std::task::{Context, Waker};

use hyper::body::Body as _;

use super::*;

/// The digest as the log spells it, made without the code under test.
fn hex_digest(token: &str) -> String {
    sha256(token.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn misbehave(world: &World, fault: Value) {
    let got = world.admin("/admin/fault", fault).await;
    assert_eq!(got.status, StatusCode::NO_CONTENT, "{}", got.text);
}

#[tokio::test]
async fn the_log_lists_requests_in_order_with_what_they_were_about() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let narrowed = world.narrow(&tokens.refresh, "mail.read").await.tokens();
    world
        .api(Method::GET, "/api/messages/msg-ada-1", &narrowed.access, None)
        .await;
    world.introspect(&narrowed.access).await;
    world.as_client("/revoke", &[("token", &narrowed.refresh)]).await;
    let log = world.log().await;
    let kinds: Vec<&str> = log.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["authorize", "token", "token", "api", "introspect", "revoke"]
    );
    let numbers: Vec<u64> = log.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let refresh = json!({
        "seq": 3, "at": "2026-09-21T14:13:20.000Z", "kind": "token", "method": "POST", "path": "/token",
        "grant_type": "refresh_token", "client_id": "postern-dev", "account": ADA, "scope": "mail.read",
        "status": 200, "token_sha256": hex_digest(&tokens.refresh),
        "issued_access_sha256": hex_digest(&narrowed.access),
        "issued_refresh_sha256": hex_digest(&narrowed.refresh),
    });
    assert_eq!(log[2], refresh);
    let read = json!({
        "seq": 4, "at": "2026-09-21T14:13:20.000Z", "kind": "api", "method": "GET",
        "path": "/api/messages/msg-ada-1", "client_id": "postern-dev", "account": ADA, "scope": "mail.read",
        "status": 200, "token_sha256": hex_digest(&narrowed.access),
    });
    assert_eq!(log[3], read);
    assert_eq!(log[5]["account"], ADA);
}

#[tokio::test]
async fn the_log_lists_refusals_with_their_error() {
    let world = World::new();
    world.refresh("acme_rt_made-up").await;
    world.userinfo("acme_at_made-up").await;
    world.get("/token").await;
    world.get("/api/nothing").await;
    let log = world.log().await;
    let seen: Vec<(u64, &str)> = log
        .iter()
        .map(|entry| {
            (
                entry["status"].as_u64().unwrap(),
                entry["error"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (400, "invalid_grant"),
            (401, "invalid_token"),
            (405, "invalid_request"),
            (404, "not_found")
        ]
    );
}

#[tokio::test]
async fn the_log_never_holds_a_token_a_code_or_a_secret() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    let first = world.redeem(&code).await.tokens();
    let second = world.refresh(&first.refresh).await.tokens();
    world.redeem(&code).await;
    world.userinfo(&second.access).await;
    world.as_client("/revoke", &[("token", &second.refresh)]).await;
    // Also where a caller puts it in the wrong place.
    let misplaced = &first.access;
    for path in [
        format!("/api/messages/{misplaced}"),
        format!("/api/messages?q={misplaced}"),
        format!("/api/{misplaced}"),
        format!("/userinfo?access_token={misplaced}"),
    ] {
        world.api(Method::GET, &path, misplaced, None).await;
    }
    for name in ["grant_type", "scope", "client_id"] {
        world.as_client("/token", &[(name, misplaced)]).await;
    }
    let pairs = asking_with("state", misplaced);
    world.get(&format!("/authorize?{}", encoded(&pairs))).await;
    let log = world.get("/admin/log").await.text;
    assert!(log.contains(&hex_digest(&second.access)));
    let secrets = [
        &code,
        &first.access,
        &first.refresh,
        &second.access,
        &second.refresh,
        &SECRET.to_owned(),
        &VERIFIER.to_owned(),
    ];
    for secret in secrets {
        assert!(!log.contains(secret.as_str()), "{secret}");
    }
}

#[tokio::test]
async fn a_reset_log_is_empty_and_its_numbers_go_on() {
    let world = World::new();
    world.connect(ADA, ALL).await;
    world.admin("/admin/reset-log", json!({})).await;
    assert_eq!(world.log().await, Vec::<Value>::new());
    world.userinfo("x").await;
    assert_eq!(world.log().await[0]["seq"], 3);
}

#[tokio::test]
async fn admin_orders_from_another_site_are_refused() {
    let world = World::new();
    let request = ask(Method::POST, "/admin/reset-log")
        .header(header::ORIGIN, "https://evil.example")
        .body(Body::empty());
    assert_eq!(world.send(request.unwrap()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn expiring_ends_the_access_tokens_of_that_account_only() {
    let world = World::new();
    let (ada, ben) = (world.connect(ADA, ALL).await, world.connect(BEN, ALL).await);
    let got = world.admin("/admin/expire", json!({"account": ADA})).await;
    assert_eq!(got.json(), json!({"expired": 1}));
    assert_eq!(world.userinfo(&ada.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.userinfo(&ben.access).await.status, StatusCode::OK);
    world.refresh(&ada.refresh).await.tokens();
}

#[tokio::test]
async fn disconnecting_ends_the_families_of_that_account_only() {
    let world = World::new();
    let (ada, ben) = (world.connect(ADA, ALL).await, world.connect(BEN, ALL).await);
    world.admin("/admin/disconnect", json!({"account": ADA})).await;
    assert_eq!(world.refresh(&ada.refresh).await.error().1, "invalid_grant");
    world.refresh(&ben.refresh).await.tokens();
}

#[tokio::test]
async fn the_mailbox_view_shows_drafts_too() {
    let world = World::new();
    let token = world.connect(ADA, ALL).await.access;
    let letter = json!({"to": [BEN], "subject": "Draft", "body": ""});
    world.api(Method::POST, "/api/drafts", &token, Some(letter)).await;
    let messages = world.get(&format!("/admin/mailbox?account={ADA}")).await.json();
    assert_eq!(messages.as_array().unwrap().last().unwrap()["folder"], "drafts");
}

#[tokio::test]
async fn a_fault_replaces_the_answer_as_often_as_ordered() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let order =
        json!({"next": "token", "status": 503, "body": {"error": "busy"}, "times": 2, "retry_after": 7});
    misbehave(&world, order).await;
    for _ in 0..2 {
        let got = world.refresh(&tokens.refresh).await;
        assert_eq!(got.error(), (503, "busy".to_owned()));
        assert_eq!(got.header(header::RETRY_AFTER), "7");
    }
    world.wait(3_600);
    world.refresh(&tokens.refresh).await.tokens();
}

#[tokio::test]
async fn a_fault_after_the_work_loses_the_answer_but_not_the_rotation() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    misbehave(&world, json!({"next": "token", "status": 502, "after": true})).await;
    assert_eq!(
        world.refresh(&tokens.refresh).await.status,
        StatusCode::BAD_GATEWAY
    );
    let entry = world.log().await.pop().unwrap();
    assert_eq!((&entry["status"], &entry["fault"]), (&json!(502), &json!(true)));
    assert!(entry["issued_refresh_sha256"].is_string());
    world.wait(61);
    assert_eq!(world.refresh(&tokens.refresh).await.error().1, "invalid_grant");
}

#[tokio::test]
async fn a_fault_can_send_garbage_with_status_200() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let order = json!({"next": "token", "body": "<html>oops", "content_type": "text/html"});
    misbehave(&world, order).await;
    let got = world.refresh(&tokens.refresh).await;
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, "<html>oops"));
    assert_eq!(got.header(header::CONTENT_TYPE), "text/html");
}

#[tokio::test]
async fn a_fault_can_send_the_true_answer_under_another_content_type_or_none() {
    let world = World::new();
    let mut tokens = world.connect(ADA, ALL).await;
    for kind in ["text/html", "text/plain", ""] {
        misbehave(&world, json!({"next": "token", "content_type": kind})).await;
        let got = world.refresh(&tokens.refresh).await;
        let named = got.headers.get(header::CONTENT_TYPE);
        assert_eq!(named.map_or("", |value| value.to_str().unwrap()), kind);
        assert_eq!(named.is_none(), kind.is_empty());
        tokens = got.tokens();
    }
}

#[tokio::test]
async fn a_fault_can_break_off_the_answer() {
    let world = World::new();
    misbehave(&world, json!({"next": "api", "hang_up": true})).await;
    let request = ask(Method::GET, "/userinfo").body(Body::empty()).unwrap();
    let response = world.acme.router().oneshot(request).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_fault_can_send_the_answer_in_pieces_or_the_half_of_it() {
    let world = World::new();
    let answer = async |fault: Value| {
        misbehave(&world, fault).await;
        let request = ask(Method::GET, "/userinfo").body(Body::empty()).unwrap();
        let response = world.acme.router().oneshot(request).await.unwrap();
        let promised = response.body().size_hint().exact().unwrap();
        (promised, response.into_body().collect().await)
    };
    let text = "a body of some length";
    let (promised, got) = answer(json!({"next": "api", "body": text, "drip_ms": 1})).await;
    assert_eq!((promised, got.unwrap().to_bytes()), (21, text.into()));
    let (promised, got) = answer(json!({"next": "api", "body": text, "cut": true})).await;
    assert_eq!((promised, got.is_err()), (21, true));
}

#[tokio::test]
async fn a_fault_waits_for_its_kind_path_and_grant_type() {
    let world = World::new();
    misbehave(
        &world,
        json!({"next": "token", "grant_type": "refresh_token", "status": 500}),
    )
    .await;
    misbehave(&world, json!({"next": "api", "path": "/userinfo", "status": 500})).await;
    let tokens = world.connect(ADA, ALL).await;
    let list = world
        .api(Method::GET, "/api/messages", &tokens.access, None)
        .await;
    assert_eq!(list.status, StatusCode::OK);
    assert_eq!(world.userinfo(&tokens.access).await.status.as_u16(), 500);
    assert_eq!(world.refresh(&tokens.refresh).await.status.as_u16(), 500);
}

#[tokio::test]
async fn a_fault_can_leave_members_out_and_put_others_in() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    let order = json!({"next": "token", "omit": ["scope", "expires_in"], "set": {"token_type": "mac"}});
    misbehave(&world, order).await;
    let body = world.refresh(&tokens.refresh).await.json();
    assert_eq!(
        (&body["scope"], &body["expires_in"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(body["token_type"], "mac");
}

#[tokio::test]
async fn a_fault_can_leave_out_or_forge_iss() {
    let world = World::new();
    misbehave(&world, json!({"next": "authorize", "omit": ["iss"]})).await;
    assert_eq!(world.allow(ADA, ALL).await.param("iss"), None);
    let forged = "https://evil.example";
    misbehave(&world, json!({"next": "authorize", "set": {"iss": forged}})).await;
    assert_eq!(world.allow(ADA, ALL).await.param("iss").as_deref(), Some(forged));
}

#[tokio::test]
async fn a_fault_can_send_the_authorization_response_elsewhere() {
    let world = World::new();
    let elsewhere = "http://127.0.0.1:4000/callback/other";
    misbehave(&world, json!({"next": "authorize", "redirect_to": elsewhere})).await;
    let got = world.allow(ADA, ALL).await;
    assert!(
        got.header(header::LOCATION)
            .starts_with(&format!("{elsewhere}?code="))
    );
}

#[tokio::test]
async fn a_fault_can_redirect_an_api_request() {
    let world = World::new();
    misbehave(
        &world,
        json!({"next": "api", "redirect_to": "http://169.254.169.254/"}),
    )
    .await;
    let got = world.userinfo("any").await;
    assert_eq!(got.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(got.header(header::LOCATION), "http://169.254.169.254/");
}

#[tokio::test]
async fn a_fault_can_widen_a_token_for_real() {
    let world = World::new();
    let code = world.code(ADA, "mail.read").await;
    misbehave(&world, json!({"next": "token", "widen_scope": true})).await;
    let got = world.redeem(&code).await;
    assert_eq!(got.json()["scope"], "mail.admin mail.read mail.send mail.write");
    let scope = &world.introspect(&got.tokens().access).await["scope"];
    assert_eq!(scope, "mail.admin mail.read mail.send mail.write");
}

#[tokio::test]
async fn a_fault_can_bind_a_code_to_another_account() {
    let world = World::new();
    let code = world.code(ADA, ALL).await;
    misbehave(&world, json!({"next": "token", "wrong_account": BEN})).await;
    let tokens = world.redeem(&code).await.tokens();
    assert_eq!(world.userinfo(&tokens.access).await.json()["email"], BEN);
}

#[tokio::test]
async fn a_fault_can_make_userinfo_name_another_account() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    misbehave(
        &world,
        json!({"next": "api", "path": "/userinfo", "wrong_account": BEN}),
    )
    .await;
    assert_eq!(world.userinfo(&tokens.access).await.json()["email"], BEN);
    assert_eq!(world.userinfo(&tokens.access).await.json()["email"], ADA);
}

#[tokio::test]
async fn a_caller_that_hangs_up_during_a_delay_is_in_the_log_without_status() {
    let world = World::new();
    misbehave(&world, json!({"next": "api", "delay_ms": 10_000})).await;
    let mut call = Box::pin(world.userinfo("any"));
    let mut once = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut once).is_pending());
    drop(call);
    let entry = world.log().await.pop().unwrap();
    assert_eq!((&entry["kind"], &entry["status"]), (&json!("api"), &Value::Null));
}

#[tokio::test]
async fn cleared_faults_do_not_happen() {
    let world = World::new();
    let tokens = world.connect(ADA, ALL).await;
    misbehave(&world, json!({"next": "api", "status": 500})).await;
    let request = ask(Method::DELETE, "/admin/fault").body(Body::empty());
    world.send(request.unwrap()).await;
    assert_eq!(world.userinfo(&tokens.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_misspelt_fault_is_refused() {
    let world = World::new();
    for order in [
        json!({"next": "token", "statsu": 500}),
        json!({"next": "tokens"}),
        json!({"next": "token", "status": 99}),
        json!({"next": "token", "times": 0}),
        json!({"next": "token", "wrong_account": "nobody@acme.example"}),
    ] {
        let got = world.admin("/admin/fault", order.clone()).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{order}");
    }
}
