//! The lane of answers: what providers answered to refreshes is kept with one commit for many grants.
//!
//! Only as most of them are: the grant is active, nobody claimed its lease since, its generation is the one that was read.
//! Whatever else may have happened meanwhile is looked into one by one, by whoever handed the answer in.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    crypto::digest,
    domain::{GrantId, KeyId, OrgId, Time},
    failpoints::Failpoint,
};

use super::{
    Answered, NewEntry, SecretKind, SecretRow, Store, StoreError,
    lane::{Lane, Patience, Work},
    sql::{Tx, json, params},
};

/// An answer that is to be kept.
#[derive(Debug)]
pub struct KeepAsk {
    /// The sealed answer, always with an access token: a refresh token alone gives nobody what was asked for.
    pub answered: Arc<Answered>,
    /// When the grant is looked at again, by the clock of this process.
    pub renew_at: Time,
    /// The entry that tells of it.
    pub entry: NewEntry,
}

/// Where answers are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keeps(Lane<Keeping>);

impl Keeps {
    /// Starts the lane; it ends when nobody can hand anything in any more.
    #[must_use]
    pub fn start(store: Store) -> Self {
        Self(Lane::start(Keeping(store)))
    }

    /// Keeps one answer, together with whatever else waits; `false` if something has happened to the grant or its lease:
    /// then nothing was done.
    ///
    /// # Errors
    /// When the database is unavailable. It may have been kept all the same.
    pub async fn keep(&self, ask: KeepAsk) -> Result<bool, StoreError> {
        self.0.hand_in(ask).await
    }
}

#[derive(Debug)]
struct Keeping(Store);

impl Work for Keeping {
    type Ask = KeepAsk;
    type Answer = bool;

    fn org(ask: &KeepAsk) -> OrgId {
        ask.answered.org
    }

    async fn all(&self, asks: &[KeepAsk], patience: Patience) -> Result<Vec<bool>, StoreError> {
        let orgs = Self::orgs(asks);
        self.0
            .try_with(patience, || async {
                let mut tx = self.0.write_orgs_with(patience, &orgs).await?;
                Failpoint::RefreshKeeping.reached();
                let kept = tx.keep_answers(self.0.clock.now(), asks).await?;
                tx.commit().await?;
                Failpoint::RefreshKept.reached();
                Ok(kept)
            })
            .await
    }
}

impl Tx {
    /// Keeps the answers whose grants still stand as they were read; says which. `here` is the process's time.
    async fn keep_answers(&mut self, here: Time, asks: &[KeepAsk]) -> Result<Vec<bool>, StoreError> {
        #[derive(Serialize)]
        struct Asked(OrgId, GrantId, i64, u64);
        #[derive(Serialize)]
        struct Renewed(OrgId, GrantId, u64, i64, bool, Option<i64>);

        let sql = self.connection.refresh_sql();
        let asked: Vec<Asked> = asks
            .iter()
            .map(|ask| &*ask.answered)
            .map(|answered| Asked(answered.org, answered.grant, answered.fence, answered.generation))
            .collect();
        let mut stands = vec![false; asks.len()];
        // INVARIANT: compare-and-set on fence and generation, under the leases' locks: a claim is before this one, and then
        // the fence is another, or behind it, and sees what it kept. The orgs' other writers stand in line.
        for row in self.rows(sql.standing, vec![json(&asked)]).await? {
            let mut fields = row.fields("refresh_leases");
            let place = usize::try_from(fields.count()?).map_err(|_| fields.bad())?;
            *stands.get_mut(place).ok_or_else(|| fields.bad())? = true;
        }
        let kept: Vec<&KeepAsk> = asks
            .iter()
            .zip(&stands)
            .filter_map(|(ask, stands)| stands.then_some(ask))
            .collect();
        if kept.is_empty() {
            return Ok(stands);
        }
        Failpoint::RefreshStanding.reached();
        let leases: Vec<(OrgId, GrantId)> = kept
            .iter()
            .map(|ask| (ask.answered.org, ask.answered.grant))
            .collect();
        self.all(sql.release, vec![json(&leases)], leases.len(), "refresh_leases")
            .await?;
        Failpoint::RefreshEntering.reached();
        let there = self.now;
        let secrets: Vec<Secret> = kept
            .iter()
            .flat_map(|ask| secrets(&ask.answered, here, there))
            .collect();
        let count = secrets.len();
        self.all(sql.put_secrets, params![json(&secrets), there], count, "secrets")
            .await?;
        Failpoint::RefreshStored.reached();
        let grants: Vec<Renewed> = kept
            .iter()
            .map(|ask| {
                let answered = &*ask.answered;
                Renewed(
                    answered.org,
                    answered.grant,
                    answered.next_generation(),
                    restated(ask.renew_at, here, there).unix_micros(),
                    answered.access.is_some() && answered.kind == SecretKind::AccessToken,
                    answered.access.as_ref().and_then(|row| ends(row, here, there)),
                )
            })
            .collect();
        self.all(sql.renew, vec![json(&grants)], grants.len(), "grants")
            .await?;
        Failpoint::RefreshRenewed.reached();
        let entries: Vec<(OrgId, &NewEntry)> =
            kept.iter().map(|ask| (ask.answered.org, &ask.entry)).collect();
        self.append_entries(&entries).await?;
        Failpoint::RefreshRecorded.reached();
        Ok(stands)
    }

    /// Runs a statement that must change so many rows.
    async fn all(
        &mut self,
        sql: &'static str,
        params: Vec<super::sql::Value>,
        count: usize,
        table: &'static str,
    ) -> Result<(), StoreError> {
        if usize::try_from(self.execute(sql, params).await?) == Ok(count) {
            Ok(())
        } else {
            Err(StoreError::Inconsistent { table })
        }
    }
}

#[derive(Serialize)]
struct Secret(
    OrgId,
    GrantId,
    String,
    u64,
    KeyId,
    String,
    String,
    Option<String>,
    Option<i64>,
);

fn secrets(answered: &Answered, here: Time, there: Time) -> impl Iterator<Item = Secret> {
    let access = answered.access.as_ref().map(|row| (&answered.kind, row));
    let refresh = answered
        .refresh
        .as_ref()
        .map(|row| (&SecretKind::RefreshToken, row));
    access.into_iter().chain(refresh).map(move |(kind, row)| {
        Secret(
            answered.org,
            answered.grant,
            kind.to_string(),
            row.generation,
            row.sealed.odk,
            digest::hex(&row.sealed.sealed),
            digest::hex(&row.sealed.wrapped_dek),
            // As `put_secret` keeps them.
            row.scopes
                .as_ref()
                .and_then(|scopes| serde_json::to_string(scopes).ok()),
            ends(row, here, there),
        )
    })
}

fn ends(row: &SecretRow, here: Time, there: Time) -> Option<i64> {
    row.expires_at.map(|end| restated(end, here, there).unix_micros())
}

/// A moment of this process's clock as the database's clock has it: a replica whose clock is wrong tells no other how
/// long a token lives.
#[must_use]
pub fn restated(moment: Time, here: Time, there: Time) -> Time {
    moment + there.since(here) - here.since(there)
}
