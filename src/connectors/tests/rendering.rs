//! From arguments to a request that cannot leave its frame.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;
use url::Url;

use super::*;

/// What must never reach a path segment, raw or by decoding.
const BAD_SEGMENTS: &[&str] = &[
    "",
    ".",
    "..",
    "/",
    "//",
    "a/b",
    "/a",
    "a/",
    "../..",
    "..\\..",
    "\\",
    "a\\b",
    "%",
    "%2e",
    "%2E%2E",
    "%2f",
    "%2F",
    "%5c",
    "%00",
    "a%00",
    "%252e%252e",
    "%25",
    "a%20b",
    "?",
    "a?b",
    "a?x=1",
    "#",
    "a#b",
    "a\0b",
    "\0",
    "a\nb",
    "a\r\nHost: evil",
    "\t",
    "a\u{7f}",
    "a\u{85}b",
    "..%2f..%2fadmin",
    "..;/admin/..",
    "https://evil.example/x",
    "//evil.example",
    "@evil.example/",
    "\\\\evil.example",
];

/// What only looks bad: it stays in its segment, encoded.
const GOOD_SEGMENTS: &[(&str, &str)] = &[
    ("abc", "abc"),
    ("...", "..."),
    ("..a", "..a"),
    (".git", ".git"),
    ("a.b", "a.b"),
    ("a b", "a%20b"),
    ("a+b", "a%2Bb"),
    ("a&b=c", "a%26b%3Dc"),
    ("a:b", "a%3Ab"),
    ("a@b", "a%40b"),
    ("a;b", "a%3Bb"),
    ("a,b", "a%2Cb"),
    ("~a_b-c", "~a_b-c"),
    ("{x}", "%7Bx%7D"),
    ("a'b\"c", "a%27b%22c"),
    ("ä", "%C3%A4"),
    ("你好", "%E4%BD%A0%E5%A5%BD"),
    ("\u{202e}x", "%E2%80%AEx"),
    ("／", "%EF%BC%8F"),
    ("．．", "%EF%BC%8E%EF%BC%8E"),
    ("∕", "%E2%88%95"),
    ("🙂", "%F0%9F%99%82"),
    ("C:", "C%3A"),
];

fn one_segment() -> Connector {
    let mut github = (*connector("github")).clone();
    let action = github
        .actions
        .iter_mut()
        .find(|action| action.name == "issues.get")
        .unwrap();
    // Without a format, so that the path rules stand alone.
    action.args.get_mut("owner").unwrap().format = None;
    action.args.get_mut("owner").unwrap().max = None;
    github
}

#[test]
fn bad_path_parameters_are_refused_before_there_is_a_request() {
    let github = one_segment();
    assert!(BAD_SEGMENTS.len() >= 40);
    for text in BAD_SEGMENTS {
        let outcome = request(
            &github,
            "issues.get",
            &json!({"owner": text, "repo": "r", "number": 1}),
        );
        assert!(outcome.is_err(), "{text:?}: {outcome:?}");
        // With the format `id` too.
        let outcome = request(
            &connector("github"),
            "issues.get",
            &json!({"owner": text, "repo": "r", "number": 1}),
        );
        assert!(outcome.is_err(), "{text:?}: {outcome:?}");
    }
}

#[test]
fn odd_but_harmless_path_parameters_stay_in_their_segment() {
    let github = one_segment();
    for (text, encoded) in GOOD_SEGMENTS {
        let sent = request(
            &github,
            "issues.get",
            &json!({"owner": text, "repo": "r", "number": 1}),
        )
        .unwrap();
        assert_eq!(
            sent.url.as_str(),
            format!("https://api.github.com/repos/{encoded}/r/issues/1")
        );
    }
}

#[test]
fn a_multi_segment_parameter_is_checked_segment_by_segment() {
    let github = connector("github");
    let get = |path: &str| {
        request(
            &github,
            "contents.get",
            &json!({"owner": "o", "repo": "r", "path": path}),
        )
    };
    let sent = get("src/my file.rs").unwrap();
    assert_eq!(
        sent.url.as_str(),
        "https://api.github.com/repos/o/r/contents/src/my%20file.rs"
    );
    for path in [
        "",
        "/",
        "/etc",
        "a/",
        "a//b",
        "../x",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        "a/%2e%2e/b",
        "a\\..\\b",
        "a?ref=x",
        "a#b",
        "a/\0",
        "a/b\n",
        "..",
        ".",
        "a/..%2f..",
    ] {
        assert!(get(path).is_err(), "{path:?}");
    }
}

