//! The `local` adapter: KEKs this machine holds itself, from key files or passphrases.
//!
//! For development and single machines. Whoever reads the key file reads everything, so the file is refused unless
//! it belongs to the process and nobody else can read it. Several keys may be held at once: rotating the KEK means
//! adding the new one and rewrapping the data keys.
//!
//! A key file is looked at again at every use: taken away, changed or opened to others, its key is disabled, although the
//! process still holds it.

mod envelope;
mod key_file;
mod passphrase;
mod private_file;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use key_file::{create_key_file, settle_key_file};
pub use passphrase::{MIN_ITERATIONS, create_passphrase_file};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;

use crate::port::{BoxFuture, KeyContext, KeyError, KeyMemory, KeyService, KeyState, KeyStatus, PlainKey};

/// Puts a freshly read KEK where it will stay; `None` when there is no such memory.
pub type Keep = fn(PlainKey) -> Option<Box<dyn KeyMemory>>;

/// KEKs held by this process, by name.
#[derive(Debug)]
pub struct LocalKeys {
    keep: Keep,
    keys: BTreeMap<String, LocalKey>,
}

#[derive(Debug)]
struct LocalKey {
    memory: Box<dyn KeyMemory>,
    description: &'static str,
    /// Where the key has to stand for as long as it is used.
    file: Option<PathBuf>,
}

impl LocalKey {
    fn state(&self) -> KeyState {
        let Some(file) = &self.file else {
            return KeyState::Enabled;
        };
        // SECURITY: compared in constant time.
        let stands = key_file::read_key_file(file)
            .is_ok_and(|key| key.expose_secret().ct_eq(self.memory.expose_key()).into());
        if stands {
            KeyState::Enabled
        } else {
            KeyState::Disabled
        }
    }
}

impl LocalKeys {
    /// Holds no key yet; `keep` decides in which memory the keys will live.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self {
            keep,
            keys: BTreeMap::new(),
        }
    }

    /// Reads a key file and holds its key under the name `key_ref`.
    ///
    /// # Errors
    /// When the file is not private to this process's user, is no key file, or the name is taken.
    pub fn add_key_file(&mut self, key_ref: &str, path: &Path) -> Result<(), LocalKeyError> {
        let key = key_file::read_key_file(path)?;
        self.add(key_ref, key, "a key file on this machine", Some(path.to_owned()))
    }

    /// Derives a key from a passphrase and the parameters file beside the data, and holds it under `key_ref`.
    ///
    /// This takes about a tenth of a second to a second of CPU, on purpose.
    ///
    /// # Errors
    /// When the parameters file is not private, is malformed or asks for too little work, when the passphrase is not
    /// the one it was made with, or the name is taken.
    pub fn add_passphrase(
        &mut self,
        key_ref: &str,
        passphrase: &SecretString,
        parameters: &Path,
    ) -> Result<(), LocalKeyError> {
        let key = passphrase::derive_key(passphrase, parameters)?;
        self.add(key_ref, key, "a passphrase given to this machine", None)
    }

    fn add(
        &mut self,
        key_ref: &str,
        key: PlainKey,
        description: &'static str,
        file: Option<PathBuf>,
    ) -> Result<(), LocalKeyError> {
        if key_ref.is_empty() || self.keys.contains_key(key_ref) {
            return Err(LocalKeyError::NameTaken);
        }
        // A constant key is a mistake in the making of the file, not a secret.
        if let [first, rest @ ..] = key.expose_secret()
            && rest.iter().all(|byte| byte == first)
        {
            return Err(LocalKeyError::Malformed);
        }
        let memory = (self.keep)(key).ok_or(LocalKeyError::Unlockable)?;
        let held = LocalKey {
            memory,
            description,
            file,
        };
        self.keys.insert(key_ref.to_owned(), held);
        Ok(())
    }

    fn key(&self, key_ref: &str) -> Result<&[u8; 32], KeyError> {
        let key = self
            .keys
            .get(key_ref)
            .ok_or(KeyError::Misconfigured("no local key has this name"))?;
        match key.state() {
            KeyState::Enabled => Ok(key.memory.expose_key()),
            KeyState::Disabled | KeyState::Unreachable => Err(KeyError::Disabled),
        }
    }
}

impl KeyService for LocalKeys {
    fn wrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        plaintext: &'a [u8; 32],
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>> {
        Box::pin(async move { envelope::wrap(self.key(key_ref)?, context, plaintext) })
    }

    fn unwrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<PlainKey, KeyError>> {
        Box::pin(async move { envelope::unwrap(self.key(key_ref)?, context, wrapped) })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>> {
        Box::pin(async move {
            Ok(self
                .keys
                .iter()
                .map(|(key_ref, key)| KeyStatus {
                    key_ref: key_ref.clone(),
                    description: key.description.to_owned(),
                    state: key.state(),
                })
                .collect())
        })
    }
}

/// Why a local key could not be read or made. Nothing of the key or the passphrase is in it.
#[derive(Debug, thiserror::Error)]
pub enum LocalKeyError {
    /// The file could not be opened, read or written.
    #[error("the key file cannot be used: {}", .0.kind())]
    Io(#[from] std::io::Error),
    /// A symbolic link, directory, device or pipe.
    #[error("the key file is not a regular file")]
    NotRegular,
    /// Another user owns the file and could read or replace it.
    #[error("the key file belongs to another user")]
    ForeignOwner,
    /// Group or others have rights on the file.
    #[error("the key file is open to others (mode {mode:04o}); it must be 0600 or 0400")]
    OpenToOthers {
        /// The permission bits found.
        mode: u32,
    },
    /// Not the text this adapter writes, or a key without entropy.
    #[error("the key file is malformed")]
    Malformed,
    /// The parameters file asks for fewer rounds than are safe.
    #[error("the passphrase file asks for too few iterations")]
    TooFewIterations,
    /// Fewer than sixteen characters.
    #[error("the passphrase is shorter than 16 characters")]
    PassphraseTooShort,
    /// The parameters file was made with another passphrase.
    #[error("the passphrase is not the one this file was made with")]
    WrongPassphrase,
    /// Empty, or a key of this name is held already.
    #[error("the key name is empty or taken")]
    NameTaken,
    /// No memory could be had that is never swapped out.
    #[error("the key cannot be kept in locked memory")]
    Unlockable,
    /// The operating system's generator failed.
    #[error("the random generator is unavailable")]
    Randomness,
}

#[cfg(test)]
mod tests;
