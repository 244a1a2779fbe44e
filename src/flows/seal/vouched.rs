//! What this replica has never heard of, and others have: their word is taken for it, or nobody's.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    domain::OrgId,
    flows::{Deps, Refusal},
    store::{Listening, REPLICA_LEASE, Word},
};

use super::{Disagreement, adopt};

/// One that may find orgs of which nothing is known here.
pub(super) struct Newcomer {
    /// When it began to look at the orgs.
    began: Instant,
    /// The org that it has sealed since, to say that it knows nothing at all.
    sealed: Option<OrgId>,
}

impl Newcomer {
    /// One that knows nothing at all says so before it looks at every org, or others that start would wait for that.
    pub(super) async fn new(deps: &Deps, knows_nothing: bool) -> Result<Self, Refusal> {
        let mut newcomer = Self {
            began: Instant::now(),
            sealed: None,
        };
        if !knows_nothing {
            return Ok(newcomer);
        }
        let first = deps.store.due().await?.orgs(None, 1).await?.first().copied();
        if let Some(org) = first.filter(|org| !deps.store.holds_back(*org)) {
            // INVARIANT: sealed before the word is given: with no org sealed the word would be "good".
            deps.store.seal_as(org, Word::Strange);
            newcomer.sealed = Some(org);
            deps.store.give_word(Word::Strange).await?;
        }
        Ok(newcomer)
    }

    /// Takes other replicas' word for orgs of which nothing is known here, if they give it; the orgs are sealed until then.
    pub(super) async fn takes_word(self, deps: &Deps, strange: &[Disagreement]) -> Result<bool, Refusal> {
        let orgs: Vec<OrgId> = strange.iter().map(|disagreement| disagreement.org).collect();
        // What is held back already is for another reason, and stays so.
        let mut held = orgs.clone();
        held.retain(|org| self.sealed == Some(*org) || !deps.store.holds_back(*org));
        for org in &held {
            deps.store.seal_as(*org, Word::Strange);
        }
        // Said before others are waited for: strangers that start together would wait for each other.
        deps.store.give_word(Word::Strange).await?;
        // Where all are sealed since an earlier look, that one has waited.
        let lapsed_within = if held.is_empty() || deps.store.is_alone() {
            Duration::ZERO
        } else {
            WORD_WITHIN
        };
        let compared_within = WORD_WITHIN.max(self.began.elapsed().saturating_mul(SLOWER));
        if !others_say_it_is_good(deps, lapsed_within, compared_within).await? {
            return Ok(false);
        }
        adopt(deps, &orgs).await?;
        for org in held {
            deps.store.unseal(org);
        }
        Ok(true)
    }
}

/// Whether other replicas' word may be taken for what this one has never heard of: they live and watch the database they have
/// been writing to, and none of them has an org that is sealed.
///
/// Where nobody who knows anything holds a lease, others are waited for: after an outage that outlasted every lease they are
/// about to renew theirs. So are those that release nothing of an org, for soon after a recovery they do; those of which it is
/// not known yet whether they live; and those that start at the same time.
/// One of these that takes longer still is no reason to believe nobody: what it finds it says, and whoever has taken another's
/// word hears of it as that other one does.
async fn others_say_it_is_good(
    deps: &Deps,
    lapsed_within: Duration,
    compared_within: Duration,
) -> Result<bool, Refusal> {
    let (mut listening, began) = (Listening::default(), Instant::now());
    if !lapsed_within.is_zero() {
        tracing::info!(
            "nothing is known here of some orgs: listening to other replicas, which may know the database"
        );
    }
    loop {
        let said = deps.store.others_word(&mut listening).await?;
        let waited = began.elapsed();
        match said {
            Some(Word::Good) => return Ok(true),
            Some(Word::Bad) => return Ok(false),
            None | Some(Word::Strange | Word::Torn) if waited >= lapsed_within => return Ok(false),
            Some(Word::Unsaid) if waited >= compared_within => {
                return Ok(listening.compared() == Some(Word::Good));
            }
            None | Some(Word::Strange | Word::Torn | Word::Unsaid) => {}
        }
        tokio::time::sleep(SHORTLY).await;
    }
}

/// How long a start waits for others that may live, or may be dead.
const WORD_WITHIN: Duration = Duration::from_secs(25);
// What a dead one said last ends with its lease.
const _: () = assert!(WORD_WITHIN.as_secs() > REPLICA_LEASE.as_secs());
/// With very many orgs, whoever knows them takes longer to compare them than one that has nothing to compare them with: so
/// many times as long at most.
const SLOWER: u32 = 8;
const SHORTLY: Duration = Duration::from_millis(250);
