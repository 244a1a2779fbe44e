//! `postern audit tail`: entries as they are written, each once, oldest first, until it is interrupted.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use serde_json::Value;

use super::{
    audit::{COLUMNS, ENTRIES},
    client::Client,
    exit::CliError,
    output::Output,
};

/// Follows the log until nobody reads what it prints. A server that goes away, or cannot answer for a while, is waited for.
pub(super) async fn follow(
    client: &Client,
    query: &[(&str, &str)],
    lines: usize,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut seen = Seen::default();
    let mut fresh = newest(client, query, Some(lines), &mut seen).await?;
    let mut told = None;
    loop {
        if !fresh.is_empty() {
            output.list(&fresh, &COLUMNS);
        }
        if output.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        fresh = match newest(client, query, None, &mut seen).await {
            Ok(fresh) => {
                told = None;
                fresh
            }
            Err(error) if may_pass(&error) => {
                // Said once, however long it lasts.
                let why = error.to_string();
                if told.as_ref() != Some(&why) {
                    output.note(&format!("{why}; trying again"));
                    told = Some(why);
                }
                Vec::new()
            }
            Err(error) => return Err(error),
        };
    }
}

/// Whether the same may work later. It has worked before.
fn may_pass(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } | CliError::Answer(_) => true,
        CliError::Refused(refusal) => {
            let status = refusal.document.get("status").and_then(Value::as_u64);
            status.is_some_and(|status| status == 429 || status >= 500)
        }
        _ => false,
    }
}

/// What was not seen yet, oldest first. Looks further back until three quarters of what it sees are known: between two looks
/// any number may have been written, and one that took longer to commit stands among those known. It is found among the
/// newest [`LOOK`], or where many are new, among three times as many behind them. The first look knows
/// nothing yet: of that, only the `last` so many are shown.
async fn newest(
    client: &Client,
    query: &[(&str, &str)],
    last: Option<usize>,
    seen: &mut Seen,
) -> Result<Vec<Value>, CliError> {
    let mut look = last.map_or(LOOK, |lines| lines.max(LOOK));
    loop {
        let mut entries = client.list(&ENTRIES, query, look).await?;
        let mut whole = entries.len() < look;
        if let Some(at) = entries.iter().position(|entry| seen.is_first(entry)) {
            entries.truncate(at + 1);
            whole = true;
        }
        if last.is_some() && !whole {
            seen.first = entries.last().and_then(id).map(str::to_owned);
        }
        let known = entries.iter().filter(|entry| seen.knows(entry)).count();
        if last.is_some() || known * 4 >= entries.len() * 3 || whole || look >= FURTHEST {
            let mut fresh: Vec<Value> = entries.into_iter().filter(|entry| !seen.knows(entry)).collect();
            fresh.reverse();
            fresh.iter().for_each(|entry| seen.add(entry));
            if let Some(lines) = last {
                fresh.drain(..fresh.len().saturating_sub(lines));
            }
            return Ok(fresh);
        }
        look = (look * 4).min(FURTHEST);
    }
}

/// The ids of the last entries printed.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
    /// The oldest of the first look, if there are others behind it: what was there before is no news.
    first: Option<String>,
}

impl Seen {
    fn knows(&self, entry: &Value) -> bool {
        id(entry).is_some_and(|id| self.ids.contains(id))
    }

    fn is_first(&self, entry: &Value) -> bool {
        self.first.is_some() && id(entry) == self.first.as_deref()
    }

    fn add(&mut self, entry: &Value) {
        let Some(id) = id(entry) else { return };
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

fn id(entry: &Value) -> Option<&str> {
    entry.get("id").and_then(Value::as_str)
}

/// Entries looked at each time.
const LOOK: usize = 50;
/// Entries looked back at most.
const FURTHEST: usize = 10_000;
/// Ids kept: more than are ever looked back at.
const REMEMBERED: usize = 2 * FURTHEST;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
