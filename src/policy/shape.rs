//! The shape of an argument: one value that yields its type in the schema and its value in the context, so that the two
//! cannot drift apart.

mod fits;

use std::collections::BTreeMap;

use cedar_policy::RestrictedExpression;
use serde_json::{Value, json};

use super::facts::WrongFacts;
use crate::domain::connector::{ArgFormat, ArgSpec, ArgType};

/// How policies see one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// `String`.
    Text,
    /// `Long`.
    Integer,
    /// `{floor: Long, ceil: Long}`: Cedar has no fractions; every comparison with a whole number is exact this way.
    Number,
    /// `Bool`.
    Boolean,
    /// `{local: String, domain: String}`.
    Email,
    /// `{items: Set<…>, count: Long}`, of addresses also `domains: Set<String>`: Cedar sets forget order and
    /// repetition, and cannot say "every".
    List(Box<Shape>),
    /// `{name: String, value: String}` from a pair (the query of `http.request`).
    Pair,
}

/// One argument of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArgShape {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// The arguments of a typed action. A default is filled before policy sees the arguments, so it counts as required.
pub(super) fn of_args(args: &BTreeMap<String, ArgSpec>) -> BTreeMap<String, ArgShape> {
    args.iter()
        .map(|(name, spec)| {
            let shape = ArgShape {
                shape: Shape::of(spec),
                required: spec.required || spec.default.is_some(),
            };
            (name.clone(), shape)
        })
        .collect()
}

/// The arguments of `http.request` (protocol §3).
pub(super) fn of_http_request() -> BTreeMap<String, ArgShape> {
    [
        ("method", Shape::Text, true),
        ("path", Shape::Text, true),
        ("query", Shape::List(Box::new(Shape::Pair)), false),
        ("content_type", Shape::Text, false),
        ("body", Shape::Text, false),
        ("body_b64", Shape::Text, false),
    ]
    .into_iter()
    .map(|(name, shape, required)| (name.to_owned(), ArgShape { shape, required }))
    .collect()
}

impl Shape {
    fn of(spec: &ArgSpec) -> Self {
        match spec.kind {
            ArgType::String if spec.format == Some(ArgFormat::Email) => Self::Email,
            ArgType::String => Self::Text,
            ArgType::Integer => Self::Integer,
            ArgType::Number => Self::Number,
            ArgType::Boolean => Self::Boolean,
            ArgType::Array => Self::List(Box::new(spec.items.as_deref().map_or(Self::Text, Self::of))),
        }
    }

    /// Its type, in Cedar's JSON schema format.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Text => json!({"type": "String"}),
            Self::Integer => json!({"type": "Long"}),
            Self::Number => record(&[("floor", long()), ("ceil", long())]),
            Self::Boolean => json!({"type": "Boolean"}),
            Self::Email => json!({"type": "Email"}),
            Self::Pair => record(&[("name", text()), ("value", text())]),
            Self::List(item) if **item == Self::Email => record(&[
                ("items", set(&item.schema())),
                ("count", long()),
                ("domains", set(&text())),
            ]),
            Self::List(item) => record(&[("items", set(&item.schema())), ("count", long())]),
        }
    }

    /// A value of it.
    ///
    /// # Errors
    /// When the value is of another type: `connectors` and this room disagree, and nobody may guess.
    pub(super) fn express(&self, value: &Value) -> Result<RestrictedExpression, WrongFacts> {
        match (self, value) {
            (Self::Text, Value::String(text)) => Ok(RestrictedExpression::new_string(text.clone())),
            (Self::Integer, Value::Number(number)) => number
                .as_i64()
                .map(RestrictedExpression::new_long)
                .ok_or(WrongFacts),
            (Self::Number, Value::Number(number)) => {
                let (floor, ceil) = whole_neighbours(number)?;
                expressed_record([
                    ("floor", RestrictedExpression::new_long(floor)),
                    ("ceil", RestrictedExpression::new_long(ceil)),
                ])
            }
            (Self::Boolean, Value::Bool(value)) => Ok(RestrictedExpression::new_bool(*value)),
            (Self::Email, Value::Object(members)) if members.len() == 2 => expressed_record([
                ("local", member(members.get("local"))?),
                ("domain", member(members.get("domain"))?),
            ]),
            (Self::Pair, Value::Array(pair)) => match pair.as_slice() {
                [name, value] => {
                    expressed_record([("name", member(Some(name))?), ("value", member(Some(value))?)])
                }
                _ => Err(WrongFacts),
            },
            (Self::List(item), Value::Array(values)) => express_list(item, values),
            _ => Err(WrongFacts),
        }
    }
}

