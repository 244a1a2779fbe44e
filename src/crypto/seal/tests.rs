//! Sealed secrets: published bytes, another implementation, and every way to tamper.

use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};

use super::*;
use crate::crypto::{
    OsRandomness,
    vectors::{self, Place, Scripted, dek},
};

fn sealed(place: &Place, plaintext: &[u8]) -> Vec<u8> {
    seal(&dek([7; 32]), &place.parts(), plaintext, &OsRandomness::new()).unwrap()
}

#[test]
fn sealing_matches_the_published_vectors() {
    for case in vectors::cases("seal.json") {
        let place = Place::of(&case["aad"]);
        let key = dek(vectors::array(&case["dek"]));
        let plaintext = vectors::bytes(&case["plaintext"]);
        let random = Scripted::new(&vectors::bytes(&case["nonce"]));
        let sealed = seal(&key, &place.parts(), &plaintext, &random).unwrap();
        assert_eq!(sealed, vectors::bytes(&case["sealed"]), "{}", case["name"]);
        assert_eq!(
            *open(&key, &place.parts(), &sealed).unwrap(),
            plaintext,
            "{}",
            case["name"]
        );
    }
}

#[test]
fn refused_blobs_match_the_published_vectors() {
    let file = vectors::read("seal.json");
    for case in file["refused"].as_array().unwrap() {
        let place = Place::of(&case["aad"]);
        let answer = open(
            &dek(vectors::array(&case["dek"])),
            &place.parts(),
            &vectors::bytes(&case["sealed"]),
        );
        let name = match answer {
            Ok(_) => "opened",
            Err(CryptoError::Malformed(_)) => "malformed",
            Err(CryptoError::WrongKey) => "wrong_key",
            Err(CryptoError::Tampered) => "tampered",
            Err(_) => "other",
        };
        assert_eq!(name, case["error"].as_str().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn a_two_key_ciphertext_fails_at_the_commitment() {
    let case = &vectors::read("seal.json")["two_keys"];
    let place = Place::of(&case["aad"]);
    let blob = vectors::bytes(&case["sealed"]);
    let aad = place.parts().encode().unwrap();
    // The vector is real: bare AES-GCM opens it under both keys.
    for name in ["dek", "other_dek"] {
        let mut key = [0; 32];
        hkdf_expand(
            &vectors::array(&case[name]),
            &[b"postern/seal/1/enc", &sha256(&aad)],
            &mut key,
        )
        .unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let nonce = ring::aead::Nonce::try_assume_unique_for_key(&blob[34..46]).unwrap();
        let mut text = blob[46..].to_vec();
        let bound = Aad::from([&blob[..34], &aad].concat());
        assert!(key.open_in_place(nonce, bound, &mut text).is_ok(), "{name}");
    }
    assert!(open(&dek(vectors::array(&case["dek"])), &place.parts(), &blob).is_ok());
    assert_eq!(
        open(&dek(vectors::array(&case["other_dek"])), &place.parts(), &blob).unwrap_err(),
        CryptoError::WrongKey
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let place = Place::example();
    let blob = sealed(&place, b"a refresh token");
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            open(&dek([7; 32]), &place.parts(), &changed).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn every_shorter_or_longer_blob_is_refused() {
    let place = Place::example();
    let blob = sealed(&place, b"a refresh token");
    for length in 0..blob.len() {
        assert!(
            open(&dek([7; 32]), &place.parts(), &blob[..length]).is_err(),
            "{length}"
        );
    }
    assert!(open(&dek([7; 32]), &place.parts(), &[blob.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_value_moved_to_another_place_does_not_open() {
    let place = Place::example();
    let blob = sealed(&place, b"a refresh token");
    for (part, other) in place.neighbours() {
        assert_eq!(
            open(&dek([7; 32]), &other.parts(), &blob).unwrap_err(),
            CryptoError::WrongKey,
            "{part}"
        );
    }
}

#[test]
fn another_dek_does_not_open() {
    let place = Place::example();
    let blob = sealed(&place, b"a refresh token");
    assert_eq!(
        open(&dek([8; 32]), &place.parts(), &blob).unwrap_err(),
        CryptoError::WrongKey
    );
}

#[test]
fn sealing_twice_differs() {
    let place = Place::example();
    assert_ne!(sealed(&place, b"same"), sealed(&place, b"same"));
}

#[test]
fn a_plaintext_beyond_the_limit_is_refused() {
    let place = Place::example();
    let long = vec![0; MAX_PLAINTEXT + 1];
    let answer = seal(&dek([7; 32]), &place.parts(), &long, &OsRandomness::new());
    assert_eq!(answer, Err(CryptoError::TooLong("secret")));
}

#[test]
fn nothing_is_sealed_without_randomness() {
    let answer = seal(
        &dek([7; 32]),
        &Place::example().parts(),
        b"x",
        &Scripted::new(&[0; 11]),
    );
    assert!(matches!(answer, Err(CryptoError::Randomness(_))));
}

#[test]
fn a_dek_never_prints() {
    assert!(format!("{:?}", dek([7; 32])).contains("REDACTED"));
}

proptest! {
    #[test]
    fn what_was_sealed_opens(plaintext: Vec<u8>, key: [u8; 32], account in ".{0,40}", generation: u64) {
        let place = Place { account, generation, ..Place::example() };
        let blob = seal(&dek(key), &place.parts(), &plaintext, &OsRandomness::new()).unwrap();
        prop_assert_eq!(blob.len(), 62 + plaintext.len());
        prop_assert_eq!(&*open(&dek(key), &place.parts(), &blob).unwrap(), &plaintext);
    }

    #[test]
    fn no_bytes_make_opening_panic(blob: Vec<u8>) {
        prop_assert!(open(&dek([7; 32]), &Place::example().parts(), &blob).is_err());
    }
}
