//! Renewing before anybody waits for it: tokens in use shortly before they end, and grants that die of idleness.
//!
//! Every grant has a time at which it is looked at again. A change of the grant sets it to "now"; a look sets it to the
//! moment at which something may be due, spread so that tokens that end together are not renewed together.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    domain::{
        GrantId, OrgId, Time,
        connector::{Connector, Refresh},
        grant::{Grant, GrantState},
    },
    flows::{Deps, Refusal},
    store::StoreError,
};

use super::{SOON, Turn, Want, ensure};

/// Looks at the grants whose time has come and renews what is due; returns how many it looked at. Does not wait for
/// the providers.
///
/// # Errors
/// When the database is unavailable.
pub async fn look(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    if deps.uncut.is_stopping() {
        return Ok(0);
    }
    let (mut count, mut stuck) = (0, HashSet::new());
    // The snapshot is not kept for as long as the loop takes.
    let connectors = deps.store.due().await?.renewal_connectors().await?;
    // Each provider's by themselves: one that is silent is in nobody else's way.
    for id in connectors {
        // What has no file here is left as it is: another replica may have the file, this one may be given it back.
        if let Some(connector) = deps.catalogue.get(&id) {
            count += look_at(deps, connector, &mut stuck).await?;
        }
    }
    Ok(count)
}

/// As far as there is room here: what is left is another replica's. An org of which nothing can be taken up keeps none of the
/// others from their turn, and is not tried again by this look.
async fn look_at(
    deps: &Arc<Deps>,
    connector: &Arc<Connector>,
    stuck: &mut HashSet<OrgId>,
) -> Result<usize, Refusal> {
    let mut room: Vec<Turn> = (0..BATCH)
        .map_while(|_| deps.flights.take_room(connector))
        .collect();
    let mut count = 0;
    while !room.is_empty() && !deps.uncut.is_stopping() {
        let most = u64::try_from(room.len()).unwrap_or(BATCH);
        let due = deps
            .store
            .due()
            .await?
            .renewals(&connector.id, stuck, most)
            .await?;
        let mut orgs: BTreeMap<OrgId, Vec<GrantId>> = BTreeMap::new();
        for (org, grant) in due {
            orgs.entry(org).or_default().push(grant);
        }
        let before = stuck.len();
        count += take_up_all(deps, connector, orgs, &mut room, stuck).await;
        // Others may come behind those that are stuck. Where very many are, the fault is not an org's.
        if stuck.len() == before || stuck.len() > MOST_STUCK {
            break;
        }
    }
    Ok(count)
}

/// Takes up the grants of these orgs side by side: whoever is in one org's way holds up no other. Returns how many were
/// looked at.
async fn take_up_all(
    deps: &Arc<Deps>,
    connector: &Arc<Connector>,
    orgs: BTreeMap<OrgId, Vec<GrantId>>,
    room: &mut Vec<Turn>,
    stuck: &mut HashSet<OrgId>,
) -> usize {
    let mut count = 0;
    let (mut waiting, mut under_way) = (orgs.into_iter(), JoinSet::new());
    loop {
        while under_way.len() < AT_ONCE
            && stuck.len() <= MOST_STUCK
            && let Some((org, grants)) = waiting.next()
        {
            let (deps, connector) = (Arc::clone(deps), Arc::clone(connector));
            under_way.spawn(async move {
                let taken = deps.store.retry(|| take_up(&deps, &connector, org, &grants));
                (org, grants.len(), taken.await)
            });
        }
        let Some(taken) = under_way.join_next().await else {
            return count;
        };
        let Ok(taken) = taken else {
            tracing::error!("a look at grants to be renewed ahead stopped unexpectedly");
            continue;
        };
        match taken {
            (org, looked_at, Ok(renewed)) => {
                count += looked_at;
                // Those of a sealed org are looked at again later, and keep no other from its turn.
                for grant in renewed.into_iter().filter(|_| !deps.store.is_sealed(org)) {
                    renew(deps, connector, grant, room.pop());
                }
            }
            (org, _, Err(refusal)) => {
                tracing::warn!(org.id = %org, cause = %refusal, "what is to be renewed ahead in {org} has to wait");
                stuck.insert(org);
            }
        }
    }
}

/// Renews a grant's token, in a task of its own.
fn renew(deps: &Arc<Deps>, connector: &Arc<Connector>, grant: Grant, room: Option<Turn>) {
    let (deps, connector) = (Arc::clone(deps), Arc::clone(connector));
    tokio::spawn(async move {
        let _room = room;
        let _place = deps.flights.in_background(&connector).await;
        if deps.uncut.is_stopping() {
            return;
        }
        let than = Some(grant.generation);
        if let Err(refusal) = ensure(&deps, &grant, Want::Renewed { than }).await {
            tracing::debug!(grant.id = %grant.id, cause = %refusal, "{} is not renewed ahead", grant.id);
        }
    });
}

