//! The keyring over a real local key service, with a clock that moves only when told.

use std::sync::{
    OnceLock, Weak,
    atomic::{AtomicBool, AtomicUsize},
};

use postern_kms::{BoxFuture, KeyError, LocalKeys, PlainKey};
use tempfile::TempDir;

use super::*;
use crate::{
    crypto::{OsRandomness, hardening::keep_locked, vectors::Place},
    domain::{Time, clock::FixedClock},
};

mod rotation;

/// A real key service that can be counted and switched off.
#[derive(Debug)]
struct Switched {
    inner: LocalKeys,
    unwraps: AtomicUsize,
    disabled: AtomicBool,
}

impl KeyService for Switched {
    fn wrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        plaintext: &'a [u8; 32],
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>> {
        self.inner.wrap(key_ref, context, plaintext)
    }

    fn unwrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<PlainKey, KeyError>> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        if self.disabled.load(Ordering::SeqCst) {
            return Box::pin(async { Err(KeyError::Disabled) });
        }
        self.inner.unwrap(key_ref, context, wrapped)
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>> {
        self.inner.status()
    }
}

struct World {
    service: Arc<Switched>,
    clock: Arc<FixedClock>,
    keyring: Keyring,
    place: Place,
    _dir: TempDir,
}

impl World {
    fn new(ttl_s: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let mut inner = LocalKeys::new(keep_locked);
        for name in ["one", "two"] {
            postern_kms::local::create_key_file(&dir.path().join(name)).unwrap();
            inner.add_key_file(name, &dir.path().join(name)).unwrap();
        }
        let service = Arc::new(Switched {
            inner,
            unwraps: AtomicUsize::new(0),
            disabled: AtomicBool::new(false),
        });
        let clock = Arc::new(FixedClock::new(Time::from_unix_seconds(1_800_000_000)));
        let keyring = keyring(service.clone(), &clock, Duration::from_secs(ttl_s));
        Self {
            service,
            clock,
            keyring,
            place: Place::example(),
            _dir: dir,
        }
    }

    async fn record(&self) -> OdkRecord {
        self.keyring.create_odk(self.place.org, "one").await.unwrap()
    }

    /// `token`, sealed in its place.
    async fn sealed(&self, record: &OdkRecord) -> SealedSecret {
        let odk = self.keyring.odk(record).await.unwrap();
        odk.seal(&self.place.parts(), b"token").unwrap()
    }

    fn unwraps(&self) -> usize {
        self.service.unwraps.load(Ordering::SeqCst)
    }

    fn disable(&self) {
        self.service.disabled.store(true, Ordering::SeqCst);
    }

    fn wait_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }
}

fn keyring(service: Arc<dyn KeyService>, clock: &Arc<FixedClock>, ttl: Duration) -> Keyring {
    Keyring::new(service, clock.clone(), Arc::new(OsRandomness::new()), ttl)
}

#[tokio::test]
async fn what_was_sealed_opens_in_another_process() {
    let world = World::new(30);
    let record = world.record().await;
    let secret = world.sealed(&record).await;
    let other = keyring(world.service.clone(), &world.clock, Duration::from_secs(30));
    let opened = other
        .odk(&record)
        .await
        .unwrap()
        .open(&world.place.parts(), &secret)
        .unwrap();
    assert_eq!(*opened, b"token");
}

#[tokio::test]
async fn the_kms_is_asked_once_per_ttl() {
    let world = World::new(30);
    let record = world.record().await;
    for _ in 0..5 {
        world.keyring.odk(&record).await.unwrap();
        world.wait_ms(4_900);
    }
    assert_eq!(world.unwraps(), 1);
    world.wait_ms(1_000);
    world.keyring.odk(&record).await.unwrap();
    assert_eq!(world.unwraps(), 2);
}

#[tokio::test]
async fn a_disabled_kek_ends_every_use_within_the_ttl_of_the_unwrap() {
    let world = World::new(30);
    let record = world.record().await;
    let secret = world.sealed(&record).await;
    world.disable();
    // Using it again and again does not lengthen its life.
    for _ in 0..4 {
        world.wait_ms(6_000);
        let handle = world.keyring.odk(&record).await.unwrap();
        assert!(handle.open(&world.place.parts(), &secret).is_ok());
    }
    let last = world.keyring.odk(&record).await.unwrap();
    world.wait_ms(6_001);
    assert_eq!(
        last.open(&world.place.parts(), &secret).unwrap_err(),
        CryptoError::KeyExpired
    );
    assert_eq!(
        last.seal(&world.place.parts(), b"x").unwrap_err(),
        CryptoError::KeyExpired
    );
    assert_eq!(
        world.keyring.odk(&record).await.unwrap_err(),
        CryptoError::KeyService(KeyError::Disabled)
    );
}

