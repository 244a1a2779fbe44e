//! `postern migrate`: brings a PostgreSQL schema up to date, as the role that owns it.

use std::{collections::BTreeMap, io::IsTerminal as _, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{exit::CliError, may_colour, output::Output};
use crate::{app, config::Settings, telemetry};

#[derive(Debug, Args)]
#[command(
    after_help = "The owner's password comes from POSTERN_STORE_OWNER_PASSWORD, or in libpq's own ways.\n\n\
                  Example:\n  postern migrate --config /etc/postern/postern.toml --owner postern_owner"
)]
pub(super) struct Migrate {
    /// The configuration file of the service.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The role that owns the schema; the service's own role must not.
    #[arg(long, value_name = "ROLE", default_value = "postern_owner")]
    owner: String,
}

impl Migrate {
    pub(super) async fn run(
        self,
        env: &BTreeMap<String, String>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let settings = Settings::load(&self.config, env)?;
        // It says what it waits for as it goes.
        let level = if output.style().quiet { "error" } else { "warn" };
        let colour = may_colour(env, std::io::stderr().is_terminal());
        telemetry::init(telemetry::Format::Human { colour }, level)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let applied = app::serve::migrate(&settings, &self.owner)
            .await
            .map_err(|error| CliError::Failed(error.to_string()))?;
        output.show(&json!({ "applied": applied }));
        output.note(match applied {
            0 => "The schema was up to date.",
            _ => "The schema is up to date.",
        });
        Ok(())
    }
}
