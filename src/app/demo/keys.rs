//! The demo's own API keys in a kept data directory: sealed, like everything else that is secret.

use serde::{Deserialize, Serialize};

use crate::{
    app::AppError,
    crypto::{AadParts, OdkHandle, SealedSecret, digest},
    flows::Deps,
};

use super::DemoAgent;

/// The demo's own keys, kept sealed so that a second start prints the same ones.
#[derive(Serialize, Deserialize)]
pub(super) struct DemoKeys {
    pub(super) admin_key: String,
    pub(super) service_key: String,
    pub(super) agents: Vec<DemoAgent>,
}

/// Where the sealed keys stand in the database.
const KEYS: &str = "demo_keys";

fn keys_place() -> AadParts<'static> {
    AadParts {
        org: None,
        user: None,
        connector: None,
        account: "",
        row: KEYS,
        kind: KEYS,
        binding: None,
        generation: 1,
    }
}

async fn deployment_key(deps: &Deps) -> Result<OdkHandle, AppError> {
    let record = deps.store.read_deployment().await?.current_odk(None).await?;
    let record = record.ok_or_else(|| AppError::Refused("the deployment has no data key".to_owned()))?;
    Ok(deps.keyring.odk(&record).await?)
}

/// Seals the keys under the deployment's own data key.
pub(super) async fn keep_keys(deps: &Deps, keys: &DemoKeys) -> Result<(), AppError> {
    let plain = serde_json::to_vec(keys).map_err(|_| AppError::Refused("the demo's keys".to_owned()))?;
    let sealed = deployment_key(deps).await?.seal(&keys_place(), &plain)?;
    let parts = [
        digest::base64url(&sealed.sealed),
        digest::base64url(&sealed.wrapped_dek),
        sealed.odk.to_string(),
    ];
    Ok(deps.store.set_meta(KEYS, &parts.join(".")).await?)
}

/// Opens what [`keep_keys`] kept.
pub(super) async fn kept_keys(deps: &Deps) -> Result<DemoKeys, AppError> {
    let unusable = || AppError::Refused("the keys of this demo cannot be opened".to_owned());
    let text = deps.store.meta(KEYS).await?.ok_or_else(unusable)?;
    let mut parts = text.split('.');
    let mut bytes = || {
        parts
            .next()
            .and_then(digest::base64url_decode)
            .ok_or_else(unusable)
    };
    let (sealed, wrapped_dek) = (bytes()?, bytes()?);
    let odk = parts
        .next()
        .and_then(|odk| odk.parse().ok())
        .ok_or_else(unusable)?;
    let plain = deployment_key(deps).await?.open(
        &keys_place(),
        &SealedSecret {
            odk,
            sealed,
            wrapped_dek,
        },
    )?;
    serde_json::from_slice(&plain).map_err(|_| unusable())
}
