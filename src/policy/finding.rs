//! What is wrong with a policy text, where, and what to do about it.

use std::fmt;

use cedar_policy::ffi::DetailedError;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policies are refused.
    Error,
    /// The policies work, but probably not as meant.
    Warning,
}

/// One thing wrong with a policy text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyFinding {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl fmt::Display for PolicyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}:{}: {severity}: {}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.fix {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

impl PolicyFinding {
    /// An error at a byte offset of a text.
    pub(super) fn at(
        file: &str,
        text: &str,
        offset: usize,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (line, column) = position(text, offset);
        Self {
            file: file.to_owned(),
            line,
            column,
            severity: Severity::Error,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }

    fn place(&self) -> (&str, usize, usize, Severity) {
        (&self.file, self.line, self.column, self.severity)
    }

    /// What Cedar found: its words, its place, its advice. `start` is where the policy begins.
    pub(super) fn from_cedar(
        file: &str,
        text: &str,
        start: usize,
        detail: DetailedError,
        severity: Severity,
    ) -> Self {
        let offset = detail
            .source_locations
            .iter()
            .map(|label| label.loc.start)
            .next()
            .unwrap_or(start);
        let (line, column) = position(text, offset);
        Self {
            file: file.to_owned(),
            line,
            column,
            severity,
            message: detail.message,
            fix: detail.help,
        }
    }
}

/// Makes one finding of those at one place: an open scope repeats a mistake for every tool it covers.
pub(super) fn merged(mut findings: Vec<PolicyFinding>) -> Vec<PolicyFinding> {
    findings.sort();
    let mut merged: Vec<PolicyFinding> = Vec::new();
    for finding in findings {
        match merged.last_mut() {
            Some(last) if last.place() == finding.place() => {
                last.fix = Some(
                    "it is wrong for several tools of the scope: narrow the action, or ask with `has` first"
                        .to_owned(),
                );
            }
            _ => merged.push(finding),
        }
    }
    merged
}

/// Line and column, both from 1, of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab\nüx", 5), (2, 2));
        assert_eq!(position("ab\n", 99), (2, 1));
    }
}
