//! `postern audit`: who did what as whom; and, without a server, whether an export holds.

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{client::Client, exit::CliError, output::Output, wiring};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List entries, oldest first.
    #[command(after_help = "Example:\n  postern audit list --kind agent --outcome deny --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one entry.
    #[command(after_help = "Example:\n  postern audit show ent_01h2xcejqtf2nbrexx3vqjhp41 --proof")]
    Show {
        /// The entry.
        entry: String,
        /// Its inclusion proof instead.
        #[arg(long)]
        proof: bool,
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
    /// Check an export, offline, with the public key alone.
    #[command(
        after_help = "Example:\n  postern audit verify acme.audit.jsonl --public-key-file checkpoint.pub"
    )]
    Verify {
        /// The export.
        export: PathBuf,
        /// The public key of the checkpoints, obtained out of band.
        #[arg(long, value_name = "FILE")]
        public_key_file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only after this entry.
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
            Self::Show { entry, proof } => {
                let path = ["v1", "audit", "entries", &entry, "proof"];
                let path = if proof {
                    &path[..]
                } else {
                    path.split_last().map_or(&path[..], |(_, path)| path)
                };
                output.show(&client()?.get(path, &[]).await?);
                Ok(())
            }
            Self::Tail { filter } => tail(&client()?, filter, output).await,
            Self::Export { out } => export(&client()?, &out, output).await,
            Self::Verify {
                export,
                public_key_file,
            } => verify(&export, &public_key_file, output),
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

async fn tail(client: &Client, mut filter: Filter, output: &mut Output) -> Result<(), CliError> {
    loop {
        let entries = client.list(&ENTRIES, &filter.query(), 1000).await?;
        if let Some(last) = entries
            .last()
            .and_then(|entry| entry.get("id"))
            .and_then(Value::as_str)
        {
            filter.after = Some(last.to_owned());
            output.list(&entries, &COLUMNS);
        }
        tokio::time::sleep(TAIL_PAUSE).await;
    }
}

async fn export(client: &Client, out: &PathBuf, output: &mut Output) -> Result<(), CliError> {
    let failed = |cause| CliError::File {
        path: out.display().to_string(),
        cause,
    };
    // `create_new`: an export is evidence and is never written over.
    let mut file = std::io::BufWriter::new(std::fs::File::create_new(out).map_err(failed)?);
    let checkpoint = client.text(&["v1", "audit", "checkpoint"]).await?;
    writeln!(
        file,
        "{}",
        json!({"postern_audit_export": 1, "checkpoint": checkpoint})
    )
    .map_err(failed)?;
    let mut count = 0_usize;
    let mut after: Option<String> = None;
    loop {
        let query: Vec<(&str, &str)> = after
            .as_deref()
            .map(|after| ("after", after))
            .into_iter()
            .collect();
        let entries = client.list(&ENTRIES, &query, 1000).await?;
        for entry in &entries {
            writeln!(file, "{entry}").map_err(failed)?;
        }
        count += entries.len();
        match entries
            .last()
            .and_then(|entry| entry.get("id"))
            .and_then(Value::as_str)
        {
            Some(last) if entries.len() == 1000 => after = Some(last.to_owned()),
            _ => break,
        }
    }
    file.into_inner()
        .map_err(|error| failed(error.into_error()))?
        .sync_all()
        .map_err(failed)?;
    output.note(&format!(
        "{count} entries in {}. Next: postern audit verify",
        out.display()
    ));
    Ok(())
}

fn verify(export: &PathBuf, public_key_file: &PathBuf, output: &mut Output) -> Result<(), CliError> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|cause| CliError::File {
            path: path.display().to_string(),
            cause,
        })
    };
    let verified = wiring::audit_verify(&read(export)?, read(public_key_file)?.trim())?;
    if output.style().json {
        output.json(&json!({"entries": verified.entries, "faults": verified.faults}));
    } else {
        verified.faults.iter().for_each(|fault| output.text(fault));
    }
    if verified.faults.is_empty() {
        output.note(&format!(
            "{} entries, nothing changed, missing or added.",
            verified.entries
        ));
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "the export does not hold: {} fault(s)",
        verified.faults.len()
    )))
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
