//! Whether a value is of a shape, where nobody needs it expressed.

use serde_json::Value;

use super::{Shape, whole_neighbours};

impl Shape {
    /// Whether [`Shape::express`] takes the value.
    pub(in super::super) fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::String(_)) | (Self::Boolean, Value::Bool(_)) => true,
            (Self::Integer, Value::Number(number)) => number.as_i64().is_some(),
            (Self::Number, Value::Number(number)) => whole_neighbours(number).is_ok(),
            (Self::Email, Value::Object(members)) => {
                let is_text = |name: &str| members.get(name).is_some_and(Value::is_string);
                members.len() == 2 && is_text("local") && is_text("domain")
            }
            (Self::Pair, Value::Array(pair)) => {
                matches!(pair.as_slice(), [Value::String(_), Value::String(_)])
            }
            (Self::List(item), Value::Array(values)) => values.iter().all(|value| item.fits(value)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample::select};
    use serde_json::json;

    use super::*;

    fn any_shape() -> impl Strategy<Value = Shape> {
        let plain = select(vec![
            Shape::Text,
            Shape::Integer,
            Shape::Number,
            Shape::Boolean,
            Shape::Email,
            Shape::Pair,
        ]);
        plain.prop_recursive(2, 4, 1, |item| item.prop_map(|item| Shape::List(Box::new(item))))
    }

    /// What arguments are made of, right or not quite.
    fn any_value() -> impl Strategy<Value = Value> {
        let number = select(vec![
            "0",
            "-7",
            "2.5",
            "1e300",
            "9007199254740993.0",
            "18446744073709551615",
        ]);
        let number = number.prop_map(|text| serde_json::from_str::<Value>(text).unwrap());
        let names = collection::vec(select(vec!["local", "domain", "more"]), 0..4);
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            "[a-z]{0,3}".prop_map(Value::String),
            number,
        ];
        let odd = (names, plain.clone()).prop_map(|(names, last)| {
            let mut members: serde_json::Map<String, Value> = names
                .into_iter()
                .map(|name| (name.to_owned(), json!("a")))
                .collect();
            if let Some(member) = members.values_mut().next_back() {
                *member = last;
            }
            Value::Object(members)
        });
        let leaf = prop_oneof![3 => plain, 1 => Just(json!({"local": "a", "domain": "b"})), 1 => odd];
        leaf.prop_recursive(2, 12, 4, |item| {
            prop_oneof![
                collection::vec(item.clone(), 0..4).prop_map(Value::Array),
                // Of one kind: some of them fit.
                (item, 0..4_usize).prop_map(|(item, count)| Value::Array(vec![item; count])),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn what_fits_is_what_can_be_expressed(shape in any_shape(), value in any_value()) {
            prop_assert_eq!(shape.fits(&value), shape.express(&value).is_ok());
        }
    }

    #[test]
    fn a_value_of_each_shape_fits_it_and_no_other() {
        let values = [
            (Shape::Text, json!("a")),
            (Shape::Boolean, json!(true)),
            (Shape::Number, json!(2.5)),
            (Shape::Email, json!({"local": "a", "domain": "b"})),
            (Shape::Pair, json!(["a", "b"])),
            (
                Shape::List(Box::new(Shape::Email)),
                json!([{"local": "a", "domain": "b"}]),
            ),
        ];
        for (shape, _) in &values {
            for (other, value) in &values {
                assert_eq!(shape.fits(value), shape == other, "{shape:?} {value}");
            }
        }
        assert!(Shape::Integer.fits(&json!(-7)) && !Shape::Integer.fits(&json!(2.5)));
    }
}
