//! `postern engines`: the policy engines whose decisions count.

use clap::Subcommand;

use super::{client::Client, ending::Ending, exit::CliError, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum Engines {
    /// List the organisation's policy engines.
    #[command(after_help = "Example:\n  postern engines list --json")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Disable an engine: its decisions are refused at once. Take it out of the file you apply, too.
    #[command(
        after_help = "Example:\n  postern engines disable eng_01h2xcejqtf2nbrexx3vqjhp41 --dry-run\n  postern engines disable eng_01h2xcejqtf2nbrexx3vqjhp41 --yes"
    )]
    Disable {
        /// The engine.
        engine: String,
        #[command(flatten)]
        ending: Ending,
    },
}

impl Engines {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        match self {
            Self::List { limit } => {
                let engines = client.list(&["v1", "engines"], &[], limit).await?;
                output.list(
                    &engines,
                    &[
                        ("/id", "ENGINE"),
                        ("/name", "NAME"),
                        ("/iss", "ISSUER"),
                        ("/state", "STATE"),
                    ],
                );
                Ok(())
            }
            Self::Disable { engine, ending } => {
                let what = "No decision of a disabled engine counts.";
                ending
                    .run(client, &["v1", "engines", &engine], what, output)
                    .await
            }
        }
    }
}
