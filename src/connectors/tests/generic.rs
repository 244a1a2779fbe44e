//! Where `http.request` may go, and what it may not carry.

use serde_json::json;

use super::*;

fn http(id: &str, args: &Value) -> Result<Rendered, String> {
    request(&connector(id), "http.request", args)
}

#[test]
fn a_call_without_a_typed_tool_goes_to_the_connectors_origin() {
    let sent = http(
        "github",
        &json!({"method": "PUT", "path": "/repos/o/r/topics", "query": [["a", "b c"], ["a", "&"]],
                "body": "{\"names\":[\"x\"]}"}),
    )
    .unwrap();
    assert_eq!(
        sent.url.as_str(),
        "https://api.github.com/repos/o/r/topics?a=b+c&a=%26"
    );
    assert_eq!(sent.headers.get("content-type").unwrap(), "application/json");
    assert_eq!(sent.headers.get("x-github-api-version").unwrap(), "2022-11-28");
    assert_eq!(sent.body.unwrap().as_ref(), b"{\"names\":[\"x\"]}");
}

#[test]
fn a_path_of_a_typed_tool_is_refused_with_every_method() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        for (id, path) in [
            ("slack", "/api/chat.postMessage"),
            ("slack", "/api/Chat.PostMessage"),
            ("slack", "/api/chat.postMessage/"),
            ("acme-mail", "/api/messages"),
            ("acme-mail", "/api/messages/m1"),
            ("gmail", "/gmail/v1/users/me/messages/send"),
            ("github", "/repos/o/r/issues/1"),
            ("github", "/repos/o/r/contents/a/b/c"),
            ("github", "/repos/o/r/git/refs/heads/main"),
        ] {
            let error = http(id, &json!({"method": method, "path": path})).unwrap_err();
            assert!(error.contains("/path"), "{method} {path}: {error}");
        }
    }
}

#[test]
fn oauth_endpoints_and_denied_paths_are_refused() {
    for (id, path) in [
        ("slack", "/api/oauth.v2.access"),
        ("slack", "/api/auth.revoke"),
        ("slack", "/api/admin.users.remove"),
        ("slack", "/oauth/v2/authorize"),
        ("slack", "/"),
        ("gmail", "/batch/gmail/v1"),
        ("gmail", "/upload/gmail/v1/users/me/messages/send"),
        ("gmail", "/gmail/v1/users/ada@acme.example/messages/send"),
        ("gmail", "/gmail/v1/users/me/settings/forwardingAddresses"),
        ("gmail", "/gmail/v1/users/me/messages/batchDelete"),
        ("github", "/graphql"),
        ("github", "/GraphQL"),
        ("github", "/applications/x/token"),
        ("github", "/repos/o/r/actions/secrets/X"),
        ("github", "/repos/o/r/keys"),
        ("github", "/orgs/o/actions/runners/registration-token"),
        ("acme-mail", "/token"),
        ("acme-mail", "/revoke"),
        ("acme-mail", "/authorize"),
        ("acme-mail", "/admin/log"),
    ] {
        assert!(
            http(id, &json!({"method": "POST", "path": path})).is_err(),
            "{path}"
        );
    }
}

#[test]
fn oauth_endpoints_are_refused_even_where_the_file_denies_nothing() {
    for (id, paths) in [
        (
            "acme-mail",
            ["/token", "/revoke", "/authorize", "/Token/"].as_slice(),
        ),
        (
            "slack",
            &["/api/oauth.v2.access", "/api/auth.revoke", "/oauth/v2/authorize"],
        ),
        ("github", &["/applications/Iv1.x/grant"]),
    ] {
        let mut open = (*connector(id)).clone();
        open.api.paths.clear();
        open.api.deny.clear();
        for path in paths {
            let outcome = request(&open, "http.request", &json!({"method": "POST", "path": path}));
            assert!(outcome.is_err(), "{id} {path}");
        }
        assert!(
            request(
                &open,
                "http.request",
                &json!({"method": "POST", "path": "/other"})
            )
            .is_ok(),
            "{id}"
        );
    }
}

