//! The authorization endpoint.

use super::*;

async fn show(world: &World, pairs: &[(&str, &str)]) -> Got {
    world.get(&format!("/authorize?{}", encoded(pairs))).await
}

/// The error that went back to the client, which must carry `iss` and `state` like any answer.
fn sent_back(got: &Got) -> String {
    assert_eq!(got.status, StatusCode::SEE_OTHER, "{}", got.text);
    assert!(got.header(header::LOCATION).starts_with(CALLBACK));
    assert_eq!(got.param("iss").as_deref(), Some(ISSUER));
    assert_eq!(got.param("code"), None);
    got.param("error").expect("an error")
}

#[tokio::test]
async fn the_first_page_offers_every_account() {
    let got = show(&World::new(), &asking(ALL)).await;
    for email in [ADA, BEN, "other@else.example"] {
        assert!(got.text.contains(&format!("value=\"{email}\"")), "{email}");
    }
}

#[tokio::test]
async fn the_consent_page_has_one_ticked_box_per_scope_asked() {
    let mut pairs = asking("mail.read mail.write");
    pairs.push(("account", ADA));
    let got = World::new().form("/authorize", &pairs).await;
    assert_eq!(got.text.matches("type=\"checkbox\"").count(), 2);
    assert_eq!(got.text.matches(" checked ").count(), 2);
    assert!(got.text.contains("name=\"scope.mail.write\""));
}

#[tokio::test]
async fn looking_at_the_pages_makes_no_code() {
    let world = World::new();
    show(&world, &asking(ALL)).await;
    let mut pairs = asking(ALL);
    pairs.push(("account", ADA));
    world.form("/authorize", &pairs).await;
    assert!(world.acme.snapshot().unwrap().contains("\"codes\":{}"));
}

#[tokio::test]
async fn allowing_answers_with_code_state_and_iss() {
    let got = World::new().allow(ADA, ALL).await;
    assert_eq!(got.status, StatusCode::SEE_OTHER);
    assert!(got.param("code").is_some());
    assert_eq!(got.param("state").as_deref(), Some("a state & more"));
    assert_eq!(got.param("iss").as_deref(), Some(ISSUER));
}

#[tokio::test]
async fn denying_answers_access_denied_with_state_and_iss() {
    let mut pairs = asking(ALL);
    pairs.extend([("account", ADA), ("decision", "deny"), ("scope.mail.read", "on")]);
    let got = World::new().form("/authorize", &pairs).await;
    assert_eq!(sent_back(&got), "access_denied");
    assert_eq!(got.param("state").as_deref(), Some("a state & more"));
}

#[tokio::test]
async fn allowing_no_scope_at_all_is_a_denial() {
    let mut pairs = asking(ALL);
    pairs.extend([("account", ADA), ("decision", "allow")]);
    let got = World::new().form("/authorize", &pairs).await;
    assert_eq!(sent_back(&got), "access_denied");
}

#[tokio::test]
async fn only_ticked_scopes_are_granted() {
    let world = World::new();
    let mut pairs = asking(ALL);
    pairs.extend([("account", ADA), ("decision", "allow"), ("scope.mail.read", "on")]);
    let code = world.form("/authorize", &pairs).await.param("code").unwrap();
    assert_eq!(world.redeem(&code).await.json()["scope"], "mail.read");
}

#[tokio::test]
async fn a_box_for_a_scope_that_was_not_asked_for_grants_nothing() {
    let world = World::new();
    let mut pairs = asking("mail.read");
    pairs.extend([("account", ADA), ("decision", "allow")]);
    pairs.extend([("scope.mail.read", "on"), ("scope.mail.send", "on")]);
    let code = world.form("/authorize", &pairs).await.param("code").unwrap();
    assert_eq!(world.redeem(&code).await.json()["scope"], "mail.read");
}

