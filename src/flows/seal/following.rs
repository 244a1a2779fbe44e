//! What other replicas did while this process ran: written down, compared, or taken for what it is. An org that cannot be read
//! holds up no other; without a database to speak to, the look ends.

use crate::{
    domain::OrgId,
    flows::{Deps, Refusal},
    store::StoreError,
};

use super::{
    PAGE, Why,
    compared::{Compared, compare},
    follow_recovered, keep_sealed, state, unreadable, unwritable,
};

/// Writes down what others did while this process ran: orgs they founded, moves, recoveries, and logs they signed. It may never
/// sign the log of one, and would take it for a stranger, or an older database for the newest, when it starts again.
///
/// # Errors
/// When the database cannot be read or the file cannot be written, or the database does not go on from what is known: then
/// nothing is released over it any more.
pub async fn keep_up(deps: &Deps) -> Result<(), Refusal> {
    // A process that knows its database for another one learns nothing from it.
    if deps.store.outside().is_none() || deps.store.has_lost_entries() {
        return Ok(());
    }
    // INVARIANT: before the pages are read, which have to show what is known then.
    let known = deps.store.all_known_outside();
    let (mut strange, mut others) = (Vec::new(), deps.store.unsettled_orgs());
    let mut after = None;
    loop {
        let orgs = deps.store.due().await?.reached(after, PAGE).await?;
        after = orgs.last().map(|(org, _)| *org);
        for (org, reached) in &orgs {
            match deps.store.known_outside(*org) {
                // One that is sealed waits for its admin.
                _ if deps.store.holds_back(*org) => {}
                None => strange.push(*org),
                Some(now) if now.is_behind(*reached) => others.push(*org),
                Some(_) if known.get(org).is_some_and(|known| reached.is_behind(*known)) => others.push(*org),
                Some(_) => {}
            }
        }
        if orgs.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    let unread = adopt_readable(deps, &strange).await?;
    examine(deps, &others).await?;
    unread.map_or(Ok(()), Err)
}

/// Writes down orgs that others founded. Unlike at a start (`super::adopt`), one that cannot be read waits for the next look, and
/// keeps no other from being written down; returns why the last such one waits.
async fn adopt_readable(deps: &Deps, orgs: &[OrgId]) -> Result<Option<Refusal>, Refusal> {
    let (mut known, mut failed) = (Vec::with_capacity(orgs.len()), None);
    for org in orgs {
        match state(deps, *org).await {
            Ok(state) => known.push(state),
            Err(refusal) => failed = Some(not_compared(*org, refusal)?),
        }
    }
    if !known.is_empty() {
        deps.store.adopt_outside(known).await.map_err(unwritable)?;
    }
    Ok(failed)
}

/// Compares orgs of which another incarnation was met, so that they go on soon after a recovery elsewhere.
///
/// # Errors
/// As [`keep_up`].
pub(in crate::flows) async fn settle(deps: &Deps) -> Result<(), Refusal> {
    examine(deps, &deps.store.unsettled_orgs()).await
}

/// Compares orgs that others have moved, or that seem to be behind, with what is kept outside, and writes down how far they are.
///
/// # Errors
/// As [`keep_up`].
pub(in crate::flows) async fn examine(deps: &Deps, orgs: &[OrgId]) -> Result<(), Refusal> {
    if orgs.is_empty() {
        return Ok(());
    }
    deps.store.flush_outside().await.map_err(unwritable)?;
    let kept = deps.store.kept_outside().await.map_err(unreadable)?;
    let mut kept = kept.unwrap_or_default();
    let (mut same, mut renewed, mut failed) = (Vec::new(), Vec::new(), None);
    for org in orgs {
        match compare(deps, *org, kept.remove(org)).await {
            Err(refusal) => failed = Some(not_compared(*org, refusal)?),
            Ok(Compared::Same(incarnation)) => same.push((*org, incarnation)),
            Ok(Compared::Renewed(incarnation)) => renewed.push((*org, incarnation)),
            // Rows of this org were changed: that is its matter alone, as it is at a start.
            Ok(Compared::Differs(found)) if found.why == Why::Forked && !found.is_older => {
                tracing::error!(org.id = %org, why = found.why.as_str(), "{org} is sealed: {}", found.why);
                deps.store.seal_as(*org, found.word());
                keep_sealed(deps, std::slice::from_ref(&*found)).await?;
                deps.store.settled(*org);
            }
            // Somebody took the file away: it is no evidence.
            Ok(Compared::Differs(found)) if found.why == Why::NoRecord => {}
            // What does not go on from what is known is no news but evidence, and stays for the next start.
            Ok(Compared::Differs(found)) => {
                return Err(deps.store.found_older(*org, &found.why).into());
            }
        }
    }
    // INVARIANT: read only now. A recovery begins an org's record anew, and what this process did there since would be gone.
    let (mut followed, mut recovered) = (Vec::new(), Vec::new());
    for (orgs, reached) in [(same, &mut followed), (renewed, &mut recovered)] {
        for (org, compared) in orgs {
            match state(deps, org).await {
                Ok(state) if state.epoch.incarnation == compared => reached.push(state),
                // Recovered since: what that recovery has ended is not compared yet. The next look does.
                Ok(_) => {}
                Err(refusal) => failed = Some(not_compared(org, refusal)?),
            }
        }
    }
    if deps.store.has_lost_entries() {
        // All are sealed in the file meanwhile, and stay so.
        return Err(StoreError::Lost.into());
    }
    let same: Vec<OrgId> = followed.iter().map(|state| state.org).collect();
    let renewed: Vec<OrgId> = recovered.iter().map(|state| state.org).collect();
    deps.store
        .follow_outside(followed, false)
        .await
        .map_err(unwritable)?;
    follow_recovered(deps, recovered).await?;
    // From here on the file agrees, and nobody would come to this again.
    for org in &renewed {
        deps.facts.forget(*org);
    }
    if !renewed.is_empty()
        && let Err(error) = deps.store.hear_again().await
    {
        // What was told holds until a renewal says that it is over; the next one may.
        tracing::warn!(cause = %error, "whether others still say anything against the database is heard later");
    }
    for org in same.into_iter().chain(renewed) {
        deps.store.settled(org);
    }
    failed.map_or(Ok(()), Err)
}

/// One that cannot be compared holds up no other.
///
/// # Errors
/// When it is for all of them.
fn not_compared(org: OrgId, refusal: Refusal) -> Result<Refusal, Refusal> {
    if refusal.is_outage() {
        return Err(refusal);
    }
    tracing::warn!(org.id = %org, cause = %refusal, "{org} could not be compared with what is kept outside");
    Ok(refusal)
}
