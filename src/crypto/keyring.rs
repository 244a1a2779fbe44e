//! KEK → ODK → DEK: org data keys come from the KMS, stay in locked memory for a bounded time, and wrap one DEK per
//! secret version (crypto §1).
//!
//! It promises that an ODK is usable for at most `cache_ttl` (or [`HANDLE_LIFE`], if that is longer) after the KMS
//! released it, so that disabling the KEK stops everything within that bound. A KMS that is down is an error, never a
//! fallback; failures are not remembered.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use postern_kms::{KeyContext, KeyService, KeyStatus};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{
    CryptoError,
    aad::AadParts,
    digest::same,
    hardening::Locking,
    seal::{self, Dek},
    wrap::{self, Odk},
};
use crate::domain::{Clock, KeyId, OrgId, Randomness};

/// How long a handle may be used when nothing is cached: the life of an audit receipt.
pub const HANDLE_LIFE: Duration = Duration::from_secs(5);

/// An org data key as it is stored: wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OdkRecord {
    /// Its id.
    pub id: KeyId,
    /// Whose it is; `None` for the deployment's own.
    pub org: Option<OrgId>,
    /// The KEK it is wrapped under.
    pub kek_ref: String,
    /// What the KMS made of it.
    pub wrapped: Vec<u8>,
    /// Binds the key to org and id whatever the KMS binds.
    pub commitment: [u8; 32],
}

/// A sealed secret with its wrapped key: what a row stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// The ODK that wraps the DEK.
    pub odk: KeyId,
    /// crypto §2.
    pub sealed: Vec<u8>,
    /// crypto §3. Deleting it shreds the secret.
    pub wrapped_dek: Vec<u8>,
}

/// Org data keys in use.
#[derive(Debug)]
pub struct Keyring {
    service: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    cache_ttl: Duration,
    locking: Locking,
    cache: Mutex<HashMap<KeyId, Cached>>,
    forgotten: AtomicU64,
}

#[derive(Debug, Clone)]
struct Cached {
    odk: Arc<Odk>,
    org: Option<OrgId>,
    commitment: [u8; 32],
    unwrapped_at: Duration,
}