#[tokio::test]
async fn a_request_without_pkce_is_sent_back() {
    let got = show(&World::new(), &asking_without("code_challenge")).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn a_request_with_plain_pkce_is_sent_back() {
    let got = show(&World::new(), &asking_with("code_challenge_method", "plain")).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn a_challenge_without_a_method_means_plain_and_is_sent_back() {
    let got = show(&World::new(), &asking_without("code_challenge_method")).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn a_challenge_that_is_no_digest_is_sent_back() {
    let got = show(&World::new(), &asking_with("code_challenge", "short")).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn a_consent_posted_without_pkce_makes_no_code() {
    let mut pairs = asking_without("code_challenge");
    pairs.extend([("account", ADA), ("decision", "allow"), ("scope.mail.read", "on")]);
    let got = World::new().form("/authorize", &pairs).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn an_unknown_scope_is_sent_back() {
    let got = show(&World::new(), &asking_with("scope", "mail.read mail.admin")).await;
    assert_eq!(sent_back(&got), "invalid_scope");
}

#[tokio::test]
async fn another_response_type_is_sent_back() {
    let got = show(&World::new(), &asking_with("response_type", "token")).await;
    assert_eq!(sent_back(&got), "unsupported_response_type");
}

#[tokio::test]
async fn a_repeated_parameter_is_sent_back() {
    let mut pairs = asking(ALL);
    pairs.push(("scope", "mail.read"));
    let got = show(&World::new(), &pairs).await;
    assert_eq!(sent_back(&got), "invalid_request");
}

#[tokio::test]
async fn a_redirect_uri_that_is_not_registered_is_never_redirected_to() {
    for uri in [
        "https://evil.example/callback",
        "http://127.0.0.1:4000/callback/acme-mail/",
        "http://127.0.0.1:4000/callback/acme-mail?x=1",
        "http://127.0.0.1:4000/contexts/",
        "http://127.0.0.1:4000/contexts/..",
        "http://127.0.0.1:4000/contexts/a/b",
        "http://127.0.0.1:4000/contexts/a%2fb",
        "http://127.0.0.1:4000/contexts/a?x=1",
    ] {
        let got = show(&World::new(), &asking_with("redirect_uri", uri)).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(got.header(header::LOCATION), "", "{uri}");
    }
}

#[tokio::test]
async fn one_segment_under_a_registered_path_is_accepted() {
    let uri = "http://127.0.0.1:4000/contexts/ctx_1-a";
    let got = show(&World::new(), &asking_with("redirect_uri", uri)).await;
    assert_eq!(got.status, StatusCode::OK);
}

#[tokio::test]
async fn a_repeated_redirect_uri_is_never_redirected_to() {
    let mut pairs = asking(ALL);
    pairs.push(("redirect_uri", CALLBACK));
    let got = show(&World::new(), &pairs).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_unknown_client_is_never_redirected() {
    let got = show(&World::new(), &asking_with("client_id", "someone")).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    assert_eq!(got.header(header::LOCATION), "");
}

#[tokio::test]
async fn hostile_state_is_escaped_on_the_page() {
    let got = show(
        &World::new(),
        &asking_with("state", "\"><script>alert(1)</script>"),
    )
    .await;
    assert!(!got.text.contains("<script>"));
}

#[tokio::test]
async fn pages_allow_no_script_no_frame_and_forms_only_home_and_to_the_client() {
    let got = show(&World::new(), &asking(ALL)).await;
    let policy = got.header(header::CONTENT_SECURITY_POLICY);
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'self' http://127.0.0.1:4000",
    ] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"));
}

#[tokio::test]
async fn a_consent_posted_from_another_site_is_refused() {
    let mut request = form("/authorize", &asking(ALL));
    let origin = "https://evil.example".parse().unwrap();
    request.headers_mut().insert(header::ORIGIN, origin);
    assert_eq!(World::new().send(request).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_consent_posted_from_its_own_page_is_accepted() {
    let mut pairs = asking(ALL);
    pairs.push(("account", ADA));
    let mut request = form("/authorize", &pairs);
    let origin = ISSUER.parse().unwrap();
    request.headers_mut().insert(header::ORIGIN, origin);
    assert_eq!(World::new().send(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn another_host_is_not_answered() {
    for host in ["evil.example", "evil.example:4001", "127.0.0.1:4000"] {
        let request = Request::builder()
            .uri("/admin/log")
            .header(header::HOST, host)
            .body(Body::empty())
            .unwrap();
        let got = World::new().send(request).await;
        assert_eq!(got.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
}

#[tokio::test]
async fn metadata_names_the_issuer_pkce_and_iss() {
    let body = World::new()
        .get("/.well-known/oauth-authorization-server")
        .await
        .json();
    assert_eq!(body["issuer"], ISSUER);
    assert_eq!(body["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(body["authorization_response_iss_parameter_supported"], true);
    assert_eq!(
        body["token_endpoint_auth_methods_supported"],
        json!(["client_secret_basic", "client_secret_post"])
    );
}

#[tokio::test]
async fn metadata_of_a_public_client_offers_no_introspection() {
    let world = World::with_secret(None);
    let body = world.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(body["token_endpoint_auth_methods_supported"], json!(["none"]));
    assert_eq!(body["introspection_endpoint"], Value::Null);
}
