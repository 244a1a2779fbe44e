//! What stands in one batch with another org's work: whoever names something of that org there gets nothing, and leaves it
//! alone (I5). Row-level security admits every org of a batch, so here the statements themselves keep them apart.

mod keys;

use std::{collections::BTreeSet, future::Future, time::Duration};

use postern::{
    domain::{
        DecisionId, EntryId, GrantId, OrgId,
        connector::Category,
        decision::UnverifiedDecision,
        entry::{EntryDraft, EntryType},
    },
    flows::{
        actions::{self, Caller},
        decide, token, vend,
    },
    policy::OrgPermit,
    release::{GateRefusal, Release, VerifiedDecision},
    store::{Claim, ClaimAsk, IdempotencyKey, Location, NewEntry},
};

use super::{
    harness::{World, database},
    rows::WATCH,
};

/// An org of two: its agent, and a grant that this agent may read with.
#[derive(Clone, Copy)]
struct Side {
    caller: Caller,
    grant: GrantId,
}

/// Two orgs at work, on either store.
async fn on_each_store() -> [(World, Side, Side); 2] {
    [
        two_orgs(World::on_sqlite().await).await,
        two_orgs(World::on_postgres().await).await,
    ]
}

async fn two_orgs(world: World) -> (World, Side, Side) {
    let grant = world.connect(world.ada, &[Category::Read]).await;
    let caller = world.agent;
    let ours = Side { caller, grant };
    let (caller, grant) = world.another_org("Second").await;
    let theirs = Side { caller, grant };
    for side in [ours, theirs] {
        vend::vend(&world.deps, side.caller, world.read(side.grant))
            .await
            .unwrap();
    }
    if let Location::Postgres(settings) = &world.location {
        let mut superuser = database::superuser(&database::name_of(settings)).await;
        sqlx::raw_sql(WATCH).execute(&mut superuser).await.unwrap();
    }
    (world, ours, theirs)
}

/// A release that is right in everything, as the gate is asked for it.
async fn release(world: &World, side: Side, key: &IdempotencyKey) -> (VerifiedDecision, Release) {
    release_about(world, side, side.grant, key).await
}

/// The same, but for a decision that is about `grant`.
async fn release_about(
    world: &World,
    side: Side,
    grant: GrantId,
    key: &IdempotencyKey,
) -> (VerifiedDecision, Release) {
    let (deps, ask) = (&world.deps, world.read(side.grant));
    let mut prepared = actions::prepare(deps, side.caller, &ask).await.unwrap();
    let decided = decide::evaluate(deps, &prepared, &ask, &OrgPermit::Policy).unwrap();
    let ready = token::wide(deps, &prepared).await.unwrap();
    prepared.action.grant = grant;
    let id = DecisionId::new(decided.at, &*deps.random).unwrap();
    let own = decide::sign(deps, &prepared, &ask, &decided, id, None).unwrap();
    let (jws, _) = own.into_text();
    let verified = decide::check(deps, &prepared, &ask, &UnverifiedDecision(jws)).unwrap();
    let release = Release {
        org: side.caller.org,
        epoch: prepared.epoch(),
        secret: (side.grant, ready.kind, ready.row.generation),
        idempotency: Some(key.clone()),
        entry: NewEntry {
            id: EntryId::new(decided.at, &*deps.random).unwrap(),
            kind: EntryType::Release,
            draft: EntryDraft {
                agent: Some(side.caller.agent),
                ..EntryDraft::default()
            },
            sealed: None,
        },
    };
    (verified, release)
}

/// A key of the org's own agent.
fn key(world: &World, side: Side, key: String) -> IdempotencyKey {
    IdempotencyKey {
        principal: side.caller.agent.to_string(),
        route: "vend",
        key,
        digest: "d".to_owned(),
        ended: None,
        keep_until: world.deps.clock.now() + Duration::from_secs(3600),
    }
}

/// The entry by which an org took a key.
async fn taken_by(world: &World, org: OrgId, key: &IdempotencyKey) -> Option<EntryId> {
    let mut tx = world.deps.store.read(org).await.unwrap();
    let record = tx.idempotency(org, &key.principal, key.route, &key.key).await;
    record.unwrap().map(|record| record.entry)
}

async fn is_written(world: &World, org: OrgId, entry: EntryId) -> bool {
    let mut tx = world.deps.store.read(org).await.unwrap();
    tx.entry(org, entry).await.unwrap().is_some()
}

/// Asks for both at once, in this order. One runtime thread: both stand in line before the lane looks.
async fn together<A, B>(
    one_first: bool,
    one: impl Future<Output = A>,
    other: impl Future<Output = B>,
) -> (A, B) {
    if one_first {
        tokio::join!(one, other)
    } else {
        let (other, one) = tokio::join!(other, one);
        (one, other)
    }
}

/// So many rows of their org were written by transactions that named both. SQLite has nobody who could say.
async fn were_together(world: &World, place: &str, ours: Side, theirs: Side, count: usize) {
    let Location::Postgres(settings) = &world.location else {
        return;
    };
    let mut superuser = database::superuser(&database::name_of(settings)).await;
    let admitted: Vec<Option<String>> =
        sqlx::query_scalar("SELECT admitted FROM watched WHERE place = $1 AND org = $2")
            .bind(place)
            .bind(theirs.caller.org.to_string())
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    let both = BTreeSet::from([ours, theirs].map(|side| side.caller.org.to_string()));
    let named_both = admitted
        .iter()
        .flatten()
        .filter(|named| named.split(',').map(str::to_owned).collect::<BTreeSet<_>>() == both);
    assert_eq!(named_both.count(), count, "{place}: {admitted:?}");
}