#[test]
fn query_values_cannot_leave_their_value() {
    let acme = connector("acme-mail");
    for (q, encoded) in [
        ("a&limit=1000", "a%26limit%3D1000"),
        ("a#b", "a%23b"),
        ("a b+c", "a+b%2Bc"),
        ("a=b;c", "a%3Db%3Bc"),
        ("%26x=1", "%2526x%3D1"),
        ("\r\nHost: evil", "%0D%0AHost%3A+evil"),
        ("é", "%C3%A9"),
    ] {
        let sent = request(&acme, "messages.list", &json!({"q": q})).unwrap();
        assert_eq!(
            sent.url.as_str(),
            format!("{ORIGIN}/api/messages?limit=20&q={encoded}")
        );
        assert_eq!(sent.url.query_pairs().count(), 2);
    }
    let sent = request(&acme, "messages.list", &json!({})).unwrap();
    assert_eq!(sent.url.as_str(), format!("{ORIGIN}/api/messages?limit=20"));
}

#[test]
fn lists_in_a_query_repeat_their_name() {
    let sent = request(
        &connector("gmail"),
        "messages.list",
        &json!({"labels": ["INBOX", "UNREAD"]}),
    )
    .unwrap();
    assert_eq!(
        sent.url.query(),
        Some("labelIds=INBOX&labelIds=UNREAD&maxResults=20")
    );
}

#[test]
fn a_json_body_holds_the_arguments_and_nothing_else() {
    let sent = request(
        &connector("acme-mail"),
        "messages.send",
        &json!({"to": ["Ada@ACME.example"], "subject": "Hi", "body": "a\nb\u{202e}"}),
    )
    .unwrap();
    assert_eq!(sent.method, "POST");
    assert_eq!(sent.headers.get("content-type").unwrap(), "application/json");
    let body: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
    assert_eq!(
        body,
        json!({"to": ["Ada@acme.example"], "subject": "Hi", "body": "a\nb\u{202e}"})
    );
}

#[test]
fn absent_optional_members_are_left_out() {
    let sent = request(
        &connector("gmail"),
        "messages.modify",
        &json!({"id": "m1", "add": ["STARRED"]}),
    )
    .unwrap();
    assert_eq!(sent.body.unwrap().as_ref(), br#"{"addLabelIds":["STARRED"]}"#);
    assert!(sent.url.path().ends_with("/messages/m1/modify"));
}

#[test]
fn a_delete_has_no_body() {
    let sent = request(&connector("acme-mail"), "messages.delete", &json!({"id": "m1"})).unwrap();
    assert_eq!((sent.method.as_str(), sent.body), ("DELETE", None));
    assert_eq!(sent.url.as_str(), format!("{ORIGIN}/api/messages/m1"));
}

/// Recipients and subjects that try to become something else.
#[test]
fn hostile_mail_is_refused_or_stays_where_it_belongs() {
    let gmail = connector("gmail");
    let send = |to: Value, subject: &str, body: &str| {
        request(
            &gmail,
            "messages.send",
            &json!({"to": to, "subject": subject, "body": body}),
        )
    };
    for to in [
        json!([]),
        json!("ada@acme.example"),
        json!(["ada@acme.example, eve@evil.example"]),
        json!(["ada@acme.example\r\nBcc: eve@evil.example"]),
        json!(["ada@acme.example\nX: y"]),
        json!(["\"Eve\" <eve@evil.example>"]),
        json!(["eve@evil.example (ada@acme.example)"]),
        json!(["\"eve@evil.example\"@acme.example"]),
        json!(["ada@acme.example;eve@evil.example"]),
        json!(["@evil.example:ada@acme.example"]),
        json!(["ada@acme.example\0"]),
        json!(["ada@acme.example", ""]),
        json!(["ada@acme.example", null]),
        json!(["ada@[10.0.0.1]"]),
        json!(["group:ada@acme.example;"]),
    ] {
        assert!(send(to.clone(), "s", "b").is_err(), "{to}");
    }
    for subject in [
        "s\r\nBcc: eve@evil.example",
        "s\n\nbody",
        "s\rx",
        "s\0",
        "s\u{2028}x",
        "s\u{85}x",
    ] {
        assert!(
            send(json!(["ada@acme.example"]), subject, "b").is_err(),
            "{subject:?}"
        );
    }
    let sent = send(
        json!(["ada@acme.example", "b@bücher.example"]),
        "Grüße",
        "\r\nBcc: eve@evil.example\r\n.",
    )
    .unwrap();
    let body: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
    let raw = BASE64_URL_SAFE_NO_PAD
        .decode(body["raw"].as_str().unwrap())
        .unwrap();
    let mail = String::from_utf8(raw).unwrap();
    assert!(mail.starts_with(
        "To: ada@acme.example,\r\n b@xn--bcher-kva.example\r\nSubject: =?UTF-8?B?R3LDvMOfZQ==?=\r\n"
    ));
    assert!(!mail.contains("evil"));
    assert_eq!(body.as_object().unwrap().len(), 1);
}

#[test]
fn a_draft_wraps_the_message_and_keeps_the_thread() {
    let args = json!({"to": ["a@b.example"], "subject": "s", "body": "b", "thread": "t1"});
    let sent = request(&connector("gmail"), "drafts.create", &args).unwrap();
    let body: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
    assert_eq!(body["message"]["threadId"], "t1");
    assert!(body["message"]["raw"].is_string());
}

#[test]
fn a_definition_whose_host_is_not_listed_sends_nothing() {
    let mut github = (*connector("github")).clone();
    github.api.hosts = vec!["github.example".to_owned()];
    let error = request(
        &github,
        "issues.get",
        &json!({"owner": "o", "repo": "r", "number": 1}),
    )
    .unwrap_err();
    assert_eq!(error, RenderRefusal::Host.to_string());
}

#[test]
fn the_summary_shows_what_the_eye_would_miss() {
    let acme = connector("acme-mail");
    let tool = Tool::find(&acme, "messages.send").unwrap();
    let args = json!({"to": ["a@b.example", "c@d.example"], "subject": "x\u{202e}y\u{200b}", "body": "b"});
    let args = validate(&acme, tool, &args).unwrap();
    assert_eq!(
        summary(tool, &args),
        "Send mail to a@b.example, c@d.example: x⟨U+202E⟩y⟨U+200B⟩"
    );
    let list = Tool::find(&acme, "messages.list").unwrap();
    let args = validate(&acme, list, &json!({})).unwrap();
    assert_eq!(summary(list, &args), "List up to 20 messages matching: –");
    let args = validate(&acme, list, &json!({"q": "x".repeat(300)})).unwrap();
    assert!(summary(list, &args).ends_with("… (300 characters)"));
}

fn hostile_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[./\\\\%?#@:;&=a-f0-9 \r\n\t]{0,24}",
        "(\\.\\.|%2e|%2f|/|\\\\|//|@|evil\\.example){1,6}",
    ]
}

