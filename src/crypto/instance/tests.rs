//! Instance keys: sealed, opened, and bound to their purpose.

use std::{sync::Arc, time::Duration};

use postern_kms::LocalKeys;

use super::*;
use crate::{
    crypto::{Keyring, Locking, OsRandomness, hardening::keep_preferably_locked, jose},
    domain::{OrgId, clock::FixedClock},
};

async fn handle(org: Option<OrgId>) -> OdkHandle {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("kek");
    postern_kms::local::create_key_file(&path).unwrap();
    let mut service = LocalKeys::new(keep_preferably_locked);
    service.add_key_file("local", &path).unwrap();
    let keyring = Keyring::new(
        Arc::new(service),
        Arc::new(FixedClock::new(now())),
        Arc::new(OsRandomness::new()),
        Duration::from_secs(30),
    )
    .with_locking(Locking::Preferred);
    let record = keyring.create_odk(org, "local").await.unwrap();
    keyring.odk(&record).await.unwrap()
}

fn now() -> Time {
    Time::from_unix_seconds(1_800_000_000)
}

#[tokio::test]
async fn a_signing_key_comes_back_as_itself() {
    let odk = handle(None).await;
    let (key, record) = generate_signing_key(Purpose::Notary, &odk, now()).unwrap();
    let opened = open_signing_key(&record, &odk).unwrap();
    let token = jose::sign("action-decision+jwt", &opened, b"{}").unwrap();
    assert!(
        jose::parse(&token)
            .unwrap()
            .verify(key.public(), "action-decision+jwt")
            .is_ok()
    );
    assert_eq!(
        record.public_jwk.as_deref(),
        Some(key.public().to_jwk_text().as_str())
    );
}

#[tokio::test]
async fn a_mac_key_comes_back_as_itself() {
    let odk = handle(None).await;
    let (key, record) = generate_mac_key(Purpose::ApiKeys, &odk, now()).unwrap();
    let opened = open_mac_key(&record, &odk).unwrap();
    assert_eq!(opened.id(), record.id);
    assert!(opened.verify("api_key", b"psa_x", &key.mac("api_key", b"psa_x").unwrap()));
}

#[tokio::test]
async fn a_key_of_one_purpose_never_opens_as_another() {
    let odk = handle(None).await;
    let (_, signing) = generate_signing_key(Purpose::Notary, &odk, now()).unwrap();
    let (_, mac) = generate_mac_key(Purpose::ApiKeys, &odk, now()).unwrap();
    for purpose in Purpose::ALL {
        let moved = InstanceKeyRecord {
            purpose,
            ..signing.clone()
        };
        assert_eq!(
            open_signing_key(&moved, &odk).is_ok(),
            purpose == Purpose::Notary,
            "{purpose}"
        );
        let moved = InstanceKeyRecord {
            purpose,
            ..mac.clone()
        };
        assert_eq!(
            open_mac_key(&moved, &odk).is_ok(),
            purpose == Purpose::ApiKeys,
            "{purpose}"
        );
    }
}

#[tokio::test]
async fn a_planted_public_key_or_row_is_refused() {
    let odk = handle(None).await;
    let (_, record) = generate_signing_key(Purpose::Notary, &odk, now()).unwrap();
    let (other, other_record) = generate_signing_key(Purpose::Notary, &odk, now()).unwrap();
    let planted = InstanceKeyRecord {
        public_jwk: Some(other.public().to_jwk_text()),
        ..record.clone()
    };
    assert_eq!(
        open_signing_key(&planted, &odk).unwrap_err(),
        CryptoError::Tampered
    );
    let missing = InstanceKeyRecord {
        public_jwk: None,
        ..record.clone()
    };
    assert_eq!(
        open_signing_key(&missing, &odk).unwrap_err(),
        CryptoError::Tampered
    );
    let swapped = InstanceKeyRecord {
        id: other_record.id,
        ..record
    };
    assert_eq!(
        open_signing_key(&swapped, &odk).unwrap_err(),
        CryptoError::Tampered
    );
}

#[tokio::test]
async fn instance_keys_are_never_sealed_under_an_orgs_key() {
    let odk = handle(Some(OrgId::from_bytes([1; 16]))).await;
    assert_eq!(
        generate_signing_key(Purpose::Notary, &odk, now()).unwrap_err(),
        CryptoError::ForeignOrg
    );
    assert_eq!(
        generate_mac_key(Purpose::ApiKeys, &odk, now()).unwrap_err(),
        CryptoError::ForeignOrg
    );
}

#[tokio::test]
async fn only_signing_purposes_sign_and_only_checkpoint_keys_sign_notes() {
    let odk = handle(None).await;
    for purpose in Purpose::ALL {
        assert_eq!(
            generate_mac_key(purpose, &odk, now()).is_ok(),
            !purpose.signs(),
            "{purpose}"
        );
        let Ok((key, _)) = generate_signing_key(purpose, &odk, now()) else {
            assert!(!purpose.signs(), "{purpose}");
            continue;
        };
        let note = key.sign_note(b"note");
        assert_eq!(note.is_some(), purpose == Purpose::Checkpoints, "{purpose}");
        assert!(note.is_none_or(|signature| key.public().key().verifies(b"note", &signature)));
    }
}

#[test]
fn purposes_survive_text_and_back_and_sign_different_types() {
    let mut types = std::collections::BTreeSet::new();
    for purpose in Purpose::ALL {
        assert_eq!(purpose.as_str().parse(), Ok(purpose));
        assert!(purpose.token_typ().is_none_or(|typ| types.insert(typ)));
    }
    assert_eq!("other".parse::<Purpose>(), Err(UnknownPurpose));
}
