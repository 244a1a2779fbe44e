//! The doors of ARCHITECTURE §2, files of at most 500 lines, and where a secret may be looked at.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Floors from the ground up; a room may use any floor below its own, never a sibling.
const FLOORS: [&[&str]; 10] = [
    &["domain", "failpoints"],
    &["crypto"],
    &["store", "egress"],
    &["policy", "connectors", "audit"],
    &["release"],
    &["flows", "web"],
    &["http", "workers", "dev"],
    &["config", "telemetry"],
    &["app"],
    &["cli"],
];

/// Crates that only one room may name.
const OWNED: [(&str, &[&str]); 4] = [
    ("sqlx::", &["store"]),
    ("axum::", &["http", "dev"]),
    ("aes_gcm", &["crypto"]),
    ("cedar_policy", &["policy"]),
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let inner = path.strip_prefix(&root).unwrap();
                let room = inner
                    .iter()
                    .next()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .trim_end_matches(".rs")
                    .to_owned();
                let text = fs::read_to_string(&path).unwrap();
                files.push((room, path, text));
            }
        }
    }
    assert!(files.len() > 100, "the sources were not found");
    files
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs")
}

/// The text before a file's own tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// Rooms named as `crate::room`, also inside `use crate::{…}`.
fn rooms_used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (index, _) in text.match_indices("crate::") {
        let rest = &text[index + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' | ' ' | '\n' | ':' if depth == 0 => used.push(std::mem::take(&mut word)),
                    letter if depth == 0 => word.push(letter),
                    _ => {}
                }
            }
            if !word.is_empty() {
                used.push(word);
            }
        } else {
            used.push(
                rest.chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect(),
            );
        }
    }
    used
}

#[test]
fn every_room_uses_only_floors_below_its_own() {
    let mut wrong = Vec::new();
    for (room, path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        let Some(own) = floor(&room) else {
            assert!(matches!(room.as_str(), "lib" | "main"), "{room} has no floor");
            continue;
        };
        for used in rooms_used(production(&text)) {
            if used != room && floor(&used).is_some_and(|other| other >= own) {
                wrong.push(format!("{}: {room} uses {used}", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "wrong doors:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, path, _)| !is_test(path))
        .map(|(_, path, text)| (path, production(&text).lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .map(|(path, lines)| format!("{}: {lines}", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_crate_with_a_room_of_its_own_is_named_nowhere_else() {
    let mut wrong = Vec::new();
    for (room, path, text) in sources() {
        for (name, rooms) in OWNED {
            if !rooms.contains(&room.as_str()) && !is_test(&path) && production(&text).contains(name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_looked_at_only_where_they_are_used() {
    const ROOMS: [&str; 5] = ["crypto", "connectors", "egress", "release", "domain"];
    let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
    for (room, path, text) in sources() {
        if ROOMS.contains(&room.as_str()) || is_test(&path) {
            continue;
        }
        let count = production(&text).matches("expose_secret()").count();
        if count > 0 {
            *elsewhere.entry(path.display().to_string()).or_default() += count;
        }
    }
    // The one handler that answers a vend, and the passphrase on its way into the key service.
    elsewhere.retain(|path, _| !path.ends_with("http/routes/vend.rs") && !path.ends_with("app/serve.rs"));
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
