//! Compact JWS: published tokens, an independent signer and verifier, and hostile headers.

use std::sync::LazyLock;

use ed25519_dalek::{Signer as _, Verifier as _};
use proptest::prelude::*;
use serde_json::json;

use super::{key_for_tests as key, *};
use crate::crypto::{hardening::Locking, instance::Purpose, jwk::PublicKey, vectors};

const TYP: &str = "action-decision+jwt";

/// A token of an independent signer with any header.
fn forged(header: &str, payload: &str) -> (String, PinnedKey) {
    let signer = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let pinned = PinnedKey::of(PublicKey::Ed25519(signer.verifying_key().to_bytes()));
    let header = header.replace("KID", pinned.kid());
    let input = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    let signature = base64url(&signer.sign(input.as_bytes()).to_bytes());
    (format!("{input}.{signature}"), pinned)
}

fn code(error: &JoseError) -> &'static str {
    match error {
        JoseError::TooLong => "too_long",
        JoseError::NotCompact => "not_compact",
        JoseError::Encoding(_) => "encoding",
        JoseError::Header(_) => "header",
        JoseError::HeaderMember => "header_member",
        JoseError::HeaderValue(_) => "header_value",
        JoseError::UnknownAlgorithm => "unknown_algorithm",
        JoseError::Typ => "typ",
        JoseError::Kid => "kid",
        JoseError::AlgorithmNotPinned => "algorithm_not_pinned",
        JoseError::Signature => "signature",
        JoseError::Purpose => "purpose",
    }
}

fn answer(token: &str, key: &PinnedKey, typ: &str) -> Result<Vec<u8>, JoseError> {
    Ok(parse(token)?.verify(key, typ)?.payload().to_vec())
}

