//! One refresher per grant at a time, across all replicas: a lease with a fencing number, and the durable intent.
//!
//! A lease is honoured for a few seconds only and renewed while its holder waits for the provider. A holder that died
//! must not keep the others from asking again while the provider still takes the old refresh token.

use std::{collections::HashMap, time::Duration};

use crate::{
    domain::{GrantId, OrgId, Time},
    failpoints::Failpoint,
};

use super::{
    StoreError,
    entries::read_epoch,
    sql::{Tx, json, params},
    vigil::OtherWriter,
    waits::{LONGEST_COOLDOWN, LONGEST_LEASE, farthest, is_on, is_over},
};

/// A claimed lease. Whoever writes a result names its fence; a later claim makes it void.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Grows with every claim.
    pub fence: i64,
    /// What an earlier holder had asked of the provider and never learned the answer of.
    pub in_doubt: Option<String>,
    /// How often in a row the provider gave nothing.
    pub failures: u64,
}

/// One claim.
#[derive(Debug, Clone)]
pub struct ClaimAsk {
    /// The tenant.
    pub org: OrgId,
    /// Of whose lease.
    pub grant: GrantId,
    /// The grant's generation when it was read.
    pub generation: u64,
    /// What is about to be asked of the provider.
    pub intent: String,
    /// How long the lease is honoured without being renewed.
    pub life: Duration,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The lease is the caller's.
    Ours(Lease),
    /// Another holds it; its answer will do.
    Held,
    /// The grant has changed since it was read, or is not active: read it again.
    Moved,
    /// The provider gave nothing a moment ago and is left alone for now.
    Cooling,
}

/// What is known of a grant before a claim.
struct Before {
    generation: u64,
    fence: i64,
    held_until: Time,
    in_doubt: Option<String>,
    failures: u64,
    not_before: Time,
}

impl Tx {
    /// Claims the leases of many grants for `holder` and records what is about to be asked: one statement to lock them
    /// where others write beside it, one to look, one to claim. The answers are in the order of the questions.
    ///
    /// INVARIANT: I4; the leases are locked by a statement of its own and read by a later one. Whoever keeps an answer locks
    /// them too: what is read here is from before any answer under the fence that is read, or from after it.
    ///
    /// # Errors
    /// When the database is unavailable; [`StoreError::Lost`] where it lacks what this process knows of one of the orgs.
    pub async fn claim_refreshes(
        &mut self,
        holder: &str,
        asks: &[ClaimAsk],
    ) -> Result<Vec<Claim>, StoreError> {
        self.claim_beside(holder, asks, None).await
    }

    /// The same, if nothing of another writer of this process is missing, either.
    ///
    /// SECURITY: a refresh token of a database that was put back may have been asked with since, and a provider can end a grant
    /// whose refresh token comes twice. The gate would notice, but only after the provider was asked.
    pub(super) async fn claim_beside(
        &mut self,
        holder: &str,
        asks: &[ClaimAsk],
        other: Option<&OtherWriter>,
    ) -> Result<Vec<Claim>, StoreError> {
        let sql = self.connection.refresh_sql();
        let grants: Vec<(OrgId, GrantId)> = asks.iter().map(|ask| (ask.org, ask.grant)).collect();
        let mut known = HashMap::with_capacity(asks.len());
        if let Some(lock) = sql.lock_leases {
            self.execute(lock, vec![json(&grants)]).await?;
        }
        let other_name = other.map_or("", |other| other.name.as_str());
        let leases = params![json(&grants), &self.writer, other_name];
        for row in self.rows(sql.leases, leases).await? {
            let mut fields = row.fields("refresh_leases");
            let whose: (OrgId, GrantId) = (fields.parse()?, fields.parse()?);
            let before = Before {
                generation: fields.count()?,
                fence: fields.int()?,
                held_until: fields.time()?,
                in_doubt: fields.opt_text()?,
                failures: fields.count()?,
                not_before: fields.time()?,
            };
            self.expect_epoch(whose.0, read_epoch(&mut fields)?)?;
            self.expect_number(whose.0, fields.count()?)?;
            let others = fields.count()?;
            if let Some(other) = other {
                other.expect_number(whose.0, others)?;
            }
            known.insert(whose, before);
        }
        let (mut claims, mut rows) = (Vec::with_capacity(asks.len()), Vec::new());
        for ask in asks {
            let claim = match known.get_mut(&(ask.org, ask.grant)) {
                Some(before) if is_on(before.held_until, self.now, LONGEST_LEASE) => Claim::Held,
                // INVARIANT: I4; whoever read before a sibling kept its answer would ask a second time.
                Some(before) if before.generation == ask.generation => {
                    if is_on(before.not_before, self.now, LONGEST_COOLDOWN) {
                        Claim::Cooling
                    } else {
                        let until = self.now + ask.life.min(LONGEST_LEASE);
                        rows.push((
                            ask.org,
                            ask.grant,
                            before.fence + 1,
                            until.unix_micros(),
                            ask.intent.clone(),
                        ));
                        // Asked for twice in one batch, it is held by the first.
                        before.held_until = until;
                        Claim::Ours(Lease {
                            fence: before.fence + 1,
                            in_doubt: before.in_doubt.clone(),
                            failures: before.failures,
                        })
                    }
                }
                Some(_) | None => Claim::Moved,
            };
            claims.push(claim);
        }
        if !rows.is_empty() {
            Failpoint::RefreshLeasing.reached();
            let claimed = self
                .execute(sql.claim, params![json(&rows), holder, self.now])
                .await?;
            if usize::try_from(claimed) != Ok(rows.len()) {
                return Err(StoreError::Inconsistent {
                    table: "refresh_leases",
                });
            }
        }
        Ok(claims)
    }

