//! Known answers in `tests/vectors`: what is there is what others build on. `POSTERN_WRITE_VECTORS=1` writes them
//! anew, which is a change of the format.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{encoding::entry_hash, encoding::leaf_hash, merkle::Frontier, sample};
use crate::crypto::digest::hex;

fn read_or_write(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    if std::env::var_os("POSTERN_WRITE_VECTORS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn same_as_file(name: &str, bytes: &[u8]) {
    assert!(
        read_or_write(name, bytes) == bytes,
        "{name} differs from what is made now"
    );
}

fn vectors() -> Value {
    let (entries, head) = sample::log(8);
    let mut frontier = Frontier::default();
    let mut roots = vec![json!({"size": 0, "root": hex(&frontier.root())})];
    for bytes in &entries {
        frontier.append(leaf_hash(bytes), |_, _| ());
        roots.push(json!({"size": frontier.size(), "root": hex(&frontier.root())}));
    }
    let described: Vec<_> = entries
        .iter()
        .map(|bytes| {
            json!({
                "bytes": String::from_utf8(bytes.clone()).unwrap(),
                "hash": hex(&entry_hash(bytes)),
                "leaf": hex(&leaf_hash(bytes)),
            })
        })
        .collect();
    let (signer, key) = sample::signer(1);
    json!({
        "about": "docs/audit-log.md; the key's seed is 32 bytes of 0x01",
        "public_key": STANDARD.encode(signer.public()),
        "vkey": key.to_string(),
        "entries": described,
        "roots": roots,
        "checkpoint_text": head.checkpoint(key.name()).to_string(),
        "checkpoint_note": sample::note(&head, 1),
    })
}

#[test]
fn the_known_answers_hold() {
    let mut text = serde_json::to_string_pretty(&vectors()).unwrap();
    text.push('\n');
    let known: Value = serde_json::from_slice(&read_or_write("audit.json", text.as_bytes())).unwrap();
    assert_eq!(known, vectors());
}

#[test]
fn the_known_export_and_its_key_hold() {
    same_as_file("audit_export.jsonl", &sample::export(60));
    same_as_file(
        "audit_export.vkey",
        format!("{}\n", sample::signer(1).1).as_bytes(),
    );
    same_as_file(
        "audit_export.kept",
        sample::note(&sample::log(30).1, 1).as_bytes(),
    );
}
