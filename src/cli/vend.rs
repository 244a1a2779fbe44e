//! `postern vend` and `postern decide`: the same question, with and without the release.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Args)]
#[command(after_help = "\
An argument `name=text` is a text, `name:=json` is any JSON value.

Example:
  postern vend acme-mail messages.send --user usr_01h2xcejqtf2nbrexx3vqjhp41 \\
      --arg 'to:=[\"ben@acme.example\"]' --arg subject=Hi --arg body=Hello
  postern vend acme-mail messages.list --grant grt_01h2xcejqtf2nbrexx3vqjhp41 --mode token --reveal")]
pub(super) struct Vend {
    #[command(flatten)]
    question: Question,
    /// A file with a signed decision to use instead of asking the policy now.
    #[arg(long, value_name = "FILE")]
    decision_file: Option<PathBuf>,
    /// Makes a retry of this very request safe.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Show a released token on the terminal.
    #[arg(long)]
    reveal: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern decide acme-mail messages.list --user usr_01h2xcejqtf2nbrexx3vqjhp41 --arg limit:=5 --json"
)]
pub(super) struct Decide {
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, Args)]
struct Question {
    /// The connector's id, as `acme-mail`.
    connector: String,
    /// The tool, as `messages.list`.
    tool: String,
    /// As whom.
    #[arg(long, value_name = "USER", required_unless_present = "grant")]
    user: Option<String>,
    /// With which account, if the person has several.
    #[arg(long)]
    account: Option<String>,
    /// With exactly this grant, instead of --user and --account.
    #[arg(long, conflicts_with_all = ["user", "account"])]
    grant: Option<String>,
    /// An argument of the tool: `name=text` or `name:=json`.
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// All arguments as one JSON object; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "args")]
    args_file: Option<PathBuf>,
    /// How it is released; without it the best rung there is.
    #[arg(long, value_parser = ["execute", "handle", "token"])]
    mode: Option<String>,
    /// The longest life of what is released, in seconds.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

impl Vend {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let mut body = self.question.body()?;
        if let Some(path) = &self.decision_file {
            body.insert("decision".into(), read(path)?.trim().into());
        }
        if let Some(key) = self.idempotency_key {
            body.insert("idempotency_key".into(), key.into());
        }
        let mut answer = client.post(&["v1", "vend"], &Value::Object(body)).await?;
        if output.style().to_terminal && !self.reveal && mask(&mut answer) {
            output
                .note("The secret is masked on a terminal; --reveal shows it, and a pipe gets it as it is.");
        }
        match answer.get("body").filter(|_| !output.style().json) {
            Some(Value::String(text)) => output.text(&text.clone()),
            Some(body) => output.text(&serde_json::to_string_pretty(body).unwrap_or_default()),
            None => output.show(&answer),
        }
        if let Some(entry) = answer.get("entry_id").and_then(Value::as_str) {
            output.note(&format!("entry: {entry}"));
        }
        Ok(())
    }
}

impl Decide {
    pub(super) async fn run(self, client: &Client, output: &mut Output) -> Result<(), CliError> {
        let body = self.question.body()?;
        let answer = client.post(&["v1", "decisions"], &Value::Object(body)).await?;
        output.show(&answer);
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        match text("outcome") {
            Some("allow") => Ok(()),
            outcome => Err(CliError::NotAllowed {
                reason: text("reason").unwrap_or("denied").to_owned(),
                approvable: outcome == Some("escalate"),
            }),
        }
    }
}

impl Question {
    fn body(self) -> Result<Map<String, Value>, CliError> {
        let args = match &self.args_file {
            Some(path) => parse_args_file(&read(path)?)?,
            None => parse_args(&self.args)?,
        };
        let mut body = Map::new();
        for (name, value) in [
            ("grant", self.grant),
            ("user", self.user),
            ("account", self.account),
            ("mode", self.mode),
        ] {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        // Protocol §5: `grant`, or (connector, user, account); a grant knows its connector.
        if !body.contains_key("grant") {
            body.insert("connector".into(), self.connector.into());
        }
        body.insert("tool".into(), self.tool.into());
        body.insert("args".into(), Value::Object(args));
        if let Some(ttl) = self.ttl {
            body.insert("ttl_s".into(), ttl.into());
        }
        Ok(body)
    }
}

fn parse_args(pairs: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut args = Map::new();
    for pair in pairs {
        let usage = || CliError::Usage(format!("--arg {pair}: write name=text or name:=json"));
        let (name, value) = pair.split_once('=').ok_or_else(usage)?;
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (name, serde_json::from_str(value).map_err(|_| usage())?),
            None => (name, Value::from(value)),
        };
        if name.is_empty() || args.insert(name.to_owned(), value).is_some() {
            return Err(CliError::Usage(format!(
                "--arg {pair}: the name is empty or occurs twice"
            )));
        }
    }
    Ok(args)
}

fn parse_args_file(text: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(args),
        _ => Err(CliError::Usage(
            "--args-file does not hold one JSON object".into(),
        )),
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|cause| CliError::File {
        path: path.display().to_string(),
        cause,
    })
}

/// Hides what a glance over a shoulder should not see; true when there was something.
fn mask(answer: &mut Value) -> bool {
    let mut found = false;
    for name in ["access_token", "handle"] {
        if let Some(secret) = answer.get_mut(name) {
            *secret = Value::from("[masked]");
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(pairs: &[&str]) -> Result<Value, CliError> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        parse_args(&pairs).map(Value::Object)
    }

    #[test]
    fn arguments_are_text_unless_marked_as_json() {
        assert_eq!(
            args(&["limit:=5", "q=5", "to:=[\"a@b\"]", "eq=a=b", "empty="]).unwrap(),
            json!({"limit": 5, "q": "5", "to": ["a@b"], "eq": "a=b", "empty": ""})
        );
    }

    #[test]
    fn malformed_arguments_are_refused() {
        for pairs in [&["limit"][..], &["=x"], &["a:=x"], &["a=1", "a=2"]] {
            assert!(matches!(args(pairs), Err(CliError::Usage(_))), "{pairs:?}");
        }
    }

    #[test]
    fn released_secrets_are_masked() {
        let mut answer = json!({"access_token": "canary", "handle": "psh_canary", "mode": "token"});
        assert!(mask(&mut answer));
        assert_eq!(
            answer,
            json!({"access_token": "[masked]", "handle": "[masked]", "mode": "token"})
        );
    }
}
