//! The canonical form of JSON (RFC 8785): what is hashed and signed.

use serde::Serialize;

use super::CryptoError;

/// The canonical bytes of `value`: members by UTF-16 code units, numbers as ECMAScript prints them.
///
/// # Errors
/// When `value` holds a number that is not finite or does not serialise.
pub fn canonicalize<T: Serialize>(value: &T) -> Result<Vec<u8>, CryptoError> {
    serde_json_canonicalizer::to_vec(value).map_err(|_| CryptoError::NotCanonical)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

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

    proptest! {
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
