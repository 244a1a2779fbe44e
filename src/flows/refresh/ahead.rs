//! Renewing before anybody waits for it: tokens in use shortly before they end, and grants that die of idleness.
//!
//! Every grant has a time at which it is looked at again. A change of the grant sets it to "now"; a look sets it to the
//! moment at which something may be due, spread so that tokens that end together are not renewed together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    domain::{
        GrantId, OrgId, Time,
        connector::{ConnectorId, Refresh},
        grant::{Grant, GrantState},
    },
    flows::{Deps, Refusal},
};

use super::{SOON, Want, ensure};

/// Looks at the grants whose time has come and renews what is due; returns how many it looked at. Does not wait for
/// the providers.
///
/// # Errors
/// When the database is unavailable.
pub async fn look(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    if deps.uncut.is_stopping() {
        return Ok(0);
    }
    let mut count = 0;
    // Each provider's by themselves: one that is silent is in nobody else's way.
    for connector in deps.store.due().await?.renewal_connectors().await? {
        count += look_at(deps, &connector).await?;
    }
    Ok(count)
}

/// As far as there is room here: what is left is another replica's.
async fn look_at(deps: &Arc<Deps>, id: &ConnectorId) -> Result<usize, Refusal> {
    let (mut room, mut most) = (Vec::new(), BATCH);
    // Of what has no file only the time is set.
    if let Some(connector) = deps.catalogue.get(id) {
        room.extend((0..BATCH).map_while(|_| deps.flights.take_room(connector)));
        most = u64::try_from(room.len()).unwrap_or(BATCH);
    }
    let due = deps.store.due().await?.renewals(id, most).await?;
    let count = due.len();
    let mut orgs: BTreeMap<OrgId, Vec<GrantId>> = BTreeMap::new();
    for (org, grant) in due {
        orgs.entry(org).or_default().push(grant);
    }
    for (org, grants) in orgs {
        let renewed = match deps.store.retry(|| take_up(deps, org, &grants)).await {
            Ok(renewed) => renewed,
            // Nobody else's have to wait with them.
            Err(refusal) => {
                tracing::warn!(org.id = %org, cause = %refusal, "what is to be renewed ahead in {org} has to wait");
                continue;
            }
        };
        // Those of a sealed org are looked at again later, and keep no other from its turn.
        for grant in renewed.into_iter().filter(|_| !deps.store.is_sealed(org)) {
            let (deps, room) = (Arc::clone(deps), room.pop());
            tokio::spawn(async move {
                let _room = room;
                // `take_up` leaves out what has no file.
                let Some(connector) = deps.catalogue.get(&grant.connector) else {
                    return;
                };
                let _place = deps.flights.in_background(connector).await;
                if deps.uncut.is_stopping() {
                    return;
                }
                let than = Some(grant.generation);
                if let Err(refusal) = ensure(&deps, &grant, Want::Renewed { than }).await {
                    tracing::debug!(grant.id = %grant.id, cause = %refusal, "{} is not renewed ahead", grant.id);
                }
            });
        }
    }
    Ok(count)
}

/// Says when each grant is looked at again, and returns those to be renewed now.
async fn take_up(deps: &Deps, org: OrgId, grants: &[GrantId]) -> Result<Vec<Grant>, Refusal> {
    let mut now_due = Vec::new();
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    for &id in grants {
        let Some(grant) = tx.grant(org, id).await? else {
            continue;
        };
        let renewed_at = tx.renewed_at(org, id).await?.unwrap_or(grant.connected_at);
        let plan = match deps.catalogue.get(&grant.connector) {
            Some(connector) => plan(&grant, &connector.refresh, renewed_at, now),
            None => Plan::Nothing,
        };
        let next = match plan {
            Plan::Nothing => None,
            Plan::At(at) => Some(at),
            // What comes of it sets the time anew; if nothing does, it is tried once more.
            Plan::Now => Some(now + AGAIN.max(now.since(renewed_at) / PART)),
        };
        // Another replica may have been here first; then it is the one to ask.
        if tx.look_again(org, id, next).await? && plan == Plan::Now {
            now_due.push(grant);
        }
    }
    tx.commit().await?;
    Ok(now_due)
}

/// When a grant whose access token came just now is looked at again; `None`: when it changes.
pub(super) fn after_renewal(grant: &Grant, refresh: &Refresh, ends: Option<Time>, now: Time) -> Option<Time> {
    let renewed = Grant {
        access_expires_at: ends,
        ..grant.clone()
    };
    match plan(&renewed, refresh, now, now) {
        Plan::Nothing => None,
        Plan::At(at) => Some(at),
        Plan::Now => Some(now),
    }
}

/// What is to be done for a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Nothing, until it changes.
    Nothing,
    /// Something may be due then.
    At(Time),
    /// Renew it.
    Now,
}

fn plan(grant: &Grant, refresh: &Refresh, renewed_at: Time, now: Time) -> Plan {
    if grant.state != GrantState::Active || !grant.has_refresh_token {
        return Plan::Nothing;
    }
    let spread = spread(grant.id);
    // Where a renewal ends the token before it, somebody may hold that one: it is left to end by itself.
    if let Some(end) = grant.access_expires_at.filter(|_| !refresh.kills_old_access) {
        let window = (end.since(renewed_at) / 4).min(AHEAD);
        // Nearer to the end than this, a vend renews it before anybody here does.
        let room = window.saturating_sub(SOON + SOON / 2);
        let at = end - window + room.mul_f64(spread);
        if now < at {
            return Plan::At(at);
        }
        // A token nobody used is not worth another one.
        if now < end && grant.last_used_at.is_some_and(|used| used >= renewed_at) {
            return Plan::Now;
        }
    }
    let Some(days) = refresh.idle_days else {
        return Plan::Nothing;
    };
    let at = renewed_at + (DAY * days).mul_f64(0.5 + 0.25 * spread);
    if now < at { Plan::At(at) } else { Plan::Now }
}

/// A fixed place between 0 and 1 for each grant.
fn spread(grant: GrantId) -> f64 {
    // The end of the id is random (RFC 9562 §5.7).
    let [.., a, b, c, d] = *grant.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// Grants at one provider looked at in one go.
const BATCH: u64 = 128;
/// How long before its end a token is renewed at the earliest; less for short-lived ones.
const AHEAD: Duration = Duration::from_secs(300);
/// When a renewal that came to nothing is tried again at the earliest; a vend does not wait for that.
const AGAIN: Duration = Duration::from_secs(120);
/// It is tried again after this part of the time since the last one that came to something: where a client is wrong for weeks,
/// grants that live for months are asked about a few times a day.
const PART: u32 = 256;
const DAY: Duration = Duration::from_secs(24 * 3600);

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
            Plan::Nothing,
            "a vend does that"
        );
        let unused = Grant {
            last_used_at: Some(START - Duration::from_secs(1)),
            ..used
        };
        assert_eq!(plan(&unused, &facts, START, at(3560)), Plan::Nothing);
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
            assert_eq!(plan(&case, &facts, START, at(3560)), Plan::Nothing, "{case:?}");
        }
        let kills = Refresh {
            kills_old_access: true,
            ..Refresh::default()
        };
        assert_eq!(plan(&grant(1), &kills, START, at(3560)), Plan::Nothing);
    }
}
