//! `{name}` in the texts of a connector file.

/// The name, if the whole text is one placeholder.
pub(super) fn placeholder(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    (!name.is_empty() && !name.contains(['{', '}'])).then_some(name)
}

/// Splits an absolute URL template after its authority: origin, and path from `/` on.
pub(super) fn split_origin(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("");
    url.strip_suffix(path).map(|origin| (origin, path))
}

/// A piece of a text with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

/// The pieces of a text; `None` when braces do not match.
pub(super) fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}')?;
        if name.is_empty() || name.contains('{') || before.contains('}') {
            return None;
        }
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Name(name));
        rest = tail;
    }
    if rest.contains('}') {
        return None;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

/// The names in a text, if its braces match.
pub(super) fn names(text: &str) -> Option<Vec<&str>> {
    let pieces = pieces(text)?;
    Some(
        pieces
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Name(name) => Some(name),
                Piece::Text(_) => None,
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_pieces_are_found() {
        assert_eq!(placeholder("{a}"), Some("a"));
        for text in ["a", "{a", "{}", "{a}{b}", "x{a}"] {
            assert_eq!(placeholder(text), None, "{text}");
        }
        assert_eq!(names("Post to {channel}: {text}").unwrap(), ["channel", "text"]);
        for text in ["{", "}", "{a", "a}", "{{a}}", "{}"] {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn urls_split_after_the_authority() {
        assert_eq!(
            split_origin("https://a.example/b/{c}"),
            Some(("https://a.example", "/b/{c}"))
        );
        assert_eq!(split_origin("https://a.example"), Some(("https://a.example", "")));
        assert_eq!(split_origin("a.example/b"), None);
    }
}
