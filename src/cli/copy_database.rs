//! `postern copy-database`: a whole database into another one. Runs where both can be reached, while no process of
//! Postern uses either.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{exit::CliError, output::Output};
use crate::{
    app::{AppError, copy_database},
    config::{Database, Settings},
    store::{CopyError, Progress},
};

#[derive(Debug, Args)]
#[command(after_help = "\
FROM and TO are each a configuration file of the service (FILE.toml), a URL as in its [store] table, \
or a SQLite file. A password is in no URL: it comes from the file's password_file, from \
--from-password-file and --to-password-file, from POSTERN_STORE_PASSWORD, or in libpq's own ways. \
A PostgreSQL target has to be migrated and empty.

Stop every process of Postern first. A copy that was stopped goes on where it was when it is run \
again. In the end both databases are read back and compared; then the source does not start any \
more, and the target does.

Exit codes: 0 copied, 1 not copied, 9 the copy differs from its source, 130 interrupted.

Example:
  postern copy-database /var/lib/postern/postern.db \\
    'postgres://postern@db.example/postern?sslmode=verify-full' \\
    --to-password-file /etc/postern/db-password")]
pub(super) struct CopyDatabase {
    /// The database that is read.
    #[arg(value_name = "FROM")]
    from: String,
    /// The database that is written.
    #[arg(value_name = "TO")]
    to: String,
    /// A file with the password of the role in FROM.
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// A file with the password of the role in TO.
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Show what would be copied, and whether it would be refused; change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl CopyDatabase {
    pub(super) async fn run(
        self,
        env: &BTreeMap<String, String>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let from = database("FROM", &self.from, self.from_password_file, env)?;
        let to = database("TO", &self.to, self.to_password_file, env)?;
        if self.dry_run {
            let counts = copy_database::survey(&from, &to).await.map_err(failed)?;
            let rows: u64 = counts.iter().map(|count| count.rows).sum();
            let tables: Vec<Value> = counts.iter().map(|count| json!(count)).collect();
            show(
                output,
                &json!({ "rows": rows, "tables": tables }),
                &tables,
                COLUMNS,
            );
            output.note(&format!("{rows} rows would be copied. Nothing was changed."));
            return Ok(());
        }
        let mut shown = Shown::default();
        let report = copy_database::run(&from, &to, &mut |progress| shown.tell(output, progress))
            .await
            .map_err(failed)?;
        let tables: Vec<Value> = report.tables.iter().map(|table| json!(table)).collect();
        let document = json!({
            "event": "done", "orgs": report.orgs, "was_complete": report.was_complete, "tables": tables,
        });
        show(output, &document, &tables, DIGESTED);
        output.note(if report.was_complete {
            "This copy was complete already; nothing was changed."
        } else {
            "Copied and compared: both databases are the same. The source does not start any more; point [store] url of \
             every process at the target."
        });
        Ok(())
    }
}

/// One side, as the operator named it.
fn database(
    argument: &'static str,
    named: &str,
    password_file: Option<PathBuf>,
    env: &BTreeMap<String, String>,
) -> Result<Database, CliError> {
    if named.contains("://") {
        return Ok(Database::named(argument, named, password_file, env)?);
    }
    if Path::new(named).extension().is_some_and(|kind| kind == "toml") {
        let mut store = Settings::load(Path::new(named), env)?.store;
        if let Some(file) = password_file {
            (store.password_file, store.password) = (Some(file), None);
        }
        return Ok(store);
    }
    let path = std::path::absolute(named).map_err(|cause| CliError::File {
        path: named.to_owned(),
        cause,
    })?;
    let url = format!("sqlite://{}", path.display());
    Ok(Database::named(argument, &url, password_file, env)?)
}

fn failed(error: AppError) -> CliError {
    match error {
        AppError::Copy(CopyError::Mismatch { .. }) => CliError::Differs(error.to_string()),
        error => CliError::Failed(error.to_string()),
    }
}

/// One document with `--json`, else a table.
fn show(output: &mut Output, document: &Value, tables: &[Value], columns: &[(&str, &str)]) {
    if output.style().json {
        output.json(document);
    } else {
        output.list(tables, columns);
    }
}

/// What was told last: nobody wants to read of every batch.
#[derive(Default)]
struct Shown {
    step: &'static str,
    percent: u8,
}

impl Shown {
    fn tell(&mut self, output: &mut Output, progress: &Progress) {
        let whole = progress.rows.saturating_mul(100) / progress.of.max(1);
        let percent = u8::try_from(whole.min(100)).unwrap_or(100);
        // A bar moves with every percent, lines in a file are for reading.
        let stride = if output.style().json || output.style().messages_to_terminal {
            1
        } else {
            10
        };
        if self.step == progress.step && percent / stride <= self.percent / stride {
            return;
        }
        (self.step, self.percent) = (progress.step, percent);
        if output.style().json {
            output.json(&json!({
                "event": "progress", "step": progress.step, "table": progress.table,
                "rows": progress.rows, "of": progress.of,
            }));
            return;
        }
        let (step, table) = (progress.step, &progress.table);
        let what = format!("{step} {table}: {} of {} rows", progress.rows, progress.of);
        output.progress(percent, &what);
    }
}

const COLUMNS: &[(&str, &str)] = &[("/table", "TABLE"), ("/rows", "ROWS")];
const DIGESTED: &[(&str, &str)] = &[("/table", "TABLE"), ("/rows", "ROWS"), ("/digest", "DIGEST")];
