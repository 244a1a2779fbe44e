//! Postern's own decision, tampered with: nobody else has its key.

use postern::crypto::digest::{base64url, base64url_decode};
use serde_json::{Value, json};

use super::{JSON, Mutation, changed, changes, release_nothing};
use crate::harness::World;

#[tokio::test]
async fn no_tampering_with_a_decision_of_posterns_own_releases_anything() {
    let (world, grant) = World::connected().await;
    let request = json!({"grant": grant, "tool": "messages.list", "args": {"limit": 3}, "mode": "execute"});
    let with = |jws: &str| changed(&request, "/decision", Some(json!(jws)));
    let (api, agent) = (world.api(), world.as_agent());
    let decided = async || {
        let decided = api.post(&agent, "/v1/decisions", &request).await.json();
        decided["decision"].as_str().unwrap().to_owned()
    };
    let (first, other) = (decided().await, decided().await);
    let [header, payload, signature] = first.split('.').collect::<Vec<_>>()[..] else {
        panic!("{first}")
    };
    let read = |part: &str| -> Value { serde_json::from_slice(&base64url_decode(part).unwrap()).unwrap() };
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let (claims, members) = (read(payload), read(header));
    let mut tampered = Vec::new();
    for name in claims.as_object().unwrap().keys() {
        let pointer = format!("/{name}");
        for (what, claims) in changes(&claims, &[&pointer], &[]) {
            tampered.push((what, format!("{header}.{}.{signature}", part(&claims))));
        }
    }
    for (what, members) in changes(&members, &["/alg", "/kid", "/typ"], &[]) {
        tampered.push((
            format!("header {what}"),
            format!("{}.{payload}.{signature}", part(&members)),
        ));
    }
    let [other_header, other_payload, other_signature] = other.split('.').collect::<Vec<_>>()[..] else {
        panic!("{other}")
    };
    assert_eq!(other_header, header);
    let mut bytes = base64url_decode(signature).unwrap();
    for at in [0, 31, 32, 63] {
        bytes[at] ^= 1;
        tampered.push((
            format!("bit of byte {at}"),
            format!("{header}.{payload}.{}", base64url(&bytes)),
        ));
        bytes[at] ^= 1;
    }
    let slack = &signature[..signature.len() - 1];
    tampered.extend(
        [
            (
                "another signature",
                format!("{header}.{payload}.{other_signature}"),
            ),
            ("another payload", format!("{header}.{other_payload}.{signature}")),
            ("no signature", format!("{header}.{payload}.")),
            ("two parts", format!("{header}.{payload}")),
            ("four parts", format!("{first}.{signature}")),
            ("padding", format!("{first}=")),
            ("a space", format!("{first} ")),
            ("shorter", format!("{header}.{payload}.{slack}")),
            ("longer", format!("{first}A")),
            ("swapped", format!("{payload}.{header}.{signature}")),
            (
                "as json",
                json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            ),
            ("zeroes", format!("{header}.{payload}.{}", "A".repeat(86))),
        ]
        .map(|(what, jws)| (what.to_owned(), jws)),
    );
    // The last character of 64 bytes holds four bits that mean nothing.
    for last in ["A", "Q", "g", "w", "B", "R", "h", "x"] {
        if !signature.ends_with(last) {
            tampered.push((
                format!("ends in {last}"),
                format!("{header}.{payload}.{slack}{last}"),
            ));
        }
    }
    let mutations: Vec<Mutation> = tampered
        .into_iter()
        .map(|(what, jws)| Mutation {
            what,
            proof: agent.clone(),
            content_type: JSON,
            body: with(&jws).to_string().into_bytes(),
        })
        .collect();
    assert!(mutations.len() >= 270, "{}", mutations.len());
    assert_eq!(api.post(&agent, "/v1/vend", &with(&other)).await.status, 200);
    release_nothing(&world, &mutations, &["decision_rejected"]).await;
    assert_eq!(api.post(&agent, "/v1/vend", &with(&first)).await.status, 200);
}
