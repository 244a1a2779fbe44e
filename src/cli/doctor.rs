//! `postern doctor`: asks the questions an operator would ask, and says what to do about each answer.

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::{
    client::Client,
    exit::{CliError, Exit},
    output::Output,
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  postern doctor --ops-url http://127.0.0.1:8701")]
pub(super) struct Doctor {
    /// Where the operations listener is, to ask whether the replica is ready.
    #[arg(long, env = "POSTERN_OPS_URL", hide_env_values = true, value_name = "URL")]
    ops_url: Option<Url>,
}

struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    fix: &'static str,
}

impl Doctor {
    pub(super) async fn run(
        self,
        client: Result<Client, CliError>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let client = client?;
        let mut checks = vec![answers(&client).await, key(&client).await];
        if let Some(ops_url) = self.ops_url {
            checks.push(ready(&client, ops_url).await);
        }
        let rows: Vec<Value> = checks
            .iter()
            .map(|check| {
                let fix = if check.ok { "" } else { check.fix };
                json!({"check": check.name, "result": if check.ok { "ok" } else { "wrong" }, "found": check.found, "fix": fix})
            })
            .collect();
        output.list(
            &rows,
            &[
                ("/check", "CHECK"),
                ("/result", "RESULT"),
                ("/found", "FOUND"),
                ("/fix", "FIX"),
            ],
        );
        let wrong = checks.iter().filter(|check| !check.ok).count();
        if wrong > 0 {
            return Err(CliError::Failed(format!("{wrong} check(s) failed")));
        }
        Ok(())
    }
}

async fn answers(client: &Client) -> Check {
    let fix = "start it, or correct --url; behind a proxy, public_url must be what clients use";
    let result = client
        .get(&[".well-known", "postern", "decision-keys"], &[])
        .await;
    let (ok, found) = match result {
        Ok(keys) if keys.get("keys").is_some_and(Value::is_array) => {
            (true, format!("{} answers", client.base()))
        }
        Ok(_) => (false, "something else than Postern answers".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Check {
        name: "server",
        ok,
        found,
        fix,
    }
}

async fn key(client: &Client) -> Check {
    let fix = "set POSTERN_API_KEY or --api-key-file to a complete, active key";
    if !client.has_key() {
        return Check {
            name: "api key",
            ok: false,
            found: "none given".to_owned(),
            fix,
        };
    }
    let (ok, found) = match client.get(&["v1", "grants"], &[("limit", "1")]).await {
        Ok(_) => (true, "accepted".to_owned()),
        // A key that may not list grants is a key all the same.
        Err(error) if error.exit() == Exit::Denied => (true, "accepted".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Check {
        name: "api key",
        ok,
        found,
        fix,
    }
}

async fn ready(client: &Client, mut ops_url: Url) -> Check {
    let fix = "each obstacle names what is missing: store, keys, starting, draining";
    ops_url.set_path("/readyz");
    let (ok, found) = match client.probe(ops_url).await {
        Ok((200, _)) => (true, "ready".to_owned()),
        Ok((status, answer)) => {
            let obstacles = answer
                .get("obstacles")
                .map_or_else(|| format!("status {status}"), Value::to_string);
            (false, obstacles)
        }
        Err(error) => (false, error.to_string()),
    };
    Check {
        name: "replica",
        ok,
        found,
        fix,
    }
}
