//! `postern policy`: looks at policy files without a server.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{exit::CliError, output::Output};
use crate::{
    connectors::{Catalogue, Options},
    flows::question,
    store::PolicyText,
};

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Parse and validate policy files, offline.
    #[command(
        after_help = "Example:\n  postern policy check policies/*.cedar\n  postern policy check org.cedar --agent agents.cedar"
    )]
    Check {
        /// Files of the organisation layer.
        #[arg(required_unless_present = "agent")]
        files: Vec<PathBuf>,
        /// Files of the agent layer.
        #[arg(long, value_name = "FILE")]
        agent: Vec<PathBuf>,
        /// Connector files beside the built-in ones.
        #[arg(long, value_name = "DIR")]
        connectors: Option<PathBuf>,
    },
}

impl Policy {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        let Self::Check {
            files,
            agent,
            connectors,
        } = self;
        let (org, agent) = (read(&files)?, read(&agent)?);
        // Policies may name the demo provider's tools wherever they are checked.
        let options = Options {
            acme_mail_origin: Some("http://127.0.0.1:1"),
            dir: connectors.as_deref(),
            ..Options::default()
        };
        let catalogue = Catalogue::load(&options).map_err(|error| CliError::Failed(error.to_string()))?;
        let report = question::look(&catalogue, &org, &agent);
        if output.style().json {
            output.json(&json!({"ok": report.ok, "digest": report.digest, "findings": report.findings}));
        } else {
            report
                .findings
                .iter()
                .for_each(|finding| output.text(&finding.to_string()));
        }
        if report.ok {
            output.note(&format!("{} file(s), nothing wrong", org.len() + agent.len()));
            return Ok(());
        }
        Err(CliError::Failed(format!("{} finding(s)", report.findings.len())))
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<PolicyText>, CliError> {
    files
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => Ok(PolicyText { name, text }),
                Err(cause) => Err(CliError::File { path: name, cause }),
            }
        })
        .collect()
}
