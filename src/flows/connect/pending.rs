//! A token answer that waits for a yes: sealed in its session, and in no grant before that.

use crate::{
    crypto::OdkHandle,
    flows::{Deps, Refusal},
    release::seal::{self, Pending},
    store::ConnectRow,
};

use super::begin::place;

/// Seals what waits in its session's row.
///
/// # Errors
/// When the key or the generator is gone.
pub(super) fn keep(key: &OdkHandle, session: &mut ConnectRow, pending: &Pending) -> Result<(), Refusal> {
    let row = session.id.to_string();
    session.tokens = Some(seal::pending(key, &place(session, &row, KIND), pending)?);
    Ok(())
}

/// Opens what waits, for the one who says yes or for its revocation.
///
/// # Errors
/// When nothing waits or it does not open.
pub(super) async fn open(deps: &Deps, session: &ConnectRow) -> Result<Pending, Refusal> {
    let sealed = session.tokens.as_ref().ok_or(Refusal::NotFound)?;
    let key = deps.key_of(session.org, sealed.odk).await?;
    let row = session.id.to_string();
    seal::open_pending(&key, &place(session, &row, KIND), sealed).map_err(|_| Refusal::KeyUnavailable)
}

const KIND: &str = "pending_tokens";