/// No row of our org names anything of theirs.
async fn nothing_of_theirs_is_ours(world: &World, ours: Side, theirs: Side) {
    let (org, grant, agent) = (
        ours.caller.org,
        theirs.grant.to_string(),
        theirs.caller.agent.to_string(),
    );
    for (table, column, id) in [
        ("grants", "id", &grant),
        ("secrets", "row_id", &grant),
        ("refresh_leases", "grant_id", &grant),
        ("outbox", "grant_id", &grant),
        ("entries", "agent_id", &agent),
        ("idempotency", "principal", &agent),
    ] {
        let sql = format!("UPDATE {table} SET org_id = org_id WHERE org_id = '{org}' AND {column} = '{id}'");
        let rows = database::raw_sql(&world.location, &sql).await;
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn a_release_that_names_another_orgs_secret_is_refused_beside_that_orgs_own() {
    for (world, ours, theirs) in on_each_store().await {
        let [our_org, their_org] = [ours, theirs].map(|side| side.caller.org);
        let mut tx = world.deps.store.read(their_org).await.unwrap();
        let secrets = tx.secrets_of(their_org, theirs.grant).await.unwrap();
        drop(tx);
        assert!(secrets.len() > 1, "an access and a refresh token");
        let mut rounds = 0;
        for (kind, row) in &secrets {
            for ours_first in [true, false] {
                rounds += 1;
                let key = key(&world, theirs, format!("k{rounds}"));
                let (our_decision, mut foreign) = release_about(&world, ours, theirs.grant, &key).await;
                foreign.secret = (theirs.grant, kind.clone(), row.generation);
                let (their_decision, honest) = release(&world, theirs, &key).await;
                let (our_entry, their_entry) = (foreign.entry.id, honest.entry.id);
                let gate = &world.deps.gate;
                let (refused, passed) = together(
                    ours_first,
                    gate.release(our_decision, foreign),
                    gate.release(their_decision, honest),
                )
                .await;
                assert!(
                    matches!(refused, Err(GateRefusal::GrantChanged)),
                    "{kind}: {refused:?}"
                );
                assert!(passed.is_ok(), "{kind}: {passed:?}");
                assert!(!is_written(&world, our_org, our_entry).await, "{kind}");
                assert!(is_written(&world, their_org, their_entry).await, "{kind}");
                assert_eq!(taken_by(&world, our_org, &key).await, None, "{kind}");
                assert_eq!(
                    taken_by(&world, their_org, &key).await,
                    Some(their_entry),
                    "{kind}"
                );
            }
        }
        were_together(&world, "entries", ours, theirs, rounds).await;
        nothing_of_theirs_is_ours(&world, ours, theirs).await;
    }
}

#[tokio::test]
async fn a_decision_about_a_grant_releases_nothing_of_another() {
    let (world, ours, theirs) = two_orgs(World::new().await).await;
    for (grant, secret) in [(ours.grant, theirs.grant), (theirs.grant, ours.grant)] {
        let key = key(&world, ours, secret.to_string());
        let (decision, mut release) = release_about(&world, ours, grant, &key).await;
        release.secret.0 = secret;
        let entry = release.entry.id;
        let refused = world.deps.gate.release(decision, release).await;
        assert!(matches!(refused, Err(GateRefusal::WrongGrant)), "{refused:?}");
        assert!(!is_written(&world, ours.caller.org, entry).await);
    }
}

/// The same caller, route and key: the org alone tells them apart.
#[tokio::test]
async fn an_idempotency_key_of_another_org_is_another_key_beside_that_orgs_own() {
    for (world, ours, theirs) in on_each_store().await {
        let key = key(&world, theirs, "k".to_owned());
        let (our_decision, one) = release(&world, ours, &key).await;
        let (their_decision, other) = release(&world, theirs, &key).await;
        let entries = [(ours, one.entry.id), (theirs, other.entry.id)];
        let gate = &world.deps.gate;
        let passed = tokio::join!(
            gate.release(our_decision, one),
            gate.release(their_decision, other)
        );
        assert!(matches!(passed, (Ok(_), Ok(_))), "{passed:?}");
        were_together(&world, "entries", ours, theirs, 1).await;
        for (side, entry) in entries {
            assert_eq!(taken_by(&world, side.caller.org, &key).await, Some(entry));
            let (decision, again) = release(&world, side, &key).await;
            let refused = gate.release(decision, again).await;
            assert!(
                matches!(&refused, Err(GateRefusal::Taken(record)) if record.entry == entry),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_claim_that_names_another_orgs_grant_is_refused_beside_that_orgs_own() {
    for (world, ours, theirs) in on_each_store().await {
        let org = theirs.caller.org;
        for (round, ours_first) in (1..).zip([true, false]) {
            let mut tx = world.deps.store.read(org).await.unwrap();
            let generation = tx.grant(org, theirs.grant).await.unwrap().unwrap().generation;
            drop(tx);
            let honest = ClaimAsk {
                org,
                grant: theirs.grant,
                generation,
                intent: "access_token".to_owned(),
                life: Duration::from_secs(10),
            };
            let foreign = ClaimAsk {
                org: ours.caller.org,
                ..honest.clone()
            };
            let claims = &world.deps.claims;
            let (refused, claimed) = together(ours_first, claims.claim(foreign), claims.claim(honest)).await;
            assert!(matches!(refused, Ok(Claim::Moved)), "{round}: {refused:?}");
            assert!(matches!(claimed, Ok(Claim::Ours(_))), "{round}: {claimed:?}");
            nothing_of_theirs_is_ours(&world, ours, theirs).await;
            // The next one finds a lease that has ended.
            world.later(Duration::from_secs(30));
        }
    }
}