#[tokio::test]
async fn what_was_prepared_is_sealed_after_the_handles_time_and_opens_under_its_key_only() {
    let world = World::new(30);
    let record = world.record().await;
    let handle = world.keyring.odk(&record).await.unwrap();
    let prepared = handle.prepare(&world.place.parts()).unwrap();
    world.wait_ms(60_000);
    let secret = prepared.seal(&world.place.parts(), b"token").unwrap();
    assert_eq!(
        handle.open(&world.place.parts(), &secret).unwrap_err(),
        CryptoError::KeyExpired
    );
    let again = world.keyring.odk(&record).await.unwrap();
    assert_eq!(*again.open(&world.place.parts(), &secret).unwrap(), b"token");
    assert_eq!(
        handle.prepare(&world.place.parts()).unwrap_err(),
        CryptoError::KeyExpired
    );
}

#[tokio::test]
async fn a_handle_from_memory_lives_through_one_release() {
    let world = World::new(30);
    let record = world.record().await;
    world.keyring.odk(&record).await.unwrap();
    world.wait_ms(24_999);
    let handle = world.keyring.odk(&record).await.unwrap();
    assert_eq!(world.unwraps(), 1);
    world.wait_ms(5_000);
    assert!(handle.seal(&world.place.parts(), b"x").is_ok());
}

#[tokio::test]
async fn zero_asks_the_kms_each_time_and_a_handle_lasts_five_seconds() {
    let world = World::new(0);
    let record = world.record().await;
    let handle = world.keyring.odk(&record).await.unwrap();
    world.keyring.odk(&record).await.unwrap();
    assert_eq!(world.unwraps(), 2);
    world.wait_ms(5_000);
    assert!(handle.seal(&world.place.parts(), b"x").is_ok());
    world.wait_ms(1);
    assert_eq!(
        handle.seal(&world.place.parts(), b"x").unwrap_err(),
        CryptoError::KeyExpired
    );
}

#[tokio::test]
async fn failures_are_not_remembered() {
    let world = World::new(30);
    let record = world.record().await;
    world.disable();
    assert!(world.keyring.odk(&record).await.is_err());
    world.service.disabled.store(false, Ordering::SeqCst);
    assert!(world.keyring.odk(&record).await.is_ok());
}

#[tokio::test]
async fn forgetting_an_org_asks_the_kms_again_for_that_org_alone() {
    let world = World::new(30);
    let record = world.record().await;
    let own = world.keyring.create_odk(None, "one").await.unwrap();
    world.keyring.odk(&record).await.unwrap();
    world.keyring.odk(&own).await.unwrap();
    world.keyring.forget(world.place.org);
    world.keyring.odk(&own).await.unwrap();
    assert_eq!(world.unwraps(), 2);
    world.keyring.odk(&record).await.unwrap();
    assert_eq!(world.unwraps(), 3);
}

#[tokio::test]
async fn forgetting_while_the_kms_is_asked_keeps_nothing() {
    /// Answers only after the org has been forgotten.
    #[derive(Debug)]
    struct Slow {
        inner: Arc<Switched>,
        keyring: OnceLock<Weak<Keyring>>,
        org: Option<OrgId>,
    }
    impl KeyService for Slow {
        fn wrap<'a>(
            &'a self,
            key_ref: &'a str,
            context: &'a KeyContext,
            plaintext: &'a [u8; 32],
        ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>> {
            self.inner.wrap(key_ref, context, plaintext)
        }
        fn unwrap<'a>(
            &'a self,
            key_ref: &'a str,
            context: &'a KeyContext,
            wrapped: &'a [u8],
        ) -> BoxFuture<'a, Result<PlainKey, KeyError>> {
            self.keyring.get().unwrap().upgrade().unwrap().forget(self.org);
            self.inner.unwrap(key_ref, context, wrapped)
        }
        fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>> {
            self.inner.status()
        }
    }
    let world = World::new(30);
    let record = world.record().await;
    let slow = Arc::new(Slow {
        inner: world.service.clone(),
        keyring: OnceLock::new(),
        org: world.place.org,
    });
    let keyring = Arc::new(keyring(slow.clone(), &world.clock, Duration::from_secs(30)));
    slow.keyring.set(Arc::downgrade(&keyring)).unwrap();
    keyring.odk(&record).await.unwrap();
    assert_eq!(keyring.lock().len(), 0);
}

#[tokio::test]
async fn sweeping_wipes_what_is_over() {
    let world = World::new(30);
    world.keyring.odk(&world.record().await).await.unwrap();
    world.keyring.sweep();
    assert_eq!(world.keyring.lock().len(), 1);
    world.wait_ms(30_000);
    world.keyring.sweep();
    assert_eq!(world.keyring.lock().len(), 0);
}

#[tokio::test]
async fn a_key_that_is_over_is_unwrapped_anew_though_nobody_swept() {
    let world = World::new(30);
    let (record, other) = (world.record().await, world.record().await);
    world.keyring.odk(&record).await.unwrap();
    world.keyring.odk(&other).await.unwrap();
    world.wait_ms(25_000);
    assert_eq!(world.keyring.lock().len(), 2);
    world.disable();
    assert!(world.keyring.odk(&record).await.is_err());
    // Asking the KMS has wiped the other one, too.
    assert_eq!((world.unwraps(), world.keyring.lock().len()), (3, 0));
}

