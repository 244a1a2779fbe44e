//! `postern init`: the first organisation and its admin key, once, on the machine that holds the database.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{exit::CliError, output::Output};
use crate::{
    app,
    config::Settings,
    crypto::lookup::show_api_key,
    domain::text::{LONGEST_NAME, NotALine, is_mail_address, line},
    flows::found::Founded,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern init --config /etc/postern/postern.toml --org Acme --admin ada@acme.example"
)]
pub(super) struct Init {
    /// The configuration file of the service.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The organisation's name.
    #[arg(long, value_name = "NAME", value_parser = name)]
    org: String,
    /// The first administrator's e-mail address.
    #[arg(long, value_name = "EMAIL", value_parser = address)]
    admin: String,
}

impl Init {
    pub(super) async fn run(
        self,
        env: &BTreeMap<String, String>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let settings = Settings::load(&self.config, env)?;
        // Before it is done: a process that ends right after the commit would else leave an org that nobody can administer.
        let shown = |first: &Founded, login_url: &str| {
            output.show(&json!({
                "org": first.org.to_string(),
                "admin": first.admin.to_string(),
                "admin_key": show_api_key(&first.admin_key),
                "login_url": login_url,
            }));
            !output.is_closed()
        };
        app::serve::init(settings, &self.org, &self.admin, shown)
            .await
            .map_err(|error| CliError::Failed(error.to_string()))?;
        output.note("Keep the admin key: it is shown only now. Next: export POSTERN_API_KEY and run `postern apply FILE`.");
        Ok(())
    }
}

// There is one `init` for a database: what was mistyped could not be said again.

fn name(text: &str) -> Result<String, NotALine> {
    line(text, LONGEST_NAME).map(str::to_owned)
}

fn address(text: &str) -> Result<String, &'static str> {
    if is_mail_address(text) {
        Ok(text.to_owned())
    } else {
        Err("one plain address, as ada@acme.example")
    }
}
