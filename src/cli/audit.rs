//! `postern audit`: who did what as whom; and, without a server, whether an export holds.

use std::{
    fs::TryLockError,
    io::Seek as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    audit_tail,
    audit_verify::{self, AuditVerifyArgs, VerifyExit},
    client::Client,
    exit::CliError,
    output::Output,
};
use crate::audit::{
    Checkpoint, ExportError, ExportWriter,
    encoding::leaf_hash,
    export::{ExportLine, LineReader, NextLine, parse_line},
};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List entries, newest first.
    #[command(after_help = "Example:\n  postern audit list --kind agent --outcome deny --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only what is older than this entry.
        #[arg(long, value_name = "ENTRY")]
        after: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one entry.
    #[command(after_help = "Example:\n  postern audit show ent_01h2xcejqtf2nbrexx3vqjhp41")]
    Show {
        /// The entry.
        entry: String,
    },
    /// Print entries as they are written.
    #[command(after_help = "Example:\n  postern audit tail --json --agent agt_01h2xcejqtf2nbrexx3vqjhp41")]
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// Begin with so many that are there already.
        #[arg(long, default_value_t = 10)]
        lines: usize,
    },
    /// Write everything to a file that `audit verify` can check.
    #[command(after_help = "Example:\n  postern audit export --out acme.audit.jsonl")]
    Export {
        /// The file to write; it must not exist. Until it is whole it is called FILE.unfinished.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Only up to the last head that the log's witness has cosigned, for `audit verify --witness-key`.
        #[arg(long)]
        cosigned: bool,
    },
    /// Print the public key of the log, for `audit verify`.
    #[command(after_help = "Example:\n  postern audit key > acme.vkey")]
    Key,
    /// Check an export, offline, with the public key alone.
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only about this person.
    #[arg(long)]
    user: Option<String>,
    /// Only by this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Only by people, or only by agents.
    #[arg(long, value_parser = ["human", "agent"])]
    kind: Option<String>,
    /// Only of this connector.
    #[arg(long)]
    connector: Option<String>,
    /// Only with this outcome.
    #[arg(long)]
    outcome: Option<String>,
}

impl Audit {
    pub(super) async fn run(
        self,
        client: impl Fn() -> Result<Client, CliError>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        match self {
            Self::List { filter, after, limit } => {
                let mut query = filter.query();
                query.extend(after.as_deref().map(|after| ("after", after)));
                let entries = client()?.list(&ENTRIES, &query, limit).await?;
                output.list(&entries, &COLUMNS);
                Ok(())
            }
            Self::Show { entry } => {
                output.show(&client()?.get(&["v1", "audit", "entries", &entry], &[]).await?);
                Ok(())
            }
            Self::Tail { filter, lines } => {
                audit_tail::follow(&client()?, &filter.query(), lines, output).await
            }
            Self::Export { out, cosigned } => export(&client()?, &out, cosigned, output).await,
            Self::Key => {
                output.text(client()?.text(&["v1", "audit", "key"]).await?.trim_end());
                Ok(())
            }
            Self::Verify(mut args) => {
                args.json |= output.style().json;
                verify(&args)
            }
        }
    }
}

impl Filter {
    fn query(&self) -> Vec<(&str, &str)> {
        [
            ("user", &self.user),
            ("agent", &self.agent),
            ("kind", &self.kind),
            ("connector", &self.connector),
            ("outcome", &self.outcome),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
        .collect()
    }
}

/// Writes the log up to its checkpoint, in its own order.
async fn export(client: &Client, out: &Path, cosigned: bool, output: &mut Output) -> Result<(), CliError> {
    let failed = |cause| CliError::File {
        path: out.display().to_string(),
        cause,
    };
    let unwritten = |error| match error {
        ExportError::Io(cause) => failed(cause),
        ExportError::InvalidOrigin => CliError::Answer("not a log of this format".into()),
    };
    let note = client.checkpoint(cosigned).await?;
    let checkpoint =
        Checkpoint::read_unverified(&note).map_err(|_| CliError::Answer("not a checkpoint".into()))?;
    // An export is evidence and is never written over; one that was interrupted is none and is begun anew.
    if out.symlink_metadata().is_ok() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let unfinished = Unfinished::begin(out)?;
    let file = std::io::BufWriter::new(&unfinished.file);
    let mut writer = ExportWriter::begin(file, &checkpoint.origin).map_err(unwritten)?;
    let (mut next, mut changed, mut missing) = (0, Vec::new(), Vec::new());
    while next < checkpoint.size {
        let start = next.to_string();
        let page = client
            .get(&["v1", "audit", "log"], &[("start", &start), ("limit", "500")])
            .await?;
        let entries = page
            .get("entries")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if entries.is_empty() {
            missing.extend(places(next, checkpoint.size));
            break;
        }
        for entry in entries {
            let index = entry.get("index").and_then(Value::as_u64);
            let text = entry.get("entry").and_then(Value::as_str);
            let (Some(index), Some(text)) = (index.filter(|index| *index >= next), text) else {
                return Err(CliError::Answer(
                    "a page of the log holds what is no entry".into(),
                ));
            };
            let there = index.min(checkpoint.size);
            missing.extend(places(next, there));
            next = there;
            if next == checkpoint.size {
                break;
            }
            let bytes = text.as_bytes();
            let signed = entry.get("leaf").and_then(Value::as_str);
            if signed.is_some_and(|signed| signed != STANDARD.encode(leaf_hash(bytes))) {
                changed.push(next.to_string());
            }
            writer.entry(bytes).map_err(unwritten)?;
            next += 1;
        }
        output.note(&format!("{next} of {} entries", checkpoint.size));
    }
    let file = writer.finish(&note).map_err(unwritten)?;
    file.into_inner().map_err(|error| failed(error.into_error()))?;
    unfinished.finish(out).map_err(failed)?;
    let witness = if cosigned { " --witness-key KEY" } else { "" };
    output.note(&format!(
        "written to {}; next: postern audit verify {0} --public-key KEY{witness}",
        out.display()
    ));
    // The export is evidence all the same; the tiles name what the root alone betrays.
    let wrong: Vec<String> = [
        ("holds other entries than", changed),
        ("lacks entries that", missing),
    ]
    .into_iter()
    .filter(|(_, places)| !places.is_empty())
    .map(|(what, places)| format!("{what} were signed, at index {}", places.join(", ")))
    .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!("the database {}", wrong.join("; it "))))
}