impl Keyring {
    /// A keyring whose plaintext keys live for `cache_ttl` from the unwrap, in memory that must be lockable.
    #[must_use]
    pub fn new(
        service: Arc<dyn KeyService>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
        cache_ttl: Duration,
    ) -> Self {
        Self {
            service,
            clock,
            random,
            cache_ttl,
            locking: Locking::Required,
            cache: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The same keyring with another rule for memory that cannot be locked.
    #[must_use]
    pub fn with_locking(self, locking: Locking) -> Self {
        Self { locking, ..self }
    }

    /// Makes a new ODK and has the KMS wrap it under `kek_ref`.
    ///
    /// # Errors
    /// When the KMS, the generator or locked memory fails.
    pub async fn create_odk(&self, org: Option<OrgId>, kek_ref: &str) -> Result<OdkRecord, CryptoError> {
        let id = KeyId::new(self.clock.now(), self.random.as_ref())?;
        let odk = Odk::fill_with(id, self.locking, |key| self.random.fill(key))?;
        self.record(&odk, org, kek_ref).await
    }

    /// Moves an ODK under another KEK: same id, same key, same commitment; no sealed value is touched.
    ///
    /// # Errors
    /// As [`Keyring::odk`] and [`Keyring::create_odk`].
    pub async fn rewrap_odk(&self, record: &OdkRecord, kek_ref: &str) -> Result<OdkRecord, CryptoError> {
        let odk = self.unwrap(record).await?;
        self.record(&odk, record.org, kek_ref).await
    }

    /// The ODK behind `record`, from memory or from the KMS.
    ///
    /// # Errors
    /// [`CryptoError::KeyService`] when the KMS does not deliver, [`CryptoError::WrongKey`] when what it delivers is not
    /// the key of this org and id, [`CryptoError::Unlockable`] when memory cannot be locked.
    pub async fn odk(&self, record: &OdkRecord) -> Result<OdkHandle, CryptoError> {
        if let Some(cached) = self.cached(record) {
            return Ok(self.handle(cached));
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        // The time counts from before the KMS was asked: a slow answer must not lengthen the bound.
        let unwrapped_at = self.clock.since_boot();
        let odk = Arc::new(self.unwrap(record).await?);
        let cached = Cached {
            odk,
            org: record.org,
            commitment: record.commitment,
            unwrapped_at,
        };
        let mut cache = self.lock();
        // A `forget` that came while the KMS was asked wins.
        if !self.cache_ttl.is_zero() && self.forgotten.load(Ordering::SeqCst) == forgotten {
            cache.insert(record.id, cached.clone());
        }
        drop(cache);
        Ok(self.handle(cached))
    }

    /// Drops an org's keys from memory; the next use asks the KMS. Handles given out end with their own time.
    pub fn forget(&self, org: Option<OrgId>) {
        let mut cache = self.lock();
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        cache.retain(|_, cached| cached.org != org);
    }

    /// Wipes keys whose time is over; a worker calls this every few seconds, and whoever has to ask the KMS does it too.
    pub fn sweep(&self) {
        self.sweep_locked(&mut self.lock());
    }

    /// What the KMS says of its keys.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn status(&self) -> Result<Vec<KeyStatus>, CryptoError> {
        Ok(self.service.status().await?)
    }

    fn cached(&self, record: &OdkRecord) -> Option<Cached> {
        let mut cache = self.lock();
        let now = self.clock.since_boot();
        // A row that changed its org or commitment is not the row this key was unwrapped for.
        let found = cache
            .get(&record.id)
            .filter(|cached| self.stays(cached, now))
            .filter(|cached| cached.org == record.org && cached.commitment == record.commitment)
            .cloned();
        if found.is_none() {
            // The KMS is asked: what is over gives back its locked memory before another key needs some.
            self.sweep_locked(&mut cache);
        }
        found
    }

    fn sweep_locked(&self, cache: &mut HashMap<KeyId, Cached>) {
        let now = self.clock.since_boot();
        cache.retain(|_, cached| self.stays(cached, now));
    }

    /// A key leaves the cache a little before its end, so that a handle taken from it lives through one release.
    fn stays(&self, cached: &Cached, now: Duration) -> bool {
        let margin = HANDLE_LIFE.min(self.cache_ttl / 4);
        now.saturating_add(margin) < cached.unwrapped_at.saturating_add(self.cache_ttl)
    }

    fn handle(&self, cached: Cached) -> OdkHandle {
        OdkHandle {
            until: cached
                .unwrapped_at
                .saturating_add(self.cache_ttl.max(HANDLE_LIFE)),
            odk: cached.odk,
            org: cached.org,
            locking: self.locking,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }

    async fn unwrap(&self, record: &OdkRecord) -> Result<Odk, CryptoError> {
        let context = context(record.org, record.id);
        let key = self
            .service
            .unwrap(&record.kek_ref, &context, &record.wrapped)
            .await?;
        let odk = Odk::fill_with(record.id, self.locking, |place| {
            place.copy_from_slice(key.expose_secret());
            Ok::<(), CryptoError>(())
        })?;
        // SECURITY: some KMS wraps carry no context; the commitment binds the key to its org and id all the same.
        if same(&odk.commitment(record.org)?, &record.commitment) {
            Ok(odk)
        } else {
            Err(CryptoError::WrongKey)
        }
    }

    async fn record(&self, odk: &Odk, org: Option<OrgId>, kek_ref: &str) -> Result<OdkRecord, CryptoError> {
        let wrapped = self
            .service
            .wrap(kek_ref, &context(org, odk.id()), odk.expose_secret())
            .await?;
        Ok(OdkRecord {
            id: odk.id(),
            org,
            kek_ref: kek_ref.to_owned(),
            wrapped,
            commitment: odk.commitment(org)?,
        })
    }

    /// The cache holds no broken state: a panic elsewhere must not stop every vend.
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An unwrapped ODK on loan; everything it does is synchronous and ends with its time.
#[derive(Debug, Clone)]
pub struct OdkHandle {
    odk: Arc<Odk>,
    org: Option<OrgId>,
    until: Duration,
    locking: Locking,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
}

impl OdkHandle {
    /// Seals `plaintext` at its place under a new DEK.
    ///
    /// # Errors
    /// [`CryptoError::KeyExpired`] after the handle's time, [`CryptoError::ForeignOrg`] for another org's place, and
    /// as [`seal::seal`].
    pub fn seal(&self, aad: &AadParts<'_>, plaintext: &[u8]) -> Result<SealedSecret, CryptoError> {
        self.prepare(aad)?.seal(aad, plaintext)
    }

    /// Makes everything ready to seal one secret at its place that is not known yet. It can be sealed after the handle's
    /// time, too: whoever asks for a secret that is handed out once must be able to keep it.
    ///
    /// # Errors
    /// As [`OdkHandle::seal`].
    pub fn prepare(&self, aad: &AadParts<'_>) -> Result<PreparedSeal, CryptoError> {
        self.check(aad)?;
        let dek = Dek::generate(self.random.as_ref())?;
        Ok(PreparedSeal {
            odk: self.odk.id(),
            wrapped_dek: wrap::wrap(&self.odk, aad, &dek, self.random.as_ref())?,
            dek,
            random: Arc::clone(&self.random),
        })
    }

    /// Opens a secret at the place given by its trusted row.
    ///
    /// # Errors
    /// [`CryptoError::KeyExpired`] after the handle's time, [`CryptoError::ForeignOrg`] for another org's place, and
    /// as [`wrap::unwrap`] and [`seal::open`].
    pub fn open(&self, aad: &AadParts<'_>, secret: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        self.check(aad)?;
        if secret.odk != self.odk.id() {
            return Err(CryptoError::WrongKey);
        }
        let dek = wrap::unwrap(&self.odk, aad, &secret.wrapped_dek)?;
        seal::open(&dek, aad, &secret.sealed)
    }

    /// Wraps the DEK of a secret anew under `next`; the sealed text stays as it is (rotation of ODKs).
    ///
    /// # Errors
    /// As [`OdkHandle::open`]; the sealed text itself is not opened.
    pub fn rewrap(
        &self,
        aad: &AadParts<'_>,
        secret: SealedSecret,
        next: &Self,
    ) -> Result<SealedSecret, CryptoError> {
        self.check(aad)?;
        next.check(aad)?;
        if secret.odk != self.odk.id() {
            return Err(CryptoError::WrongKey);
        }
        let dek = wrap::unwrap(&self.odk, aad, &secret.wrapped_dek)?;
        let wrapped_dek = wrap::wrap(&next.odk, aad, &dek, self.random.as_ref())?;
        Ok(SealedSecret {
            odk: next.odk.id(),
            wrapped_dek,
            ..secret
        })
    }

    /// The ODK's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.odk.id()
    }

    /// Whose key it is; `None` for the deployment's own.
    #[must_use]
    pub fn org(&self) -> Option<OrgId> {
        self.org
    }

    pub(super) fn locking(&self) -> Locking {
        self.locking
    }

    pub(super) fn random(&self) -> &dyn Randomness {
        self.random.as_ref()
    }

    fn check(&self, aad: &AadParts<'_>) -> Result<(), CryptoError> {
        if self.clock.since_boot() > self.until {
            return Err(CryptoError::KeyExpired);
        }
        // INVARIANT: an org's key serves that org alone; the deployment's key may serve any place.
        if self.org.is_some() && self.org != aad.org {
            return Err(CryptoError::ForeignOrg);
        }
        Ok(())
    }
}

/// A DEK, made and wrapped, for one secret. What it seals opens under the ODK only: a key that was taken away meanwhile
/// keeps it closed.
#[derive(Debug)]
pub struct PreparedSeal {
    odk: KeyId,
    wrapped_dek: Vec<u8>,
    dek: Dek,
    random: Arc<dyn Randomness>,
}

impl PreparedSeal {
    /// Seals the secret. At another place than the one prepared for it would never open.
    ///
    /// # Errors
    /// As [`seal::seal`].
    pub fn seal(self, aad: &AadParts<'_>, plaintext: &[u8]) -> Result<SealedSecret, CryptoError> {
        Ok(SealedSecret {
            odk: self.odk,
            sealed: seal::seal(&self.dek, aad, plaintext, self.random.as_ref())?,
            wrapped_dek: self.wrapped_dek,
        })
    }
}

fn context(org: Option<OrgId>, odk: KeyId) -> KeyContext {
    KeyContext {
        org: org.map(|org| org.to_string()),
        odk: odk.to_string(),
        purpose: "postern-odk",
    }
}

#[cfg(test)]
mod tests;
