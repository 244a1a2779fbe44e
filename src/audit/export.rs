//! The export: one file that holds a whole log and proves itself against the public key.
//!
//! JSON lines, each in canonical form (RFC 8785), each ended by one newline: a header, one line per entry in log
//! order, the signed checkpoint. An entry stands in its line as raw JSON, so its bytes are exactly recoverable.
//! Everything in the file is bound by the checkpoint's signature; there is no member that could be changed unseen.

use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::checkpoint::{org_of, parse_decimal};
use crate::domain::OrgId;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The tenant.
    pub org: OrgId,
    /// The log's origin, as in the checkpoint.
    pub origin: String,
    /// The version of this format: always 1.
    pub postern_audit_export: u8,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer<'a> {
    checkpoint: std::borrow::Cow<'a, str>,
}

/// Why an export cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The origin names no org.
    #[error("the log's origin does not end in /orgs/<org>/log")]
    InvalidOrigin,
    /// The sink failed.
    #[error("the export could not be written")]
    Io(#[from] io::Error),
}

/// Writes an export, line by line, in constant memory.
#[derive(Debug)]
pub struct ExportWriter<W> {
    sink: W,
    index: u64,
}

impl<W: Write> ExportWriter<W> {
    /// Begins the export of the log with this origin.
    ///
    /// # Errors
    /// When the origin is not one, or the sink fails.
    pub fn begin(mut sink: W, origin: &str) -> Result<Self, ExportError> {
        let org = org_of(origin).ok_or(ExportError::InvalidOrigin)?;
        let header = Header {
            org,
            origin: origin.to_owned(),
            postern_audit_export: VERSION,
        };
        sink.write_all(&line_of(&header)?)?;
        Ok(Self { sink, index: 0 })
    }

    /// Adds the next entry of the log: the bytes as they are stored.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.sink.write_all(ENTRY)?;
        self.sink.write_all(bytes)?;
        writeln!(self.sink, "{INDEX}{}}}", self.index)?;
        self.index += 1;
        Ok(())
    }

    /// Ends the export with the note of the checkpoint of exactly this size.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn finish(mut self, note: &str) -> Result<W, ExportError> {
        self.sink.write_all(&line_of(&Footer {
            checkpoint: note.into(),
        })?)?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

/// One line of an export, by its shape alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportLine<'a> {
    /// The header, of a version this program knows, in canonical form.
    Header(Header),
    /// An entry's raw bytes and the place it claims.
    Entry {
        /// The bytes, unchecked.
        bytes: &'a [u8],
        /// The claimed place.
        index: u64,
    },
    /// The note of the checkpoint, unchecked.
    Checkpoint(String),
    /// None of these.
    Unknown,
}

/// Tells what a line (without its newline) is.
#[must_use]
pub fn parse_line(line: &[u8]) -> ExportLine<'_> {
    let parsed = if line.starts_with(ENTRY) {
        parse_entry_line(line)
    } else if line.starts_with(b"{\"checkpoint\":") {
        canonical::<Footer<'_>>(line).map(|footer| ExportLine::Checkpoint(footer.checkpoint.into_owned()))
    } else {
        canonical::<Header>(line)
            .filter(|header| header.postern_audit_export == VERSION)
            .map(ExportLine::Header)
    };
    parsed.unwrap_or(ExportLine::Unknown)
}

fn parse_entry_line(line: &[u8]) -> Option<ExportLine<'_>> {
    // In canonical JSON `,"index":` cannot stand inside a string, and the last one is the line's own member.
    let body = line.strip_prefix(ENTRY)?.strip_suffix(b"}")?;
    let at = body
        .windows(INDEX.len())
        .rposition(|part| part == INDEX.as_bytes())?;
    let (bytes, rest) = body.split_at_checked(at)?;
    let index = std::str::from_utf8(rest.strip_prefix(INDEX.as_bytes())?).ok()?;
    Some(ExportLine::Entry {
        bytes,
        index: parse_decimal(index)?,
    })
}

/// Reads JSON that must be exactly what we would write.
fn canonical<'a, T: Deserialize<'a> + Serialize>(line: &'a [u8]) -> Option<T> {
    let value: T = serde_json::from_slice(line).ok()?;
    (serde_json::to_vec(&value).ok()? == line).then_some(value)
}

