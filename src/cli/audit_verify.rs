//! `postern audit verify`: checks an export with the log's public key alone. No network, no database, no trust in
//! whoever made the file.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use crate::audit::{Checkpoint, Report, VerifierKey, WitnessKey, cap_bytes, verify_witnessed};

/// What to verify.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  postern audit verify export.jsonl --public-key log.vkey --checkpoint kept.txt\n\n\
    Exit codes: 0 verified, 1 something is wrong with the log, 2 it could not be checked."
)]
pub struct AuditVerifyArgs {
    /// The export, as written by `postern audit export`
    pub export: PathBuf,
    /// The log's public key: a file that holds it, or the key itself (`name+id+base64`)
    #[arg(long, value_name = "FILE|KEY")]
    pub public_key: String,
    /// A checkpoint of this log that you kept: the export must build on it
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// A witness's public key, or a file that holds it: the witness must have cosigned the export's checkpoint
    #[arg(long, value_name = "FILE|KEY")]
    pub witness_key: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyExit {
    /// Nothing is wrong.
    Verified,
    /// Something is wrong with the log.
    Findings,
    /// It could not be checked: a file cannot be read, the key or the kept checkpoint is none.
    Unusable,
}

/// Why it could not be checked.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{what} {path} cannot be read: {source}")]
    Unreadable {
        what: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("the key is neither a verifier key nor a file that holds one")]
    Key,
    #[error("the kept checkpoint proves nothing: {0}")]
    Kept(crate::audit::checkpoint::CheckpointError),
}

/// Runs the verb: the report goes to `out`, what went wrong to `err`.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub fn run(args: &AuditVerifyArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<VerifyExit> {
    let report = match check(args) {
        Ok(report) => report,
        Err(error) if args.json => {
            let line = serde_json::json!({"verified": false, "error": error.to_string()});
            writeln!(out, "{line}")?;
            return Ok(VerifyExit::Unusable);
        }
        Err(error) => {
            writeln!(err, "postern audit verify: {error}")?;
            return Ok(VerifyExit::Unusable);
        }
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.verified {
        VerifyExit::Verified
    } else {
        VerifyExit::Findings
    })
}

fn check(args: &AuditVerifyArgs) -> Result<Report, Unusable> {
    let key: VerifierKey = read_key(&args.public_key)?;
    let witness: Option<WitnessKey> = args.witness_key.as_deref().map(read_key).transpose()?;
    let kept = match &args.checkpoint {
        Some(path) => {
            let note = read_small("the checkpoint", path)?;
            Some(Checkpoint::open(&note, &key).map_err(Unusable::Kept)?)
        }
        None => None,
    };
    let unreadable = |source| unreadable("the export", &args.export, source);
    let export = File::open(&args.export).map_err(unreadable)?;
    let export = BufReader::with_capacity(1 << 16, export);
    verify_witnessed(export, &key, kept, witness.as_ref()).map_err(unreadable)
}

fn read_key<K: std::str::FromStr>(text: &str) -> Result<K, Unusable> {
    if let Ok(key) = text.trim().parse() {
        return Ok(key);
    }
    read_small("the key", Path::new(text))?
        .trim()
        .parse()
        .map_err(|_| Unusable::Key)
}

fn read_small(what: &'static str, path: &Path) -> Result<String, Unusable> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SMALL_FILE).read_to_string(&mut text))
        .map_err(|source| unreadable(what, path, source))?;
    Ok(text)
}

