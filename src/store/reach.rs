//! Whether a database server can be reached, told as it goes: a start that waits for one says for what.

use std::{fmt, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};

use super::{PostgresSettings, StoreError, postgres};

/// Waits until the server lets the role of the settings in, at most five seconds.
///
/// # Errors
/// [`StoreError::Unreached`], with what the server or the system said last; at once where trying again is of no use.
pub async fn reach(settings: &PostgresSettings) -> Result<(), StoreError> {
    let options = postgres::options(settings)?;
    let target = Target(&options).to_string();
    let until = tokio::time::Instant::now() + GIVE_UP;
    let mut told = false;
    loop {
        let cause = match tokio::time::timeout_at(until, options.connect()).await {
            Ok(Ok(connection)) => {
                // It has shown what it was to show.
                let _closed = connection.close().await;
                return Ok(());
            }
            Ok(Err(error)) if may_pass(&error) => error.to_string(),
            Ok(Err(error)) => return Err(unreached(target, error.to_string())),
            Err(_) => "it does not answer".to_owned(),
        };
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            return Err(unreached(target, cause));
        }
        if !told {
            told = true;
            tracing::warn!(
                cause = %cause,
                "cannot reach the database {target}: {cause}; trying again for {} s",
                left.as_secs().max(1)
            );
        }
        tokio::time::sleep(PAUSE.min(left)).await;
    }
}

fn unreached(target: String, cause: String) -> StoreError {
    StoreError::Unreached { target, cause }
}

/// Whether the same may work in a moment: the server is not there yet, starting, or full.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // cannot_connect_now, too_many_connections
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

/// Where and as whom. SECURITY: never the password.
struct Target<'a>(&'a PgConnectOptions);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.0;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        match options.get_socket() {
            Some(socket) => write!(f, "{database} in {}", socket.display())?,
            None => write!(f, "{database} at {}:{}", options.get_host(), options.get_port())?,
        }
        write!(f, " as {}", options.get_username())
    }
}

/// How long a start waits for the server.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
