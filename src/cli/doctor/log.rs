//! The log: does its head hold, and does everything that was written get into it.

use std::time::Duration;

use serde::Deserialize;

use super::{
    finding::{Check, Finding},
    or_why,
};
use crate::{
    audit::{VerifierKey, checkpoint::Checkpoint},
    cli::{CliError, client::Client},
    domain::Time,
};

#[derive(Deserialize)]
struct Entry {
    id: String,
    ts: Time,
}

/// Looks whether the newest entry that is old enough has its place, then at the head.
pub(super) async fn look(client: &Client, now: Time) -> Vec<Finding> {
    or_why(Check::Log, looked(client, now).await)
}

async fn looked(client: &Client, now: Time) -> Result<Vec<Finding>, CliError> {
    let newest = client.list(&["v1", "audit", "entries"], &[], NEWEST).await?;
    let newest: Vec<Entry> = newest
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()
        .map_err(|_| CliError::Answer("entries of another form".into()))?;
    // Before the head is asked for: asking brings the log up to date. Only what is asked for alone says where it stands.
    let late = match newest.iter().find(|entry| now.since(entry.ts) > LONGEST_WAIT) {
        Some(old) => {
            let entry = client.get(&["v1", "audit", "entries", &old.id], &[]).await?;
            entry.get("log_index").is_none().then_some(&old.id)
        }
        None => None,
    };
    let key = client.text(&["v1", "audit", "key"]).await?;
    let note = client.checkpoint(false).await?;
    let opened = key
        .trim_end()
        .parse::<VerifierKey>()
        .map_err(|error| error.to_string())
        .and_then(|key| Checkpoint::open(&note, &key).map_err(|error| error.to_string()));
    Ok(vec![match opened {
        Err(error) => Finding::wrong(
            Check::Log,
            format!("the checkpoint does not hold: {error}"),
            "keep the last export and checkpoint you have, and compare with `postern audit verify`",
        ),
        Ok(head) => match late {
            Some(late) => Finding::wrong(
                Check::Log,
                format!(
                    "{late} has waited for its place in the log for more than {} s",
                    LONGEST_WAIT.as_secs()
                ),
                "the sequencer does not get on: see the service's log, and whether a replica is stopped but alive",
            ),
            None => Finding::ok(
                Check::Log,
                format!("{} entries under a checkpoint that holds", head.size),
            ),
        },
    }])
}

/// One that is old enough is looked for among so many.
const NEWEST: usize = 200;
/// The sequencer comes by every few seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
