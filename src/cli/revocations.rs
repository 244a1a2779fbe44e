//! `postern revocations`: what became of a revocation at the providers.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern revocations show rev_01h2xcejqtf2nbrexx3vqjhp41\n  postern revocations show rev_01h2xcejqtf2nbrexx3vqjhp41 --wait"
)]
pub(super) struct Revocations {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How far it has come, and the first of its grants.
    #[command(after_help = "Example:\n  postern revocations show rev_01h2xcejqtf2nbrexx3vqjhp41 --wait")]
    Show {
        /// The revocation.
        id: String,
        /// Wait until every provider has given its final answer.
        #[arg(long)]
        wait: bool,
    },
}

impl Revocations {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let Verb::Show { id, wait: waiting } = self.verb;
        if waiting {
            wait(client, &id, output).await?;
        }
        let seen = look(client, &id, "100").await?;
        output.show(&seen);
        Ok(())
    }
}

/// Shows how far a revocation is until every provider has given its final answer.
pub(super) async fn wait(client: &Client, id: &str, output: &mut Output) -> Result<(), CliError> {
    output.note("Ctrl-C ends the waiting, not the revocation.");
    let mut told = None;
    loop {
        let seen = look(client, id, "1").await?;
        let number = |name: &str| seen.pointer(&format!("/progress/{name}")).and_then(Value::as_u64);
        let done =
            number("done").ok_or_else(|| CliError::Answer("a revocation without `progress`".into()))?;
        let total = number("total");
        let percent = total.map_or(0, |total| percent(done, total));
        // A terminal shows every look, a file only what has moved visibly.
        let step = if output.style().messages_to_terminal {
            done
        } else {
            u64::from(percent / 10)
        };
        if told.replace((step, total)) != Some((step, total)) {
            let of = total.map_or_else(|| "an unknown number".to_owned(), |total| total.to_string());
            output.progress(
                percent,
                &format!("{done} of {of} grants ended at their providers or given up"),
            );
        }
        if number("remaining") == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Rounded down: only what is done is 100 %, and nothing to do is done.
fn percent(done: u64, total: u64) -> u8 {
    let percent = done
        .min(total)
        .saturating_mul(100)
        .checked_div(total)
        .unwrap_or(100);
    u8::try_from(percent).unwrap_or(100)
}

async fn look(client: &Client, id: &str, limit: &str) -> Result<Value, CliError> {
    client.get(&["v1", "revocations", id], &[("limit", limit)]).await
}

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_is_a_hundred_percent() {
        assert_eq!(percent(0, 3), 0);
        assert_eq!(percent(999_999, 1_000_000), 99);
        assert_eq!(percent(3, 3), 100);
        assert_eq!(percent(0, 0), 100);
    }
}
