//! The members of the body, how it is sent, and by whom.

use postern::domain::connector::Category;
use serde_json::{Value, json};

use super::{Foreign, Honest, Mutation, as_kind, changed, changes, foreign};
use crate::harness::Proof;

/// What a changed request may be told; never that somebody had used the decision, and never that something broke.
const REFUSALS: [&str; 8] = [
    "connection_required",
    "decision_rejected",
    "denied",
    "invalid_args",
    "invalid_request",
    "mode_unavailable",
    "not_found",
    "unauthenticated",
];

#[tokio::test]
async fn no_changed_member_of_a_request_releases_anything() {
    let honest = Honest::new().await;
    let world = &honest.world;
    let bens = world.connect(world.ben, &[Category::Read]).await;
    let foreign = foreign(world).await;
    let body = honest.with(&honest.sign(&Honest::header(), &honest.claims));
    let required = ["/grant", "/tool", "/args", "/args/q", "/args/limit", "/decision"];
    let grant = vec![
        json!(bens),
        json!(foreign.grant),
        json!("grt_01h2xcejqtf2nbrexx3vqjhp41"),
        as_kind(honest.grant, "usr"),
        as_kind(honest.grant, "agt"),
        as_kind(honest.grant, "dlg"),
        json!(world.ada),
        json!(world.agent.agent),
        json!(world.org),
    ];
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let particular = [
        ("/grant", grant),
        (
            "/tool",
            [
                "messages.get",
                "messages.send",
                "messages.delete",
                "drafts.create",
                "http.request",
                "*",
                "acme-mail:messages.list",
                "messages",
            ]
            .map(Value::from)
            .to_vec(),
        ),
        (
            "/args",
            vec![json!({}), json!(body["args"].to_string()), deep.clone()],
        ),
        (
            "/args/limit",
            vec![json!(0), json!(2), json!(4), json!(20), json!(100), json!(101)],
        ),
        (
            "/args/q",
            vec![json!("lunch"), json!("Lunch OR *"), json!("L\u{0075}nch\u{200b}")],
        ),
        ("/args/to", vec![json!(["eve@else.example"])]),
        ("/args/id", vec![json!("msg-ada-1")]),
        (
            "/mode",
            ["token", "handle", "raw", "Execute", "execute,token", "none"]
                .map(Value::from)
                .to_vec(),
        ),
        (
            "/mode",
            vec![json!(["execute"]), json!(1), json!(true), json!({}), json!("")],
        ),
        (
            "/ttl_s",
            vec![
                json!(0),
                json!(-60),
                json!(60.5),
                json!("60"),
                json!([60]),
                json!({}),
                json!(true),
            ],
        ),
        ("/ttl_s", vec![json!(1_u64 << 53)]),
        (
            "/context",
            vec![
                json!([]),
                json!("T-1"),
                json!(1),
                json!(true),
                json!({"x": 1.5}),
                json!({"x": deep}),
            ],
        ),
        ("/context", vec![json!({"x": "y".repeat(4096)})]),
        (
            "/context",
            vec![
                json!({"ticket": "T-2"}),
                json!({}),
                json!({"ticket": "T-1", "more": null}),
            ],
        ),
        (
            "/run",
            vec![
                json!(""),
                json!(1),
                json!(["run-1"]),
                json!({}),
                json!("r".repeat(129)),
                json!("a\nb"),
            ],
        ),
        // Members that are not for this request, or for none.
        ("/connector", vec![json!("acme-mail"), json!("slack")]),
        (
            "/user",
            vec![json!(world.ada), json!(world.ben), json!(foreign.user)],
        ),
        ("/account", vec![json!("ada@acme.example")]),
        ("/Grant", vec![json!(honest.grant)]),
        ("/org", vec![json!(world.org), json!(foreign.org)]),
        ("/agent", vec![json!(world.agent.agent), json!(foreign.agent)]),
        ("/headers", vec![json!({"x-more": "1"})]),
        ("/url", vec![json!("https://evil.example/")]),
        ("/scopes", vec![json!(["mail.read", "mail.send"])]),
    ];
    let mut mutations: Vec<Mutation> = changes(&body, &required, &particular)
        .into_iter()
        .map(|(what, body)| honest.mutation(what, &body))
        .collect();
    // The person and the connector in place of the grant: somebody else's.
    for user in [
        world.ben.to_string(),
        foreign.user.clone(),
        honest.grant.to_string(),
    ] {
        let by_user = changed(&body, "/grant", None);
        let by_user = changed(&by_user, "/connector", Some(json!("acme-mail")));
        let by_user = changed(&by_user, "/user", Some(json!(user)));
        mutations.push(honest.mutation(format!("the grant of {user}"), &by_user));
    }
    // The same member twice: once as decided, once not.
    let text = body.to_string();
    for (member, first) in [
        ("grant", json!(bens)),
        ("tool", json!("messages.send")),
        ("args", json!({})),
        ("mode", json!("token")),
        ("ttl_s", json!(1)),
        ("context", json!({})),
        ("decision", json!("a.b.c")),
    ] {
        for twice in [
            format!("{{\"{member}\":{first},{}", &text[1..]),
            format!("{},\"{member}\":{first}}}", &text[..text.len() - 1]),
        ] {
            mutations.push(Mutation {
                body: twice.into_bytes(),
                ..honest.mutation(format!("{member} twice"), &body)
            });
        }
    }
    for broken in [
        format!("{text}x"),
        format!("{text}{text}"),
        format!("\u{feff}{text}"),
        text[..text.len() - 1].to_owned(),
        format!("[{text}]"),
        String::new(),
    ] {
        mutations.push(Mutation {
            body: broken.into_bytes(),
            ..honest.mutation("not one object".to_owned(), &body)
        });
    }
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
        Some("application/json; charset=latin1"),
    ] {
        mutations.push(Mutation {
            content_type,
            ..honest.mutation(format!("sent as {content_type:?}"), &body)
        });
    }
    mutations.extend(other_callers(&honest, &foreign, &body).await);
    assert!(mutations.len() >= 190, "{}", mutations.len());
    honest
        .release_nothing_but_what_is_unchanged(&mutations, &REFUSALS)
        .await;
}

/// The honest body from everybody who did not get the decision, and from nobody.
async fn other_callers(honest: &Honest, foreign: &Foreign, body: &Value) -> Vec<Mutation> {
    let world = &honest.world;
    let second = world.apply(&json!({"agent": [{"name": "Second"}]})).await;
    let second = second["keys"][0]["key"].as_str().unwrap().to_owned();
    let key = world.agent_key.clone();
    let mut callers = vec![
        ("another agent", Proof::Key(second)),
        (
            "another organisation's agent",
            Proof::Key(foreign.agent_key.clone()),
        ),
        ("nobody", Proof::Nothing),
        ("a longer key", Proof::Key(format!("{key}x"))),
        ("a shorter key", Proof::Key(key[..key.len() - 1].to_owned())),
        ("a key in other case", Proof::Key(key.to_uppercase())),
        ("no scheme", Proof::Authorization(key.clone())),
        ("another scheme", Proof::Authorization(format!("Basic {key}"))),
        (
            "a key twice",
            Proof::Authorization(format!("Bearer {key}, Bearer {key}")),
        ),
        ("the key as a session", Proof::Session(key)),
    ];
    for member in world.members().await {
        if member.name != "agent" {
            callers.push((member.name, member.proof));
        }
    }
    let mutation = |(what, proof): (&str, Proof)| Mutation {
        proof,
        ..honest.mutation(format!("sent by {what}"), body)
    };
    callers.into_iter().map(mutation).collect()
}
