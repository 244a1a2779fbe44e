//! Codes, token families and the rules of their lives. Pure: time and tokens are handed in.
//!
//! A family is what one consent made. Its refresh tokens carry a generation: the current one rotates, the one just
//! before it may be retried for a while, any older one is a theft and ends the family.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::scopes::Scopes;
use crate::{
    crypto::digest::{base64url, hex, sha256},
    domain::Time,
};

/// How long an authorization code may be redeemed.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long an access token works.
pub(super) const ACCESS_LIFE: Duration = Duration::from_secs(300);
/// How long the refresh token that was just rotated may be sent again.
pub(super) const ROTATION_GRACE: Duration = Duration::from_secs(60);

/// The hexadecimal SHA-256 of a token: all that is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct TokenHash(String);

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        Self(hex(&sha256(token.as_bytes())))
    }
}

/// A token or code as it leaves for its client, and its digest, which stays.
pub(super) struct Minted {
    pub(super) text: String,
    pub(super) hash: TokenHash,
}

impl Minted {
    pub(super) fn new(prefix: &str, entropy: &[u8; 32]) -> Self {
        let text = format!("{prefix}{}", base64url(entropy));
        let hash = TokenHash::of(&text);
        Self { text, hash }
    }
}

/// All codes and tokens.
#[derive(Serialize, Deserialize)]
pub(super) struct Grants {
    /// How long the refresh token that was just rotated may be sent again; zero: not at all.
    #[serde(skip, default = "usual_grace")]
    pub(super) rotation_grace: Duration,
    families: Vec<Family>,
    codes: HashMap<TokenHash, Code>,
    refresh: HashMap<TokenHash, RefreshToken>,
    access: HashMap<TokenHash, AccessToken>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            rotation_grace: ROTATION_GRACE,
            families: Vec::new(),
            codes: HashMap::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
        }
    }
}

fn usual_grace() -> Duration {
    ROTATION_GRACE
}

/// What a person allowed a client on the consent page.
#[derive(Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) account: String,
    pub(super) scope: Scopes,
    pub(super) redirect_uri: String,
    /// RFC 7636 §4.2, method S256.
    pub(super) challenge: String,
    pub(super) issued_at: Time,
    /// The family it was redeemed for.
    pub(super) redeemed: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Family {
    account: String,
    scope: Scopes,
    generation: u64,
    rotated_at: Time,
    ended: bool,
}

impl Family {
    /// Whether a refresh token of this generation was rotated so short a time ago that it may be sent again.
    fn may_retry(&self, generation: u64, grace: Duration, now: Time) -> bool {
        let just_rotated = generation.checked_add(1) == Some(self.generation);
        just_rotated && !grace.is_zero() && now.since(self.rotated_at) <= grace
    }
}

#[derive(Serialize, Deserialize)]
struct RefreshToken {
    family: usize,
    generation: u64,
    issued_at: Time,
}

#[derive(Serialize, Deserialize)]
struct AccessToken {
    family: usize,
    scope: Scopes,
    issued_at: Time,
    expires_at: Time,
    revoked: bool,
}

/// What a living token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) account: String,
    pub(super) scope: Scopes,
    pub(super) issued_at: Time,
    /// `None` for a refresh token.
    pub(super) expires_at: Option<Time>,
}

/// Why a code or refresh token buys nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Expired,
    /// Used before: everything it ever bought has just ended.
    Reused,
    /// Its family had ended already.
    Ended,
    WrongRedirect,
    WrongVerifier,
    ScopeTooWide,
}

/// A family ready for new tokens.
pub(super) struct Renewal {
    family: usize,
    pub(super) account: String,
    pub(super) scope: Scopes,
}

impl Grants {
    pub(super) fn add_code(&mut self, hash: TokenHash, code: Code) {
        let now = code.issued_at;
        self.codes
            .retain(|_, code| code.redeemed.is_some() || now.since(code.issued_at) <= CODE_LIFE * 10);
        self.codes.insert(hash, code);
    }

    /// Redeems a code: at most once, within its life, at the same redirect URI, by whoever knows the verifier.
    pub(super) fn redeem(
        &mut self,
        hash: &TokenHash,
        redirect_uri: &str,
        verifier: &str,
        account: Option<&str>,
        now: Time,
    ) -> Result<Renewal, Refusal> {
        let code = self.codes.get_mut(hash).ok_or(Refusal::Unknown)?;
        if let Some(family) = code.redeemed {
            // RFC 6749 §4.1.2: a code used twice takes back the tokens it bought.
            self.end(family);
            return Err(Refusal::Reused);
        }
        if now.since(code.issued_at) > CODE_LIFE {
            return Err(Refusal::Expired);
        }
        if code.redirect_uri != redirect_uri {
            return Err(Refusal::WrongRedirect);
        }
        // RFC 7636 §4.6: BASE64URL(SHA256(ASCII(code_verifier))) == code_challenge.
        if !is_verifier(verifier) || base64url(&sha256(verifier.as_bytes())) != code.challenge {
            return Err(Refusal::WrongVerifier);
        }
        let family = self.families.len();
        code.redeemed = Some(family);
        let account = account.unwrap_or(&code.account).to_owned();
        let scope = code.scope.clone();
        self.families.push(Family {
            account: account.clone(),
            scope: scope.clone(),
            generation: 0,
            rotated_at: now,
            ended: false,
        });
        Ok(Renewal {
            family,
            account,
            scope,
        })
    }