proptest! {
    #[test]
    fn a_rendered_url_keeps_its_origin_and_its_segments(
        owner in hostile_text(), path in hostile_text(), reference in hostile_text()
    ) {
        let mut github = one_segment();
        let action = github.actions.iter_mut().find(|action| action.name == "contents.get").unwrap();
        for name in ["owner", "path", "ref"] {
            let spec = action.args.get_mut(name).unwrap();
            spec.format = None;
            spec.max = None;
        }
        let args = json!({"owner": owner, "repo": "r", "path": path, "ref": reference});
        if let Ok(sent) = request(&github, "contents.get", &args) {
            let again = Url::parse(sent.url.as_str()).unwrap();
            prop_assert_eq!(again.as_str(), sent.url.as_str());
            prop_assert_eq!(again.origin().ascii_serialization(), "https://api.github.com");
            let segments: Vec<&str> = again.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 4 + path.split('/').count());
            prop_assert_eq!((segments[0], segments[2], segments[3]), ("repos", "r", "contents"));
            prop_assert!(again.fragment().is_none() && again.username().is_empty());
            let pairs: Vec<(String, String)> = again.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs, vec![("ref".to_owned(), reference)]);
        }
    }

    #[test]
    fn a_rendered_mail_has_only_the_headers_of_its_encoder(subject in any::<String>(), body in any::<String>()) {
        let args = json!({"to": ["a@b.example"], "subject": subject, "body": body});
        if let Ok(sent) = request(&connector("gmail"), "messages.send", &args) {
            let value: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
            let raw = BASE64_URL_SAFE_NO_PAD.decode(value["raw"].as_str().unwrap()).unwrap();
            let mail = String::from_utf8(raw).unwrap();
            prop_assert!(mail.is_ascii());
            let head = mail.split("\r\n\r\n").next().unwrap();
            let names: Vec<&str> = head
                .split("\r\n")
                .filter(|line| !line.starts_with(' '))
                .map(|line| line.split(':').next().unwrap())
                .collect();
            prop_assert_eq!(
                names,
                ["To", "Subject", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
            );
        }
    }
}
