//! `postern agents`: who may ask.

use clap::Subcommand;

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum Agents {
    /// List the organisation's agents.
    #[command(after_help = "Example:\n  postern agents list --json")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one agent.
    #[command(after_help = "Example:\n  postern agents show agt_01h2xcejqtf2nbrexx3vqjhp41")]
    Show {
        /// The agent.
        agent: String,
    },
}

impl Agents {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        match self {
            Self::List { limit } => {
                let agents = client.list(&["v1", "agents"], &[], limit).await?;
                output.list(
                    &agents,
                    &[("/id", "AGENT"), ("/name", "NAME"), ("/state", "STATE")],
                );
            }
            Self::Show { agent } => output.show(&client.get(&["v1", "agents", &agent], &[]).await?),
        }
        Ok(())
    }
}
