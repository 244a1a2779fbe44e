//! `postern revoke`: counts first, asks, then ends everything selected in one action.

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::{client::Client, exit::CliError, output::Output, revocations};

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("selector").required(true).multiple(false).args(["all", "user", "agent", "connector", "grant"]),
    after_help = "Example:\n  postern revoke --agent agt_01h2xcejqtf2nbrexx3vqjhp41 --reason \"key leaked\" --dry-run\n  postern revoke --all --reason \"incident 12\" --yes --drain\n  postern revoke --connector slack --reason \"incident 13\" --yes --wait"
)]
pub(super) struct Revoke {
    /// Every grant of the organisation.
    #[arg(long)]
    all: bool,
    /// Everything of one person.
    #[arg(long)]
    user: Option<String>,
    /// Everything an agent may do.
    #[arg(long)]
    agent: Option<String>,
    /// Every grant of one connector.
    #[arg(long)]
    connector: Option<String>,
    /// One grant.
    #[arg(long)]
    grant: Option<String>,
    /// Why; kept in the audit log.
    #[arg(long)]
    reason: String,
    /// Count what would end, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Wait for the outcome of calls that were already sent.
    #[arg(long)]
    drain: bool,
    /// Wait until every provider has given its final answer; shows how far it is.
    #[arg(long)]
    wait: bool,
}

impl Revoke {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let (selector, target) = self.selector();
        if self.dry_run || !self.yes {
            let counts = client
                .post(
                    &["v1", "revocations"],
                    &json!({"selector": selector, "reason": self.reason, "dry_run": true}),
                )
                .await?;
            if self.dry_run {
                output.show(&counts);
                return Ok(());
            }
            output.note(&format!(
                "This would end: {}",
                summary(counts.get("counts").unwrap_or(&counts))
            ));
        }
        output
            .confirm("A revoked grant never comes back.", &target, self.yes)
            .await?;
        let receipt = client
            .post(
                &["v1", "revocations"],
                &json!({"selector": selector, "reason": self.reason, "drain": self.drain}),
            )
            .await?;
        output.show(&receipt);
        if receipt.get("counts").is_none_or(Value::is_null) {
            output.note("Everything selected has ended. How much that was is still being counted.");
        }
        if let Some(id) = receipt.get("id").and_then(Value::as_str) {
            output.note(&format!(
                "Nothing of this selection is released any more. The providers' side: postern revocations show {id}"
            ));
            if self.wait {
                revocations::wait(client, id, output).await?;
            }
        }
        Ok(())
    }

    /// Protocol §8: exactly one member; and what a person types to confirm.
    fn selector(&self) -> (Value, String) {
        let named = [
            ("user", &self.user),
            ("agent", &self.agent),
            ("connector", &self.connector),
            ("grant", &self.grant),
        ]
        .into_iter()
        .find_map(|(name, value)| value.as_ref().map(|value| (name, value.clone())));
        match named {
            Some((name, value)) => (json!({name: value}), value),
            None => (json!({"all": true}), "all".to_owned()),
        }
    }
}

fn summary(counts: &Value) -> String {
    counts.as_object().map_or_else(
        || counts.to_string(),
        |members| {
            members
                .iter()
                .map(|(name, count)| format!("{count} {name}"))
                .collect::<Vec<_>>()
                .join(", ")
        },
    )
}
