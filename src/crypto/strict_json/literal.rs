//! The literals of a JSON text: what a parser's visitor never sees.
//!
//! Outside strings, a digit or `-` can only begin a number, so one pass without a grammar finds every number of a valid
//! text in order. On an invalid text the answer does not matter: the parser refuses it.

use super::{GateError, GateFlaw};
use crate::crypto::jcs;

/// The first number that must not pass, and which number of the text it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiteralFlaw {
    pub(super) number: usize,
    pub(super) flaw: NumberFlaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberFlaw {
    Range,
    Fraction,
    NegativeZero,
    Precision,
}

impl From<NumberFlaw> for GateFlaw {
    fn from(flaw: NumberFlaw) -> Self {
        match flaw {
            NumberFlaw::Range => Self::NumberRange,
            NumberFlaw::Fraction => Self::Fraction,
            NumberFlaw::NegativeZero => Self::NegativeZero,
            NumberFlaw::Precision => Self::Precision,
        }
    }
}

impl From<NumberFlaw> for GateError {
    fn from(flaw: NumberFlaw) -> Self {
        GateFlaw::from(flaw).into()
    }
}

/// Finds a lone surrogate (an error at once) and the first flawed number.
pub(super) fn scan(text: &[u8], fractions: bool) -> Result<Option<LiteralFlaw>, GateError> {
    let mut rest = text;
    let mut number = 0;
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            b'"' => rest = skip_string(tail)?,
            b'-' | b'0'..=b'9' => {
                let length = rest
                    .iter()
                    .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                    .unwrap_or(rest.len());
                let (literal, after) = rest.split_at(length);
                if let Some(flaw) = check_number(literal, fractions) {
                    return Ok(Some(LiteralFlaw { number, flaw }));
                }
                number += 1;
                rest = after;
            }
            _ => rest = tail,
        }
    }
    Ok(None)
}

/// What follows the string whose opening quote has been read.
fn skip_string(mut rest: &[u8]) -> Result<&[u8], GateError> {
    let mut high = false;
    loop {
        if !high {
            // Up to the end or an escape nothing can be a half.
            let plain = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\'))
                .unwrap_or(rest.len());
            (_, rest) = rest.split_at(plain);
        }
        let (unit, tail) = match rest {
            [] => return Ok(rest),
            [b'\\', b'u', a, b, c, d, tail @ ..] => (code_unit([*a, *b, *c, *d]), tail),
            [b'\\', _, tail @ ..] | [_, tail @ ..] => (None, tail),
        };
        let is_high = unit.is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
        let is_low = unit.is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
        // A low half must follow a high one, and nothing else may.
        if high != is_low {
            return Err(GateFlaw::LoneSurrogate.into());
        }
        if matches!(rest, [b'"', ..]) {
            return Ok(tail);
        }
        high = is_high;
        rest = tail;
    }
}

fn code_unit(digits: [u8; 4]) -> Option<u32> {
    digits.into_iter().try_fold(0_u32, |unit, digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)?)
    })
}

fn check_number(literal: &[u8], fractions: bool) -> Option<NumberFlaw> {
    let digits = literal.strip_prefix(b"-").unwrap_or(literal);
    // A double keeps every whole number of so few digits, and its canonical text is these digits. Needless zeros before
    // them are the parser's to refuse.
    if (1..=SAFE_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
        let negative_zero = literal.starts_with(b"-") && digits.iter().all(|digit| *digit == b'0');
        return negative_zero.then_some(NumberFlaw::NegativeZero);
    }
    check_decimal(literal, fractions)
}

/// The same for any literal, by its digits and exponent.
fn check_decimal(literal: &[u8], fractions: bool) -> Option<NumberFlaw> {
    let text = std::str::from_utf8(literal).ok()?;
    let fractional = text.contains(['.', 'e', 'E']);
    if fractional && !fractions {
        return Some(NumberFlaw::Fraction);
    }
    let decimal = Decimal::parse(text)?;
    if decimal.digits.is_empty() {
        return text.starts_with('-').then_some(NumberFlaw::NegativeZero);
    }
    // `str::parse` rounds correctly, so the double is the nearest one.
    let value: f64 = text.parse().ok()?;
    if value.is_nan() || value.abs() > MAX_SAFE {
        return Some(NumberFlaw::Range);
    }
    // The canonical text has the shortest digits that give the double back (ECMA-262, Number::toString, ties to even);
    // a literal with other digits would be changed.
    let canonical = String::from_utf8(jcs::canonicalize(&value).ok()?).ok()?;
    (Decimal::parse(&canonical) != Some(decimal)).then_some(NumberFlaw::Precision)
}

