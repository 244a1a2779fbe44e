//! The port to a witness (C2SP tlog-witness): it is shown a checkpoint and that it builds on the one it saw last, and
//! cosigns it. It never sees an entry.
//!
//! SECURITY: it is not trusted. What it signs proves what it has seen; a size that it merely says proves nothing, and is
//! good for choosing what to prove to it next.

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

use super::{
    checkpoint::{Checkpoint, parse_decimal},
    cosignature::WitnessKey,
    note::{NoteError, VerifierKey},
};
use crate::{
    crypto::digest,
    domain::OrgId,
    egress::{EgressError, InboundResponse, OperatorClient, OutboundRequest},
};

/// The witness of this deployment.
#[derive(Debug)]
pub struct Witness {
    key: WitnessKey,
    submission: Url,
    monitoring: Url,
    client: OperatorClient,
    /// Whose logs it does not agree about, as far as this process was told.
    disputed: Mutex<BTreeSet<OrgId>>,
}

/// What a witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The note, with its cosignature, which holds.
    Cosigned(String),
    /// It says that it has cosigned a log of this size last. SECURITY: nobody signed that.
    Claims(u64),
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
    /// It named another size of the log whatever was proved to it.
    #[error("it names another size of the log each time")]
    Unsettled,
    /// Nothing can be proved to it: rows of the log are not as they were signed.
    #[error("it cannot be shown that this log builds on what it has")]
    Unproved,
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
            Self::Unsettled | Self::Unproved | Self::Unknown | Self::Cosignature(_) => false,
        }
    }

    /// Whether it stays open what the witness has of the log: whatever stands between may say anything but that.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        !matches!(self, Self::Unproved | Self::Unknown)
    }
}

impl Witness {
    /// A witness by its submission and its monitoring prefix.
    #[must_use]
    pub fn new(key: WitnessKey, submission: Url, monitoring: Url, client: OperatorClient) -> Self {
        Self {
            key,
            submission,
            monitoring,
            client,
            disputed: Mutex::default(),
        }
    }

    /// Remembers that it does not agree about this log; says whether that is new.
    pub fn disagrees(&self, org: OrgId) -> bool {
        self.disputed().insert(org)
    }

    /// Remembers that it has cosigned this log.
    pub fn agrees(&self, org: OrgId) {
        self.disputed().remove(&org);
    }

    fn disputed(&self) -> MutexGuard<'_, BTreeSet<OrgId>> {
        self.disputed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Shows it the checkpoint of `size` entries, which builds on the log of `old` entries.
    ///
    /// # Errors
    /// When it cannot be reached, does not know the log, or answers nothing that is of the protocol.
    pub async fn add_checkpoint(
        &self,
        old: u64,
        size: u64,
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
        let request = OutboundRequest {
            body: Some(Bytes::from(body)),
            ..OutboundRequest::new(Method::POST, below(&self.submission, "add-checkpoint"))
        };
        let answer = self.send(request, MOST_ANSWERED).await?;
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        match answer.status {
            200 => Ok(Answer::Cosigned(self.key.add(note, text)?)),
            // With the size it has. Without, where it was shown just that size: it has another root of it.
            409 => match text.strip_suffix('\n').and_then(parse_decimal) {
                Some(claimed) if claimed != old => Ok(Answer::Claims(claimed)),
                _ if old == size => Ok(Answer::Contradicts),
                _ => Err(WitnessError::Status(409)),
            },
            422 => Ok(Answer::Contradicts),
            403 | 404 => Err(WitnessError::Unknown),
            status => Err(WitnessError::Status(status)),
        }
    }

    /// The last checkpoint of a log that it shows, if that is one the log's own key has signed: proof that the log was as
    /// long as that once. Anything else it may show proves nothing.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn shown(&self, log: &VerifierKey) -> Result<Option<Checkpoint>, WitnessError> {
        // C2SP tlog-witness, "Monitoring": by the hash of the origin.
        let origin = digest::hex(&digest::sha256(log.name().as_bytes()));
        let url = below(&self.monitoring, &format!("{origin}/checkpoint"));
        let request = OutboundRequest::new(Method::GET, url);
        let answer = self.send(request, MOST_SHOWN).await?;
        let note = std::str::from_utf8(&answer.body)
            .ok()
            .filter(|_| answer.status == 200);
        Ok(note.and_then(|note| Checkpoint::open(note, log).ok()))
    }

    async fn send(
        &self,
        request: OutboundRequest<'_>,
        max_body: usize,
    ) -> Result<InboundResponse, WitnessError> {
        let request = OutboundRequest { max_body, ..request };
        tokio::time::timeout(ANSWERS_WITHIN, self.client.send(request))
            .await
            .map_err(|_| WitnessError::Slow)?
            .map_err(WitnessError::from)
    }
}

fn below(prefix: &Url, path: &str) -> Url {
    let mut url = prefix.clone();
    url.set_path(&format!("{}/{path}", prefix.path().trim_end_matches('/')));
    url
}

/// How long an answer is waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: 64 signature lines.
const MOST_ANSWERED: usize = 64 * 1024;
/// The same of a checkpoint, which has a line for every writer: as long as a line of an export.
const MOST_SHOWN: usize = 1 << 20;
