//! What a verb says: data to standard output, everything else to standard error.

use std::io::{self, BufRead as _, Write};

use serde_json::Value;

use super::{
    exit::CliError,
    table::{Table, plain, plain_lines},
};

/// How to say it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) colour: bool,
    pub(super) may_ask: bool,
    pub(super) to_terminal: bool,
    pub(super) messages_to_terminal: bool,
}

/// The two streams.
pub(super) struct Output {
    style: Style,
    data: Box<dyn Write + Send>,
    messages: Box<dyn Write + Send>,
    /// Whether the line of messages holds a bar.
    bar: bool,
    /// Whether the reader of the data has gone away.
    closed: bool,
}

impl Output {
    pub(super) fn new(style: Style, data: Box<dyn Write + Send>, messages: Box<dyn Write + Send>) -> Self {
        Self {
            style,
            data,
            messages,
            bar: false,
            closed: false,
        }
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    /// One line of data. A reader that has gone away is not an error of ours.
    pub(super) fn line(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn write(&mut self, text: &str) {
        self.closed |= self.data.write_all(text.as_bytes()).is_err();
    }

    /// Whether nobody reads the data any more: what goes on for ever ends then.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// A document as it is, for `--json`.
    pub(super) fn json(&mut self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A list: the document with `--json`, else a table of `columns` (JSON pointer, heading).
    pub(super) fn list(&mut self, items: &[Value], columns: &[(&str, &str)]) {
        if self.style.json {
            for item in items {
                self.json(item);
            }
            return;
        }
        if items.is_empty() {
            self.note("nothing to show");
            return;
        }
        let headings: Vec<&str> = columns.iter().map(|(_, heading)| *heading).collect();
        let mut table = Table::new(&headings);
        for item in items {
            table.row(
                columns
                    .iter()
                    .map(|(pointer, _)| item.pointer(pointer).map_or_else(String::new, cell)),
            );
        }
        let text = table.render(self.style.colour && self.style.to_terminal);
        self.write(&text);
    }

    /// One thing: the document with `--json`, else `name: value` lines.
    pub(super) fn show(&mut self, value: &Value) {
        if self.style.json {
            self.json(value);
            return;
        }
        match value.as_object() {
            Some(members) => {
                for (name, member) in members.iter().filter(|(_, member)| !member.is_null()) {
                    self.line(&format!("{}: {}", plain(name), cell(member)));
                }
            }
            None => self.line(&cell(value)),
        }
    }

    /// Text of several lines from the server.
    pub(super) fn text(&mut self, text: &str) {
        self.line(&plain_lines(text));
    }

    /// How much of something is done, in percent: a bar on a terminal, else a line.
    pub(super) fn progress(&mut self, percent: u8, what: &str) {
        if self.style.quiet {
            return;
        }
        if !self.style.messages_to_terminal {
            let _ = writeln!(self.messages, "{percent:3} % {}", plain(what));
            return;
        }
        let done = usize::from(percent.min(100)) * BAR / 100;
        let (full, rest) = ("#".repeat(done), ".".repeat(BAR - done));
        // To the line's beginning, and what is left of the last one cleared (ECMA-48 §8.3.41).
        let _ = write!(
            self.messages,
            "\r\x1b[K[{full}{rest}] {percent:3} % {}",
            plain(what)
        );
        let _ = self.messages.flush();
        self.bar = true;
    }

    fn end_bar(&mut self) {
        if std::mem::take(&mut self.bar) {
            let _ = writeln!(self.messages);
        }
    }

    /// Something a person may want to know; not with `--quiet`.
    pub(super) fn note(&mut self, text: &str) {
        self.end_bar();
        if !self.style.quiet {
            let _ = writeln!(self.messages, "{}", plain_lines(text));
        }
    }

    /// Why it did not work: what, then what to do.
    pub(super) fn error(&mut self, error: &CliError) {
        self.end_bar();
        match error {
            CliError::Refused(refusal) if self.style.json => {
                let _ = writeln!(self.messages, "{}", refusal.document);
            }
            CliError::Refused(refusal) => {
                let _ = writeln!(self.messages, "error: {}", plain(&error.to_string()));
                for hint in refusal.hints() {
                    let _ = writeln!(self.messages, "  {}", plain(&hint));
                }
            }
            error => {
                let _ = writeln!(self.messages, "error: {}", plain_lines(&error.to_string()));
            }
        }
    }

    /// Lets the person type `target` to go on; `yes` answers for them.
    ///
    /// # Errors
    /// [`CliError::Usage`] when nobody can be asked, [`CliError::Declined`] when they typed something else.
    pub(super) async fn confirm(&mut self, what: &str, target: &str, yes: bool) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !self.style.may_ask {
            return Err(CliError::Usage(format!(
                "{what} Nobody can be asked here: say --yes to go on."
            )));
        }
        let _ = write!(
            self.messages,
            "{} Type `{}` to go on: ",
            plain(what),
            plain(target)
        );
        let _ = self.messages.flush();
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer).map(|_| answer)
        })
        .await;
        match answer {
            Ok(Ok(answer)) if answer.trim() == target => Ok(()),
            _ => Err(CliError::Declined),
        }
    }
}

/// How long a bar is.
const BAR: usize = 30;

/// A value in one line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => plain(&other.to_string()),
    }
}
