//! Builds a value from what the parser reports, refusing duplicates, depth and flawed numbers with their place.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    GateError, GateFlaw,
    literal::{LiteralFlaw, NumberFlaw},
};

/// What is known while walking down.
pub(super) struct State {
    max_depth: usize,
    first_flaw: Option<LiteralFlaw>,
    numbers: usize,
    path: Vec<Step>,
    error: Option<GateError>,
}

enum Step {
    Member(String),
    Item(usize),
}

impl State {
    pub(super) fn new(max_depth: usize, first_flaw: Option<LiteralFlaw>) -> Self {
        Self {
            max_depth,
            first_flaw,
            numbers: 0,
            path: Vec::new(),
            error: None,
        }
    }

    pub(super) fn into_error(self) -> Option<GateError> {
        self.error
    }

    /// A number beyond every double never reaches the visitor: the parser stops at it. Its flaw is known all the same.
    pub(super) fn refuse_unread_number(&mut self) {
        if let Some(found) = self.first_flaw
            && found.flaw == NumberFlaw::Range
            && found.number == self.numbers
            && self.error.is_none()
        {
            self.error = Some(self.error_here(found.flaw.into()));
        }
    }

    fn error_here(&self, flaw: GateFlaw) -> GateError {
        GateError {
            flaw,
            pointer: Some(self.pointer()),
        }
    }

    /// Notes the flaw with its place; serde only needs to know that there is one.
    fn refuse<E: Error>(&mut self, flaw: GateFlaw) -> E {
        self.error = Some(self.error_here(flaw));
        E::custom("refused")
    }

    fn number<E: Error>(&mut self, value: Option<Number>) -> Result<Value, E> {
        if let Some(found) = self.first_flaw
            && found.number == self.numbers
        {
            return Err(self.refuse(found.flaw.into()));
        }
        self.numbers += 1;
        match value {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.refuse(GateFlaw::NumberRange)),
        }
    }

    /// RFC 6901 §3, cut to a length that can be shown.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Item(index) => pointer.push_str(&index.to_string()),
                Step::Member(name) => {
                    for character in name.chars() {
                        match character {
                            '~' => pointer.push_str("~0"),
                            '/' => pointer.push_str("~1"),
                            ' '..='~' => pointer.push(character),
                            letter if letter.is_alphanumeric() => pointer.push(letter),
                            // SECURITY: controls and bidi marks must not reach a terminal or a page.
                            _ => pointer.push('\u{fffd}'),
                        }
                    }
                }
            }
        }
        pointer.chars().take(MAX_POINTER).collect()
    }
}

/// The value at one place.
pub(super) struct Node<'s> {
    state: &'s mut State,
    depth: usize,
}

impl<'s> Node<'s> {
    pub(super) fn root(state: &'s mut State) -> Self {
        Self { state, depth: 0 }
    }

    /// The depth inside this container.
    fn inside<E: Error>(&mut self) -> Result<usize, E> {
        if self.depth >= self.state.max_depth {
            return Err(self.state.refuse(GateFlaw::TooDeep));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.state.number(Some(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.state.number(Some(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.state.number(Number::from_f64(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        let mut values = Vec::new();
        loop {
            self.state.path.push(Step::Item(values.len()));
            let value = items.next_element_seed(Node {
                state: &mut *self.state,
                depth,
            })?;
            self.state.path.pop();
            match value {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        // A body has a dozen members or two: its map is made once, not grown.
        let mut object = Map::with_capacity(if depth == 1 { ROOT_MEMBERS } else { 0 });
        // The parser hands names over unescaped: two spellings of one name are one name.
        while let Some(name) = members.next_key::<String>()? {
            let taken = object.contains_key(&name);
            self.state.path.push(Step::Member(name));
            if taken {
                return Err(self.state.refuse(GateFlaw::DuplicateMember));
            }
            let value = members.next_value_seed(Node {
                state: &mut *self.state,
                depth,
            })?;
            if let Some(Step::Member(name)) = self.state.path.pop() {
                object.insert(name, value);
            }
        }
        Ok(Value::Object(object))
    }
}

const MAX_POINTER: usize = 200;
const ROOT_MEMBERS: usize = 24;
