//! The strict gate (crypto §5): bytes from outside become a value only in one unambiguous way. Reject, never repair.
//!
//! `serde_json` parses; a visitor adds what it lets pass: duplicate members, depth, and (with a look at the literals,
//! which a visitor never sees) numbers that would change their value or their text on the way through.

mod literal;
mod shape;
mod visitor;

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::Value;

/// How much a caller lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Most bytes.
    pub max_bytes: usize,
    /// Most arrays and objects inside each other.
    pub max_depth: usize,
    /// Whether a number may have `.` or an exponent; the caller then checks that only `number` args do.
    pub fractions: bool,
}

impl Gate {
    /// Decisions, approvals, keys and other bodies without fractions.
    pub const STRICT: Self = Self {
        max_bytes: 64 * 1024,
        max_depth: 32,
        fractions: false,
    };
    /// Bodies that carry args: where the tool says `number`, fractions are in order.
    pub const ARGS: Self = Self {
        fractions: true,
        ..Self::STRICT
    };
    /// The caller's `context` (protocol §5).
    pub const CONTEXT: Self = Self {
        max_bytes: 4 * 1024,
        ..Self::STRICT
    };

    /// The value of `bytes`, which must be one JSON text and nothing else.
    ///
    /// # Errors
    /// See [`GateFlaw`].
    pub fn check(&self, bytes: &[u8]) -> Result<Value, GateError> {
        if bytes.len() > self.max_bytes {
            return Err(GateFlaw::TooLong { max: self.max_bytes }.into());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| GateFlaw::NotUtf8)?;
        let first_flaw = literal::scan(bytes, self.fractions)?;
        let mut state = visitor::State::new(self.max_depth, first_flaw);
        let mut parser = serde_json::Deserializer::from_str(text);
        let value = visitor::Node::root(&mut state).deserialize(&mut parser);
        if value.as_ref().is_err_and(|error| error.is_syntax()) {
            state.refuse_unread_number();
        }
        let value = match (value, state.into_error()) {
            (_, Some(error)) => return Err(error),
            (Ok(value), None) => value,
            (Err(error), None) => {
                return Err(GateFlaw::Syntax {
                    line: error.line(),
                    column: error.column(),
                }
                .into());
            }
        };
        parser.end().map_err(|_| GateFlaw::TrailingBytes)?;
        // The visitor meets the literals in the order of the scan; should it ever not, the flaw still counts.
        match first_flaw {
            Some(flaw) => Err(flaw.flaw.into()),
            None => Ok(value),
        }
    }

    /// The gate, then a typed decode: where the type has named members, only an object will do.
    ///
    /// # Errors
    /// See [`GateFlaw`]; [`GateFlaw::Shape`] when the value is not a `T`.
    pub fn from_slice<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, GateError> {
        let value = self.check(bytes)?;
        T::deserialize(shape::Named(value)).map_err(|error| GateFlaw::Shape(words(&error.to_string())).into())
    }
}

/// Why bytes did not pass, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flaw}")]
pub struct GateError {
    /// What is wrong.
    pub flaw: GateFlaw,
    /// Where: a JSON pointer (RFC 6901), at most 200 characters, controls replaced. It holds names the sender chose.
    pub pointer: Option<String>,
}

impl From<GateFlaw> for GateError {
    fn from(flaw: GateFlaw) -> Self {
        Self { flaw, pointer: None }
    }
}

/// What is wrong with bytes that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateFlaw {
    /// More bytes than the gate lets in.
    #[error("longer than {max} bytes")]
    TooLong {
        /// The most it lets in.
        max: usize,
    },
    /// Not UTF-8 (RFC 8259 §8.1).
    #[error("not valid utf-8")]
    NotUtf8,
    /// Not JSON (RFC 8259).
    #[error("not json at line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Something follows the JSON text.
    #[error("bytes after the json text")]
    TrailingBytes,
    /// One name twice in one object, perhaps written differently (RFC 7493 §2.3).
    #[error("a member occurs twice")]
    DuplicateMember,
    /// A `\u` escape of half a surrogate pair (RFC 7493 §2.1).
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// Too many arrays and objects inside each other.
    #[error("nested too deep")]
    TooDeep,
    /// Beyond ±(2^53−1) (RFC 7493 §2.2).
    #[error("a number beyond 2^53-1")]
    NumberRange,
    /// `.` or an exponent where none is allowed.
    #[error("a number with a fraction or an exponent")]
    Fraction,
    /// `-0`, which the canonical form would change to `0`.
    #[error("negative zero")]
    NegativeZero,
    /// More digits than a double keeps; the canonical form would change them.
    #[error("a number more precise than a double")]
    Precision,
    /// JSON, but not of the type asked for.
    #[error("not of the expected shape: {0}")]
    Shape(String),
}

/// What of serde's message is ours to repeat: the rest may quote the sender.
fn words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("missing field `")
        && let Some((name, _)) = rest.split_once('`')
    {
        return format!("missing member {name}");
    }
    [
        "unknown field",
        "unknown variant",
        "invalid type",
        "invalid value",
        "invalid length",
    ]
    .into_iter()
    .find(|known| message.starts_with(known))
    .unwrap_or("invalid value")
    .replace("field", "member")
}

#[cfg(test)]
mod tests;