/// The indexes from one to before another, as people write them; `None` if there are none.
fn places(from: u64, to: u64) -> Option<String> {
    match to - from {
        0 => None,
        1 => Some(from.to_string()),
        _ => Some(format!("{from} to {}", to - 1)),
    }
}

/// An export that is being written, under a name of its own: what bears the export's name is whole.
struct Unfinished {
    file: std::fs::File,
    path: PathBuf,
}

impl Unfinished {
    /// Takes the place of one that was interrupted, of nothing else.
    fn begin(out: &Path) -> Result<Self, CliError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".unfinished");
        let path = PathBuf::from(path);
        let failed = |cause| CliError::File {
            path: path.display().to_string(),
            cause,
        };
        let refused = |why: &str| Err(CliError::Failed(format!("{}: {why}", path.display())));
        let in_use = || refused("another export is writing it");
        // A pipe would be waited for without an end, and a link would make a file somewhere else.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return refused("not a plain file; move it away");
        }
        let mut file = open(&path).map_err(failed)?;
        if !lock(&file).map_err(failed)? {
            return in_use();
        }
        if file.metadata().map_err(failed)?.nlink() > 1 {
            // It was stopped between its two names: this is the whole one, whatever it is called by now.
            std::fs::remove_file(&path).map_err(failed)?;
            file = open(&path).map_err(failed)?;
            if !lock(&file).map_err(failed)? {
                return in_use();
            }
        }
        // Whoever wrote it may have ended since it was opened: then it is whole, and under its own name.
        let (held, named) = (file.metadata(), path.symlink_metadata());
        let is_named = match (held, named) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        };
        if !is_named {
            return in_use();
        }
        if !is_begun_export(&mut file).map_err(failed)? {
            return refused("it is not the beginning of an export; move it away");
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        Ok(Self { file, path })
    }

    /// Gives it its name, which nobody else has taken meanwhile.
    fn finish(self, out: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        // Unlike a rename, this replaces nothing.
        match std::fs::hard_link(&self.path, out) {
            Ok(()) => std::fs::remove_file(&self.path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(error),
            // A file system without links: the name is taken first, then replaced.
            Err(_) => {
                std::fs::File::create_new(out)?;
                std::fs::rename(&self.path, out)
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

/// Locks a file unless somebody else holds it.
fn lock(file: &std::fs::File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Whether a file is empty, or begins as an export does.
fn is_begun_export(file: &mut std::fs::File) -> std::io::Result<bool> {
    let mut lines = LineReader::new(std::io::BufReader::new(file));
    Ok(match lines.next_line()? {
        NextLine::End => true,
        NextLine::Line(line) => matches!(parse_line(line), ExportLine::Header(_)),
        NextLine::Unterminated | NextLine::TooLong => false,
    })
}

fn verify(args: &AuditVerifyArgs) -> Result<(), CliError> {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    match audit_verify::run(args, &mut out, &mut err) {
        Ok(VerifyExit::Verified) => Ok(()),
        Ok(VerifyExit::Findings) => Err(CliError::Failed("the export does not hold".into())),
        Ok(VerifyExit::Unusable) => Err(CliError::Usage("the export could not be checked".into())),
        Err(error) => Err(CliError::Failed(error.to_string())),
    }
}

pub(super) const ENTRIES: [&str; 3] = ["v1", "audit", "entries"];
pub(super) const COLUMNS: [(&str, &str); 8] = [
    ("/ts", "TIME"),
    ("/type", "TYPE"),
    ("/user", "USER"),
    ("/agent", "AGENT"),
    ("/connector", "CONNECTOR"),
    ("/tool", "TOOL"),
    ("/outcome", "OUTCOME"),
    ("/reason", "REASON"),
];
