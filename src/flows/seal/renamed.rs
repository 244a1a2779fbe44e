//! Another public URL than the logs were signed under. It is in the name of every log: no head that was signed before would be
//! one of this deployment's any more, and every org would seem to have another history.

use crate::{
    audit::{Checkpoint, VerifierKey, origin},
    crypto::jwk::PublicKey,
    domain::OrgId,
    flows::{Deps, Refusal},
};

use super::unreadable;

/// The issuer under which this deployment's own key has signed what is kept outside, if that is another one than it has now.
///
/// # Errors
/// When the file cannot be read.
pub async fn former_issuer(deps: &Deps) -> Result<Option<String>, Refusal> {
    let PublicKey::Ed25519(public) = deps.checkpoints.public().key() else {
        return Err(Refusal::KeyUnavailable);
    };
    let kept = deps.store.kept_outside().await.map_err(unreadable)?;
    let mut notes = kept
        .iter()
        .flatten()
        // What is sealed anyway waits for a recovery, which starts nothing if it is refused, too.
        .filter(|(_, kept)| kept.sealed.is_none())
        .filter_map(|(org, kept)| Some((*org, kept.checkpoint.as_deref()?)));
    Ok(
        notes
            .find_map(|(org, note)| signed_under(org, note, *public).filter(|issuer| *issuer != deps.issuer)),
    )
}

/// The issuer in the name of this org's log, if this key has signed the note under that name.
fn signed_under(org: OrgId, note: &str, public: [u8; 32]) -> Option<String> {
    let name = Checkpoint::read_unverified(note).ok()?.origin;
    let issuer = name.strip_suffix(&origin("", org))?;
    let key = VerifierKey::new(&name, public).ok()?;
    Checkpoint::open(note, &key).ok()?;
    Some(issuer.to_owned())
}
