//! Telling the operator's webhook where a grant stands whenever that changes: signed (Standard Webhooks), at least once,
//! retried with growing pauses. A message names ids, a state and its reason; never a person's name, never a secret.
//!
//! INVARIANT: of one grant, one message is under way at a time: an older state is not sent behind a newer one.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::{
    domain::{
        GrantId, OrgId, Time, UserId,
        connector::ConnectorId,
        grant::{Grant, GrantState},
    },
    egress::{BeginBy, EgressError, Undelivered, Webhook},
    store::{Notice, StoreError},
};

use super::{Deps, Refusal};

mod turns;

use turns::{Answer, Turns};

/// Tells what is due until nothing is left that is; returns how many messages arrived. A receiver that fails is left alone for
/// a moment before it is told more, or for as long as it asks for.
///
/// # Errors
/// When the database is unavailable.
pub async fn tell(deps: &Arc<Deps>) -> Result<usize, Refusal> {
    let Some(webhook) = &deps.webhook else {
        return Ok(0);
    };
    let mut turns = Turns::new(deps, webhook);
    let mut told = 0;
    let mut tick = interval_at(Instant::now() + MOMENT, MOMENT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match turns.go_on().await {
            Err(refusal) if turns.is_empty() => return Err(refusal),
            // What is under way comes to its end.
            Err(refusal) => tracing::warn!(cause = %refusal, "notices have to wait"),
            Ok(()) => {}
        }
        tokio::select! {
            // Also where messages hang: what has become due meanwhile does not wait for them.
            _ = tick.tick() => turns.rested(),
            ended = turns.ended() => match ended {
                Some(arrived) => told += arrived,
                None if turns.is_waiting() => {
                    tick.tick().await;
                    turns.rested();
                }
                None => return Ok(told),
            },
        }
    }
}

/// Writes down what was answered about an org's grants, and takes up to `room` more messages.
async fn step(deps: &Deps, org: OrgId, answers: &[Answer], room: usize) -> Result<Vec<Message>, StoreError> {
    let begin_by = BeginBy::new(Arc::clone(&deps.clock), deps.clock.since_boot() + BEGUN_WITHIN);
    let mut tx = deps.store.write(org).await?;
    let now = tx.now();
    for Answer {
        notice,
        arrived,
        asked,
    } in answers
    {
        if *arrived || notice.attempts >= GIVE_UP_AFTER {
            tx.end_notice(org, notice).await?;
        } else {
            let pause = pause(notice.attempts).max(*asked).min(Notice::LONGEST_PAUSE);
            tx.put_off_notice(org, notice, now + pause).await?;
        }
    }
    let room = u64::try_from(room).unwrap_or(u64::MAX);
    let mut messages = Vec::new();
    for notice in tx.take_notices(org, now + CLAIM, room).await? {
        let grant = match tx.grant(org, notice.grant).await {
            // One that cannot be read is in no other's way: it fails like one that does not arrive.
            Err(StoreError::Inconsistent { .. }) => None,
            found => found?,
        };
        messages.push(Message {
            content: grant.and_then(|grant| content(&grant, &notice)),
            notice,
            now,
            begin_by: begin_by.clone(),
        });
    }
    tx.commit().await?;
    Ok(messages)
}

/// A message that is taken up.
#[derive(Debug)]
struct Message {
    notice: Notice,
    /// Id and body.
    content: Option<(String, Vec<u8>)>,
    now: Time,
    /// After that another may have told of it, and of what came after.
    begin_by: BeginBy,
}

impl Message {
    /// One try.
    async fn send(self, deps: &Deps, webhook: &Webhook) -> Answer {
        let (notice, id) = (self.notice, self.notice.grant);
        let sent = match self.content {
            None => Err(Undelivered::Message),
            Some((message, body)) => {
                let sending = webhook.send(&message, self.now, body, Some(self.begin_by));
                timeout(ANSWERED_WITHIN, sending)
                    .await
                    .unwrap_or(Err(EgressError::Interrupted { timed_out: true }.into()))
            }
        };
        let asked = match sent {
            Err(Undelivered::Busy { after, .. }) => after,
            _ => Duration::ZERO,
        };
        webhook.rest().until(deps.clock.since_boot() + asked);
        match sent {
            Ok(()) => {}
            Err(cause) if notice.attempts < GIVE_UP_AFTER => {
                tracing::warn!(grant.id = %id, cause = %cause, "the receiver was not told of {id}");
            }
            Err(cause) => {
                tracing::error!(grant.id = %id, cause = %cause, "the receiver is not told of {id} any more");
            }
        }
        Answer {
            notice,
            arrived: sent.is_ok(),
            asked,
        }
    }
}

/// Id and body.
fn content(grant: &Grant, notice: &Notice) -> Option<(String, Vec<u8>)> {
    let reason = match grant.state {
        GrantState::NeedsReconnect { reason } => Some(reason.as_str()),
        _ => None,
    };
    let body = Body {
        kind: "grant.state_changed",
        timestamp: notice.at,
        data: Changed {
            org: grant.org,
            grant: grant.id,
            user: grant.user,
            connector: &grant.connector,
            state: grant.state.as_str(),
            reason,
        },
    };
    let body = serde_json::to_vec(&body).ok()?;
    Some((format!("{}.{}", grant.id, notice.changes), body))
}

/// Standard Webhooks, "payload structure".
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Time,
    data: Changed<'a>,
}

#[derive(Serialize)]
struct Changed<'a> {
    org: OrgId,
    grant: GrantId,
    user: UserId,
    connector: &'a ConnectorId,
    state: &'static str,
    reason: Option<&'static str>,
}

/// 2.5 min after the first try, then doubling up to an hour.
fn pause(attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1).min(8)).unwrap_or(8);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(Notice::LONGEST_PAUSE)
}

const FIRST_PAUSE: Duration = Duration::from_secs(150);
/// About three days.
const GIVE_UP_AFTER: u64 = 77;
/// For which a receiver that fails is left alone; and what becomes due beside messages that hang is told this much later.
const MOMENT: Duration = Duration::from_secs(1);
/// Longer than the two below together: nobody else tells meanwhile.
const CLAIM: Duration = Duration::from_secs(90);
/// How long after it was taken up a message may leave.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);
/// How long the receiver may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_for_three_days() {
        let tries: Duration = (1..GIVE_UP_AFTER).map(pause).sum();
        let day = Duration::from_secs(24 * 3600);
        assert!(
            (day * 3..day * 3 + Notice::LONGEST_PAUSE).contains(&tries),
            "{tries:?}"
        );
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(GIVE_UP_AFTER), Notice::LONGEST_PAUSE);
    }

    #[test]
    fn nobody_else_tells_while_a_message_may_be_under_way() {
        assert!(CLAIM > BEGUN_WITHIN + ANSWERED_WITHIN);
    }
}
