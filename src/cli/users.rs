//! `postern users`: the people of an organisation.

use clap::Subcommand;
use serde_json::json;

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// List people.
    #[command(after_help = "Example:\n  postern users list")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one person.
    #[command(after_help = "Example:\n  postern users show usr_01h2xcejqtf2nbrexx3vqjhp41")]
    Show {
        /// The person.
        user: String,
    },
    /// Make a one-time login link for a person; they see that it was made.
    #[command(after_help = "Example:\n  postern users login-link usr_01h2xcejqtf2nbrexx3vqjhp41")]
    LoginLink {
        /// The person.
        user: String,
    },
}

impl Users {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        match self {
            Self::List { limit } => {
                let users = client.list(&["v1", "users"], &[], limit).await?;
                output.list(
                    &users,
                    &[("/id", "USER"), ("/email", "E-MAIL"), ("/role", "ROLE")],
                );
            }
            Self::Show { user } => output.show(&client.get(&["v1", "users", &user], &[]).await?),
            Self::LoginLink { user } => {
                output.show(
                    &client
                        .post(&["v1", "users", &user, "login-links"], &json!({}))
                        .await?,
                );
            }
        }
        Ok(())
    }
}
