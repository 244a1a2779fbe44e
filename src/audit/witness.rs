//! The port to a witness (C2SP tlog-witness): it is shown a checkpoint and that it builds on the one it saw last, and
//! cosigns it. It never sees an entry.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use url::Url;

use super::{checkpoint::parse_decimal, cosignature::WitnessKey, note::NoteError};
use crate::{
    domain::OrgId,
    egress::{EgressError, OperatorClient, OutboundRequest},
};

/// The witness of this deployment.
#[derive(Debug)]
pub struct Witness {
    key: WitnessKey,
    url: Url,
    client: OperatorClient,
    /// Whose logs it cosigns no more, as far as this process was told.
    contradicted: Mutex<BTreeSet<OrgId>>,
}

/// What a witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The note, with its cosignature, which holds.
    Cosigned(String),
    /// It has cosigned a log of this size last.
    Has(u64),
    /// The checkpoint does not build on what it cosigned before.
    Contradicts,
}

/// Why nothing came of asking.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It cannot be reached.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Slow,
    /// It does not know this log, or its key.
    #[error("it does not know this log: register the origin and the key of `GET /v1/audit/key` with it")]
    Unknown,
    /// Another answer.
    #[error("it answered {0}")]
    Status(u16),
    /// The cosignature is not its own, or does not hold.
    #[error("its answer is no cosignature of it: {0}")]
    Cosignature(#[from] NoteError),
}

impl WitnessError {
    /// Whether asking about another log would end the same way.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Egress(_) | Self::Slow => true,
            Self::Status(status) => *status >= 500 || *status == 429,
            Self::Unknown | Self::Cosignature(_) => false,
        }
    }
}

impl Witness {
    /// A witness whose submission prefix is `url`.
    #[must_use]
    pub fn new(key: WitnessKey, url: Url, client: OperatorClient) -> Self {
        Self {
            key,
            url,
            client,
            contradicted: Mutex::default(),
        }
    }

    /// Remembers that it has cosigned another history of this log; says whether that is new.
    pub fn disagrees(&self, org: OrgId) -> bool {
        self.contradicted().insert(org)
    }

    /// Remembers that it has cosigned this log.
    pub fn agrees(&self, org: OrgId) {
        self.contradicted().remove(&org);
    }

    fn contradicted(&self) -> MutexGuard<'_, BTreeSet<OrgId>> {
        self.contradicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Shows it a checkpoint that builds on the log of `old` entries.
    ///
    /// # Errors
    /// When it cannot be reached, does not know the log, or answers nothing that is of the protocol.
    pub async fn add_checkpoint(
        &self,
        old: u64,
        proof: &[[u8; 32]],
        note: &str,
    ) -> Result<Answer, WitnessError> {
        let mut body = format!("old {old}\n");
        for hash in proof {
            // Writing to a `String` cannot fail.
            let _ = writeln!(body, "{}", STANDARD.encode(hash));
        }
        body.push('\n');
        body.push_str(note);
        let mut url = self.url.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/add-checkpoint"));
        let request = OutboundRequest {
            body: Some(Bytes::from(body)),
            max_body: MOST_ANSWERED,
            ..OutboundRequest::new(Method::POST, url)
        };
        let answer = tokio::time::timeout(ANSWERS_WITHIN, self.client.send(request))
            .await
            .map_err(|_| WitnessError::Slow)??;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        match answer.status {
            200 => Ok(Answer::Cosigned(self.key.add(note, text)?)),
            // With the size it has; the size that was named already: another root of the same size.
            409 => match text.strip_suffix('\n').and_then(parse_decimal) {
                Some(size) if size != old => Ok(Answer::Has(size)),
                _ => Ok(Answer::Contradicts),
            },
            422 => Ok(Answer::Contradicts),
            403 | 404 => Err(WitnessError::Unknown),
            status => Err(WitnessError::Status(status)),
        }
    }
}

/// How long an answer is waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: 64 signature lines.
const MOST_ANSWERED: usize = 64 * 1024;