#[test]
fn non_canonical_paths_are_refused() {
    for path in [
        "",
        "repos/o/r/topics",
        "//repos/o/r/topics",
        "/repos//o",
        "/repos/./o",
        "/repos/../o",
        "/repos/%2e%2e/o",
        "/repos/%6f/r/topics",
        "/repos/o/r/topics?x=1",
        "/repos/o/r/topics#x",
        "/repos/o/r\\topics",
        "/repos/o;x/r/topics",
        "/repos/o/r/top ics",
        "/repos/ö/r/topics",
        "/repos/%c3%b6/r/topics",
        "/repos/o/r/topics%00",
        "/repos/o%2Fr/topics",
        "/repos/o/r/\"x\"",
        "/repos/o/r/<x>",
        "/repos/o/r/`x`",
        "/repos/o/r/{x}",
        "/repos/o/r/topics\r\nHost: evil",
        "https://evil.example/",
        "@evil.example/",
        "/repos/o/r/topics//",
        "/repos/%",
        "/repos/%2",
    ] {
        assert!(
            http("github", &json!({"method": "GET", "path": path})).is_err(),
            "{path:?}"
        );
    }
    let odd = http(
        "github",
        &json!({"method": "GET", "path": "/repos/%C3%B6/r.x/compare/a...b"}),
    )
    .unwrap();
    assert_eq!(
        odd.url.as_str(),
        "https://api.github.com/repos/%C3%B6/r.x/compare/a...b"
    );
}

#[test]
fn method_overrides_foreign_credentials_and_nested_requests_are_refused() {
    let base = |more: Value| {
        let mut args = json!({"method": "POST", "path": "/repos/o/r/topics"});
        args.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        args
    };
    for more in [
        json!({"query": [["_method", "DELETE"]]}),
        json!({"query": [["X-HTTP-Method-Override", "DELETE"]]}),
        json!({"query": [["$httpMethod", "DELETE"]]}),
        json!({"query": [["access_token", "x"]]}),
        json!({"query": [["Token", "x"]]}),
        json!({"query": [["a", "b", "c"]]}),
        json!({"query": [["a", 1]]}),
        json!({"query": {"a": "b"}}),
        json!({"body": "_method=DELETE", "content_type": "application/x-www-form-urlencoded"}),
        json!({"body": "a=1&%5fmethod=DELETE", "content_type": "application/x-www-form-urlencoded"}),
        json!({"body": "token=x", "content_type": "application/x-www-form-urlencoded"}),
        json!({"body": "{\"_method\":\"DELETE\"}"}),
        json!({"body": "not json"}),
        json!({"body": "x", "content_type": "multipart/mixed"}),
        json!({"body": "x", "content_type": "message/http"}),
        json!({"body": "x", "content_type": "application/http"}),
        json!({"body": "x", "content_type": "text/plain\r\nX: y"}),
        json!({"body": "x", "content_type": "text/plain; charset=utf-7"}),
        json!({"body": "x", "content_type": "Text/Plain"}),
        json!({"body": "x", "body_b64": "eA=="}),
        json!({"body_b64": "eA"}),
        json!({"body": {"a": 1}}),
        json!({"content_type": "text/plain"}),
        json!({"headers": {"X": "y"}}),
        json!({"host": "evil.example"}),
        json!({"url": "https://evil.example"}),
        json!({"method": "post"}),
        json!({"method": "CONNECT"}),
        json!({"method": "GET", "body": "{}"}),
    ] {
        assert!(http("github", &base(more.clone())).is_err(), "{more}");
    }
    assert!(
        http(
            "github",
            &base(json!({"body_b64": "eA==", "content_type": "image/png"}))
        )
        .is_ok()
    );
}

#[test]
fn every_error_has_its_place() {
    let github = connector("github");
    let errors = validate(
        &github,
        Tool::HttpRequest,
        &json!({"method": "X", "path": "x", "a/b": 1}),
    )
    .unwrap_err();
    let places: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(places, ["/a~1b", "/method", "/path"]);
}

#[test]
fn a_connector_without_an_origin_has_no_generic_tool() {
    let mut github = (*connector("github")).clone();
    github.api.origin = None;
    assert!(Tool::find(&github, "http.request").is_none());
    assert!(
        Tool::find(&connector("github"), "http.request")
            .unwrap()
            .category()
            .is_none()
    );
}

#[test]
fn the_summary_of_a_generic_call_is_its_method_and_path() {
    let github = connector("github");
    let args = json!({"method": "GET", "path": "/repos/o/r/topics"});
    let args = validate(&github, Tool::HttpRequest, &args).unwrap();
    assert_eq!(summary(Tool::HttpRequest, &args), "GET /repos/o/r/topics");
}
