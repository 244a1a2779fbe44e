//! `postern recover`: says what going on with an older database would lose and end, and does it when told to. Runs on
//! the machine that holds the database and the file outside of it, while the service is stopped.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;

use super::{exit::CliError, output::Output};
use crate::{
    app,
    config::Settings,
    flows::recover::{Plan, Vouch},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern recover --config /etc/postern/postern.toml --dry-run\n  postern recover --config /etc/postern/postern.toml --yes"
)]
pub(super) struct Recover {
    /// The configuration file of the service.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Say what would be lost and ended, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Where nothing is kept outside: you know that this database is the newest one, so nothing has to be ended.
    #[arg(long)]
    database_is_current: bool,
}

impl Recover {
    pub(super) async fn run(
        self,
        env: &BTreeMap<String, String>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let settings = Settings::load(&self.config, env)?;
        let vouch = if self.database_is_current {
            Vouch::DatabaseIsCurrent
        } else {
            Vouch::No
        };
        let mut declined = None;
        let asked = async |plans: &[Plan]| {
            show(plans, output);
            if plans.is_empty() || self.dry_run {
                return false;
            }
            let what = "What is lost stays lost, and what is ended never comes back.";
            match output.confirm(what, "recover", self.yes).await {
                Ok(()) => true,
                Err(error) => {
                    declined = Some(error);
                    false
                }
            }
        };
        app::serve::recover(settings, vouch, asked)
            .await
            .map_err(|error| CliError::Failed(error.to_string()))?;
        match declined {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn show(plans: &[Plan], output: &mut Output) {
    if plans.is_empty() {
        output.note("Nothing to recover: the database agrees with what is kept outside of it.");
        return;
    }
    for plan in plans {
        if let Ok(value) = serde_json::to_value(plan) {
            output.show(&value);
        }
        if plan.why == "no_outside_checkpoint" && !plan.ends.is_empty() {
            output.note(
                "Nothing is known outside of the database, so everything is ended. If you know that this database is \
                 the newest one, say --database-is-current.",
            );
        }
    }
}
