//! Wrapped DEKs and ODK commitments: published bytes and every way to tamper.

use super::*;
use crate::crypto::{
    OsRandomness,
    vectors::{self, Place, Scripted, dek, key_id, odk},
};

fn wrapped(place: &Place) -> Vec<u8> {
    wrap(
        &odk(key_id(1), [6; 32]),
        &place.parts(),
        &dek([7; 32]),
        &OsRandomness::new(),
    )
    .unwrap()
}

#[test]
fn wraps_match_the_published_vectors() {
    for case in vectors::cases("wrap.json") {
        let place = Place::of(&case["aad"]);
        let odk = odk(
            case["odk_id"].as_str().unwrap().parse().unwrap(),
            vectors::array(&case["odk"]),
        );
        let key: [u8; 32] = vectors::array(&case["dek"]);
        let random = Scripted::new(&vectors::bytes(&case["salt"]));
        let wrapped = wrap(&odk, &place.parts(), &dek(key), &random).unwrap();
        assert_eq!(wrapped, vectors::bytes(&case["wrapped"]), "{}", case["name"]);
        assert_eq!(
            unwrap(&odk, &place.parts(), &wrapped).unwrap().expose_secret(),
            &key
        );
    }
}

#[test]
fn commitments_match_the_published_vectors() {
    for case in vectors::cases("odk_commitment.json") {
        let odk = odk(
            case["odk_id"].as_str().unwrap().parse().unwrap(),
            vectors::array(&case["odk"]),
        );
        let org = Some(case["org"].as_str().unwrap()).filter(|org| !org.is_empty());
        let commitment = odk.commitment(org.map(|org| org.parse().unwrap())).unwrap();
        assert_eq!(
            commitment.to_vec(),
            vectors::bytes(&case["commitment"]),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let place = Place::example();
    let blob = wrapped(&place);
    assert_eq!(blob.len(), 97);
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            unwrap(&odk(key_id(1), [6; 32]), &place.parts(), &changed).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn every_shorter_or_longer_blob_is_refused() {
    let place = Place::example();
    let blob = wrapped(&place);
    let odk = odk(key_id(1), [6; 32]);
    for length in 0..blob.len() {
        assert!(unwrap(&odk, &place.parts(), &blob[..length]).is_err(), "{length}");
    }
    assert!(unwrap(&odk, &place.parts(), &[blob.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn a_dek_moved_to_another_place_does_not_unwrap() {
    let place = Place::example();
    let blob = wrapped(&place);
    for (part, other) in place.neighbours() {
        assert_eq!(
            unwrap(&odk(key_id(1), [6; 32]), &other.parts(), &blob).unwrap_err(),
            CryptoError::Tampered,
            "{part}"
        );
    }
}

#[test]
fn another_odk_does_not_unwrap() {
    let place = Place::example();
    let blob = wrapped(&place);
    assert_eq!(
        unwrap(&odk(key_id(2), [6; 32]), &place.parts(), &blob).unwrap_err(),
        CryptoError::WrongKey
    );
    assert_eq!(
        unwrap(&odk(key_id(1), [5; 32]), &place.parts(), &blob).unwrap_err(),
        CryptoError::Tampered
    );
}

#[test]
fn a_commitment_names_key_org_and_id() {
    let org = Place::example().org;
    let commitment = odk(key_id(1), [6; 32]).commitment(org).unwrap();
    assert_ne!(commitment, odk(key_id(1), [5; 32]).commitment(org).unwrap());
    assert_ne!(commitment, odk(key_id(2), [6; 32]).commitment(org).unwrap());
    assert_ne!(commitment, odk(key_id(1), [6; 32]).commitment(None).unwrap());
}

#[test]
fn an_odk_never_prints() {
    let shown = format!("{:?}", odk(key_id(1), [6; 32]));
    assert!(shown.contains("REDACTED") && !shown.contains("6, 6"), "{shown}");
}