fn express_list(item: &Shape, values: &[Value]) -> Result<RestrictedExpression, WrongFacts> {
    let items: Vec<_> = values
        .iter()
        .map(|value| item.express(value))
        .collect::<Result<_, _>>()?;
    let count = i64::try_from(values.len()).map_err(|_| WrongFacts)?;
    let mut fields = vec![
        ("items", RestrictedExpression::new_set(items)),
        ("count", RestrictedExpression::new_long(count)),
    ];
    if *item == Shape::Email {
        let domains: Vec<_> = values
            .iter()
            .map(|value| member(value.get("domain")))
            .collect::<Result<_, _>>()?;
        fields.push(("domains", RestrictedExpression::new_set(domains)));
    }
    expressed_record(fields)
}

fn member(value: Option<&Value>) -> Result<RestrictedExpression, WrongFacts> {
    match value {
        Some(Value::String(text)) => Ok(RestrictedExpression::new_string(text.clone())),
        _ => Err(WrongFacts),
    }
}

/// The greatest whole number not above, and the least not below.
fn whole_neighbours(number: &serde_json::Number) -> Result<(i64, i64), WrongFacts> {
    if let Some(whole) = number.as_i64() {
        return Ok((whole, whole));
    }
    let value = number
        .as_f64()
        .filter(|value| value.abs() <= MAX_SAFE)
        .ok_or(WrongFacts)?;
    let whole = |value: f64| format!("{value:.0}").parse::<i64>().map_err(|_| WrongFacts);
    Ok((whole(value.floor())?, whole(value.ceil())?))
}

pub(super) fn expressed_record(
    fields: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<RestrictedExpression, WrongFacts> {
    RestrictedExpression::new_record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)))
        .map_err(|_| WrongFacts)
}

pub(super) fn text() -> Value {
    json!({"type": "String"})
}

pub(super) fn long() -> Value {
    json!({"type": "Long"})
}

pub(super) fn set(element: &Value) -> Value {
    json!({"type": "Set", "element": element})
}

/// A record whose attributes are all required.
pub(super) fn record(attributes: &[(&str, Value)]) -> Value {
    let attributes: serde_json::Map<String, Value> = attributes
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), kind.clone()))
        .collect();
    json!({"type": "Record", "attributes": attributes})
}

/// The same type, as an attribute that may be absent.
pub(super) fn optional(mut kind: Value) -> Value {
    if let Value::Object(members) = &mut kind {
        members.insert("required".to_owned(), Value::Bool(false));
    }
    kind
}

/// 2^53 − 1: whole numbers up to here are exact.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_lies_between_its_whole_neighbours() {
        let number = |text: &str| serde_json::from_str::<serde_json::Number>(text).unwrap();
        assert_eq!(whole_neighbours(&number("2.5")), Ok((2, 3)));
        assert_eq!(whole_neighbours(&number("-2.5")), Ok((-3, -2)));
        assert_eq!(whole_neighbours(&number("-0.0")), Ok((0, 0)));
        assert_eq!(whole_neighbours(&number("7")), Ok((7, 7)));
        assert_eq!(whole_neighbours(&number("1e300")), Err(WrongFacts));
    }

    #[test]
    fn a_value_of_another_type_is_not_guessed_at() {
        for (shape, value) in [
            (Shape::Text, json!(1)),
            (Shape::Integer, json!("1")),
            (Shape::Integer, json!(1.5)),
            (Shape::Boolean, json!(null)),
            (Shape::Email, json!("ada@acme.example")),
            (Shape::Email, json!({"local": "a", "domain": "b", "more": 1})),
            (Shape::Email, json!({"local": "a", "host": "b"})),
            (Shape::Pair, json!(["a"])),
            (Shape::List(Box::new(Shape::Text)), json!("a")),
            (Shape::List(Box::new(Shape::Text)), json!(["a", 1])),
        ] {
            assert!(shape.express(&value).is_err(), "{shape:?} {value}");
        }
    }
}
