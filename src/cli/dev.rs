//! `postern dev`: a whole demo on loopback.

use std::{collections::BTreeMap, io::IsTerminal as _, path::PathBuf};

use clap::Args;

use super::{
    Global,
    exit::CliError,
    may_colour,
    wiring::{self, DevRequest},
};
use crate::telemetry;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern dev --port 8700\n  postern dev --json --port 0   # one line of JSON, for scripts"
)]
pub(super) struct Dev {
    /// The port on loopback; 0 picks a free one.
    #[arg(long, default_value_t = 8700)]
    port: u16,
    /// Keep the state in this directory; without it, it is removed at exit.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Dev {
    pub(super) async fn run(self, global: &Global, env: &BTreeMap<String, String>) -> Result<(), CliError> {
        let colour = may_colour(env, std::io::stderr().is_terminal());
        telemetry::init(telemetry::Format::Human { colour }, "warn")
            .map_err(|error| CliError::Failed(error.to_string()))?;
        wiring::dev(DevRequest {
            port: self.port,
            data: self.data,
            json: global.json,
        })
        .await
    }
}
