//! Reading `a=b&c=d` into a typed value, strictly: an unknown or repeated name is an error, whatever the type derives.

use serde::{
    Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use url::form_urlencoded;

/// Why a query or form was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No parameter has this name.
    #[error("unknown parameter `{0}`")]
    Unknown(String),
    /// The parameter occurs more than once.
    #[error("parameter `{0}` occurs more than once")]
    Repeated(String),
    /// The value does not fit.
    #[error("parameter `{0}` is not valid: {1}")]
    Invalid(String, String),
    /// Something is missing or of the wrong form.
    #[error("{0}")]
    Other(String),
}

impl QueryError {
    /// The parameter concerned as `?name`, or nothing.
    #[must_use]
    pub fn pointer(&self) -> String {
        match self {
            Self::Unknown(name) | Self::Repeated(name) | Self::Invalid(name, _) => format!("?{name}"),
            Self::Other(_) => String::new(),
        }
    }
}

impl de::Error for QueryError {
    fn custom<M: std::fmt::Display>(message: M) -> Self {
        Self::Other(message.to_string())
    }
}

/// Parses a query string or a form body.
///
/// # Errors
/// When a name is unknown or repeated, or a value does not fit.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, QueryError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        // SECURITY: each is compared with those before it, which a flood of them would make long work.
        if pairs.len() >= MOST {
            return Err(QueryError::Other("too many parameters".to_owned()));
        }
        let name = cap(&name);
        if pairs.iter().any(|(seen, _)| *seen == name) {
            return Err(QueryError::Repeated(name));
        }
        pairs.push((name, value.into_owned()));
    }
    let pairs = Pairs {
        rest: pairs.into_iter(),
        current: None,
    };
    T::deserialize(de::value::MapAccessDeserializer::new(pairs))
}

/// Names come from outside and go back in messages: short, and without controls.
fn cap(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

struct Pairs {
    rest: std::vec::IntoIter<(String, String)>,
    current: Option<(String, String)>,
}

impl<'de> MapAccess<'de> for Pairs {
    type Error = QueryError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, QueryError> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(IntoDeserializer::<QueryError>::into_deserializer(name.as_str()));
        self.current = Some((name, value));
        key.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, QueryError> {
        let (name, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Value(value)).map_err(|error| match error {
            QueryError::Other(message) if message == IGNORED => QueryError::Unknown(name),
            QueryError::Other(message) => QueryError::Invalid(name, message),
            named => named,
        })
    }
}

struct Value(String);

macro_rules! parsed {
    ($($method:ident => $visit:ident, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
            let value = self.0.parse().map_err(|_| QueryError::Other(concat!("expected ", $expected).to_owned()))?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = QueryError;

    parsed! {
        deserialize_bool => visit_bool, "true or false";
        deserialize_u8 => visit_u8, "a small whole number";
        deserialize_u16 => visit_u16, "a whole number";
        deserialize_u32 => visit_u32, "a whole number";
        deserialize_u64 => visit_u64, "a whole number";
        deserialize_i32 => visit_i32, "a whole number";
        deserialize_i64 => visit_i64, "a whole number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, QueryError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, QueryError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    /// Derived types skip what they do not know by asking to ignore it: here that is the refusal.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, QueryError> {
        Err(QueryError::Other(IGNORED.to_owned()))
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier
    }
}

/// No message of a type is this text.
const IGNORED: &str = "\u{0}ignored";

/// No route has so many.
const MOST: usize = 32;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::domain::{AgentId, Mode};

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct List {
        limit: Option<u32>,
        after: Option<String>,
        agent: Option<AgentId>,
        mode: Option<Mode>,
        live: bool,
    }

    #[test]
    fn parameters_become_typed_values() {
        let list: List =
            parse("limit=20&after=a%20b&agent=agt_00000000000000000000000001&mode=execute&live=true")
                .unwrap();
        assert_eq!(list.limit, Some(20));
        assert_eq!(list.after.as_deref(), Some("a b"));
        assert_eq!(
            list.agent,
            Some("agt_00000000000000000000000001".parse().unwrap())
        );
        assert_eq!(list.mode, Some(Mode::Execute));
        assert!(list.live);
    }

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(parse::<List>("").unwrap(), List::default());
    }

    #[test]
    fn unknown_names_are_refused_even_without_deny_unknown_fields() {
        assert_eq!(
            parse::<List>("limt=20").unwrap_err(),
            QueryError::Unknown("limt".into())
        );
    }

    #[test]
    fn repeated_names_are_refused() {
        assert_eq!(
            parse::<List>("limit=1&limit=1").unwrap_err(),
            QueryError::Repeated("limit".into())
        );
    }

    #[test]
    fn a_flood_of_parameters_is_refused_before_it_is_compared() {
        let many: String = (0..=MOST).map(|number| format!("x{number}=1&")).collect();
        assert_eq!(
            parse::<List>(&many).unwrap_err(),
            QueryError::Other("too many parameters".into())
        );
    }

    #[test]
    fn values_of_another_form_name_their_parameter() {
        for text in [
            "limit=-1",
            "limit=x",
            "limit=",
            "agent=usr_00000000000000000000000001",
            "mode=all",
            "live=1",
        ] {
            let error = parse::<List>(text).unwrap_err();
            let name = text.split('=').next().unwrap();
            assert_eq!(error.pointer(), format!("?{name}"), "{error}");
        }
    }

    #[test]
    fn controls_in_names_do_not_come_back() {
        assert_eq!(
            parse::<List>("a%0d%0ab=1").unwrap_err(),
            QueryError::Unknown("ab".into())
        );
    }
}
