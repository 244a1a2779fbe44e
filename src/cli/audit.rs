//! `postern audit`: who did what as whom; and, without a server, whether an export holds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    audit_verify::{self, AuditVerifyArgs, VerifyExit},
    client::Client,
    exit::CliError,
    output::Output,
};
use crate::audit::{Checkpoint, ExportError, ExportWriter};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List entries, newest first.
    #[command(after_help = "Example:\n  postern audit list --kind agent --outcome deny --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
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
    #[command(after_help = "Example:\n  postern audit tail --agent agt_01h2xcejqtf2nbrexx3vqjhp41")]
    Tail {
        #[command(flatten)]
        filter: Filter,
    },
    /// Write everything to a file that `audit verify` can check.
    #[command(after_help = "Example:\n  postern audit export --out acme.audit.jsonl")]
    Export {
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public key of the log, for `audit verify`.
    #[command(after_help = "Example:\n  postern audit key > acme.vkey")]
    Key,
    /// Check an export, offline, with the public key alone.
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only what is older than this entry.
    #[arg(long, value_name = "ENTRY")]
    after: Option<String>,
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
            Self::List { filter, limit } => {
                let entries = client()?.list(&ENTRIES, &filter.query(), limit).await?;
                output.list(&entries, &COLUMNS);
                Ok(())
            }
            Self::Show { entry } => {
                output.show(&client()?.get(&["v1", "audit", "entries", &entry], &[]).await?);
                Ok(())
            }
            Self::Tail { filter } => tail(&client()?, filter, output).await,
            Self::Export { out } => export(&client()?, &out, output).await,
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
            ("after", &self.after),
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

/// Entries as they are written, oldest first: what is newer than the last one seen.
async fn tail(client: &Client, filter: Filter, output: &mut Output) -> Result<(), CliError> {
    let id = |entry: &Value| entry.get("id").and_then(Value::as_str).map(str::to_owned);
    let mut seen: Option<String> = None;
    loop {
        let newest = client.list(&ENTRIES, &filter.query(), 500).await?;
        let mut fresh: Vec<Value> = newest
            .into_iter()
            .take_while(|entry| seen.is_none() || id(entry) != seen)
            .collect();
        fresh.reverse();
        if let Some(last) = fresh.last() {
            seen = id(last);
            output.list(&fresh, &COLUMNS);
        }
        tokio::time::sleep(TAIL_PAUSE).await;
    }
}

/// Writes the log up to its checkpoint, in its own order.
async fn export(client: &Client, out: &Path, output: &mut Output) -> Result<(), CliError> {
    let failed = |cause| CliError::File {
        path: out.display().to_string(),
        cause,
    };
    let unwritten = |error| match error {
        ExportError::Io(cause) => failed(cause),
        ExportError::InvalidOrigin => CliError::Answer("not a log of this format".into()),
    };
    let note = client.text(&["v1", "audit", "checkpoint"]).await?;
    let checkpoint =
        Checkpoint::read_unverified(&note).map_err(|_| CliError::Answer("not a checkpoint".into()))?;
    // `create_new`: an export is evidence and is never written over.
    let file = std::io::BufWriter::new(std::fs::File::create_new(out).map_err(failed)?);
    let mut writer = ExportWriter::begin(file, &checkpoint.origin).map_err(unwritten)?;
    let mut next = 0;
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
            return Err(CliError::Answer("the log ends before its checkpoint".into()));
        }
        for entry in entries {
            if next == checkpoint.size {
                break;
            }
            let text = entry
                .get("entry")
                .and_then(Value::as_str)
                .ok_or_else(|| CliError::Answer("a page of the log holds what is no entry".into()))?;
            writer.entry(text.as_bytes()).map_err(unwritten)?;
            next += 1;
        }
        output.note(&format!("{next} of {} entries", checkpoint.size));
    }
    let file = writer.finish(&note).map_err(unwritten)?;
    file.into_inner()
        .map_err(|error| failed(error.into_error()))?
        .sync_all()
        .map_err(failed)?;
    output.note(&format!(
        "written to {}; next: postern audit verify {0} --public-key KEY",
        out.display()
    ));
    Ok(())
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

const ENTRIES: [&str; 3] = ["v1", "audit", "entries"];
const COLUMNS: [(&str, &str); 8] = [
    ("/ts", "TIME"),
    ("/type", "TYPE"),
    ("/user", "USER"),
    ("/agent", "AGENT"),
    ("/connector", "CONNECTOR"),
    ("/tool", "TOOL"),
    ("/outcome", "OUTCOME"),
    ("/reason", "REASON"),
];
const TAIL_PAUSE: Duration = Duration::from_secs(2);
