//! From the caller's JSON to arguments that may be hashed, judged, shown and sent.

use serde_json::{Map, Value};

use super::{Tool, formats, http_request};
use crate::domain::connector::{ActionDefinition, ArgSpec, ArgType, Connector};

/// The greatest integer every JSON reader keeps exactly (RFC 8259 §6).
pub(super) const MAX_SAFE: u64 = (1 << 53) - 1;

/// Arguments that passed the tool's schema, defaults filled.
///
/// INVARIANT: made only by [`validate`].
#[derive(Debug, Clone, PartialEq)]
pub struct ValidArgs {
    canonical: Value,
    policy_view: Value,
}

impl ValidArgs {
    pub(super) fn new(canonical: Map<String, Value>, policy_view: Map<String, Value>) -> Self {
        Self {
            canonical: Value::Object(canonical),
            policy_view: Value::Object(policy_view),
        }
    }

    /// What is hashed, shown to an approver and sent.
    #[must_use]
    pub fn canonical(&self) -> &Value {
        &self.canonical
    }

    /// What policy reads: as canonical, but an e-mail address is `{local, domain}`.
    #[must_use]
    pub fn policy_view(&self) -> &Value {
        &self.policy_view
    }

    /// One argument, if given or defaulted.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.canonical.get(name)
    }
}

/// One thing wrong with the arguments (protocol §6, `errors[]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgError {
    /// RFC 6901, relative to `args`.
    pub pointer: String,
    /// What is wrong; holds nothing the caller sent.
    pub problem: &'static str,
}

impl ArgError {
    pub(super) fn new(pointer: impl Into<String>, problem: &'static str) -> Self {
        Self {
            pointer: pointer.into(),
            problem,
        }
    }
}

/// Checks `args`, which passed the strict gate, against the tool's schema.
///
/// # Errors
/// Everything that is wrong, each with its place.
pub fn validate(connector: &Connector, tool: Tool<'_>, args: &Value) -> Result<ValidArgs, Vec<ArgError>> {
    let Value::Object(members) = args else {
        return Err(vec![ArgError::new("", "is not an object")]);
    };
    match tool {
        Tool::Typed(action) => typed(action, members),
        Tool::HttpRequest => http_request::validate(connector, members),
    }
}

fn typed(action: &ActionDefinition, members: &Map<String, Value>) -> Result<ValidArgs, Vec<ArgError>> {
    let mut errors: Vec<ArgError> = members
        .keys()
        .filter(|name| !action.args.contains_key(*name))
        .map(|name| ArgError::new(pointer(name), "is not an argument of this tool"))
        .collect();
    let (mut canonical, mut policy) = (Map::new(), Map::new());
    for (name, spec) in &action.args {
        match members.get(name).or(spec.default.as_ref()) {
            Some(value) => {
                if let Some((sent, seen)) = check(spec, value, &pointer(name), &mut errors) {
                    canonical.insert(name.clone(), sent);
                    policy.insert(name.clone(), seen);
                }
            }
            None if spec.required => errors.push(ArgError::new(pointer(name), "is missing")),
            None => {}
        }
    }
    if errors.is_empty() {
        Ok(ValidArgs::new(canonical, policy))
    } else {
        Err(errors)
    }
}

/// Checks one value; yields its canonical form and what policy sees.
pub(super) fn check(
    spec: &ArgSpec,
    value: &Value,
    at: &str,
    errors: &mut Vec<ArgError>,
) -> Option<(Value, Value)> {
    let outcome = match (spec.kind, value) {
        (ArgType::Array, Value::Array(items)) => return check_items(spec, items, at, errors),
        (ArgType::String, Value::String(text)) => check_text(spec, text),
        (ArgType::Integer, Value::Number(number)) => match number.as_i64() {
            Some(integer) if integer.unsigned_abs() <= MAX_SAFE => {
                within(spec, i128::from(integer)).map(|()| (value.clone(), value.clone()))
            }
            _ => Err("is not an integer within 2^53"),
        },
        (ArgType::Number, Value::Number(number)) => {
            check_number(spec, number).map(|()| (value.clone(), value.clone()))
        }
        (ArgType::Boolean, Value::Bool(_)) => Ok((value.clone(), value.clone())),
        _ => Err("has the wrong type"),
    };
    match outcome {
        Ok(pair) => Some(pair),
        Err(problem) => {
            errors.push(ArgError::new(at, problem));
            None
        }
    }
}

fn check_items(
    spec: &ArgSpec,
    items: &[Value],
    at: &str,
    errors: &mut Vec<ArgError>,
) -> Option<(Value, Value)> {
    let count = i128::try_from(items.len()).unwrap_or(i128::MAX);
    if let Err(problem) = within(spec, count) {
        errors.push(ArgError::new(at, problem));
        return None;
    }
    let Some(item_spec) = spec.items.as_deref() else {
        errors.push(ArgError::new(at, "has items of no known type"));
        return None;
    };
    let pairs: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| check(item_spec, item, &format!("{at}/{index}"), errors))
        .collect();
    (pairs.len() == items.len()).then(|| {
        let (canonical, policy) = pairs.into_iter().unzip();
        (Value::Array(canonical), Value::Array(policy))
    })
}

