//! A promise names its test (SECURITY.md §5), and a control what holds it (§3): both have to be there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks in the last column of SECURITY.md's tables of controls and promises.
fn named() -> Vec<String> {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut named = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let held_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        named.extend(held_by.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    named
}

/// Every Rust source of the workspace, as one text.
fn sources() -> String {
    let mut folders: Vec<PathBuf> = ["src", "tests", "kms-adapters"]
        .map(|folder| root().join(folder))
        .into();
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                if path.file_name().unwrap() != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_file_that_holds_a_promise_is_there() {
    let named = named();
    let paths: Vec<&String> = named
        .iter()
        .filter(|name| {
            ["src/", "tests/", "kms-adapters/"]
                .iter()
                .any(|room| name.starts_with(room))
        })
        .collect();
    assert!(paths.len() > 50, "only {} were found", paths.len());
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_test_that_holds_a_promise_is_there() {
    let (named, sources) = (named(), sources());
    // A sentence, not a code or a setting.
    let is_test = |name: &&String| {
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && name.matches('_').count() > 2
    };
    let tests: Vec<&String> = named.iter().filter(is_test).collect();
    assert!(tests.len() > 20, "only {} were found", tests.len());
    let missing: Vec<_> = tests
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
