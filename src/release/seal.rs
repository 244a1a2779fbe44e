//! Sealing what the provider handed out, each value for its own place and generation.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    connectors::oauth::{Leftover, TokenSet},
    crypto::{AadParts, CryptoError, OdkHandle, PreparedSeal, SealedSecret},
    domain::{
        OrgId, ScopeSet, Time,
        connector::ConnectorId,
        delegation::Choice,
        grant::{Grant, GrantState},
        secret::{AccessToken, ClientSecret, CodeVerifier, RefreshToken},
    },
    store::{SecretKind, SecretRow},
};

use super::open::{OpenError, client_place, place, unseal};

/// Tokens of one answer, on their way to being sealed.
#[derive(Debug)]
pub struct Tokens {
    /// RFC 6749 §1.4. Absent where only the refresh token of the answer can be used.
    pub access_token: Option<AccessToken>,
    /// RFC 6749 §1.5.
    pub refresh_token: Option<RefreshToken>,
    /// What the provider said it granted.
    pub scopes: Option<ScopeSet>,
    /// When the access token ends, if known.
    pub expires_at: Option<Time>,
    /// Whether the answer to a refresh named another account than the grant's.
    pub is_foreign: bool,
}

impl From<TokenSet> for Tokens {
    fn from(set: TokenSet) -> Self {
        Self {
            access_token: Some(set.access_token),
            refresh_token: set.refresh_token,
            scopes: set.scopes,
            expires_at: set.expires_at,
            is_foreign: false,
        }
    }
}

impl From<Leftover> for Tokens {
    fn from(left: Leftover) -> Self {
        Self {
            access_token: left.access_token,
            refresh_token: left.refresh_token,
            scopes: None,
            expires_at: None,
            is_foreign: false,
        }
    }
}

/// An access token, as wide as the grant or narrowed.
///
/// # Errors
/// When the key or the generator is gone.
pub fn access_token(
    key: &OdkHandle,
    grant: &Grant,
    kind: &SecretKind,
    generation: u64,
    token: &AccessToken,
    scopes: Option<ScopeSet>,
    expires_at: Option<Time>,
) -> Result<SecretRow, CryptoError> {
    let sealed = seal(key, grant, kind, generation, token.expose_secret())?;
    Ok(SecretRow {
        generation,
        sealed,
        scopes,
        expires_at,
    })
}

/// A refresh token.
///
/// # Errors
/// When the key or the generator is gone.
pub fn refresh_token(
    key: &OdkHandle,
    grant: &Grant,
    generation: u64,
    token: &RefreshToken,
) -> Result<SecretRow, CryptoError> {
    let sealed = seal(
        key,
        grant,
        &SecretKind::RefreshToken,
        generation,
        token.expose_secret(),
    )?;
    Ok(SecretRow {
        generation,
        sealed,
        scopes: None,
        expires_at: None,
    })
}

/// The places for the answer to a refresh, made ready before the provider is asked: a provider that rotates hands a
/// token out once, and however long that takes, it can be sealed then.
#[derive(Debug)]
pub struct Prepared {
    kind: SecretKind,
    generation: u64,
    access: PreparedSeal,
    refresh: PreparedSeal,
}

impl Prepared {
    /// Makes the places ready for the grant's next generation.
    ///
    /// # Errors
    /// When the key or the generator is gone.
    pub fn new(key: &OdkHandle, grant: &Grant, kind: SecretKind) -> Result<Self, CryptoError> {
        let (row, name, generation) = (grant.id.to_string(), kind.to_string(), grant.generation + 1);
        let refresh = SecretKind::RefreshToken.to_string();
        Ok(Self {
            access: key.prepare(&place(grant, &row, &name, generation))?,
            refresh: key.prepare(&place(grant, &row, &refresh, generation))?,
            kind,
            generation,
        })
    }

    /// What the access token becomes.
    #[must_use]
    pub fn kind(&self) -> &SecretKind {
        &self.kind
    }

    /// Seals the tokens of the answer, as far as they came; `scopes` are those of the access token. `grant` is the one
    /// prepared for.
    ///
    /// # Errors
    /// When the generator is gone.
    pub fn seal(
        self,
        grant: &Grant,
        answer: &Tokens,
        scopes: ScopeSet,
    ) -> Result<(Option<SecretRow>, Option<SecretRow>), CryptoError> {
        let (row, generation) = (grant.id.to_string(), self.generation);
        let sealed = |prepared: PreparedSeal, kind: &SecretKind, text: &str| {
            prepared.seal(
                &place(grant, &row, &kind.to_string(), generation),
                text.as_bytes(),
            )
        };
        let access = match &answer.access_token {
            None => None,
            Some(token) => Some(SecretRow {
                generation,
                sealed: sealed(self.access, &self.kind, token.expose_secret())?,
                scopes: Some(scopes),
                expires_at: answer.expires_at,
            }),
        };
        let refresh = match &answer.refresh_token {
            None => None,
            Some(token) => Some(SecretRow {
                generation,
                sealed: sealed(self.refresh, &SecretKind::RefreshToken, token.expose_secret())?,
                scopes: None,
                expires_at: None,
            }),
        };
        Ok((access, refresh))
    }
}

