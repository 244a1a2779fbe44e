//! The place of a sealed value, bound into its sealing (crypto §2).
//!
//! INVARIANT: every part comes from the trusted row, never from the blob.

use super::CryptoError;
use crate::domain::{OrgId, UserId, connector::ConnectorId};

/// Where a secret lives. Absent parts are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AadParts<'a> {
    /// The tenant; `None` for the deployment's own.
    pub org: Option<OrgId>,
    /// The person.
    pub user: Option<UserId>,
    /// The connector.
    pub connector: Option<&'a ConnectorId>,
    /// The provider's stable id of the account.
    pub account: &'a str,
    /// The id of the row that holds the secret, as text.
    pub row: &'a str,
    /// What the secret is: `refresh_token`, `access_token`, `entry` … Never empty, never beginning with `dek:`.
    pub kind: &'a str,
    /// SHA-256 of what the person consented to.
    pub binding: Option<&'a [u8; 32]>,
    /// That secret's own version.
    pub generation: u64,
}

impl AadParts<'_> {
    /// `f("postern/aad/1") ‖ f(org) ‖ f(user) ‖ f(connector) ‖ f(account) ‖ f(row) ‖ f(kind) ‖ f(binding) ‖ u64be generation`
    ///
    /// # Errors
    /// When the kind is empty or taken, or a part is longer than 64 KiB.
    pub fn encode(&self) -> Result<Vec<u8>, CryptoError> {
        self.encode_with("")
    }

    /// The same with `dek:` before the kind: the place of the wrapped DEK (crypto §3).
    ///
    /// # Errors
    /// As [`AadParts::encode`].
    pub fn encode_for_dek(&self) -> Result<Vec<u8>, CryptoError> {
        self.encode_with(DEK)
    }

    fn encode_with(&self, prefix: &str) -> Result<Vec<u8>, CryptoError> {
        // INVARIANT: no kind of a secret equals a kind of a wrapped DEK.
        if self.kind.is_empty() || self.kind.starts_with(DEK) {
            return Err(CryptoError::Malformed("kind"));
        }
        let org = self.org.map(|org| org.to_string()).unwrap_or_default();
        let user = self.user.map(|user| user.to_string()).unwrap_or_default();
        let kind = format!("{prefix}{}", self.kind);
        let mut bytes = Vec::with_capacity(320);
        field(&mut bytes, LABEL)?;
        field(&mut bytes, org.as_bytes())?;
        field(&mut bytes, user.as_bytes())?;
        field(
            &mut bytes,
            self.connector
                .map(ConnectorId::as_str)
                .unwrap_or_default()
                .as_bytes(),
        )?;
        field(&mut bytes, self.account.as_bytes())?;
        field(&mut bytes, self.row.as_bytes())?;
        field(&mut bytes, kind.as_bytes())?;
        field(
            &mut bytes,
            self.binding.map(<[u8; 32]>::as_slice).unwrap_or_default(),
        )?;
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        Ok(bytes)
    }
}

/// `f(x)` = u32 big-endian length ‖ bytes.
pub(super) fn field(bytes: &mut Vec<u8>, part: &[u8]) -> Result<(), CryptoError> {
    let length = u32::try_from(part.len())
        .ok()
        .filter(|length| *length <= MAX_FIELD)
        .ok_or(CryptoError::TooLong("bound context"))?;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
    Ok(())
}

const LABEL: &[u8] = b"postern/aad/1";
const DEK: &str = "dek:";
const MAX_FIELD: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{digest::hex, vectors};

    #[test]
    fn encodings_match_the_published_vectors() {
        for case in vectors::cases("aad.json") {
            let place = vectors::Place::of(&case["aad"]);
            assert_eq!(
                hex(&place.parts().encode().unwrap()),
                case["encoded"],
                "{}",
                case["name"]
            );
            assert_eq!(
                hex(&place.parts().encode_for_dek().unwrap()),
                case["encoded_for_dek"],
                "{}",
                case["name"]
            );
        }
    }

    #[test]
    fn a_secret_never_has_the_kind_of_a_wrapped_dek() {
        let place = vectors::Place::example();
        for kind in ["", "dek:", "dek:access_token"] {
            let parts = AadParts {
                kind,
                ..place.parts()
            };
            assert_eq!(parts.encode(), Err(CryptoError::Malformed("kind")), "{kind}");
            assert_eq!(
                parts.encode_for_dek(),
                Err(CryptoError::Malformed("kind")),
                "{kind}"
            );
        }
    }

    #[test]
    fn moving_a_byte_from_one_part_to_the_next_changes_the_encoding() {
        let place = vectors::Place::example();
        let left = AadParts {
            account: "ab",
            row: "c",
            ..place.parts()
        };
        let right = AadParts {
            account: "a",
            row: "bc",
            ..place.parts()
        };
        assert_ne!(left.encode().unwrap(), right.encode().unwrap());
    }
}