/// Says when each grant is looked at again, and returns those to be renewed now.
async fn take_up(
    deps: &Deps,
    connector: &Connector,
    org: OrgId,
    grants: &[GrantId],
) -> Result<Vec<Grant>, Refusal> {
    let mut now_due = Vec::new();
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    for &id in grants {
        let grant = match tx.grant(org, id).await {
            Ok(Some(grant)) => grant,
            Ok(None) => continue,
            // It would keep its org's others from their turn.
            Err(error @ StoreError::Inconsistent { .. }) => {
                tracing::error!(grant.id = %id, cause = %error, "{id} cannot be renewed ahead: {error}");
                tx.look_again(org, id, now + DAY).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let renewed_at = tx.renewed_at(org, id).await?.unwrap_or(grant.connected_at);
        let plan = plan(&grant, &connector.refresh, renewed_at, now);
        let next = match plan {
            Plan::At(at) => at,
            // What comes of it sets the time anew; if nothing does, it is tried once more.
            Plan::Now => now + AGAIN.max(now.since(renewed_at) / PART),
        };
        // Another replica may have been here first; then it is the one to ask.
        if tx.look_again(org, id, next).await? && plan == Plan::Now {
            now_due.push(grant);
        }
    }
    tx.commit().await?;
    Ok(now_due)
}

/// When a grant whose access token came just now is looked at again.
pub(super) fn after_renewal(grant: &Grant, refresh: &Refresh, ends: Option<Time>, now: Time) -> Time {
    let renewed = Grant {
        access_expires_at: ends,
        ..grant.clone()
    };
    match plan(&renewed, refresh, now, now) {
        Plan::At(at) => at,
        Plan::Now => now,
    }
}

/// What is to be done for a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Look again then.
    At(Time),
    /// Renew it.
    Now,
}

fn plan(grant: &Grant, refresh: &Refresh, renewed_at: Time, now: Time) -> Plan {
    let latest = looked_at_again(grant.id, now);
    if grant.state != GrantState::Active || !grant.has_refresh_token {
        return Plan::At(latest);
    }
    let spread = spread(grant.id);
    let idle = refresh
        .idle_days
        .map(|days| renewed_at + (DAY * days).mul_f64(0.5 + 0.25 * spread));
    if idle.is_some_and(|idle| idle <= now) {
        return Plan::Now;
    }
    // Where a renewal ends the token before it, somebody may hold that one: it is left to end by itself.
    if let Some(end) = grant.access_expires_at.filter(|_| !refresh.kills_old_access) {
        let window = (end.since(renewed_at) / 4).min(AHEAD);
        // Nearer to the end than this, a vend renews it before anybody here does.
        let room = window.saturating_sub(SOON + SOON / 2);
        let at = end - window + room.mul_f64(spread);
        if now < at {
            return Plan::At(idle.map_or(at, |idle| idle.min(at)).min(latest));
        }
        // A token nobody used is not worth another one.
        if now < end && grant.last_used_at.is_some_and(|used| used >= renewed_at) {
            return Plan::Now;
        }
    }
    Plan::At(idle.map_or(latest, |idle| idle.min(latest)))
}

/// By when every grant is looked at again, half a week to a week from now: its connector's file may say by then that it dies of
/// idleness. Also one that cannot be renewed gets a time: without one it would be due at every look (`Due::renewals`).
fn looked_at_again(grant: GrantId, now: Time) -> Time {
    now + LONGEST_UNSEEN.mul_f64(0.5 + 0.5 * spread(grant))
}

/// A fixed place between 0 and 1 for each grant.
fn spread(grant: GrantId) -> f64 {
    // The end of the id is random (RFC 9562 §5.7).
    let [.., a, b, c, d] = *grant.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// Grants at one provider looked at in one go.
const BATCH: u64 = 128;
/// A look goes behind at most this many stuck orgs: each costs the wait for its rows.
const MOST_STUCK: usize = 16;
/// Orgs whose grants are taken up side by side.
const AT_ONCE: usize = 4;
/// How long before its end a token is renewed at the earliest; less for short-lived ones.
const AHEAD: Duration = Duration::from_secs(300);
/// When a renewal that came to nothing is tried again at the earliest; a vend does not wait for that.
const AGAIN: Duration = Duration::from_secs(120);
/// It is tried again after this part of the time since the last one that came to something: where a client is wrong for weeks,
/// grants that live for months are asked about a few times a day.
const PART: u32 = 256;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Every grant is looked at again by then.
const LONGEST_UNSEEN: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::OsRandomness,
        domain::{
            UserId,
            grant::{Account, ReconnectReason},
        },
    };

    const START: Time = Time::from_unix_seconds(1_800_000_000);

    fn grant(number: u32) -> Grant {
        let mut id = [7; 16];
        id[12..].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        Grant {
            id: GrantId::from_bytes(id),
            org: OrgId::from_bytes([1; 16]),
            user: UserId::from_bytes([2; 16]),
            connector: "acme-mail".parse().unwrap(),
            account: Account {
                id: None,
                label: String::new(),
                email: None,
                tenant: None,
            },
            label: None,
            scopes: Default::default(),
            state: GrantState::Active,
            connected_epoch: 1,
            generation: 1,
            binding: [0; 32],
            access_expires_at: Some(START + Duration::from_secs(3600)),
            has_refresh_token: true,
            connected_at: START,
            last_used_at: Some(START + Duration::from_secs(60)),
        }
    }

    fn at(seconds: u64) -> Time {
        START + Duration::from_secs(seconds)
    }

    /// What is planned at that second for a grant that needs nothing.
    fn nothing(seconds: u64) -> Plan {
        Plan::At(looked_at_again(grant(1).id, at(seconds)))
    }

    #[test]
    fn tokens_that_end_together_are_not_renewed_together() {
        let facts = Refresh::default();
        let mut by_second = BTreeMap::new();
        for number in 0..10_000 {
            match plan(&grant(number), &facts, START, START) {
                Plan::At(moment) => *by_second.entry(moment.since(START).as_secs()).or_insert(0) += 1,
                other => panic!("{other:?}"),
            }
        }
        let (first, last) = (
            by_second.first_key_value().unwrap(),
            by_second.last_key_value().unwrap(),
        );
        assert!(*first.0 >= 3300 && *last.0 <= 3600 - 45, "{first:?} {last:?}");
        let most = by_second.values().max().unwrap();
        assert!(*most < 60, "{most} of 10,000 in one second of 255");
    }

    /// Ids as they are made, all in one millisecond: what they differ in has to be what they are spread by.
    #[test]
    fn the_ids_of_many_grants_fill_every_tenth_of_the_window_alike() {
        let (facts, random) = (Refresh::default(), OsRandomness::new());
        let (begins, room) = (at(3600) - AHEAD, AHEAD - SOON - SOON / 2);
        let mut tenths = BTreeMap::new();
        for _ in 0..10_000 {
            let one = Grant {
                id: GrantId::new(START, &random).unwrap(),
                ..grant(1)
            };
            let moment = match plan(&one, &facts, START, START) {
                Plan::At(moment) => moment,
                other => panic!("{other:?}"),
            };
            assert!(begins <= moment && moment <= begins + room, "{moment:?}");
            let tenth = moment.since(begins).as_micros() * 10 / room.as_micros();
            *tenths.entry(tenth.min(9)).or_insert(0) += 1;
        }
        assert_eq!(tenths.len(), 10);
        // Six and a half standard deviations.
        assert!(
            tenths.values().all(|count| (800..=1200).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn a_token_in_use_is_renewed_before_it_ends_and_another_is_not() {
        let facts = Refresh::default();
        let used = grant(1);
        assert_eq!(plan(&used, &facts, START, at(3560)), Plan::Now);
        assert_eq!(
            plan(&used, &facts, START, at(3600)),
            nothing(3600),
            "a vend does that"
        );
        let unused = Grant {
            last_used_at: Some(START - Duration::from_secs(1)),
            ..used
        };
        assert_eq!(plan(&unused, &facts, START, at(3560)), nothing(3560));
    }

    #[test]
    fn a_grant_that_dies_of_idleness_is_renewed_long_before() {
        let facts = Refresh {
            idle_days: Some(90),
            ..Refresh::default()
        };
        let idle = Grant {
            last_used_at: None,
            ..grant(1)
        };
        let day = |days: u64| at(days * 24 * 3600);
        assert!(
            matches!(plan(&idle, &facts, START, day(40)), Plan::At(moment) if moment > day(44) && moment < day(68))
        );
        assert_eq!(plan(&idle, &facts, START, day(68)), Plan::Now);
    }

    #[test]
    fn nothing_is_renewed_that_cannot_or_must_not_be() {
        let facts = Refresh {
            idle_days: Some(1),
            ..Refresh::default()
        };
        let cases = [
            Grant {
                has_refresh_token: false,
                ..grant(1)
            },
            Grant {
                state: GrantState::Revoked { at: START },
                ..grant(1)
            },
            Grant {
                state: GrantState::NeedsReconnect {
                    reason: ReconnectReason::RotationLost,
                },
                ..grant(1)
            },
        ];
        for case in cases {
            assert_eq!(plan(&case, &facts, START, at(3560)), nothing(3560), "{case:?}");
        }
        let kills = Refresh {
            kills_old_access: true,
            ..Refresh::default()
        };
        assert_eq!(plan(&grant(1), &kills, START, at(3560)), nothing(3560));
    }
}
