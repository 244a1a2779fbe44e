//! `postern keys`: API keys, made and ended one by one.

use clap::{ArgGroup, Subcommand};
use serde_json::json;

use super::{client::Client, ending::Ending, exit::CliError, output::Output};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List keys, revoked ones too; never their text.
    #[command(after_help = "Example:\n  postern keys list --json")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Make a key and print it, this once; other keys of its owner go on working.
    #[command(
        group = ArgGroup::new("owner").required(true).multiple(false).args(["admin", "service", "agent"]),
        after_help = "Example, to replace a leaked key:\n  postern keys create --agent agt_01h2xcejqtf2nbrexx3vqjhp41\n  postern keys revoke key_01h2xcejqtf2nbrexx3vqjhp41"
    )]
    Create {
        /// For the administration of the organisation.
        #[arg(long)]
        admin: bool,
        /// For this host application.
        #[arg(long, value_name = "ID")]
        service: Option<String>,
        /// For this agent.
        #[arg(long, value_name = "ID")]
        agent: Option<String>,
    },
    /// End a key: calls with it are refused at once.
    #[command(
        after_help = "Example:\n  postern keys revoke key_01h2xcejqtf2nbrexx3vqjhp41 --dry-run\n  postern keys revoke key_01h2xcejqtf2nbrexx3vqjhp41 --yes"
    )]
    Revoke {
        /// The id of the key, never its text.
        id: String,
        #[command(flatten)]
        ending: Ending,
    },
}

impl Keys {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        match self {
            Self::List { limit } => {
                let keys = client.list(&["v1", "keys"], &[], limit).await?;
                output.list(
                    &keys,
                    &[
                        ("/id", "KEY"),
                        ("/kind", "KIND"),
                        ("/owner", "OWNER"),
                        ("/state", "STATE"),
                        ("/created_at", "CREATED"),
                    ],
                );
                Ok(())
            }
            Self::Create { service, agent, .. } => {
                let body = match (service, agent) {
                    (Some(id), _) => json!({"kind": "service", "owner": id}),
                    (None, Some(id)) => json!({"kind": "agent", "owner": id}),
                    (None, None) => json!({"kind": "admin"}),
                };
                output.show(&client.post(&["v1", "keys"], &body).await?);
                output.note("The key is shown this once.");
                Ok(())
            }
            Self::Revoke { id, ending } => {
                let what = "A revoked key never works again.";
                ending.run(client, &["v1", "keys", &id], what, output).await
            }
        }
    }
}
