//! Placeholder of the strict JSON gate with its final signature; the `crypto` room brings the real one.

use serde::de::DeserializeOwned;

/// Why a text was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StrictJsonError(String);

/// Reads a `T` from JSON bytes.
///
/// # Errors
/// When the bytes are not the JSON of a `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StrictJsonError> {
    serde_json::from_slice(bytes).map_err(|error| StrictJsonError(error.to_string()))
}