    /// Honours the lease for longer; `false` if it is its holder's no more.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn renew_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        life: Duration,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE refresh_leases SET expires_at = $4
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3 AND intent IS NOT NULL AND expires_at > 0",
                params![org, grant, fence, self.now + life.min(LONGEST_LEASE)],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Gives the lease back after a failure: nobody asks before `not_before`. With `in_doubt`, the question stays
    /// unanswered: whoever claims the lease next is told. `false` if it was claimed by another meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn fail_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        in_doubt: bool,
        not_before: Time,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE refresh_leases SET expires_at = 0, failures = failures + 1, not_before = $4,
                   intent = CASE WHEN CAST($5 AS BIGINT) = 1 THEN intent END,
                   intent_at = CASE WHEN CAST($5 AS BIGINT) = 1 THEN intent_at END
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
                params![org, grant, fence, not_before, in_doubt],
            )
            .await?;
        Ok(changed == 1)
    }

    /// How often in a row the provider gave nothing before this lease; `None` if it was claimed by another meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn refresh_failures(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
    ) -> Result<Option<u64>, StoreError> {
        let row = self
            .row(
                "SELECT failures FROM refresh_leases WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
                params![org, grant, fence],
            )
            .await?;
        row.map(|row| row.fields("refresh_leases").count()).transpose()
    }

    /// Gives the lease back with its question not asked. `in_doubt`: an earlier one still has no answer.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn give_back_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        in_doubt: bool,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET expires_at = 0, intent = CASE WHEN CAST($4 AS BIGINT) = 1 THEN intent END,
               intent_at = CASE WHEN CAST($4 AS BIGINT) = 1 THEN intent_at END
             WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
            params![org, grant, fence, in_doubt],
        )
        .await
        .map(drop)
    }

    /// Gives the lease back with its question answered; `false` if it was claimed by another meanwhile.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn release_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
    ) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                "UPDATE refresh_leases SET expires_at = 0, intent = NULL, intent_at = NULL, failures = 0, not_before = 0
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3",
                params![org, grant, fence],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Settles what a later holder of the lease has left behind, unless somebody holds it now: then `false`. Whoever held it
    /// until now does so no more. A pause stays: the provider asked that holder for it, and an earlier answer takes back nothing.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn settle_refresh(&mut self, org: OrgId, grant: GrantId) -> Result<bool, StoreError> {
        let changed = self
            .execute(
                concat!(
                    "UPDATE refresh_leases SET fence = fence + 1, intent = NULL, intent_at = NULL
                     WHERE org_id = $1 AND grant_id = $2 AND ",
                    is_over!("expires_at", "$3", "$4")
                ),
                params![org, grant, self.now, farthest(self.now, LONGEST_LEASE)],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Whether somebody is asking the provider.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn is_refresh_held(&mut self, org: OrgId, grant: GrantId) -> Result<bool, StoreError> {
        let row = self
            .row(
                "SELECT expires_at FROM refresh_leases WHERE org_id = $1 AND grant_id = $2",
                params![org, grant],
            )
            .await?;
        let Some(row) = row else { return Ok(false) };
        let held_until = row.fields("refresh_leases").time()?;
        Ok(is_on(held_until, self.now, LONGEST_LEASE))
    }

    /// Whether it is not known what was answered to what was asked last.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn is_refresh_in_doubt(&mut self, org: OrgId, grant: GrantId) -> Result<bool, StoreError> {
        let row = self
            .row(
                "SELECT fence FROM refresh_leases WHERE org_id = $1 AND grant_id = $2 AND intent IS NOT NULL",
                params![org, grant],
            )
            .await?;
        Ok(row.is_some())
    }

    /// Drops a doubt that makes no difference any more, unless somebody is asking right now.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn forget_refresh(&mut self, org: OrgId, grant: GrantId) -> Result<(), StoreError> {
        self.execute(
            concat!(
                "UPDATE refresh_leases SET intent = NULL, intent_at = NULL WHERE org_id = $1 AND grant_id = $2 AND ",
                is_over!("expires_at", "$3", "$4")
            ),
            params![org, grant, self.now, farthest(self.now, LONGEST_LEASE)],
        )
        .await
        .map(drop)
    }

    /// Voids every lease: each was held by an earlier process that is known to be dead. Their intents stay.
    pub(super) async fn void_refreshes(&mut self) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET expires_at = 0 WHERE expires_at > 0",
            params![],
        )
        .await
        .map(drop)
    }
}