// The members of both structs stand in canonical order.
fn line_of(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// What reading the next line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextLine<'a> {
    /// A line without its newline.
    Line(&'a [u8]),
    /// Bytes after the last newline: the file was cut.
    Unterminated,
    /// A line longer than any line of an export; skipped.
    TooLong,
    /// The end.
    End,
}

/// Reads lines of bounded length into one buffer.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    line: Vec<u8>,
}

impl<R: BufRead> LineReader<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::new(),
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// When the source fails.
    pub fn next_line(&mut self) -> io::Result<NextLine<'_>> {
        self.line.clear();
        // The longest line and its end.
        let most = MAX_LINE as u64 + 1;
        let read = self
            .source
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line)?;
        Ok(match self.line.split_last() {
            None => NextLine::End,
            Some((b'\n', line)) => NextLine::Line(line),
            Some(_) if read <= MAX_LINE => NextLine::Unterminated,
            Some(_) => {
                self.source.skip_until(b'\n')?;
                NextLine::TooLong
            }
        })
    }
}

const VERSION: u8 = 1;
const ENTRY: &[u8] = b"{\"entry\":";
const INDEX: &str = ",\"index\":";

/// Longest line: a checkpoint of some thousand writers.
const MAX_LINE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_bounded_and_their_end_is_told() {
        let text = [
            b"one\n\ntwo\n".to_vec(),
            vec![b'x'; MAX_LINE + 1],
            b"\n".to_vec(),
            vec![b'x'; MAX_LINE],
            b"\nlast\nrest".to_vec(),
        ]
        .concat();
        let mut reader = LineReader::new(io::BufReader::with_capacity(7, text.as_slice()));
        for line in [b"one".as_slice(), b"", b"two"] {
            assert_eq!(reader.next_line().unwrap(), NextLine::Line(line));
        }
        assert_eq!(reader.next_line().unwrap(), NextLine::TooLong);
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(reader.next_line().unwrap(), NextLine::Line(&longest));
        assert_eq!(reader.next_line().unwrap(), NextLine::Line(b"last"));
        assert_eq!(reader.next_line().unwrap(), NextLine::Unterminated);
        assert_eq!(reader.next_line().unwrap(), NextLine::End);
        for (length, last) in [
            (MAX_LINE, NextLine::Unterminated),
            (MAX_LINE + 1, NextLine::TooLong),
        ] {
            let text = vec![b'x'; length];
            assert_eq!(LineReader::new(text.as_slice()).next_line().unwrap(), last);
        }
    }

    #[test]
    fn an_entry_line_gives_back_the_exact_bytes() {
        let bytes = br#"{"a":"x,\"index\":9}","b":{"index":3}}"#;
        let origin = super::super::origin("https://p.example", OrgId::from_bytes([1; 16]));
        let mut writer = ExportWriter::begin(Vec::new(), &origin).unwrap();
        writer.entry(bytes).unwrap();
        writer.entry(bytes).unwrap();
        let text = writer.finish("a\n\n— b AAAAAAA=\n").unwrap();
        let lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
        assert!(matches!(parse_line(lines[0]), ExportLine::Header(header) if header.origin == origin));
        assert_eq!(parse_line(lines[1]), ExportLine::Entry { bytes, index: 0 });
        assert_eq!(parse_line(lines[2]), ExportLine::Entry { bytes, index: 1 });
        assert_eq!(
            parse_line(lines[3]),
            ExportLine::Checkpoint("a\n\n— b AAAAAAA=\n".to_owned())
        );
    }

    #[test]
    fn lines_in_another_form_are_unknown() {
        for line in [
            "",
            "{}",
            r#"{"entry":{},"index":01}"#,
            r#"{"entry":{},"index":-1}"#,
            r#"{"entry":{},"index":1 }"#,
            r#"{"entry":{}}"#,
            r#"{"checkpoint": "a"}"#,
            r#"{"checkpoint":"\u0061"}"#,
            r#"{"checkpoint":"a","more":1}"#,
            r#"{"org":"org_00000000000000000000000000","origin":"o","postern_audit_export":2}"#,
            r#"{"origin":"o","org":"org_00000000000000000000000000","postern_audit_export":1}"#,
        ] {
            assert_eq!(parse_line(line.as_bytes()), ExportLine::Unknown, "{line}");
        }
    }
}
