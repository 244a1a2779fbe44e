//! What a campaign says: progress while it runs, and a table of what was survived.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, time::Duration};

use crate::load::Asked;

/// One fault, survived or not.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) requests: usize,
    pub(crate) released: usize,
    /// What else was heard, by kind.
    refused: BTreeMap<String, usize>,
    /// Whether the revocation that was tried meanwhile took effect then.
    pub(crate) revoked_meanwhile: bool,
    pub(crate) recovered: Duration,
    /// Calls whose outcome nobody knows yet.
    pub(crate) open: usize,
    pub(crate) passed: usize,
    pub(crate) complaints: Vec<String>,
}

impl Row {
    pub(crate) fn new(
        fault: &'static str,
        asked: &[Asked],
        recovered: Duration,
        revoked_meanwhile: bool,
    ) -> Self {
        let tries = || asked.iter().flat_map(|one| &one.tries);
        let mut refused = BTreeMap::new();
        for tried in tries().filter(|tried| !tried.released()) {
            *refused.entry(tried.kind().to_owned()).or_default() += 1;
        }
        Self {
            fault,
            requests: tries().count(),
            released: tries().filter(|tried| tried.released()).count(),
            refused,
            revoked_meanwhile,
            recovered,
            open: asked.iter().filter(|one| !one.settled()).count(),
            passed: 0,
            complaints: Vec::new(),
        }
    }

    /// Counts a check.
    pub(crate) fn check(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(complaint) => self.complaints.push(complaint),
        }
    }

    fn line(&self) -> String {
        let refused: Vec<String> = self
            .refused
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        format!(
            "{:<17} {:>8} {:>8} {:>9} {:>7} {:>4} {:>6}  {}",
            self.fault,
            self.requests,
            self.released,
            if self.revoked_meanwhile { "done" } else { "refused" },
            self.recovered.as_millis(),
            self.open,
            format!("{}/{}", self.passed, self.passed + self.complaints.len()),
            refused.join(", "),
        )
    }
}

/// Past the capture of tests: somebody may be waiting for twenty minutes.
pub(crate) fn say(text: &str) {
    std::io::stderr()
        .write_all(format!("{text}\n").as_bytes())
        .unwrap();
}

/// All rows, under their heads.
pub(crate) fn show(title: &str, rows: &[Row]) {
    let mut text = format!(
        "\n{title}\n{:<17} {:>8} {:>8} {:>9} {:>7} {:>4} {:>6}  {}\n",
        "fault", "requests", "released", "revoking", "back ms", "open", "checks", "not released",
    );
    for row in rows {
        writeln!(text, "{}", row.line()).unwrap();
    }
    let survived = rows.iter().filter(|row| row.complaints.is_empty()).count();
    writeln!(text, "{survived} of {} faults survived", rows.len()).unwrap();
    say(&text);
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line())
    }
}