impl Tx {
    /// The question of a lease that has ended without being given back: its fence, when the provider was asked, and when the
    /// lease ended. Its holder may be dead, or have the answer and no database.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn refresh_left(
        &mut self,
        org: OrgId,
        grant: GrantId,
    ) -> Result<Option<(i64, Time, Time)>, StoreError> {
        let row = self
            .row(
                concat!(
                    "SELECT fence, intent_at, expires_at FROM refresh_leases
                     WHERE org_id = $1 AND grant_id = $2 AND intent IS NOT NULL AND expires_at > 0 AND ",
                    is_over!("expires_at", "$3", "$4")
                ),
                params![org, grant, self.now, farthest(self.now, LONGEST_LEASE)],
            )
            .await?;
        row.map(|row| {
            let mut fields = row.fields("refresh_leases");
            Ok((fields.int()?, fields.time()?, fields.time()?))
        })
        .transpose()
    }

    /// Forgets everything about a grant's refreshes: it was connected anew, and has another refresh token. Whoever still asks
    /// with the one before has a fence of before.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn begin_refreshes_anew(&mut self, org: OrgId, grant: GrantId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET fence = fence + 1, expires_at = 0, intent = NULL, intent_at = NULL, failures = 0,
               not_before = 0 WHERE org_id = $1 AND grant_id = $2",
            params![org, grant],
        )
        .await
        .map(drop)
    }

    /// Gives such a lease back in its holder's stead: nobody asks before `not_before`. What the holder has is still entered
    /// under its fence.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn put_off_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        not_before: Time,
    ) -> Result<(), StoreError> {
        self.execute(
            concat!(
                "UPDATE refresh_leases SET expires_at = 0, not_before = $6
                 WHERE org_id = $1 AND grant_id = $2 AND fence = $3 AND intent IS NOT NULL AND expires_at > 0 AND ",
                is_over!("expires_at", "$4", "$5")
            ),
            params![
                org,
                grant,
                fence,
                self.now,
                farthest(self.now, LONGEST_LEASE),
                not_before
            ],
        )
        .await
        .map(drop)
    }

    /// Leaves a question open as it was before this lease: asked then, by somebody whose lease ended then.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn leave_refresh(
        &mut self,
        org: OrgId,
        grant: GrantId,
        fence: i64,
        asked: Time,
        ended: Time,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE refresh_leases SET intent_at = $4, expires_at = $5
             WHERE org_id = $1 AND grant_id = $2 AND fence = $3 AND intent IS NOT NULL",
            params![org, grant, fence, asked, ended],
        )
        .await
        .map(drop)
    }
}
