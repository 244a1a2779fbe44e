//! The proofs of `release` cannot be made, copied or left out: the programs in `compile_fail` must not compile, for just
//! the reason that stands behind `//~` in the line that is wrong.
//!
//! They are compiled against the library that Cargo built for this very test: a separate project would build every
//! dependency once more.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that goes wrong stops; its name is its documentation"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

#[test]
fn the_proof_types_cannot_be_forged_copied_or_skipped() {
    let libraries = Libraries::built();
    let whole = "use postern::{domain::OrgId, release::AuditReceipt};\nfn keep(it: AuditReceipt) -> AuditReceipt { it }\nfn told(it: OrgId) -> String { serde_json::to_string(&it).unwrap() }\nfn main() {}\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.rs");
    fs::write(&path, whole).unwrap();
    assert_eq!(
        libraries.refusals(&path),
        [] as [String; 0],
        "what is right compiles"
    );

    let mut cases: Vec<_> = fs::read_dir("tests/compile_fail")
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 10, "{cases:?}");
    let mut wrong = Vec::new();
    for case in cases {
        let (expected, seen) = (expected(&case), libraries.refusals(&case));
        if expected.is_empty() || expected != seen {
            wrong.push(format!(
                "{}\n  expected: {expected:#?}\n  seen: {seen:#?}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The libraries the programs may use, and where what those need lies.
struct Libraries {
    dependencies: PathBuf,
    externs: Vec<String>,
}

impl Libraries {
    /// Cargo knows which of the files in its directory are this test's; it has built them already.
    fn built() -> Self {
        // What Cargo tells a test of its package would make build scripts run again that ask for it.
        let told = env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for name in told {
            cargo.env_remove(name);
        }
        let cargo = cargo
            .args([
                "test",
                "--locked",
                "--no-run",
                "--test",
                "compile_fail",
                "--message-format=json",
            ])
            .output()
            .unwrap();
        assert!(
            cargo.status.success(),
            "{}",
            String::from_utf8_lossy(&cargo.stderr)
        );
        let artifacts: Vec<_> = messages(&cargo.stdout).collect();
        let file = |name: &str| {
            let of = |message: &&Value| {
                message["target"]["name"] == name && message["target"]["crate_types"][0] == "lib"
            };
            let files = artifacts.iter().find(of).unwrap()["filenames"]
                .as_array()
                .unwrap();
            let mut paths = files.iter().map(|file| file.as_str().unwrap());
            paths.find(|path| path.ends_with(".rlib")).unwrap().to_owned()
        };
        let names = ["postern", "serde_json"];
        Self {
            dependencies: Path::new(&file(names[0])).parent().unwrap().to_owned(),
            externs: names.map(|name| format!("{name}={}", file(name))).to_vec(),
        }
    }

    /// What the compiler has against a program, each as `line: code message: label`.
    fn refusals(&self, program: &Path) -> Vec<String> {
        let out = tempfile::tempdir().unwrap();
        let Output { stderr, .. } = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args([
                "--edition=2024",
                "--emit=metadata",
                "--error-format=json",
                "--out-dir",
            ])
            .arg(out.path())
            .arg("-L")
            .arg(format!("dependency={}", self.dependencies.display()))
            .args(self.externs.iter().flat_map(|library| ["--extern", library]))
            .arg(program)
            .output()
            .unwrap();
        let said: Vec<_> = messages(&stderr)
            .filter(|message| message["level"] == "error")
            .collect();
        let primary = |message: &Value| {
            let spans = message["spans"].as_array().cloned().unwrap_or_default();
            spans.into_iter().find(|span| span["is_primary"] == true)
        };
        said.iter()
            .map(|message| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (code, words) = (text(&message["code"]["code"]), text(&message["message"]));
                match primary(message) {
                    Some(at) => format!("{}: {code} {words}: {}", at["line_start"], text(&at["label"])),
                    None => format!("{code} {words}"),
                }
            })
            // The last is a count of those before.
            .filter(|refusal| !refusal.starts_with(" aborting due to"))
            .collect()
    }
}

/// What stands behind `//~`, with its line.
fn expected(case: &Path) -> Vec<String> {
    let text = fs::read_to_string(case).unwrap();
    let marked = (1..).zip(text.lines());
    marked
        .filter_map(|(number, line)| {
            line.split_once("//~ ")
                .map(|(_, reason)| format!("{number}: {reason}"))
        })
        .collect()
}

fn messages(lines: &[u8]) -> impl Iterator<Item = Value> {
    lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
}
