//! `postern serve`: the production start.

use std::{collections::BTreeMap, io::IsTerminal as _, path::PathBuf};

use clap::Args;

use super::{exit::CliError, may_colour};
use crate::{
    app,
    config::{LogFormat, Settings},
    telemetry,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern serve --config /etc/postern/postern.toml\n\nEvery key of the file is in deploy/postern.example.toml."
)]
pub(super) struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub(super) async fn run(self, env: &BTreeMap<String, String>) -> Result<(), CliError> {
        let settings = Settings::load(&self.config, env)?;
        let format = match settings.log.format {
            LogFormat::Json => telemetry::Format::Json,
            LogFormat::Human => telemetry::Format::Human {
                colour: may_colour(env, std::io::stderr().is_terminal()),
            },
        };
        telemetry::init(format, &settings.log.level).map_err(|error| CliError::Failed(error.to_string()))?;
        app::serve::serve(settings)
            .await
            .map_err(|error| CliError::Failed(error.to_string()))
    }
}