/// A decimal without its sign: `digits` without outer zeros × 10^`exponent`; no digits is zero.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `None` when the text is no number: the parser will say so.
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: String = [whole, fraction].concat();
        if !all.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self {
                digits: String::new(),
                exponent: 0,
            });
        }
        let stripped = all.len() - all.trim_end_matches('0').len();
        // An exponent beyond i64 is far beyond any double; 10^±99999999 stands for it.
        let exponent: i64 = exponent
            .parse()
            .unwrap_or(if exponent.starts_with('-') { -FAR } else { FAR });
        let shift = i64::try_from(stripped).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self {
            digits: significant.to_owned(),
            exponent: exponent.checked_add(shift)?,
        })
    }
}

/// 2^53−1, the last integer a double counts without gaps.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;
/// 2^53−1 has one digit more.
const SAFE_DIGITS: usize = 15;
const FAR: i64 = 99_999_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Gate;

    /// [`skip_string`], byte by byte.
    fn skip_slowly(mut rest: &[u8]) -> Result<&[u8], GateError> {
        let mut high = false;
        loop {
            let (unit, tail) = match rest {
                [] => return Ok(rest),
                [b'\\', b'u', a, b, c, d, tail @ ..] => (code_unit([*a, *b, *c, *d]), tail),
                [b'\\', _, tail @ ..] | [_, tail @ ..] => (None, tail),
            };
            let low = unit.is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
            if high != low {
                return Err(GateFlaw::LoneSurrogate.into());
            }
            if rest[0] == b'"' {
                return Ok(tail);
            }
            high = unit.is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
            rest = tail;
        }
    }

    #[test]
    fn short_literals_are_judged_as_ever() {
        for (text, flaw) in [
            ("-", Some(NumberFlaw::NegativeZero)),
            ("-0", Some(NumberFlaw::NegativeZero)),
            ("-00", Some(NumberFlaw::NegativeZero)),
            ("-000000000000000", Some(NumberFlaw::NegativeZero)),
            ("0", None),
            ("007", None),
            ("-7", None),
            ("100", None),
            ("--0", None),
            ("1-2", None),
            ("999999999999999", None),
            ("9007199254740991", None),
            ("-9007199254740991", None),
            ("9007199254740992", Some(NumberFlaw::Range)),
            ("0000000000000001", None),
            ("1.0", Some(NumberFlaw::Fraction)),
        ] {
            assert_eq!(check_number(text.as_bytes(), false), flaw, "{text}");
            assert_eq!(check_decimal(text.as_bytes(), false), flaw, "{text}");
        }
    }

    #[test]
    fn what_only_begins_like_a_number_is_refused_by_the_parser() {
        for text in ["007", "-007", "-", "00", "[1,01]"] {
            let refused = Gate::ARGS.check(text.as_bytes()).unwrap_err();
            assert!(matches!(refused.flaw, GateFlaw::Syntax { .. }), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn few_digits_are_judged_as_any(text in "-?0{0,3}[0-9]{0,17}", fractions: bool) {
            prop_assert_eq!(
                check_number(text.as_bytes(), fractions),
                check_decimal(text.as_bytes(), fractions)
            );
        }

        #[test]
        fn any_literal_is_judged_as_ever(text in "[-+.eE0-9]{1,20}", fractions: bool) {
            prop_assert_eq!(
                check_number(text.as_bytes(), fractions),
                check_decimal(text.as_bytes(), fractions)
            );
        }

        #[test]
        fn a_string_ends_where_it_ends_byte_by_byte(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("\""), Just("\\"), Just("\\\\"), Just("\\\""), Just("\\n"), Just("\\u"), Just("\\u00"),
                    Just("\\u0061"), Just("\\ud83d"), Just("\\ude00"), Just("\\uD83D\\uDE00"), Just("ud83d"),
                    Just("plain text"), Just("\u{e9}\u{1f600}"), Just("x"),
                ],
                0..12,
            )
        ) {
            let text = pieces.concat();
            prop_assert_eq!(skip_string(text.as_bytes()), skip_slowly(text.as_bytes()));
        }
    }
}
