//! The deployment's own keys: made once, sealed under its data key, opened at every start.

use crate::{
    crypto::{
        CryptoError, Keyring, MacKey, OdkHandle, SigningKey,
        instance::{self, InstanceKeyRecord, Purpose},
    },
    domain::Clock,
    store::Store,
};

use super::AppError;

/// The instance keys in use, still sealed, with the key they open under.
pub(super) struct Chest {
    odk: OdkHandle,
    records: Vec<InstanceKeyRecord>,
}

impl Chest {
    /// Makes what is missing and loads the rest. Replicas may start side by side.
    pub(super) async fn open(
        store: &Store,
        keyring: &Keyring,
        kek_ref: &str,
        clock: &dyn Clock,
    ) -> Result<Self, AppError> {
        store
            .retry(|| Self::complete(store, keyring, kek_ref, clock))
            .await
    }

    async fn complete(
        store: &Store,
        keyring: &Keyring,
        kek_ref: &str,
        clock: &dyn Clock,
    ) -> Result<Self, AppError> {
        let record = match store.read_deployment().await?.current_odk(None).await? {
            Some(record) => record,
            None => {
                let made = keyring.create_odk(None, kek_ref).await?;
                let mut tx = store.write_deployment().await?;
                // Another replica may have been faster; then its key is everybody's.
                let record = match tx.current_odk(None).await? {
                    Some(record) => record,
                    None => {
                        tx.insert_odk(&made).await?;
                        made
                    }
                };
                tx.commit().await?;
                record
            }
        };
        let odk = keyring.odk(&record).await?;
        let mut tx = store.write_deployment().await?;
        let mut records = tx.instance_keys().await?;
        records.retain(|record| record.retired_at.is_none());
        for purpose in NEEDED {
            if records.iter().any(|record| record.purpose == purpose) {
                continue;
            }
            let now = clock.now();
            let record = if purpose.signs() {
                instance::generate_signing_key(purpose, &odk, now)?.1
            } else {
                instance::generate_mac_key(purpose, &odk, now)?.1
            };
            tx.insert_instance_key(&record).await?;
            records.push(record);
        }
        tx.commit().await?;
        Ok(Self { odk, records })
    }

    pub(super) fn mac(&self, purpose: Purpose) -> Result<MacKey, CryptoError> {
        instance::open_mac_key(self.record(purpose)?, &self.odk)
    }

    pub(super) fn signing(&self, purpose: Purpose) -> Result<SigningKey, CryptoError> {
        instance::open_signing_key(self.record(purpose)?, &self.odk)
    }

    fn record(&self, purpose: Purpose) -> Result<&InstanceKeyRecord, CryptoError> {
        self.records
            .iter()
            .find(|record| record.purpose == purpose)
            .ok_or(CryptoError::Malformed("instance keys"))
    }
}

/// The purposes this build uses.
const NEEDED: [Purpose; 5] = [
    Purpose::ApiKeys,
    Purpose::Sessions,
    Purpose::ConnectState,
    Purpose::Notary,
    Purpose::Checkpoints,
];