#[tokio::test]
async fn a_changed_record_is_refused() {
    let world = World::new(30);
    let record = world.record().await;
    world.keyring.odk(&record).await.unwrap();
    let other = world.record().await;
    let mut commitment = record.commitment;
    commitment[0] ^= 1;
    let cases = [
        (
            "commitment",
            OdkRecord {
                commitment,
                ..record.clone()
            },
            CryptoError::WrongKey,
        ),
        (
            "org",
            OdkRecord {
                org: None,
                ..record.clone()
            },
            CryptoError::KeyService(KeyError::Integrity),
        ),
        (
            "id",
            OdkRecord {
                id: other.id,
                ..record.clone()
            },
            CryptoError::KeyService(KeyError::Integrity),
        ),
        (
            "kek",
            OdkRecord {
                kek_ref: "two".to_owned(),
                ..other.clone()
            },
            CryptoError::KeyService(KeyError::Integrity),
        ),
    ];
    for (what, changed, error) in cases {
        assert_eq!(world.keyring.odk(&changed).await.unwrap_err(), error, "{what}");
    }
}

#[tokio::test]
async fn the_commitment_holds_where_the_kms_binds_no_context() {
    /// A KMS whose wraps carry nothing: whatever is asked, the same key comes back.
    #[derive(Debug)]
    struct Contextless;
    impl KeyService for Contextless {
        fn wrap<'a>(
            &'a self,
            _: &'a str,
            _: &'a KeyContext,
            plaintext: &'a [u8; 32],
        ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>> {
            Box::pin(async move { Ok(plaintext.to_vec()) })
        }
        fn unwrap<'a>(
            &'a self,
            _: &'a str,
            _: &'a KeyContext,
            wrapped: &'a [u8],
        ) -> BoxFuture<'a, Result<PlainKey, KeyError>> {
            Box::pin(async move {
                let key: [u8; 32] = wrapped.try_into().map_err(|_| KeyError::Integrity)?;
                Ok(PlainKey::new(Box::new(key)))
            })
        }
        fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }
    let world = World::new(30);
    let keyring = keyring(Arc::new(Contextless), &world.clock, Duration::ZERO);
    let record = keyring.create_odk(world.place.org, "any").await.unwrap();
    let other = keyring.create_odk(None, "any").await.unwrap();
    assert!(keyring.odk(&record).await.is_ok());
    for moved in [
        OdkRecord {
            org: None,
            ..record.clone()
        },
        OdkRecord {
            id: other.id,
            ..record.clone()
        },
        OdkRecord {
            wrapped: other.wrapped,
            ..record.clone()
        },
    ] {
        assert_eq!(keyring.odk(&moved).await.unwrap_err(), CryptoError::WrongKey);
    }
}

#[tokio::test]
async fn an_orgs_key_serves_no_other_org() {
    let world = World::new(30);
    let handle = world.keyring.odk(&world.record().await).await.unwrap();
    let secret = handle.seal(&world.place.parts(), b"token").unwrap();
    for place in [
        Place {
            org: None,
            ..world.place.clone()
        },
        world.place.neighbours()[0].1.clone(),
    ] {
        assert_eq!(
            handle.seal(&place.parts(), b"x").unwrap_err(),
            CryptoError::ForeignOrg
        );
        assert_eq!(
            handle.open(&place.parts(), &secret).unwrap_err(),
            CryptoError::ForeignOrg
        );
    }
}

#[tokio::test]
async fn another_rows_wrapped_dek_does_not_open_a_secret() {
    let world = World::new(30);
    let handle = world.keyring.odk(&world.record().await).await.unwrap();
    let other = Place {
        row: "grt_00000000000000000000000009".to_owned(),
        ..world.place.clone()
    };
    let mine = handle.seal(&world.place.parts(), b"mine").unwrap();
    let theirs = handle.seal(&other.parts(), b"theirs").unwrap();
    let twin = handle.seal(&world.place.parts(), b"twin").unwrap();
    let swapped = |from: &SealedSecret| SealedSecret {
        wrapped_dek: from.wrapped_dek.clone(),
        ..mine.clone()
    };
    let open = |secret: &SealedSecret| {
        handle
            .open(&world.place.parts(), secret)
            .map(|text| text.to_vec())
    };
    assert_eq!(open(&swapped(&theirs)), Err(CryptoError::Tampered));
    // Even a DEK wrapped for this very place opens only its own version.
    assert_eq!(open(&swapped(&twin)), Err(CryptoError::WrongKey));
    assert_eq!(open(&theirs), Err(CryptoError::Tampered));
}

#[tokio::test]
async fn nothing_prints_a_key() {
    let world = World::new(30);
    let handle = world.keyring.odk(&world.record().await).await.unwrap();
    let key = format!("{:?}", handle.odk.expose_secret());
    for shown in [format!("{:?}", world.keyring), format!("{handle:?}")] {
        assert!(shown.contains("REDACTED") && !shown.contains(key.trim_matches(['[', ']'])));
    }
}
