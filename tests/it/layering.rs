//! The doors of ARCHITECTURE §2, files of at most 500 lines, and where a secret may be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Crates that only these rooms may name. `dev` is a program of its own, with a server and pages of its own.
const OWNED: [(&str, &[&str]); 23] = [
    ("aes_gcm", &["crypto"]),
    ("askama", &["web", "dev"]),
    ("axum", &["http", "dev"]),
    ("cedar_policy", &["policy"]),
    // Dates of RFC 3339, in policies, in words.
    ("chrono", &["domain", "policy", "web"]),
    ("clap", &["cli"]),
    ("http_body_util", &["http"]),
    // A body that looks at the clock as its first byte leaves, and one that breaks off.
    ("hyper", &["http", "egress", "dev"]),
    ("hyper_util", &["http"]),
    ("mimalloc", &["app"]),
    ("oauth2", &["connectors"]),
    // `crypto` names the port, `app` its implementations.
    ("postern_kms", &["crypto", "app"]),
    ("reqwest", &["egress"]),
    ("ring", &["crypto"]),
    // Locked memory; the clock that counts suspension; signals to oneself.
    ("rustix", &["crypto", "app", "failpoints"]),
    ("rustls", &["egress"]),
    ("serde_json_canonicalizer", &["crypto"]),
    // One option of a socket that tokio does not set.
    ("socket2", &["http"]),
    ("sqlx", &["store"]),
    ("subtle", &["crypto"]),
    ("tower", &["http"]),
    // `config` holds filters to their grammar before anything starts.
    ("tracing_subscriber", &["telemetry", "config"]),
    ("utoipa", &["http"]),
];

/// Crates every room may name: types and syntax, no power of their own.
const COMMON: [&str; 12] = [
    "base64",
    "bytes",
    "http",
    "secrecy",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "toml",
    "tracing",
    "url",
    "zeroize",
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
                // SECURITY: from `src/` on; a checkout in a folder called `tests` would be all tests to `is_test`.
                files.push((room, inner.to_owned(), text));
            }
        }
    }
    let production = files.iter().filter(|(_, path, _)| !is_test(path)).count();
    assert!(production > 100, "the sources were not found");
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

/// Whether code, not a comment, names the crate: as `name::…`, with nothing before it that would make it another name.
fn names(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| {
            line.match_indices(&path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|letter| !letter.is_alphanumeric() && !matches!(letter, '_' | ':' | '`'))
            })
        })
}

#[test]
fn a_crate_is_named_in_its_own_rooms_and_nowhere_else() {
    let named: BTreeSet<(String, &str)> = sources()
        .into_iter()
        .filter(|(_, path, _)| !is_test(path))
        .flat_map(|(room, _, text)| {
            let text = production(&text);
            OWNED
                .into_iter()
                .filter(|(name, _)| names(text, name))
                .map(|(name, _)| (room.clone(), name))
                .collect::<Vec<_>>()
        })
        .collect();
    // Both ways: a door nobody uses is not left open either.
    let allowed: BTreeSet<(String, &str)> = OWNED
        .into_iter()
        .flat_map(|(name, rooms)| rooms.iter().map(move |room| ((*room).to_owned(), name)))
        .collect();
    let wrong: Vec<_> = named.symmetric_difference(&allowed).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_dependency_has_its_rooms_or_is_common() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    let said: BTreeSet<String> = OWNED
        .iter()
        .map(|(name, _)| *name)
        .chain(COMMON)
        .map(str::to_owned)
        .collect();
    let there: BTreeSet<String> = manifest["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .map(|name| name.replace('-', "_"))
        .collect();
    let wrong: Vec<_> = said.symmetric_difference(&there).collect();
    assert!(wrong.is_empty(), "{wrong:?}: say which rooms name it");
}

#[test]
fn key_services_themselves_are_named_by_app_alone() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(room, path, _)| room != "app" && !is_test(path))
        .filter(|(_, _, text)| production(text).contains("LocalKeys"))
        .map(|(_, path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_route_comes_from_a_table() {
    // The tables' macros, the page of a problem, and the probes of the other listener; `bench` is in no release.
    const ROUTERS: [&str; 5] = [
        "routes/mod.rs",
        "pages/mod.rs",
        "routes/problems.rs",
        "routes/health.rs",
        "routes/bench.rs",
    ];
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(room, path, _)| room == "http" && !is_test(path))
        .filter(|(_, path, _)| !ROUTERS.iter().any(|known| path.ends_with(known)))
        .filter(|(_, _, text)| production(text).contains(".route("))
        .map(|(_, path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "routes beside the tables: {wrong:?}");
    let once = |text: &str| text.matches(".route(").count() == 1;
    assert!(
        once(include_str!("../../src/http/routes/mod.rs")),
        "a route beside `routes!`"
    );
    assert!(
        once(include_str!("../../src/http/pages/mod.rs")),
        "a page beside `pages!`"
    );
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
