//! RFC 8785 canonical JSON.

use serde::Serialize;

/// The value has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value has no canonical form")]
pub struct NotCanonical;

/// The canonical bytes of `value`.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn canonicalize<T: Serialize>(value: &T) -> Result<Vec<u8>, NotCanonical> {
    serde_json_canonicalizer::to_vec(value).map_err(|_| NotCanonical)
}
