//! `postern apply`: shows what a file would change, then changes it.
//!
//! The server never reads files of ours, so what the file only names is put into it here: policy files become their
//! text, `client_secret_env` becomes `client_secret` with the variable's value.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{client::Client, exit::CliError, output::Output};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  postern apply acme.toml --dry-run\n  postern apply acme.toml --yes")]
pub(super) struct Apply {
    /// The file that describes the organisation.
    file: PathBuf,
    /// Show the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before changing anything.
    #[arg(long)]
    yes: bool,
}

impl Apply {
    pub(super) async fn run(
        self,
        client: &Client,
        env: &BTreeMap<String, String>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let text = read(&self.file)?;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let document = inline(&self.file, &text, env, |name| read(&folder.join(name)))?;

        let plan = client
            .post(&["v1", "apply"], &json!({"toml": document, "dry_run": true}))
            .await?;
        let changes = plan.get("changes").and_then(Value::as_array).cloned();
        warn(&plan, output);
        if self.dry_run || !output.style().json {
            show_plan(&plan, changes.as_deref(), output);
        }
        if self.dry_run {
            return Ok(());
        }
        if changes.is_some_and(|changes| changes.is_empty()) {
            output.note("Nothing to change.");
            return Ok(());
        }
        output
            .confirm("This changes the organisation.", "apply", self.yes)
            .await?;
        let done = client
            .post(&["v1", "apply"], &json!({"toml": document, "dry_run": false}))
            .await?;
        if output.style().json {
            output.json(&done);
        } else {
            show_secrets(&done, output);
            output.note("Applied.");
        }
        Ok(())
    }
}

/// What the file names and apply leaves as it is.
fn warn(plan: &Value, output: &mut Output) {
    let warnings = plan.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        let text = |member: &str| warning.get(member).and_then(Value::as_str).unwrap_or_default();
        output.note(&format!(
            "{} {:?} {}.",
            text("kind"),
            text("name"),
            text("detail")
        ));
    }
}

fn show_plan(plan: &Value, changes: Option<&[Value]>, output: &mut Output) {
    match changes {
        Some(changes) if !output.style().json => {
            output.list(
                changes,
                &[
                    ("/change", "CHANGE"),
                    ("/kind", "KIND"),
                    ("/name", "NAME"),
                    ("/detail", "DETAIL"),
                ],
            );
        }
        _ => output.show(plan),
    }
}

/// Keys the server has just minted: they are shown this once.
fn show_secrets(done: &Value, output: &mut Output) {
    let keys = done
        .get("keys")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if !keys.is_empty() {
        output.list(
            keys,
            &[
                ("/kind", "KIND"),
                ("/name", "NAME"),
                ("/id", "ID"),
                ("/key", "KEY (shown once)"),
            ],
        );
    }
}

/// Puts into the document what it only names.
fn inline(
    file: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
    load: impl Fn(&str) -> Result<String, CliError>,
) -> Result<String, CliError> {
    let mut document: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        CliError::Usage(format!("{}:{line}: {}", file.display(), error.message()))
    })?;
    if let Some(policies) = document.get_mut("policies").and_then(toml::Value::as_table_mut) {
        for (_, value) in policies.iter_mut() {
            replace_files(value, &load)?;
        }
    }
    if let Some(connectors) = document.get_mut("connector").and_then(toml::Value::as_table_mut) {
        for (id, connector) in connectors.iter_mut() {
            replace_secret(id, connector, env)?;
        }
    }
    toml::to_string(&document).map_err(|_| CliError::Failed("the document could not be written again".into()))
}

fn replace_files(
    value: &mut toml::Value,
    load: &impl Fn(&str) -> Result<String, CliError>,
) -> Result<(), CliError> {
    match value {
        toml::Value::String(name) => *name = load(name)?,
        toml::Value::Array(names) => {
            for name in names {
                replace_files(name, load)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn replace_secret(
    id: &str,
    connector: &mut toml::Value,
    env: &BTreeMap<String, String>,
) -> Result<(), CliError> {
    let Some(table) = connector.as_table_mut() else {
        return Ok(());
    };
    let Some(variable) = table.remove("client_secret_env") else {
        return Ok(());
    };
    let variable = variable.as_str().unwrap_or_default();
    let secret = env
        .get(variable)
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| {
            CliError::Usage(format!(
                "[connector.{id}] takes its client secret from {variable}, which is not set"
            ))
        })?;
    table.insert("client_secret".into(), toml::Value::String(secret.clone()));
    Ok(())
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|cause| CliError::File {
        path: path.display().to_string(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inlined(text: &str, env: &[(&str, &str)]) -> Result<toml::Table, CliError> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let text = inline(Path::new("acme.toml"), text, &env, |name| {
            Ok(format!("text of {name}"))
        })?;
        Ok(toml::from_str(&text).unwrap())
    }

    #[test]
    fn policy_files_become_their_text() {
        let table = inlined(
            "[policies]\norg = \"org.cedar\"\nagent = [\"a.cedar\", \"b.cedar\"]",
            &[],
        )
        .unwrap();
        assert_eq!(table["policies"]["org"].as_str(), Some("text of org.cedar"));
        assert_eq!(table["policies"]["agent"][1].as_str(), Some("text of b.cedar"));
    }

    #[test]
    fn a_client_secret_comes_from_the_named_variable() {
        let text = "[connector.slack]\nclient_id = \"1\"\nclient_secret_env = \"SLACK\"";
        let table = inlined(text, &[("SLACK", "s3")]).unwrap();
        assert_eq!(table["connector"]["slack"]["client_secret"].as_str(), Some("s3"));
        assert!(table["connector"]["slack"].get("client_secret_env").is_none());
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = inlined("[connector.slack]\nclient_secret_env = \"SLACK\"", &[]).unwrap_err();
        assert!(error.to_string().contains("SLACK, which is not set"), "{error}");
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let error = inlined("a = 1\nb = \n", &[]).unwrap_err();
        assert!(error.to_string().starts_with("acme.toml:2: "), "{error}");
    }
}
