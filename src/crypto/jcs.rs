//! The canonical form of JSON (RFC 8785): what is hashed and signed.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::CryptoError;
use crate::domain::{Action, AgentId, GrantId, OrgId, UserId, action::ActionType, connector::ConnectorId};

/// The canonical bytes of `value`: members by UTF-16 code units, numbers as ECMAScript prints them.
///
/// # Errors
/// When `value` holds a number that is not finite or does not serialise.
pub fn canonicalize<T: Serialize>(value: &T) -> Result<Vec<u8>, CryptoError> {
    serde_json_canonicalizer::to_vec(value).map_err(|_| CryptoError::NotCanonical)
}

/// What [`canonicalize`] makes of an action, at a fraction of the cost where its args hold whole numbers alone.
///
/// # Errors
/// As [`canonicalize`].
pub fn action(action: &Action) -> Result<Vec<u8>, CryptoError> {
    if !is_whole(&action.args) {
        return canonicalize(action);
    }
    let Action {
        typ,
        org,
        user,
        agent,
        grant,
        connector,
        tool,
        tool_digest,
        args,
    } = action;
    let ordered = Ordered {
        agent: *agent,
        args: Sorted(args),
        connector,
        grant: *grant,
        org: *org,
        tool,
        tool_digest,
        typ: *typ,
        user: *user,
    };
    // It escapes exactly what RFC 8785 §3.2.2.2 escapes, and in the same way.
    serde_json::to_vec(&ordered).map_err(|_| CryptoError::NotCanonical)
}

/// An action with its members in canonical order.
#[derive(Serialize)]
struct Ordered<'a> {
    agent: AgentId,
    args: Sorted<'a>,
    connector: &'a ConnectorId,
    grant: GrantId,
    org: OrgId,
    tool: &'a str,
    tool_digest: &'a str,
    typ: ActionType,
    user: UserId,
}

/// A value whose objects are written by UTF-16 code units of their names (RFC 8785 §3.2.3).
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                serializer.collect_map(members.into_iter().map(|(name, value)| (name, Sorted(value))))
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

/// Whether every number is one that ECMAScript prints by its digits alone: whole, and kept by a double.
fn is_whole(value: &Value) -> bool {
    match value {
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| number.unsigned_abs() < 1 << 53),
        Value::Array(items) => items.iter().all(is_whole),
        Value::Object(members) => members.values().all(is_whole),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::crypto::{
        Gate,
        vectors::{self, json_value},
    };

    #[test]
    fn canonical_forms_match_the_published_vectors() {
        for case in vectors::cases("jcs.json") {
            let value: Value = serde_json::from_str(case["input"].as_str().unwrap()).unwrap();
            let canonical = String::from_utf8(canonicalize(&value).unwrap()).unwrap();
            assert_eq!(canonical, case["canonical"].as_str().unwrap(), "{}", case["name"]);
        }
    }

    #[test]
    fn numbers_match_rfc_8785_appendix_b() {
        for case in vectors::cases("jcs_numbers.json") {
            let bits = u64::from_str_radix(case["ieee754"].as_str().unwrap(), 16).unwrap();
            let canonical = canonicalize(&f64::from_bits(bits)).unwrap();
            assert_eq!(
                String::from_utf8(canonical).unwrap(),
                case["canonical"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn what_is_not_a_number_has_no_canonical_form() {
        assert_eq!(canonicalize(&f64::NAN), Err(CryptoError::NotCanonical));
        assert_eq!(canonicalize(&f64::INFINITY), Err(CryptoError::NotCanonical));
    }

    #[test]
    fn members_sort_by_utf_16_code_units() {
        // U+FB33 sorts after U+1F600 in UTF-16 (d83d de00), before it in UTF-8 (RFC 8785 §3.2.3).
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2});
        assert_eq!(
            String::from_utf8(canonicalize(&value).unwrap()).unwrap(),
            "{\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }

    fn action_of(tool: &str, args: Value) -> Action {
        Action {
            typ: ActionType::V1,
            org: OrgId::from_bytes([1; 16]),
            user: UserId::from_bytes([2; 16]),
            agent: AgentId::from_bytes([3; 16]),
            grant: GrantId::from_bytes([4; 16]),
            connector: "acme-mail".parse().unwrap(),
            tool: tool.to_owned(),
            tool_digest: "sha256:00".to_owned(),
            args,
        }
    }

    /// The same value with every number made whole.
    fn whole(value: Value) -> Value {
        match value {
            Value::Number(number) => Value::from(number.as_f64().unwrap() as i64),
            Value::Array(items) => items.into_iter().map(whole).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(name, value)| (name, whole(value)))
                .collect(),
            other => other,
        }
    }

    #[test]
    fn an_actions_form_is_the_canonical_one_at_the_edges() {
        let every: String = ('\0'..='\u{ff}').collect();
        let whole = [
            json!({}),
            json!({"b": {}, "a": [], "": [{}, [[]], null, true]}),
            json!({"\u{fb33}": 1, "\u{1f600}": 2, "\u{e000}": 3, "a\u{10ffff}": 4, "aa": 5, "a": 6}),
            json!({ every.clone(): every, "/": "\u{2028}\u{2029}\u{7f}</script>" }),
            json!([0, -1, 9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64]),
        ];
        let others = [
            json!([9_007_199_254_740_992_i64]),
            json!([-9_007_199_254_740_992_i64]),
            json!([9_007_199_254_740_993_i64, i64::MIN, i64::MAX, u64::MAX]),
            json!({"a": [{"b": 1.5}]}),
            json!([-0.0, 1.0, 1e21, 1e-7]),
        ];
        assert!(whole.iter().all(is_whole) && !others.iter().any(is_whole));
        for args in whole.into_iter().chain(others) {
            let asked = action_of("messages.send", args);
            assert_eq!(action(&asked), canonicalize(&asked), "{asked:?}");
        }
    }

    proptest! {
        #[test]
        fn an_actions_form_is_the_canonical_one(
            tool in proptest::collection::vec(any::<char>(), 0..6), args in json_value(),
        ) {
            let tool = String::from_iter(tool);
            let fast = whole(args.clone());
            prop_assert!(is_whole(&fast));
            for args in [args, fast] {
                let asked = action_of(&tool, args);
                let ours = String::from_utf8(action(&asked).unwrap()).unwrap();
                prop_assert_eq!(&ours, &String::from_utf8(canonicalize(&asked).unwrap()).unwrap());
                prop_assert_eq!(&ours, &String::from_utf8(serde_jcs::to_vec(&asked).unwrap()).unwrap());
            }
        }

        #[test]
        fn two_implementations_agree(value in json_value()) {
            let ours = canonicalize(&value).unwrap();
            let theirs = serde_jcs::to_vec(&value).unwrap();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs).unwrap());
        }

        #[test]
        fn a_canonical_form_passes_the_gate_and_is_its_own_canonical_form(value in json_value()) {
            let canonical = canonicalize(&value).unwrap();
            let again = Gate::ARGS.check(&canonical).unwrap();
            prop_assert_eq!(canonicalize(&again).unwrap(), canonical);
        }
    }
}
