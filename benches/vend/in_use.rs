//! Grants in use, far more of them than orgs: each with a warm token that is really sealed for its own place, vended one
//! after another.

use std::time::Duration;

use postern::{
    crypto::seal::OVERHEAD,
    domain::{GrantId, grant::Grant, secret::AccessToken},
    release::seal,
    store::SecretKind,
};

use crate::{
    load::{self, Seen},
    measure::Done,
    seed::{Copied, Rows},
    served::{Served, Tenant},
};

/// A grant that can be vended, and which org's it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InUse {
    tenant: usize,
    grant: GrantId,
}

/// Seals a narrowed token for every copy, as its org's connected grant got one by its first vend. Returns the connected
/// grants and the copies, the orgs in turn.
pub(crate) async fn ready(served: &Served, copies: &[Vec<Copied>]) -> Done<Vec<InUse>> {
    for (tenant, copies) in served.tenants.iter().zip(copies) {
        narrow(served, tenant, copies).await?;
    }
    let connected = served.tenants.iter().map(|tenant| tenant.grant).enumerate();
    let mut all: Vec<InUse> = connected.map(|(tenant, grant)| InUse { tenant, grant }).collect();
    let most = copies.iter().map(Vec::len).max().unwrap_or(0);
    for number in 0..most {
        for (tenant, copies) in copies.iter().enumerate() {
            let copied = copies.get(number);
            all.extend(copied.map(|copied| InUse {
                tenant,
                grant: copied.grant,
            }));
        }
    }
    Ok(all)
}

/// Vends each of these once. What this process remembers of them is forgotten before, so that each is vended as a grant is
/// that nobody asked for since the start.
pub(crate) fn first(served: &Served, lot: &[InUse], connections: usize) -> Done<Seen> {
    for one in lot {
        let tenant = served.tenants.get(one.tenant).ok_or("no such org")?;
        served.world.deps.facts.forget_grant(tenant.org, one.grant);
    }
    each(served, lot, connections)
}

/// Vends each of these once.
pub(crate) fn each(served: &Served, lot: &[InUse], connections: usize) -> Done<Seen> {
    let mut requests = Vec::with_capacity(lot.len());
    for one in lot {
        let tenant = served.tenants.get(one.tenant).ok_or("no such org")?;
        requests.push(served.request_for("/v1/vend", tenant, one.grant));
    }
    load::once(&served.address, requests.into(), connections)
}

/// Forgets when grants were used: the next vend of each writes it, as the first one did.
pub(crate) async fn unused(served: &Served) -> Done<()> {
    Rows::open(&served.world.location).await?.unused().await
}

async fn narrow(served: &Served, tenant: &Tenant, copies: &[Copied]) -> Done<()> {
    let Some(one) = copies.first() else {
        return Ok(());
    };
    let (deps, org) = (&served.world.deps, tenant.org);
    let mut tx = deps.store.read(org).await?;
    // All copies of an org are alike but for their ids.
    let model = tx.grant(org, one.grant).await?.ok_or("a copy is gone")?;
    let secrets = tx.secrets_of(org, tenant.grant).await?;
    drop(tx);
    let (kind, warm) = secrets
        .into_iter()
        .find(|(kind, _)| matches!(kind, SecretKind::Narrowed(_)))
        .ok_or("the connected grant has no narrowed token")?;
    let length = warm.sealed.sealed.len().saturating_sub(OVERHEAD);
    let token = AccessToken::new("t".repeat(length));
    // Asked for each time: it may be had for half a minute only.
    let key = deps.org_key(org).await?;
    let mut tx = deps.store.write(org).await?;
    let ends = tx.now() + LIFE;
    for copied in copies {
        let grant = Grant {
            id: copied.grant,
            user: copied.user,
            ..model.clone()
        };
        let generation = grant.generation;
        let scopes = warm.scopes.clone();
        let row = seal::access_token(&key, &grant, &kind, generation, &token, scopes, Some(ends))?;
        tx.put_secret(org, grant.id, &kind, &row).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Longer than anything here takes, and no longer than a token may last that is let out (an hour).
const LIFE: Duration = Duration::from_secs(3000);
