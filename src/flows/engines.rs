//! Ending a policy engine's say. `apply` registers engines; it never takes one away.

use crate::{
    domain::{
        EngineId, OrgId,
        entry::{EntryDraft, EntryType},
    },
    store::{EngineRow, Selector, Tx},
};

use super::{Deps, Refusal, record};

/// Disables an engine: from now on no decision of its key counts. One that is disabled already stays as it is.
///
/// # Errors
/// When there is none in this org.
pub async fn disable(deps: &Deps, org: OrgId, id: EngineId, by: String) -> Result<EngineRow, Refusal> {
    deps.store
        .retry(|| async {
            let mut tx = deps.store.write(org).await?;
            let engines = tx.engines(org).await?;
            let mut engine = engines
                .into_iter()
                .find(|engine| engine.id == id)
                .ok_or(Refusal::NotFound)?;
            if engine.disabled_at.is_some() {
                return Ok(engine);
            }
            // INVARIANT: through the guard, so that a decision verified a moment ago is verified again, without this key.
            tx.advance_epoch(org, &Selector::All(true)).await?;
            tx.disable_engine(org, id).await?;
            engine.disabled_at = Some(tx.now());
            record_disabled(deps, &mut tx, org, id, by.clone()).await?;
            tx.commit().await?;
            Ok(engine)
        })
        .await
}

/// Disables every engine of the org, for a recovery that cannot tell which of them were disabled before.
pub(super) async fn disable_all(deps: &Deps, tx: &mut Tx, org: OrgId, by: &str) -> Result<(), Refusal> {
    for id in tx.disable_every_engine(org).await? {
        record_disabled(deps, tx, org, id, by.to_owned()).await?;
    }
    Ok(())
}

async fn record_disabled(
    deps: &Deps,
    tx: &mut Tx,
    org: OrgId,
    id: EngineId,
    by: String,
) -> Result<(), Refusal> {
    let draft = EntryDraft {
        on_behalf: vec![by],
        outcome: Some("engine_disabled".to_owned()),
        correlation: Some(id.to_string()),
        ..EntryDraft::default()
    };
    // Without sealed particulars: disabling never waits for the org's key service.
    tx.append_entry(org, record::open(deps, EntryType::Admin, draft)?)
        .await?;
    Ok(())
}
