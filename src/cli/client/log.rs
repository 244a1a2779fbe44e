//! What the client asks of the log that is not JSON.

use super::{CliError, Client};
use crate::audit::note::split_note;

impl Client {
    /// The signed head of the log, or the last one that its witness has cosigned.
    pub(in crate::cli) async fn checkpoint(&self, cosigned: bool) -> Result<String, CliError> {
        let query: &[(&str, &str)] = if cosigned { &[("cosigned", "true")] } else { &[] };
        let sent = self.text_of(&["v1", "audit", "checkpoint"], query).await;
        let note = match sent {
            Err(CliError::Refused(refusal)) if cosigned && refusal.member("/code") == Some("not_found") => {
                return Err(CliError::Failed(NONE_YET.to_owned()));
            }
            sent => sent?,
        };
        // A server that knows nothing of this gives its newest head.
        if cosigned && !split_note(&note).is_ok_and(|(_, signatures)| signatures.lines().count() > 1) {
            return Err(CliError::Failed(NONE_YET.to_owned()));
        }
        Ok(note)
    }
}

const NONE_YET: &str =
    "no head of this log has been cosigned yet: is there a witness that knows it ([audit.witness])?";
