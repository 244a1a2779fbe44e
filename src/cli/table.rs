//! Tables for people. Text from the server is made harmless first: a name must not repaint the terminal.

use std::fmt::Write as _;

use crate::domain::text::is_unseen;

/// Rows under headings, columns as wide as they need.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            headings: headings.iter().map(|text| (*text).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    pub(super) fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .chain([&self.headings])
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        let (bold, end) = if colour {
            ("\u{1b}[1m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        let _ = writeln!(text, "{bold}{}{end}", line(&self.headings, &widths));
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row, &widths));
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "{cell:<width$}  ");
    }
    text.trim_end().to_owned()
}

/// One line of text in which nothing moves the cursor, changes the direction or hides.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if is_unseen(c) { '\u{fffd}' } else { c })
        .collect()
}

/// As [`plain`], but keeps line ends: for texts of several lines.
pub(super) fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(["grt_1".to_owned(), "active".to_owned()]);
        table.row(["grt_1234".to_owned(), "é".to_owned()]);
        assert_eq!(
            table.render(false),
            "ID        STATE\ngrt_1     active\ngrt_1234  é\n"
        );
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor_or_the_direction() {
        let hostile = "a\u{1b}[2Jb\rc\u{202e}d\u{2066}e\u{200b}f\ng\u{0}\u{9b}";
        let shown = plain(hostile);
        assert_eq!(
            shown,
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn ordinary_text_of_any_script_stays() {
        for text in [
            "Ada Lovelace",
            "Łódź",
            "日本語",
            "عربي",
            "👩‍💻"
                .trim_matches('\u{200d}')
                .chars()
                .next()
                .unwrap()
                .to_string()
                .as_str(),
        ] {
            assert_eq!(plain(text), text);
        }
    }
}
