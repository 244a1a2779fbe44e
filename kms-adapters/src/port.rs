//! The port: what the service asks of a KMS, and what may go wrong.

use std::{fmt, future::Future, pin::Pin};

use secrecy::{ExposeSecret, SecretBox};

/// A boxed future, so that the port can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A key in the clear, wiped when dropped.
pub type PlainKey = SecretBox<[u8; 32]>;

/// Wraps and unwraps 32-byte keys under a KEK that stays in the KMS.
pub trait KeyService: fmt::Debug + Send + Sync {
    /// Wraps `plaintext` under the KEK named `key_ref`, bound to `context`.
    ///
    /// # Errors
    /// See [`KeyError`]. Two calls give two different wrapped forms.
    fn wrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        plaintext: &'a [u8; 32],
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>>;

    /// Opens what [`KeyService::wrap`] made under the same KEK and the same context.
    ///
    /// # Errors
    /// [`KeyError::Integrity`] for any other KEK, context or changed byte; see [`KeyError`] for the rest.
    fn unwrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<PlainKey, KeyError>>;

    /// Asks after every key this service was configured with.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] when nothing can be said; a disabled key is a status, not an error.
    fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>>;
}

/// What a wrapped key is bound to. Postern checks a commitment of its own besides: some KMS wraps carry no context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// The tenant; `None` for the deployment's own keys. Never empty text.
    pub org: Option<String>,
    /// The id of the wrapped key.
    pub odk: String,
    /// What the key is for.
    pub purpose: &'static str,
}

/// What a key service knows of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The name under which the key is used.
    pub key_ref: String,
    /// Where it is kept, in words a person can read on the connect page.
    pub description: String,
    /// Whether it can be used now.
    pub state: KeyState,
}

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It wraps and unwraps.
    Enabled,
    /// Its holder switched it off.
    Disabled,
    /// The KMS did not answer.
    Unreachable,
}

/// Why a key service did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The KMS could not be asked; trying later may help.
    #[error("the key service is unavailable")]
    Unavailable,
    /// The key exists and is switched off or scheduled for destruction.
    #[error("the key is disabled")]
    Disabled,
    /// The KMS knows this deployment and refuses it the key.
    #[error("the key service denied the use of the key")]
    Denied,
    /// Not wrapped by this key for this context, or changed since.
    #[error("the wrapped key is not intact for this key and context")]
    Integrity,
    /// The request cannot work as configured.
    #[error("the key service is misconfigured: {0}")]
    Misconfigured(&'static str),
}

/// Where an adapter that holds a KEK itself keeps its bytes: the service brings memory that is never swapped out.
pub trait KeyMemory: fmt::Debug + Send + Sync {
    /// The key. SECURITY: only adapters call this, for the length of one operation.
    fn expose_key(&self) -> &[u8; 32];
}

/// A KEK in ordinary memory, wiped when dropped; for tools and tests.
#[derive(Debug)]
pub struct HeapKey(PlainKey);

impl HeapKey {
    /// Takes the key over.
    #[must_use]
    pub fn keep(key: PlainKey) -> Box<dyn KeyMemory> {
        Box::new(Self(key))
    }
}

impl KeyMemory for HeapKey {
    fn expose_key(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}
