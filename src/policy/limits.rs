//! Bounds on policy texts, checked before anything recursive touches them.
//!
//! SECURITY: an admin of one tenant writes these texts and every tenant shares the process. A parser that is driven
//! out of its stack ends them all.

use cedar_policy::Policy;

/// The longest file.
pub(super) const MAX_FILE: usize = 64 * 1024;
/// The longest policy, comments not counted.
pub(super) const MAX_POLICY: usize = 8 * 1024;
/// How deep brackets may nest.
pub(super) const MAX_DEPTH: usize = 32;
/// How many parts the expression of a policy may have.
pub(super) const MAX_PARTS: usize = 600;

/// How deep the JSON form of an expression may nest; an operator is two levels. What compiles must be evaluated on a
/// worker's 2 MiB stack, also in a debug build (50 KiB a level); Cedar gives up where it ends, and that is a deny.
pub(super) const MAX_EXPRESSION_DEPTH: usize = 64;

/// Checks the bare text; an offset and what is wrong there.
pub(super) fn check_text(text: &str) -> Result<(), (usize, String)> {
    if text.len() > MAX_FILE {
        return Err((0, format!("the file is longer than {MAX_FILE} bytes")));
    }
    let mut depth = 0_usize;
    let mut length = 0_usize;
    let mut state = State::Code;
    let mut previous = 0_u8;
    for (offset, byte) in text.bytes().enumerate() {
        state = match (state, byte) {
            (State::Comment, b'\n') => State::Code,
            (State::Comment, _) => State::Comment,
            (State::Text, b'\\') => State::Escape,
            (State::Text, b'"') => State::Code,
            (State::Text | State::Escape, _) => State::Text,
            (State::Code, b'"') => State::Text,
            (State::Code, b'/') if previous == b'/' => State::Comment,
            (State::Code, _) => {
                match byte {
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                    b';' => length = 0,
                    _ => {}
                }
                State::Code
            }
        };
        previous = if state == State::Code { byte } else { 0 };
        if state != State::Comment {
            length += 1;
        }
        if depth > MAX_DEPTH {
            return Err((offset, format!("brackets nest deeper than {MAX_DEPTH}")));
        }
        if length > MAX_POLICY {
            return Err((offset, format!("the policy is longer than {MAX_POLICY} bytes")));
        }
    }
    Ok(())
}

/// Whether the parsed policy is small enough to be looked into.
pub(super) fn is_small(policy: &Policy) -> bool {
    policy
        .as_ref()
        .condition()
        .subexpressions()
        .take(MAX_PARTS + 1)
        .count()
        <= MAX_PARTS
}

/// Runs `work` where recursion over everything within these bounds fits; `None` when there is no thread to be had, or
/// `work` panicked. Cedar's parser and validator recurse along chains of operators. The caller's thread stands still
/// meanwhile, for seconds where texts are long: it must be none of the runtime's workers.
pub(super) fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// Only what is used of it is ever memory.
const STACK: usize = 128 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    Text,
    Escape,
    Comment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_long_texts_are_refused() {
        assert!(check_text(&"(".repeat(MAX_DEPTH + 1)).is_err());
        assert!(check_text(&"a".repeat(MAX_POLICY + 1)).is_err());
        assert!(check_text(&";".repeat(MAX_FILE + 1)).is_err());
    }

    #[test]
    fn texts_and_comments_do_not_count_as_brackets() {
        let brackets = "(".repeat(100);
        for text in [
            format!("// {brackets}\npermit"),
            format!("\"{brackets}\""),
            format!("\"\\\"{brackets}\""),
        ] {
            assert_eq!(check_text(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn brackets_after_a_text_or_a_comment_count() {
        let brackets = "(".repeat(MAX_DEPTH + 1);
        for text in [
            format!("\"a\\\\\" {brackets}"),
            format!("// a\n{brackets}"),
            format!("\"//\" {brackets}"),
            format!("a / {brackets}"),
        ] {
            assert!(check_text(&text).is_err(), "{text}");
        }
    }
}