/// An org's client secret.
///
/// # Errors
/// When the key or the generator is gone.
pub fn client_secret(
    key: &OdkHandle,
    org: OrgId,
    connector: &ConnectorId,
    generation: u64,
    secret: &ClientSecret,
) -> Result<SealedSecret, CryptoError> {
    key.seal(
        &client_place(org, connector, generation),
        secret.expose_secret().as_bytes(),
    )
}

/// A PKCE verifier.
///
/// # Errors
/// When the key or the generator is gone.
pub fn verifier(
    key: &OdkHandle,
    place: &AadParts<'_>,
    verifier: &CodeVerifier,
) -> Result<SealedSecret, CryptoError> {
    key.seal(place, verifier.expose_secret().as_bytes())
}

/// A token answer that waits for a yes, with what the person has chosen by then.
#[derive(Debug)]
pub struct Pending {
    /// What the provider handed out.
    pub tokens: Tokens,
    /// The boxes the person ticked; none before they confirmed.
    pub choices: Vec<Choice>,
}

/// A token answer that waits for the person's confirmation, or for the host application's after that.
///
/// # Errors
/// When the key or the generator is gone.
pub fn pending(
    key: &OdkHandle,
    place: &AadParts<'_>,
    pending: &Pending,
) -> Result<SealedSecret, CryptoError> {
    let answer = &pending.tokens;
    let waiting = Waiting {
        access_token: answer
            .access_token
            .as_ref()
            .map(|token| token.expose_secret().to_owned()),
        refresh_token: answer
            .refresh_token
            .as_ref()
            .map(|token| token.expose_secret().to_owned()),
        scopes: answer.scopes.clone(),
        expires_at: answer.expires_at,
        choices: pending.choices.clone(),
    };
    let plain = Zeroizing::new(serde_json::to_vec(&waiting).map_err(|_| CryptoError::NotCanonical)?);
    key.seal(place, &plain)
}

/// Opens a token answer for the one who confirms it, or for its revocation when nobody does.
///
/// # Errors
/// When the value does not open at its place.
pub fn open_pending(
    key: &OdkHandle,
    place: &AadParts<'_>,
    sealed: &SealedSecret,
) -> Result<Pending, OpenError> {
    let plain = key.open(place, sealed)?;
    let mut waiting: Waiting = serde_json::from_slice(&plain).map_err(|_| OpenError::NotText)?;
    Ok(Pending {
        tokens: Tokens {
            access_token: waiting.access_token.take().map(AccessToken::new),
            refresh_token: waiting.refresh_token.take().map(RefreshToken::new),
            scopes: waiting.scopes.take(),
            expires_at: waiting.expires_at,
            is_foreign: false,
        },
        choices: std::mem::take(&mut waiting.choices),
    })
}

/// Moves a secret of a grant to a tombstone, where it can be opened only to be ended at the provider. The plaintext
/// does not leave this function.
///
/// # Errors
/// When `tombstone` is not one, or the value does not open at its place.
pub fn buried(
    opening: &OdkHandle,
    sealing: &OdkHandle,
    grant: &Grant,
    tombstone: &Grant,
    kind: &SecretKind,
    row: &SecretRow,
) -> Result<SecretRow, OpenError> {
    // INVARIANT: what a living grant held is never sealed for another one that lives.
    if !matches!(tombstone.state, GrantState::Revoked { .. }) {
        return Err(OpenError::Nothing);
    }
    let text = Zeroizing::new(unseal(opening, grant, kind, row)?);
    Ok(SecretRow {
        generation: row.generation,
        sealed: seal(sealing, tombstone, kind, row.generation, &text)?,
        scopes: row.scopes.clone(),
        expires_at: row.expires_at,
    })
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Waiting {
    access_token: Option<String>,
    refresh_token: Option<String>,
    #[zeroize(skip)]
    scopes: Option<ScopeSet>,
    #[zeroize(skip)]
    expires_at: Option<Time>,
    #[zeroize(skip)]
    #[serde(default)]
    choices: Vec<Choice>,
}

fn seal(
    key: &OdkHandle,
    grant: &Grant,
    kind: &SecretKind,
    generation: u64,
    text: &str,
) -> Result<SealedSecret, CryptoError> {
    let (row, kind) = (grant.id.to_string(), kind.to_string());
    key.seal(&place(grant, &row, &kind, generation), text.as_bytes())
}