fn check_text(spec: &ArgSpec, text: &str) -> Result<(Value, Value), &'static str> {
    within(spec, i128::try_from(text.chars().count()).unwrap_or(i128::MAX))?;
    if text.contains('\0') {
        return Err("holds NUL");
    }
    if spec
        .choices
        .as_ref()
        .is_some_and(|choices| !choices.iter().any(|choice| choice == text))
    {
        return Err("is not one of the choices");
    }
    match spec.format {
        Some(format) => {
            formats::parse(format, text).map(|parsed| (Value::String(parsed.canonical), parsed.policy))
        }
        None => Ok((Value::String(text.to_owned()), Value::String(text.to_owned()))),
    }
}

fn check_number(spec: &ArgSpec, number: &serde_json::Number) -> Result<(), &'static str> {
    let value = number
        .as_f64()
        .filter(|value| value.is_finite())
        .ok_or("is not a finite number")?;
    if !number.is_f64()
        && number
            .as_i64()
            .is_none_or(|integer| integer.unsigned_abs() > MAX_SAFE)
    {
        return Err("is not within 2^53");
    }
    // Limits are within 2^53 (checked when the file was loaded), so f64 holds them exactly.
    #[expect(
        clippy::cast_precision_loss,
        reason = "limits are within 2^53, checked at load"
    )]
    let (min, max) = (spec.min.map(|min| min as f64), spec.max.map(|max| max as f64));
    if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
        return Err("is out of range");
    }
    Ok(())
}

fn within(spec: &ArgSpec, size: i128) -> Result<(), &'static str> {
    let counts = matches!(spec.kind, ArgType::String | ArgType::Array);
    if spec.min.is_some_and(|min| size < i128::from(min)) {
        return Err(if counts { "is too short" } else { "is too small" });
    }
    if spec.max.is_some_and(|max| size > i128::from(max)) {
        return Err(if counts { "is too long" } else { "is too great" });
    }
    Ok(())
}

/// The JSON pointer to a member of the top level (RFC 6901 §3).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action() -> ActionDefinition {
        serde_json::from_value(json!({
            "name": "t", "title": "T", "category": "write", "summary": "s",
            "request": {"method": "POST", "url": "https://x.example/t", "body": "json"},
            "args": {
                "to": {"type": "array", "required": true, "min": 1, "max": 3,
                       "items": {"type": "string", "format": "email"}},
                "n": {"type": "integer", "default": 20, "min": 1, "max": 100},
                "f": {"type": "number", "max": 10},
                "b": {"type": "boolean"},
                "s": {"type": "string", "max": 5, "enum": ["red", "blue"]},
            }
        }))
        .unwrap()
    }

    fn errors(args: &Value) -> Vec<(String, &'static str)> {
        let action = action();
        let Value::Object(members) = args else { panic!() };
        typed(&action, members)
            .unwrap_err()
            .into_iter()
            .map(|error| (error.pointer, error.problem))
            .collect()
    }

    #[test]
    fn defaults_are_filled_and_addresses_are_split_for_policy() {
        let Value::Object(members) = json!({"to": ["Ada@ACME.example"]}) else {
            panic!()
        };
        let args = typed(&action(), &members).unwrap();
        assert_eq!(args.canonical(), &json!({"to": ["Ada@acme.example"], "n": 20}));
        assert_eq!(
            args.policy_view(),
            &json!({"to": [{"local": "Ada", "domain": "acme.example"}], "n": 20})
        );
    }

    #[test]
    fn every_error_is_named_with_its_place() {
        let found = errors(&json!({"to": ["a@b.example", "x", 7], "n": 0, "x/y~z": 1, "s": "green"}));
        assert_eq!(
            found,
            [
                ("/x~1y~0z".to_owned(), "is not an argument of this tool"),
                ("/n".to_owned(), "is too small"),
                ("/s".to_owned(), "is not one of the choices"),
                ("/to/1".to_owned(), "is not one plain e-mail address"),
                ("/to/2".to_owned(), "has the wrong type"),
            ]
        );
    }

    #[test]
    fn wrong_types_ranges_and_absences_are_refused() {
        for (args, pointer) in [
            (json!({}), "/to"),
            (json!({"to": []}), "/to"),
            (
                json!({"to": ["a@b.example", "a@b.example", "a@b.example", "a@b.example"]}),
                "/to",
            ),
            (json!({"to": "a@b.example"}), "/to"),
            (json!({"to": null}), "/to"),
            (json!({"to": ["a@b.example"], "n": "1"}), "/n"),
            (json!({"to": ["a@b.example"], "n": 1.0}), "/n"),
            (json!({"to": ["a@b.example"], "n": 101}), "/n"),
            (json!({"to": ["a@b.example"], "n": null}), "/n"),
            (
                json!({"to": ["a@b.example"], "n": 9_007_199_254_740_992_u64}),
                "/n",
            ),
            (json!({"to": ["a@b.example"], "f": 10.5}), "/f"),
            (json!({"to": ["a@b.example"], "b": 1}), "/b"),
            (json!({"to": ["a@b.example"], "s": "blue!!"}), "/s"),
            (json!({"to": ["a@b.example"], "s": {}}), "/s"),
        ] {
            let found = errors(&args);
            assert_eq!(found.first().map(|(at, _)| at.as_str()), Some(pointer), "{args}");
        }
    }

    #[test]
    fn fractions_are_for_numbers_only() {
        let Value::Object(members) = json!({"to": ["a@b.example"], "f": 1.5, "n": 2}) else {
            panic!()
        };
        assert_eq!(typed(&action(), &members).unwrap().get("f"), Some(&json!(1.5)));
    }
}
