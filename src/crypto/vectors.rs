//! Reading the known answers in `tests/vectors`, and what else the tests of this room share.

use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{aad::AadParts, hardening::Locking, seal::Dek, wrap::Odk};
use crate::{
    crypto::CryptoError,
    domain::{KeyId, OrgId, Randomness, RandomnessUnavailable, UserId, connector::ConnectorId},
};

/// One file.
pub(super) fn read(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The cases of one file; never none.
pub(super) fn cases(name: &str) -> Vec<Value> {
    let cases = read(name)["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// The bytes of a hex text.
pub(super) fn bytes(hex: &Value) -> Vec<u8> {
    unhex(hex.as_str().unwrap())
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn array<const N: usize>(hex: &Value) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

/// An id that is nothing but a number.
pub(super) fn key_id(number: u128) -> KeyId {
    KeyId::from_bytes(number.to_be_bytes())
}

pub(super) fn dek(bytes: [u8; 32]) -> Dek {
    Dek::fill_with(|key| {
        *key = bytes;
        Ok(())
    })
    .unwrap()
}

pub(super) fn odk(id: KeyId, bytes: [u8; 32]) -> Odk {
    Odk::fill_with(id, Locking::Preferred, |key| {
        *key = bytes;
        Ok::<(), CryptoError>(())
    })
    .unwrap()
}

/// A place that owns its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) org: Option<OrgId>,
    pub(super) user: Option<UserId>,
    pub(super) connector: Option<ConnectorId>,
    pub(super) account: String,
    pub(super) row: String,
    pub(super) kind: String,
    pub(super) binding: Option<[u8; 32]>,
    pub(super) generation: u64,
}

impl Place {
    pub(super) fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap();
        let present = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
        Self {
            org: present("org").map(|text| text.parse().unwrap()),
            user: present("user").map(|text| text.parse().unwrap()),
            connector: present("connector").map(|text| text.parse().unwrap()),
            account: text("account").to_owned(),
            row: text("row").to_owned(),
            kind: text("kind").to_owned(),
            binding: present("binding").map(|text| unhex(text).try_into().unwrap()),
            generation: value["generation"].as_u64().unwrap(),
        }
    }

    pub(super) fn example() -> Self {
        Self {
            org: Some(OrgId::from_bytes([1; 16])),
            user: Some(UserId::from_bytes([2; 16])),
            connector: Some("acme-mail".parse().unwrap()),
            account: "account-1".to_owned(),
            row: "grt_00000000000000000000000003".to_owned(),
            kind: "refresh_token".to_owned(),
            binding: Some([4; 32]),
            generation: 5,
        }
    }

    /// Every place that differs from this one in one part.
    pub(super) fn neighbours(&self) -> Vec<(&'static str, Self)> {
        vec![
            (
                "org",
                Self {
                    org: Some(OrgId::from_bytes([9; 16])),
                    ..self.clone()
                },
            ),
            (
                "no org",
                Self {
                    org: None,
                    ..self.clone()
                },
            ),
            (
                "user",
                Self {
                    user: Some(UserId::from_bytes([9; 16])),
                    ..self.clone()
                },
            ),
            (
                "no user",
                Self {
                    user: None,
                    ..self.clone()
                },
            ),
            (
                "connector",
                Self {
                    connector: Some("slack".parse().unwrap()),
                    ..self.clone()
                },
            ),
            (
                "account",
                Self {
                    account: "account-2".to_owned(),
                    ..self.clone()
                },
            ),
            (
                "row",
                Self {
                    row: "grt_00000000000000000000000009".to_owned(),
                    ..self.clone()
                },
            ),
            (
                "kind",
                Self {
                    kind: "access_token".to_owned(),
                    ..self.clone()
                },
            ),
            (
                "binding",
                Self {
                    binding: Some([9; 32]),
                    ..self.clone()
                },
            ),
            (
                "no binding",
                Self {
                    binding: None,
                    ..self.clone()
                },
            ),
            (
                "older generation",
                Self {
                    generation: self.generation - 1,
                    ..self.clone()
                },
            ),
            (
                "newer generation",
                Self {
                    generation: self.generation + 1,
                    ..self.clone()
                },
            ),
        ]
    }

    pub(super) fn parts(&self) -> AadParts<'_> {
        AadParts {
            org: self.org,
            user: self.user,
            connector: self.connector.as_ref(),
            account: &self.account,
            row: &self.row,
            kind: &self.kind,
            binding: self.binding.as_ref(),
            generation: self.generation,
        }
    }
}

/// Randomness that says what it was told and then fails.
#[derive(Debug)]
pub(super) struct Scripted(Mutex<Vec<u8>>);

impl Scripted {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }
}

impl Randomness for Scripted {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessUnavailable> {
        let mut script = self.0.lock().unwrap();
        if script.len() < bytes.len() {
            return Err(RandomnessUnavailable);
        }
        bytes.copy_from_slice(&script[..bytes.len()]);
        script.drain(..bytes.len());
        Ok(())
    }
}

/// JSON that the gate lets through: any text, numbers within its range.
pub(super) fn json_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<f64>()
            .prop_filter("outside the gate", |number| {
                number.is_finite() && number.abs() <= 9_007_199_254_740_991.0
            })
            .prop_map(Value::from),
        (-1000_i32..1000).prop_map(|number| Value::from(f64::from(number) / 8.0)),
    ];
    // Characters around the places where UTF-8 and UTF-16 order differ, and all that must be escaped.
    let text = proptest::collection::vec(
        prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{7f}'),
            proptest::char::range('\u{d000}', '\u{d7ff}'),
            proptest::char::range('\u{e000}', '\u{ffff}'),
            proptest::char::range('\u{10000}', '\u{10fff}'),
        ],
        0..8,
    )
    .prop_map(String::from_iter);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number,
        text.clone().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}
