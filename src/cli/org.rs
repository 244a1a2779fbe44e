//! `postern org`: the organisation's own settings, as `postern apply` lays them down.

use clap::Args;
use serde_json::{Value, json};

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  postern org\n  postern org --json")]
pub(super) struct Org {}

impl Org {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let mut org = client.get(&["v1", "org"], &[]).await?;
        if output.style().json {
            output.json(&org);
            return Ok(());
        }
        let connectors = org
            .as_object_mut()
            .and_then(|members| members.remove("connectors"));
        output.show(&org);
        let connectors = connectors.as_ref().and_then(Value::as_array);
        let connectors: Vec<Value> = connectors.into_iter().flatten().map(row).collect();
        output.list(
            &connectors,
            &[
                ("/id", "CONNECTOR"),
                ("/client_id", "CLIENT"),
                ("/scopes", "SCOPES AT MOST"),
                ("/domains", "DOMAINS"),
                ("/tenants", "TENANTS"),
            ],
        );
        Ok(())
    }
}

/// One line of the table. No rule and a rule that allows nothing must not look alike.
fn row(connector: &Value) -> Value {
    let list = |pointer: &str| match connector.pointer(pointer).and_then(Value::as_array) {
        None => json!("any"),
        Some(list) if list.is_empty() => json!("none"),
        Some(list) => json!(list),
    };
    json!({
        "id": connector.get("id"),
        "client_id": connector.get("client_id"),
        "scopes": list("/scopes"),
        "domains": list("/accounts/domains"),
        "tenants": list("/accounts/tenants"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_and_a_rule_that_allows_nothing_do_not_look_alike() {
        let ruled = row(
            &json!({"id": "gmail", "scopes": [], "accounts": {"domains": ["acme.example"], "tenants": null}}),
        );
        assert_eq!(
            (&ruled["scopes"], &ruled["domains"], &ruled["tenants"]),
            (&json!("none"), &json!(["acme.example"]), &json!("any"))
        );
        let free = row(&json!({"id": "gmail", "scopes": null, "accounts": null}));
        assert_eq!(
            (&free["scopes"], &free["domains"]),
            (&json!("any"), &json!("any"))
        );
    }
}