#[test]
fn tokens_match_the_published_vectors() {
    let file = vectors::read("jose.json");
    for case in file["cases"].as_array().unwrap() {
        let key = PinnedKey::from_jwk(&case["jwk"]).unwrap();
        let payload = answer(
            case["token"].as_str().unwrap(),
            &key,
            case["typ"].as_str().unwrap(),
        );
        assert_eq!(
            payload.unwrap(),
            case["payload"].as_str().unwrap().as_bytes(),
            "{}",
            case["name"]
        );
    }
    for case in file["refused"].as_array().unwrap() {
        let key = PinnedKey::from_jwk(&case["jwk"]).unwrap();
        let error = answer(
            case["token"].as_str().unwrap(),
            &key,
            case["typ"].as_str().unwrap(),
        )
        .unwrap_err();
        assert_eq!(code(&error), case["error"].as_str().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn our_token_matches_the_published_one_byte_for_byte() {
    let case = vectors::read("jose.json")["signed"].clone();
    let random = vectors::Scripted::new(&vectors::bytes(&case["seed"]));
    let (key, der) = SigningKey::generate(Purpose::Notary, &random, Locking::Preferred).unwrap();
    assert_eq!(der.as_slice(), vectors::bytes(&case["pkcs8"]));
    let token = sign(TYP, &key, case["payload"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(token, case["token"].as_str().unwrap());
}

#[test]
fn a_token_made_here_is_of_its_own_key_and_of_no_other() {
    let (ours, other) = (key(Purpose::Notary), key(Purpose::Notary));
    let made = sign_own(TYP, &ours, b"{}").unwrap();
    assert!(made.is_signed_by(ours.public()));
    assert!(!made.is_signed_by(other.public()));
    // Ed25519 is deterministic: it is the token that anybody else is given, and they can read it.
    let text = sign(TYP, &ours, b"{}").unwrap();
    assert_eq!(made.as_str(), text);
    assert_eq!(answer(&made.into_text(), ours.public(), TYP).unwrap(), b"{}");
}

#[test]
fn a_token_made_here_is_of_no_key_once_any_character_of_it_is_another() {
    let ours = key(Purpose::Notary);
    let made = sign_own(TYP, &ours, b"{}").unwrap();
    for place in 0..made.as_str().len() {
        let mut token = made.as_str().to_owned();
        let other = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
        token.replace_range(place..=place, other);
        assert!(!SignedJws { token }.is_signed_by(ours.public()), "{place}");
    }
}

#[test]
fn an_independent_library_verifies_our_token() {
    let key = key(Purpose::Notary);
    let token = sign(TYP, &key, b"{}").unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let PublicKey::Ed25519(bytes) = key.public().key() else {
        panic!("not Ed25519")
    };
    let verifier = ed25519_dalek::VerifyingKey::from_bytes(bytes).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&base64url_decode(signature).unwrap()).unwrap();
    assert!(verifier.verify(input.as_bytes(), &signature).is_ok());
}

#[test]
fn we_verify_a_token_of_an_independent_library() {
    let (token, key) = forged(r#"{"typ":"action-decision+jwt","alg":"EdDSA","kid":"KID"}"#, "{}");
    assert_eq!(answer(&token, &key, TYP).unwrap(), b"{}");
}

#[test]
fn a_key_signs_tokens_of_its_own_purpose_alone() {
    for purpose in Purpose::ALL.into_iter().filter(|purpose| purpose.signs()) {
        for other in Purpose::ALL.into_iter().filter_map(Purpose::token_typ) {
            let signed = sign(other, &key(purpose), b"{}");
            assert_eq!(
                signed.is_ok(),
                purpose.token_typ() == Some(other),
                "{purpose} {other}"
            );
        }
    }
}

#[test]
fn a_token_of_one_kind_never_verifies_as_another() {
    let key = key(Purpose::DelegationReceipts);
    let token = sign("delegation-receipt+jwt", &key, b"{}").unwrap();
    assert_eq!(answer(&token, key.public(), TYP).unwrap_err(), JoseError::Typ);
    for typ in ["", "Delegation-Receipt+JWT", "application/delegation-receipt+jwt"] {
        assert_eq!(
            answer(&token, key.public(), typ).unwrap_err(),
            JoseError::Typ,
            "{typ}"
        );
    }
}

#[test]
fn hostile_headers_are_refused() {
    let base = json!({"alg": "EdDSA", "kid": "KID", "typ": TYP});
    let member = |name: &str, value: Value| {
        let mut header = base.clone();
        header[name] = value;
        header.to_string()
    };
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("jku", json!("https://evil.example/jwks")),
        ("jwk", json!({"kty": "OKP"})),
        ("x5u", json!("https://evil.example/x")),
        ("x5c", json!(["MII"])),
        ("x5t", json!("AA")),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
        ("ALG", json!("EdDSA")),
        ("", json!("")),
    ] {
        let (token, key) = forged(&member(name, value), "{}");
        assert_eq!(
            answer(&token, &key, TYP).unwrap_err(),
            JoseError::HeaderMember,
            "{name}"
        );
    }
    for algorithm in [
        "none", "None", "HS256", "RS256", "eddsa", "EdDSA ", "ES384", "Ed25519", "",
    ] {
        let (token, key) = forged(&member("alg", json!(algorithm)), "{}");
        let error = answer(&token, &key, TYP).unwrap_err();
        assert!(
            matches!(error, JoseError::UnknownAlgorithm | JoseError::HeaderValue("alg")),
            "{algorithm}: {error}"
        );
    }
    for (name, value) in [
        ("alg", json!(1)),
        ("kid", json!(null)),
        ("typ", json!(["a"])),
        ("kid", json!("a\nb")),
    ] {
        let (token, key) = forged(&member(name, value), "{}");
        assert!(
            matches!(answer(&token, &key, TYP).unwrap_err(), JoseError::HeaderValue(found) if found == name)
        );
    }
    for missing in ["alg", "kid", "typ"] {
        let mut header = base.clone();
        header.as_object_mut().unwrap().remove(missing);
        let (token, key) = forged(&header.to_string(), "{}");
        assert_eq!(
            answer(&token, &key, TYP).unwrap_err(),
            JoseError::HeaderValue(missing)
        );
    }
    for header in [
        r#"{"alg":"none","alg":"EdDSA","kid":"KID","typ":"t"}"#,
        "{",
        "",
        "\u{feff}{}",
        "{} {}",
    ] {
        let (token, key) = forged(header, "{}");
        assert!(
            matches!(answer(&token, &key, TYP).unwrap_err(), JoseError::Header(_)),
            "{header}"
        );
    }
}

#[test]
fn the_algorithm_is_the_keys_not_the_headers() {
    let (token, key) = forged(r#"{"alg":"ES256","kid":"KID","typ":"action-decision+jwt"}"#, "{}");
    assert_eq!(
        answer(&token, &key, TYP).unwrap_err(),
        JoseError::AlgorithmNotPinned
    );
}

#[test]
fn a_token_naming_another_key_is_refused() {
    let (token, _) = forged(r#"{"alg":"EdDSA","kid":"KID","typ":"action-decision+jwt"}"#, "{}");
    assert_eq!(
        answer(&token, key(Purpose::Notary).public(), TYP).unwrap_err(),
        JoseError::Kid
    );
}

#[test]
fn a_token_has_one_form() {
    let (token, key) = forged(
        r#"{"alg":"EdDSA","kid":"KID","typ":"action-decision+jwt"}"#,
        "{} ",
    );
    assert!(answer(&token, &key, TYP).is_ok());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    for other in [
        String::new(),
        "..".to_owned(),
        input.to_owned(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.AA"),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+")),
        format!("{payload}.{header}.{signature}"),
    ] {
        assert!(answer(&other, &key, TYP).is_err(), "{other}");
    }
    // 64 bytes leave two unused bits in the last character: three other spellings of the same signature.
    let last = signature.chars().last().unwrap();
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        .chars()
        .filter(|c| *c != last)
    {
        let changed = format!("{}{other}", token.strip_suffix(last).unwrap());
        assert!(answer(&changed, &key, TYP).is_err(), "{other}");
    }
}

#[test]
fn a_long_token_is_refused_before_it_is_read() {
    let payload = "x".repeat(16 * 1024);
    let (token, key) = forged(
        r#"{"alg":"EdDSA","kid":"KID","typ":"action-decision+jwt"}"#,
        &payload,
    );
    assert_eq!(answer(&token, &key, TYP).unwrap_err(), JoseError::TooLong);
    assert_eq!(
        sign(TYP, &self::key(Purpose::Notary), payload.as_bytes()).unwrap_err(),
        JoseError::TooLong
    );
}

proptest! {
    #[test]
    fn any_changed_character_is_refused(place in 0_usize..200, wrong in "[A-Za-z0-9_.-]") {
        static TOKEN: LazyLock<(String, PinnedKey)> = LazyLock::new(|| {
            forged(r#"{"alg":"EdDSA","kid":"KID","typ":"action-decision+jwt"}"#, "{\"a\":1}")
        });
        let (token, key) = &*TOKEN;
        let place = place % token.len();
        let mut changed = token.clone();
        changed.replace_range(place..=place, &wrong);
        prop_assume!(changed != *token);
        prop_assert!(answer(&changed, key, TYP).is_err());
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "[A-Za-z0-9_.=\u{e9}-]{0,80}") {
        let _ = parse(&text);
    }
}
