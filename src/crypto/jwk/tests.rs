//! JWKs against the RFCs and against independent implementations.

use ed25519_dalek::Signer as _;

use super::*;
use crate::crypto::vectors;

/// RFC 8037 Appendix A.2.
fn rfc_8037() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

/// RFC 7515 Appendix A.3.1.
fn rfc_7515() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

#[test]
fn the_thumbprint_matches_rfc_8037_appendix_a_3() {
    let key = PinnedKey::from_jwk(&rfc_8037()).unwrap();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn thumbprints_match_the_published_vectors() {
    for case in vectors::cases("jwk.json") {
        let key = PinnedKey::from_jwk(&case["jwk"]).unwrap();
        assert_eq!(
            key.key().thumbprint(),
            case["thumbprint"].as_str().unwrap(),
            "{}",
            case["name"]
        );
        assert_eq!(key.algorithm().as_str(), case["alg"], "{}", case["name"]);
    }
}

#[test]
fn an_eddsa_signature_matches_rfc_8037_appendix_a_4() {
    let key = PinnedKey::from_jwk(&rfc_8037()).unwrap();
    let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = base64url_decode(
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    )
    .unwrap();
    assert!(key.key().verifies(input, &signature));
    assert!(!key.key().verifies(b"other", &signature));
}

#[test]
fn an_es256_signature_matches_rfc_7515_appendix_a_3() {
    let key = PinnedKey::from_jwk(&rfc_7515()).unwrap();
    let input = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = base64url_decode(
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    )
    .unwrap();
    assert!(key.key().verifies(input, &signature));
    assert!(!key.key().verifies(b"other", &signature));
}

#[test]
fn independent_implementations_sign_what_we_verify() {
    let ed = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let key = PublicKey::Ed25519(ed.verifying_key().to_bytes());
    assert!(key.verifies(b"message", &ed.sign(b"message").to_bytes()));

    let ec = p256::ecdsa::SigningKey::from_slice(&[3; 32]).unwrap();
    let point = ec.verifying_key().to_encoded_point(false);
    let key = PublicKey::P256 {
        x: (*point.x().unwrap()).into(),
        y: (*point.y().unwrap()).into(),
    };
    let signature: p256::ecdsa::Signature = ec.sign(b"message");
    assert!(key.verifies(b"message", &signature.to_bytes()));
    // RFC 7518 §3.4: r ‖ s, never DER; and nothing of zeros.
    assert!(!key.verifies(b"message", signature.to_der().as_bytes()));
    assert!(!key.verifies(b"message", &[0; 64]));
}

#[test]
fn a_jwk_survives_text_and_back() {
    for jwk in [rfc_8037(), rfc_7515()] {
        let key = PinnedKey::from_jwk(&jwk).unwrap();
        let again: Value = serde_json::from_str(&key.to_jwk_text()).unwrap();
        assert_eq!(PinnedKey::from_jwk(&again), Ok(key));
        for member in jwk.as_object().unwrap().keys() {
            assert_eq!(again[member], jwk[member]);
        }
    }
}

#[test]
fn private_keys_are_refused() {
    for member in PRIVATE {
        for jwk in [rfc_8037(), rfc_7515()] {
            assert_eq!(
                PinnedKey::from_jwk(&with(jwk, member, json!("AA"))),
                Err(InvalidJwk::Private),
                "{member}"
            );
        }
    }
}

#[test]
fn members_that_contradict_the_key_are_refused() {
    let short = base64url(&[1; 31]);
    let long = base64url(&[1; 33]);
    for (name, value) in [
        ("alg", json!("ES256")),
        ("alg", json!("none")),
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("kid", json!("")),
        ("kid", json!(7)),
        ("kid", json!("a b")),
        ("kid", json!("a\"b")),
        ("x", json!(short)),
        ("x", json!(long)),
        ("x", json!(7)),
        ("x", json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")),
        ("y", json!("AA")),
    ] {
        let expected = ["alg", "use", "key_ops", "kid", "x", "y"]
            .into_iter()
            .find(|member| *member == name)
            .unwrap();
        assert_eq!(
            PinnedKey::from_jwk(&with(rfc_8037(), name, value.clone())),
            Err(InvalidJwk::Member(expected)),
            "{name} {value}"
        );
    }
    assert_eq!(
        PinnedKey::from_jwk(&with(rfc_7515(), "y", json!(short))),
        Err(InvalidJwk::Member("y"))
    );
}

#[test]
fn other_types_are_refused() {
    for (name, value) in [
        ("kty", "RSA"),
        ("kty", "oct"),
        ("crv", "X25519"),
        ("crv", "P-384"),
        ("crv", "ed25519"),
    ] {
        let jwk = with(rfc_8037(), name, json!(value));
        assert_eq!(
            PinnedKey::from_jwk(&jwk),
            Err(InvalidJwk::UnsupportedType),
            "{value}"
        );
    }
    assert_eq!(PinnedKey::from_jwk(&json!([])), Err(InvalidJwk::NotAnObject));
}

#[test]
fn keys_of_small_order_are_refused_as_the_independent_library_sees_them() {
    let mut weak = 0;
    for known in SMALL_ORDER {
        for sign in [0, 0x80] {
            let mut bytes = known;
            bytes[31] |= sign;
            assert_eq!(
                PinnedKey::from_jwk(&with(rfc_8037(), "x", json!(base64url(&bytes)))),
                Err(InvalidJwk::WeakKey)
            );
            if let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
                assert!(key.is_weak(), "{bytes:02x?}");
                weak += 1;
            }
        }
    }
    assert!(weak >= 8, "{weak}");
}
