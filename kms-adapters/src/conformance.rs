//! One suite for every adapter: its tests call [`run`] on their own key and a foreign one.
//!
//! The suite panics at the first broken promise, as a test does; it is code for tests only and never runs in service.

use secrecy::ExposeSecret;

use crate::port::{KeyContext, KeyError, KeyService, KeyState};

/// Two keys to test with.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The service under test.
    pub service: &'a dyn KeyService,
    /// An enabled key of it.
    pub key_ref: &'a str,
    /// A service that holds another enabled key; may be the same service.
    pub foreign: &'a dyn KeyService,
    /// That other key.
    pub foreign_key_ref: &'a str,
}

/// Holds the adapter to every promise of the port.
///
/// # Panics
/// When a promise is broken.
pub async fn run(subject: Subject<'_>) {
    round_trip(subject).await;
    wrapping_twice_differs(subject).await;
    other_contexts_are_refused(subject).await;
    every_flipped_bit_is_refused(subject).await;
    other_lengths_are_refused(subject).await;
    foreign_keys_are_refused(subject).await;
    unknown_names_are_refused(subject).await;
    status_names_the_key(subject).await;
}

async fn round_trip(subject: Subject<'_>) {
    for context in [
        context(),
        KeyContext {
            org: None,
            ..context()
        },
    ] {
        let wrapped = wrap(subject, &context).await;
        assert!(!contains(&wrapped, &KEY), "the wrapped form shows the key");
        let key = subject.service.unwrap(subject.key_ref, &context, &wrapped).await;
        assert!(
            key.is_ok_and(|key| *key.expose_secret() == KEY),
            "a wrapped key does not come back"
        );
    }
}

async fn wrapping_twice_differs(subject: Subject<'_>) {
    let first = wrap(subject, &context()).await;
    let second = wrap(subject, &context()).await;
    assert!(first != second, "two wraps of one key are alike");
}

async fn other_contexts_are_refused(subject: Subject<'_>) {
    let wrapped = wrap(subject, &context()).await;
    let shifted = KeyContext {
        org: Some(format!("{ORG}{ODK}")),
        odk: String::new(),
        ..context()
    };
    for other in [
        KeyContext {
            org: None,
            ..context()
        },
        KeyContext {
            org: Some("org_00000000000000000000000002".to_owned()),
            ..context()
        },
        KeyContext {
            odk: "key_00000000000000000000000002".to_owned(),
            ..context()
        },
        KeyContext {
            purpose: "postern-other",
            ..context()
        },
        shifted,
    ] {
        refused(subject, &other, &wrapped, "another context").await;
    }
}

async fn every_flipped_bit_is_refused(subject: Subject<'_>) {
    let wrapped = wrap(subject, &context()).await;
    for position in 0..wrapped.len() {
        for bit in 0..8_u8 {
            let mut changed = wrapped.clone();
            if let Some(byte) = changed.get_mut(position) {
                *byte ^= 1 << bit;
            }
            refused(subject, &context(), &changed, "a flipped bit").await;
        }
    }
}

async fn other_lengths_are_refused(subject: Subject<'_>) {
    let wrapped = wrap(subject, &context()).await;
    refused(subject, &context(), &[], "nothing").await;
    refused(subject, &context(), &[0], "one zero byte").await;
    refused(subject, &context(), &KEY, "a bare key").await;
    refused(subject, &context(), &[0x5a; 4096], "garbage").await;
    refused(
        subject,
        &context(),
        &[wrapped.as_slice(), &[0]].concat(),
        "a byte too many",
    )
    .await;
    let shorter = wrapped
        .split_last()
        .map(|(_, shorter)| shorter)
        .unwrap_or_default();
    refused(subject, &context(), shorter, "a byte too few").await;
}

async fn foreign_keys_are_refused(subject: Subject<'_>) {
    let wrapped = wrap(subject, &context()).await;
    let answer = subject
        .foreign
        .unwrap(subject.foreign_key_ref, &context(), &wrapped)
        .await;
    assert!(
        matches!(answer, Err(KeyError::Integrity)),
        "a foreign key opens it or mislabels the failure"
    );
}

async fn unknown_names_are_refused(subject: Subject<'_>) {
    for name in ["", "no-such-key"] {
        let wrapped = subject.service.wrap(name, &context(), &KEY).await;
        assert!(
            matches!(wrapped, Err(KeyError::Misconfigured(_) | KeyError::Denied)),
            "an unknown key wraps"
        );
    }
}

async fn status_names_the_key(subject: Subject<'_>) {
    let status = subject.service.status().await.unwrap_or_default();
    let enabled = status
        .iter()
        .any(|key| key.key_ref == subject.key_ref && key.state == KeyState::Enabled);
    assert!(enabled, "status does not show the key as enabled");
}

async fn refused(subject: Subject<'_>, context: &KeyContext, wrapped: &[u8], what: &str) {
    let answer = subject.service.unwrap(subject.key_ref, context, wrapped).await;
    assert!(
        matches!(answer, Err(KeyError::Integrity)),
        "{what} is accepted or mislabelled"
    );
}

async fn wrap(subject: Subject<'_>, context: &KeyContext) -> Vec<u8> {
    let wrapped = subject.service.wrap(subject.key_ref, context, &KEY).await;
    assert!(wrapped.is_ok(), "wrapping fails: {wrapped:?}");
    wrapped.unwrap_or_default()
}

fn context() -> KeyContext {
    KeyContext {
        org: Some(ORG.to_owned()),
        odk: ODK.to_owned(),
        purpose: "postern-odk",
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

const ORG: &str = "org_00000000000000000000000001";
const ODK: &str = "key_00000000000000000000000001";
const KEY: [u8; 32] = *b"0123456789abcdef0123456789ABCDEF";
