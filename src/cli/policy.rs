//! `postern policy`: looks at policy files without a server.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{
    exit::CliError,
    output::Output,
    wiring::{self, Finding},
};

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Parse and validate policy files, offline.
    #[command(after_help = "Example:\n  postern policy check policies/*.cedar")]
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl Policy {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        let Self::Check { files } = self;
        let texts = files
            .iter()
            .map(|path| {
                let name = path.display().to_string();
                match std::fs::read_to_string(path) {
                    Ok(text) => Ok((name, text)),
                    Err(cause) => Err(CliError::File { path: name, cause }),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let findings = wiring::policy_check(&texts)?;
        for Finding { file, line, message } in &findings {
            if output.style().json {
                output.json(&json!({"file": file, "line": line, "message": message}));
            } else {
                output.text(&format!("{file}:{line}: {message}"));
            }
        }
        if findings.is_empty() {
            output.note(&format!("{} file(s), nothing wrong", texts.len()));
            return Ok(());
        }
        Err(CliError::Failed(format!("{} finding(s)", findings.len())))
    }
}