fn unreadable(what: &'static str, path: &Path, source: io::Error) -> Unusable {
    let path = cap_bytes(path.as_os_str().as_encoded_bytes(), 512).into_owned();
    Unusable::Unreadable { what, path, source }
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let found = report.findings.len();
    if report.verified {
        writeln!(
            out,
            "Verified: nothing in this log was changed, dropped, moved or cut off."
        )?;
    } else {
        writeln!(
            out,
            "NOT verified: {} wrong.",
            plural(report.more_findings + found as u64, "thing is", "things are")
        )?;
    }
    writeln!(out, "  log       {}", report.origin)?;
    let writers = plural(report.writers as u64, "writer", "writers");
    writeln!(out, "  entries   {}, by {writers}", report.entries)?;
    if let (Some(first), Some(last)) = (report.first, report.last) {
        writeln!(out, "  from      {first}\n  to        {last}")?;
    }
    writeln!(out, "  root      {}", report.root)?;
    if let Some(size) = report.kept_checkpoint {
        writeln!(
            out,
            "  against   the kept checkpoint over {} too",
            plural(size, "entry", "entries")
        )?;
    }
    if report.verified {
        writeln!(
            out,
            "Checked: every entry's form, every writer's numbers and chain, the order of epochs, the Merkle root, \
             the size and the signature."
        )?;
    }
    for finding in &report.findings {
        writeln!(out, "- {finding}")?;
    }
    if report.more_findings > 0 {
        writeln!(out, "- and {} more", report.more_findings)?;
    }
    Ok(())
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Keys and checkpoints are small; a file that is not is cut, and then does not parse.
const MAX_SMALL_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sample;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn with(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    fn run_on(
        export: PathBuf,
        public_key: &str,
        checkpoint: Option<PathBuf>,
        json: bool,
    ) -> (VerifyExit, String, String) {
        let args = AuditVerifyArgs {
            witness_key: None,
            export,
            public_key: public_key.to_owned(),
            checkpoint,
            json,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&args, &mut out, &mut err).unwrap();
        (
            exit,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn a_good_export_verifies_with_key_file_or_key_text() {
        let files = Files::new();
        let vkey = sample::signer(1).1.to_string();
        let path = files.with("log.vkey", format!("{vkey}\n").as_bytes());
        let kept = files.with("kept", sample::note(&sample::log(7).1, 1).as_bytes());
        let export = files.with("export", &sample::export(12));
        for key in [vkey.as_str(), path.to_str().unwrap()] {
            let (exit, out, err) = run_on(export.clone(), key, Some(kept.clone()), false);
            assert_eq!((exit, err.as_str()), (VerifyExit::Verified, ""));
            assert!(
                out.starts_with("Verified") && out.contains("12, by 3 writers"),
                "{out}"
            );
        }
    }

    #[test]
    fn a_changed_export_ends_with_one_and_names_the_place() {
        let files = Files::new();
        let text = String::from_utf8(sample::export(12))
            .unwrap()
            .replacen("logged_in", "logged_on", 1);
        let export = files.with("export", text.as_bytes());
        let vkey = sample::signer(1).1.to_string();
        let (exit, out, _) = run_on(export.clone(), &vkey, None, false);
        assert_eq!(exit, VerifyExit::Findings);
        assert!(out.contains("\n- line 6, index 4, ent_"), "{out}");
        let (exit, out, _) = run_on(export, &vkey, None, true);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (exit, json["verified"].as_bool()),
            (VerifyExit::Findings, Some(false))
        );
        assert_eq!(
            (
                json["findings"][0]["kind"].as_str(),
                json["findings"][0]["at"]["line"].as_u64()
            ),
            (Some("broken_chain"), Some(6))
        );
        assert_eq!(out.lines().count(), 1);
    }

    #[test]
    fn what_cannot_be_checked_ends_with_two() {
        let files = Files::new();
        let vkey = sample::signer(1).1.to_string();
        let export = files.with("export", &sample::export(3));
        let foreign = files.with("foreign", sample::note(&sample::log(3).1, 2).as_bytes());
        for (export, key, kept) in [
            (files.0.path().join("absent"), vkey.as_str(), None),
            (files.0.path().to_owned(), vkey.as_str(), None),
            (export.clone(), "absent", None),
            (export.clone(), export.to_str().unwrap(), None),
            (export.clone(), vkey.as_str(), Some(foreign)),
        ] {
            let (exit, out, err) = run_on(export, key, kept, false);
            assert_eq!((exit, out.as_str()), (VerifyExit::Unusable, ""));
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
}
