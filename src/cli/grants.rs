//! `postern grants`: what people have connected.

use clap::Subcommand;

use super::{client::Client, ending::Ending, exit::CliError, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum Grants {
    /// List grants.
    #[command(after_help = "Example:\n  postern grants list --user usr_01h2xcejqtf2nbrexx3vqjhp41")]
    List {
        /// Only this person's.
        #[arg(long)]
        user: Option<String>,
        /// Only of this connector.
        #[arg(long)]
        connector: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one grant.
    #[command(after_help = "Example:\n  postern grants show grt_01h2xcejqtf2nbrexx3vqjhp41 --json")]
    Show {
        /// The grant.
        grant: String,
    },
    /// End one grant, here and at the provider.
    #[command(after_help = "Example:\n  postern grants disconnect grt_01h2xcejqtf2nbrexx3vqjhp41 --yes")]
    Disconnect {
        /// The grant.
        grant: String,
        #[command(flatten)]
        ending: Ending,
    },
}

impl Grants {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        match self {
            Self::List {
                user,
                connector,
                limit,
            } => {
                let query: Vec<(&str, &str)> = [("user", &user), ("connector", &connector)]
                    .into_iter()
                    .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
                    .collect();
                let grants = client.list(&["v1", "grants"], &query, limit).await?;
                output.list(
                    &grants,
                    &[
                        ("/id", "GRANT"),
                        ("/user", "USER"),
                        ("/connector", "CONNECTOR"),
                        ("/account/label", "ACCOUNT"),
                        ("/state", "STATE"),
                        ("/last_used_at", "LAST USED"),
                    ],
                );
                Ok(())
            }
            Self::Show { grant } => {
                output.show(&client.get(&["v1", "grants", &grant], &[]).await?);
                Ok(())
            }
            Self::Disconnect { grant, ending } => {
                let what = "This ends the grant for good.";
                ending.run(client, &["v1", "grants", &grant], what, output).await
            }
        }
    }
}