    /// Accepts a refresh token, rotates its family, and says which scope the new access token gets.
    pub(super) fn rotate(
        &mut self,
        hash: &TokenHash,
        narrower: Option<&Scopes>,
        now: Time,
    ) -> Result<Renewal, Refusal> {
        let token = self.refresh.get(hash).ok_or(Refusal::Unknown)?;
        let (index, generation) = (token.family, token.generation);
        let family = self.families.get_mut(index).ok_or(Refusal::Unknown)?;
        if family.ended {
            return Err(Refusal::Ended);
        }
        let is_current = generation == family.generation;
        let is_retry = family.may_retry(generation, self.rotation_grace, now);
        if !is_current && !is_retry {
            // RFC 9700 §4.14.2: a rotated refresh token that comes back means someone else has it.
            family.ended = true;
            return Err(Refusal::Reused);
        }
        // RFC 6749 §6: never a scope the person did not allow. Checked before anything rotates.
        if narrower.is_some_and(|scope| !scope.is_subset(&family.scope)) {
            return Err(Refusal::ScopeTooWide);
        }
        if is_current {
            family.generation += 1;
            family.rotated_at = now;
        }
        Ok(Renewal {
            family: index,
            account: family.account.clone(),
            scope: narrower.unwrap_or(&family.scope).clone(),
        })
    }

    /// Enters the two new tokens of a renewed family. The refresh token keeps the family's whole scope.
    pub(super) fn enter(&mut self, renewal: &Renewal, access: TokenHash, refresh: TokenHash, now: Time) {
        let Some(family) = self.families.get(renewal.family) else {
            return;
        };
        let refreshed = RefreshToken {
            family: renewal.family,
            generation: family.generation,
            issued_at: now,
        };
        self.refresh.insert(refresh, refreshed);
        if self.access.len() == self.access.capacity() {
            self.access
                .retain(|_, token| now.since(token.expires_at) <= ACCESS_LIFE);
        }
        let token = AccessToken {
            family: renewal.family,
            scope: renewal.scope.clone(),
            issued_at: now,
            expires_at: now + ACCESS_LIFE,
            revoked: false,
        };
        self.access.insert(access, token);
    }

    /// What an access token is good for now.
    pub(super) fn access(&self, hash: &TokenHash, now: Time) -> Option<Access> {
        let token = self.access.get(hash)?;
        let family = self.families.get(token.family)?;
        (!token.revoked && !family.ended && now < token.expires_at).then(|| Access {
            account: family.account.clone(),
            scope: token.scope.clone(),
            issued_at: token.issued_at,
            expires_at: Some(token.expires_at),
        })
    }

    /// What a refresh token would still be accepted for.
    pub(super) fn refresh(&self, hash: &TokenHash, now: Time) -> Option<Access> {
        let token = self.refresh.get(hash)?;
        let family = self.families.get(token.family)?;
        let is_retry = family.may_retry(token.generation, self.rotation_grace, now);
        (!family.ended && (token.generation == family.generation || is_retry)).then(|| Access {
            account: family.account.clone(),
            scope: family.scope.clone(),
            issued_at: token.issued_at,
            expires_at: None,
        })
    }

    /// RFC 7009 §2.1: a refresh token, current or rotated, ends its family; an access token ends alone.
    /// Returns whose it was.
    pub(super) fn revoke(&mut self, hash: &TokenHash) -> Option<String> {
        let index = match (self.refresh.get(hash), self.access.get_mut(hash)) {
            (Some(token), _) => {
                let index = token.family;
                self.end(index);
                index
            }
            (None, Some(token)) => {
                token.revoked = true;
                token.family
            }
            (None, None) => return None,
        };
        self.families.get(index).map(|family| family.account.clone())
    }

    /// Lets every access token of `account` expire now.
    pub(super) fn expire(&mut self, account: &str, now: Time) -> usize {
        let mut count = 0;
        for token in self.access.values_mut() {
            let is_theirs = self
                .families
                .get(token.family)
                .is_some_and(|family| family.account == account);
            if is_theirs && token.expires_at > now {
                token.expires_at = now;
                count += 1;
            }
        }
        count
    }

    /// Ends every family of `account`, as a person does who removes the client in their settings.
    pub(super) fn disconnect(&mut self, account: &str) -> usize {
        let living = self
            .families
            .iter_mut()
            .filter(|family| family.account == account && !family.ended);
        living.map(|family| family.ended = true).count()
    }

    fn end(&mut self, index: usize) {
        if let Some(family) = self.families.get_mut(index) {
            family.ended = true;
        }
    }
}

/// RFC 7636 §4.1: 43 to 128 unreserved characters.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}
