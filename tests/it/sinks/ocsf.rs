//! Copies of the log as OCSF events.

use std::collections::BTreeSet;

use postern::flows::choices::{self, Choice};

use super::*;
use crate::harness::{Proof, log_in};

/// Of OCSF 1.3.0, what a class requires (of `service` and `dst_endpoint` one) and what it knows besides what every event has.
const AUTHENTICATION: (&[&str], &[&str]) = (
    &["user", "service"],
    &["actor", "service", "src_endpoint", "user"],
);
const API_ACTIVITY: (&[&str], &[&str]) = (
    &["actor", "api", "src_endpoint"],
    &["actor", "api", "src_endpoint"],
);
const OF_EVERY_EVENT: [&str; 19] = [
    "activity_id",
    "activity_name",
    "category_uid",
    "category_name",
    "class_uid",
    "class_name",
    "message",
    "metadata",
    "raw_data",
    "severity",
    "severity_id",
    "status",
    "status_code",
    "status_detail",
    "status_id",
    "time",
    "type_uid",
    "type_name",
    "unmapped",
];

#[tokio::test]
async fn ocsf_events_have_what_the_schema_requires() {
    let path = |world: &World| world.dir.path().join("ocsf.jsonl");
    let (world, log, opened) =
        run(|world| Arc::new(FileSink::new("ocsf".to_owned(), path(world), Form::Ocsf))).await;
    let text = std::fs::read_to_string(path(&world)).unwrap();
    assert_eq!(text.lines().count(), log.len());
    no_secret_is_in(&text, &world, &opened);
    for (line, entry) in text.lines().zip(&log) {
        let event: Value = serde_json::from_str(line).unwrap();
        let (class, activity) = (
            event["class_uid"].as_u64().unwrap(),
            event["activity_id"].as_u64().unwrap(),
        );
        assert!([3002, 6003].contains(&class));
        assert_eq!(event["category_uid"].as_u64().unwrap(), class / 1000);
        assert_eq!(event["type_uid"].as_u64().unwrap(), class * 100 + activity);
        let (required, known) = if class == 3002 {
            AUTHENTICATION
        } else {
            API_ACTIVITY
        };
        for required in required
            .iter()
            .chain(&["time", "severity_id", "metadata", "type_uid"])
        {
            assert!(!event[required].is_null(), "{required}");
        }
        for name in event.as_object().unwrap().keys() {
            let name = name.as_str();
            assert!(
                known.contains(&name) || OF_EVERY_EVENT.contains(&name),
                "{name} in {class}"
            );
        }
        let mut values = event.clone();
        values["raw_data"] = json!("");
        assert!(!values.to_string().contains("null"), "{values}");
        assert_eq!(event["metadata"]["version"], "1.3.0");
        assert_eq!(event["raw_data"], entry.as_str());
    }
}

#[tokio::test]
async fn signing_in_and_out_a_refusal_and_what_a_person_takes_back_are_told_apart_in_ocsf() {
    let (world, grant) = World::connected().await;
    let Proof::Session(cookie) = log_in(&world.deps, world.org, world.ada).await else {
        panic!("not a session");
    };
    login::leave(&world.deps, &parse_link_token(&cookie).unwrap())
        .await
        .unwrap();
    let unknown = world
        .vend(ask(grant, "messages.delete", json!({"id": "x"})))
        .await;
    assert!(unknown.is_err());
    let nothing = Choice {
        agent: world.agent.agent,
        categories: BTreeSet::new(),
        raw: false,
    };
    let saved = choices::save(&world.deps, world.org, world.ada, grant, &[nothing]).await;
    assert_eq!(saved.unwrap(), 1);
    log(&world).await;
    let path = world.dir.path().join("ocsf.jsonl");
    let sink = FileSink::new("ocsf".to_owned(), path.clone(), Form::Ocsf);
    sinks::drain(&world.deps, &sink).await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (outcome, activity, status) in [
        ("login_link", "Authentication: Other", "Success"),
        ("login", "Authentication: Logon", "Success"),
        ("logout", "Authentication: Logoff", "Success"),
        ("deny", "API Activity: Read", "Failure"),
        ("ended", "API Activity: Delete", "Success"),
    ] {
        let told = events
            .iter()
            .find(|event| event["status_code"] == outcome)
            .unwrap_or_else(|| panic!("no {outcome}"));
        assert_eq!(
            (&told["type_name"], &told["status"]),
            (&json!(activity), &json!(status))
        );
    }
}
