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
    let mut tail = Tail {
        client,
        query,
        output,
        seen: Seen::default(),
        told: None,
    };
    tail.begin(lines).await?;
    while !tail.output.is_closed() {
        tokio::time::sleep(PAUSE).await;
        tail.look().await?;
    }
    Ok(())
}

struct Tail<'a> {
    client: &'a Client,
    query: &'a [(&'a str, &'a str)],
    output: &'a mut Output,
    seen: Seen,
    /// Why the server cannot answer: said once, however long it lasts.
    told: Option<String>,
}

impl Tail<'_> {
    /// What is there already; of that, only the last so many are shown.
    async fn begin(&mut self, lines: usize) -> Result<(), CliError> {
        let look = lines.max(LOOK);
        let mut entries = self.client.list(&ENTRIES, self.query, look).await?;
        if entries.len() == look {
            self.seen.first = entries.last().and_then(id).map(str::to_owned);
        }
        // Those not shown are known all the same.
        let hidden = entries.split_off(lines.min(entries.len()));
        hidden.iter().rev().for_each(|entry| self.seen.add(entry));
        self.print(entries);
        Ok(())
    }

    /// Prints what was not seen yet. Looks further back until three quarters of what it sees are known, or [`BEHIND`] entries:
    /// between two looks any number may have been written, and one that took longer to commit stands among those known. It is
    /// found among the newest [`LOOK`], or where many are new, among three times as many behind them.
    async fn look(&mut self) -> Result<(), CliError> {
        let (mut newest, mut stretches) = (Vec::new(), Vec::new());
        let (mut read, mut known) = (0, 0);
        let mut after: Option<String> = None;
        loop {
            let limit = if after.is_none() { LOOK } else { PAGE };
            let mut page = self.page(after.as_deref(), limit).await?;
            if let Some(at) = page.entries.iter().position(|entry| self.seen.is_first(entry)) {
                page.entries.truncate(at + 1);
                page.next = None;
            }
            read += page.entries.len();
            let last = page.entries.last().and_then(id).map(str::to_owned);
            let fresh = self.fresh(page.entries);
            known += fresh.known;
            // Of very many only the newest are kept until those before them are printed; the others are read again then.
            match (after, last) {
                (Some(after), Some(last)) if newest.len() >= KEPT => {
                    if !fresh.entries.is_empty() {
                        stretches.push(Stretch { after, last });
                    }
                }
                _ => newest.extend(fresh.entries),
            }
            let enough = known * 4 >= read * 3 || known >= BEHIND;
            after = page.next.filter(|_| !enough);
            if after.is_none() {
                break;
            }
        }
        for stretch in stretches.into_iter().rev() {
            let entries = self.again(stretch).await?;
            self.print(entries);
            if self.output.is_closed() {
                return Ok(());
            }
        }
        self.print(newest);
        Ok(())
    }

    /// What was not seen yet of a stretch, newest first. It may have become longer by what was committed late.
    async fn again(&mut self, stretch: Stretch) -> Result<Vec<Value>, CliError> {
        let (mut entries, mut after) = (Vec::new(), stretch.after);
        loop {
            let mut page = self.page(Some(&after), PAGE).await?;
            let end = |entry: &Value| id(entry) == Some(stretch.last.as_str());
            if let Some(at) = page.entries.iter().position(end) {
                page.entries.truncate(at + 1);
                page.next = None;
            }
            entries.extend(self.fresh(page.entries).entries);
            match page.next {
                Some(next) => after = next,
                None => return Ok(entries),
            }
        }
    }

    /// One page; waits until the server can answer.
    async fn page(&mut self, after: Option<&str>, limit: usize) -> Result<Page, CliError> {
        loop {
            match ask(self.client, self.query, after, limit).await {
                Ok(page) => {
                    self.told = None;
                    return Ok(page);
                }
                Err(error) if may_pass(&error) => {
                    let why = error.to_string();
                    if self.told.as_ref() != Some(&why) {
                        self.output.note(&format!("{why}; trying again"));
                        self.told = Some(why);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn fresh(&self, mut entries: Vec<Value>) -> Fresh {
        let read = entries.len();
        entries.retain(|entry| !self.seen.knows(entry));
        Fresh {
            known: read - entries.len(),
            entries,
        }
    }

    /// Prints entries that come newest first, and remembers them.
    fn print(&mut self, mut entries: Vec<Value>) {
        entries.reverse();
        entries.iter().for_each(|entry| self.seen.add(entry));
        if !entries.is_empty() {
            self.output.list(&entries, &COLUMNS);
        }
    }
}

/// One page, newest first.
async fn ask(
    client: &Client,
    query: &[(&str, &str)],
    after: Option<&str>,
    limit: usize,
) -> Result<Page, CliError> {
    let limit = limit.to_string();
    let mut query = query.to_vec();
    query.push(("limit", &limit));
    query.extend(after.map(|after| ("after", after)));
    let mut answer = client.get(&ENTRIES, &query).await?;
    let Some(Value::Array(entries)) = answer.get_mut("items").map(Value::take) else {
        return Err(CliError::Answer("a list without `items`".into()));
    };
    let next = answer.get("next").and_then(Value::as_str);
    let next = next.filter(|next| !entries.is_empty() && Some(*next) != after);
    Ok(Page {
        next: next.map(str::to_owned),
        entries,
    })
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

struct Page {
    entries: Vec<Value>,
    /// Behind what the next one begins, if there is one.
    next: Option<String>,
}

struct Fresh {
    entries: Vec<Value>,
    /// How many others there were.
    known: usize,
}

/// A part of the log that was looked at and not kept.
struct Stretch {
    after: String,
    last: String,
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
/// Entries of a page behind them.
const PAGE: usize = 200;
/// New entries kept while others are looked for.
const KEPT: usize = 10_000;
/// Known entries looked back at at most.
const BEHIND: usize = 10_000;
/// Ids kept: more than are ever looked back at.
const REMEMBERED: usize = 2 * BEHIND;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
