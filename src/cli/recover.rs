//! `postern recover`: says what going on with an older database would lose and end, and does it when told to. Runs on
//! the machine that holds the database and the file outside of it, while the service is stopped.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{exit::CliError, output::Output};
use crate::{
    app,
    config::Settings,
    crypto::lookup::show_api_key,
    flows::recover::{Plan, Vouch},
};

#[derive(Debug, Args)]
#[command(
    after_help = "With several replicas: stop all of them, and run it with the configuration of each that is sealed.\n\nWhere everything has to be ended, API keys end as well and policy engines are disabled. A new admin key is printed then, this once: make the other keys with `postern keys create`, register the engines again with `postern apply`.\n\nExample:\n  postern recover --config /etc/postern/postern.toml --dry-run\n  postern recover --config /etc/postern/postern.toml --yes"
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
    /// Go on though the witness gave no answer: it may show later that more was lost, which then ends everything.
    #[arg(long)]
    without_witness: bool,
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
            if self.dry_run {
                return false;
            }
            // Nothing to confirm: only what others said against the database is taken back.
            if plans.is_empty() {
                return true;
            }
            if !self.without_witness && plans.iter().any(|plan| plan.witness_silent) {
                declined = Some(CliError::Failed(
                    "the witness gave no answer about what is to be recovered; nothing was changed. Try again once it answers, \
                     or say --without-witness"
                        .to_owned(),
                ));
                return false;
            }
            let what = "What is lost stays lost, and what is ended never comes back.";
            match output.confirm(what, "recover", self.yes).await {
                Ok(()) => {
                    show_keys(plans, output);
                    true
                }
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

/// Before it is done: a process that ends right after the commit would else leave an org that nobody can administer.
fn show_keys(plans: &[Plan], output: &mut Output) {
    let mut any = false;
    for plan in plans {
        if let Some(key) = &plan.admin_key {
            output.show(&json!({"org": plan.org.to_string(), "admin_key": show_api_key(key)}));
            any = true;
        }
    }
    if any {
        output.note("Keep the admin key: it is shown only now, and works once the recovery is done.");
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
        if plan.ends_everything() {
            output.note(&format!(
                "All API keys of {} end, those of admins, host applications and agents, and its policy engines are \
                 disabled: this database cannot say which of them were ended since it was made. You are shown a new \
                 admin key, with which `postern keys create` makes the others and `postern apply` registers the engines.",
                plan.org
            ));
        }
        if plan.witness_silent {
            output.note(&format!(
                "The witness gave no answer about {}: whether more was lost than is said here is not known.",
                plan.org
            ));
        }
        if plan.why == "no_outside_checkpoint" && !plan.ends.is_empty() {
            output.note(
                "Nothing is known outside of the database, so everything is ended. If you know that this database is \
                 the newest one, say --database-is-current.",
            );
        }
    }
}
