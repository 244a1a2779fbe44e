//! `postern connect`: a link for a person, and waiting until they have used it.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern connect acme-mail --user usr_01h2xcejqtf2nbrexx3vqjhp41\n  postern connect slack --external-id 4711 --no-wait --json"
)]
pub(super) struct Connect {
    /// The connector's id, as `acme-mail`.
    connector: String,
    /// Whose account is to be connected.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The person's id at the host application, instead of --user (service keys).
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    external_id: Option<String>,
    /// Ask for these scopes, not the default ones.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A name for the connection, as "work".
    #[arg(long)]
    label: Option<String>,
    /// Renew this grant.
    #[arg(long, value_name = "GRANT")]
    reconnect: Option<String>,
    /// Where the browser goes afterwards (service keys).
    #[arg(long, value_name = "URL")]
    return_url: Option<String>,
    /// Print the link and stop.
    #[arg(long)]
    no_wait: bool,
}

impl Connect {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let no_wait = self.no_wait;
        let session = client.post(&["v1", "connect-sessions"], &self.body()?).await?;
        let text = |name: &str| session.get(name).and_then(Value::as_str).unwrap_or_default();
        if no_wait {
            output.show(&session);
            return Ok(());
        }
        output.note(&format!(
            "Open this link in the person's browser (until {}):",
            text("expires_at")
        ));
        output.note(text("url"));
        output.note("Waiting…");
        loop {
            let state = client
                .get(&["v1", "connect-sessions", text("id")], &[("wait", "50")])
                .await?;
            match state
                .get("status")
                .or_else(|| state.get("state"))
                .and_then(Value::as_str)
                .unwrap_or_default()
            {
                "pending" => {}
                "completed" | "awaiting_complete" => {
                    output.show(&state);
                    return Ok(());
                }
                "failed" => {
                    let code = state.get("code").and_then(Value::as_str).unwrap_or("unknown");
                    return Err(CliError::Failed(format!("the connection failed: {code}")));
                }
                "expired" => return Err(CliError::Failed("the link has expired; ask for a new one".into())),
                other => return Err(CliError::Answer(format!("a connect session in state `{other}`"))),
            }
        }
    }

    fn body(self) -> Result<Value, CliError> {
        let mut body = Map::new();
        body.insert("connector".into(), self.connector.into());
        let user = match (self.user, self.external_id) {
            (Some(user), _) => user.into(),
            (None, Some(external_id)) => json!({"external_id": external_id}),
            (None, None) => {
                return Err(CliError::Usage(
                    "say who: --user usr_…, or --external-id ID with a service key".into(),
                ));
            }
        };
        body.insert("user".into(), user);
        if !self.scopes.is_empty() {
            body.insert("scopes".into(), self.scopes.into());
        }
        for (name, value) in [
            ("label", self.label),
            ("reconnect", self.reconnect),
            ("return_url", self.return_url),
        ] {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        Ok(Value::Object(body))
    }
}
