//! The gate's batch as plain rows: many releases and refusals, one transaction, one commit.
//!
//! This room knows no proof types; `release` decides what may be asked and what an answer allows.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use serde::Serialize;

use crate::{
    domain::{EntryId, GrantId, OrgId, Time, entry::Epoch},
    failpoints::Failpoint,
};

use super::{
    IdempotencyRecord, NewEntry, SecretKind, SecretRow, Store, StoreError,
    batch_sql::BatchSql,
    entries::Chain,
    grants::read_opt_secret,
    sql::{Tx, Value, json, params},
    vigil::OtherWriter,
};

/// A decision to be spent: once per (org, issuer, id).
#[derive(Debug, Clone)]
pub struct Spend {
    /// RFC 7519 `iss`.
    pub iss: String,
    /// RFC 7519 `jti`.
    pub jti: String,
    /// The row outlives the decision's `exp` by 24 h.
    pub keep_until: Time,
}

/// An idempotency key to be taken: once per (org, caller, route).
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The caller.
    pub principal: String,
    /// The route.
    pub route: &'static str,
    /// The caller's key.
    pub key: String,
    /// Of the body.
    pub digest: String,
    /// How the call has ended already; `None`: it goes on after the commit.
    pub ended: Option<(u16, String)>,
    /// How long the key is remembered.
    pub keep_until: Time,
}

/// One request to the batch.
#[derive(Debug)]
pub struct GateItem {
    /// The tenant.
    pub org: OrgId,
    /// The epoch at which every fact was read; `None` for what only follows up a release and allows nothing.
    pub epoch: Option<Epoch>,
    /// The secret to be released with the commit: of which grant, which one, which generation.
    pub secret: Option<(GrantId, SecretKind, u64)>,
    /// The decision to be spent; none where the entry, which is there once at most, is all that can spend it.
    pub spend: Option<Spend>,
    /// The idempotency key to be taken.
    pub idempotency: Option<IdempotencyKey>,
    /// The entry that commits with it.
    pub entry: NewEntry,
}

/// What became of one request. Only `Committed` wrote anything.
#[derive(Debug)]
pub enum GateAnswer {
    /// Somebody is changing the org this moment: ask again apart from the batch, where waiting holds up nobody else.
    Waits,
    /// Everything asked for is durable.
    Committed {
        /// The database's time.
        at: Time,
        /// The sealed secret asked for.
        secret: Option<SecretRow>,
    },
    /// The org is sealed: no secret of it is read.
    Sealed,
    /// The org moved on since the facts were read, or the idempotency key was held by one of the batch that gave it back:
    /// to be judged anew.
    Stale,
    /// The grant is not active any more, or its secret has another generation.
    GrantChanged,
    /// The decision was spent by this entry.
    Spent(EntryId),
    /// The idempotency key was taken by another call.
    Taken(IdempotencyRecord),
}

/// How a batch ends: measurement builds can leave the commit out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Commit, always, outside of measurements.
    Commit,
    /// Roll back and answer as if committed: for `benches` only.
    #[cfg(feature = "bench")]
    LeaveOut,
}

impl Store {
    /// Runs a batch in one transaction; the answers stand in the order of the items.
    ///
    /// # Errors
    /// When the database is unavailable: then nothing of the batch was written. After [`StoreError::Undecided`] all of it may
    /// have been; nobody may release anything on it.
    pub(crate) async fn run_gate(
        &self,
        items: &[GateItem],
        durability: Durability,
    ) -> Result<Vec<GateAnswer>, StoreError> {
        let orgs: BTreeSet<OrgId> = items.iter().map(|item| item.org).collect();
        let orgs: Vec<OrgId> = orgs.into_iter().collect();
        let other = self.cold_writer(&orgs);
        let tx = self.begin_gate(&orgs).await?;
        let batch = Batch::new(self, items, tx.connection.batch_sql(), Patience::None, other);
        batch.run(tx, &orgs, durability).await
    }

    /// Runs requests of one org apart from the lane, waiting for whoever is changing the org.
    ///
    /// # Errors
    /// As [`Store::run_gate`].
    pub(crate) async fn run_gate_apart(
        &self,
        org: OrgId,
        items: &[GateItem],
        durability: Durability,
    ) -> Result<Vec<GateAnswer>, StoreError> {
        let other = self.hot_writer(&[org]);
        let tx = self.write(org).await?;
        let batch = Batch::new(self, items, tx.connection.batch_sql(), Patience::Waits, other);
        batch.run(tx, &[org], durability).await
    }
}

/// Whether a batch waits for a change of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It has other orgs to serve.
    None,
    /// It is about this org only.
    Waits,
}

/// The items still in the running are those without an answer.
struct Batch<'a> {
    items: &'a [GateItem],
    answers: Vec<Option<GateAnswer>>,
    sql: &'static BatchSql,
    patience: Patience,
    /// What is spent in the lane may have been spent apart from it, and the other way round.
    other: OtherWriter,
}

/// What the requests stand on, read under the guard.
#[derive(Default)]
struct Standing {
    /// This writer's chain in each org.
    chains: HashMap<OrgId, Chain>,
    /// The sealed secrets, by the entry that is to release them.
    secrets: HashMap<EntryId, SecretRow>,
    /// Whether a last use was written.
    #[cfg(feature = "bench")]
    touched: bool,
}

impl<'a> Batch<'a> {
    fn new(
        store: &Store,
        items: &'a [GateItem],
        sql: &'static BatchSql,
        patience: Patience,
        other: OtherWriter,
    ) -> Self {
        let mut batch = Self {
            answers: items.iter().map(|_| None).collect(),
            items,
            sql,
            patience,
            other,
        };
        batch.settle(|item| {
            (item.secret.is_some() && store.is_sealed(item.org)).then_some(GateAnswer::Sealed)
        });
        if matches!(batch.patience, Patience::None) {
            // What is entered of one that has to be compared first waits for that by itself.
            batch.settle(|item| store.is_unsettled(item.org).then_some(GateAnswer::Waits));
        }
        batch
    }

    async fn run(
        mut self,
        mut tx: Tx,
        orgs: &[OrgId],
        durability: Durability,
    ) -> Result<Vec<GateAnswer>, StoreError> {
        let batch = &mut self;
        let epochs = batch.guard(&mut tx, orgs).await?;
        let mut standing = batch.standing(&mut tx, &epochs).await?;
        batch.take_idempotency(&mut tx).await?;
        batch.spend(&mut tx).await?;
        let answers = self.append(&mut tx, &mut standing).await?;
        Failpoint::GateWritten.reached();
        match durability {
            Durability::Commit => tx.commit().await?,
            // A last use that is rolled back would be written by every batch, and once a minute where it is kept.
            #[cfg(feature = "bench")]
            Durability::LeaveOut if standing.touched => tx.commit().await?,
            #[cfg(feature = "bench")]
            Durability::LeaveOut => tx.rollback().await?,
        }
        Ok(answers)
    }

    /// 1. The guard: items whose epoch is not the org's any more are out.
    ///
    /// INVARIANT: the guard is locked by a statement of its own; everything else is read by later ones, or a new epoch
    /// could come with old rows.
    async fn guard(&mut self, tx: &mut Tx, orgs: &[OrgId]) -> Result<HashMap<OrgId, Epoch>, StoreError> {
        let guard = match self.patience {
            Patience::None => self.sql.guard,
            Patience::Waits => self.sql.patient_guard,
        };
        let epochs = tx.lock_guards(guard, orgs).await?;
        let waits = self.patience == Patience::None;
        self.settle(|item| match epochs.get(&item.org) {
            None if waits => Some(GateAnswer::Waits),
            None => Some(GateAnswer::Stale),
            Some(epoch) if item.epoch.is_some_and(|read_at| read_at != *epoch) => Some(GateAnswer::Stale),
            Some(_) => None,
        });
        Ok(epochs)
    }

    /// 2. The grant is active and the secret of the generation read; 5. read the sealed secret.
    ///
    /// With them come the ends of the chains that the entries go on from.
    async fn standing(
        &mut self,
        tx: &mut Tx,
        epochs: &HashMap<OrgId, Epoch>,
    ) -> Result<Standing, StoreError> {
        #[derive(Serialize)]
        struct Ask(OrgId, EntryId, Option<GrantId>, Option<String>, Option<u64>);

        let asks: Vec<Ask> = self
            .running()
            .map(|item| match &item.secret {
                Some((grant, kind, generation)) => Ask(
                    item.org,
                    item.entry.id,
                    Some(*grant),
                    Some(kind.to_string()),
                    Some(*generation),
                ),
                None => Ask(item.org, item.entry.id, None, None, None),
            })
            .collect();
        let mut standing = Standing::default();
        if asks.is_empty() {
            return Ok(standing);
        }
        let orgs: HashMap<EntryId, OrgId> = asks.iter().map(|ask| (ask.1, ask.0)).collect();
        let mut idle = HashSet::new();
        let params = params![json(&asks), &tx.writer, &self.other.name];
        for row in tx.rows(self.sql.standing, params).await? {
            let mut fields = row.fields("writers");
            let entry = fields.parse()?;
            let org = *orgs.get(&entry).ok_or_else(|| fields.bad())?;
            let epoch = *epochs.get(&org).ok_or_else(|| fields.bad())?;
            let chain = Chain::read(tx, org, epoch, &mut fields)?;
            self.other.expect_number(org, fields.count()?)?;
            standing.chains.insert(org, chain);
            let last_used = fields.opt_time()?;
            if let Some(secret) = read_opt_secret(&mut fields)? {
                standing.secrets.insert(entry, secret);
                if last_used.is_none_or(|at| at + TOUCH_EVERY < tx.now()) {
                    idle.insert(entry);
                }
            }
        }
        self.settle(|item| {
            (item.secret.is_some() && !standing.secrets.contains_key(&item.entry.id))
                .then_some(GateAnswer::GrantChanged)
        });
        let idle: HashSet<(OrgId, GrantId)> = self
            .running()
            .filter(|item| idle.contains(&item.entry.id))
            .filter_map(|item| Some((item.org, item.secret.as_ref()?.0)))
            .collect();
        if !idle.is_empty() {
            tx.execute(self.sql.touch, vec![json(&idle), Value::from(tx.now())])
                .await?;
            #[cfg(feature = "bench")]
            {
                standing.touched = true;
            }
        }
        Ok(standing)
    }

    /// 3a. Idempotency keys: the winner is known by its entry id.
    async fn take_idempotency(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        #[derive(Serialize)]
        struct Ask<'a>(
            OrgId,
            &'a str,
            &'a str,
            &'a str,
            &'a str,
            EntryId,
            Option<u16>,
            Option<&'a str>,
            i64,
        );

        let asks: Vec<Ask<'_>> = self
            .running()
            .filter_map(|item| {
                let key = item.idempotency.as_ref()?;
                let (status, code) = key.ended.as_ref().map_or((None, None), |(status, code)| {
                    (Some(*status), Some(code.as_str()))
                });
                Some(Ask(
                    item.org,
                    &key.principal,
                    key.route,
                    &key.key,
                    &key.digest,
                    item.entry.id,
                    status,
                    code,
                    key.keep_until.unix_micros(),
                ))
            })
            .collect();
        if asks.is_empty() {
            return Ok(());
        }
        let asks = json(&asks);
        tx.execute(
            self.sql.take_idempotency,
            vec![asks.clone(), Value::from(tx.now())],
        )
        .await?;
        let mut lost = HashMap::new();
        for row in tx.rows(self.sql.idempotency_losers, vec![asks]).await? {
            let mut fields = row.fields("idempotency");
            let loser: EntryId = fields.parse()?;
            let record = IdempotencyRecord {
                digest: fields.text()?,
                entry: fields.parse()?,
                status: fields.opt_int()?.and_then(|status| u16::try_from(status).ok()),
                code: fields.opt_text()?,
            };
            lost.insert(loser, record);
        }
        self.settle(|item| lost.remove(&item.entry.id).map(GateAnswer::Taken));
        Ok(())
    }

    /// 3b. Decisions that somebody brought along: the winner is known by its entry id; a loser gives its idempotency key back.
    async fn spend(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        #[derive(Serialize)]
        struct Ask<'a>(OrgId, &'a str, &'a str, EntryId, i64);

        let asks: Vec<Ask<'_>> = self
            .running()
            .filter_map(|item| {
                let spend = item.spend.as_ref()?;
                Some(Ask(
                    item.org,
                    &spend.iss,
                    &spend.jti,
                    item.entry.id,
                    spend.keep_until.unix_micros(),
                ))
            })
            .collect();
        if asks.is_empty() {
            return Ok(());
        }
        let mut left: HashSet<EntryId> = asks.iter().map(|ask| ask.3).collect();
        let asks = json(&asks);
        for row in tx.rows(self.sql.spend, vec![asks.clone()]).await? {
            left.remove(&row.fields("spent").parse::<EntryId>()?);
        }
        if left.is_empty() {
            return Ok(());
        }
        let mut lost: HashMap<EntryId, EntryId> = HashMap::new();
        for row in tx.rows(self.sql.spend_losers, vec![asks]).await? {
            let mut fields = row.fields("spent");
            lost.insert(fields.parse()?, fields.parse()?);
        }
        if !lost.is_empty() {
            let losers: Vec<(OrgId, EntryId)> = self
                .running()
                .filter(|item| lost.contains_key(&item.entry.id))
                .map(|item| (item.org, item.entry.id))
                .collect();
            tx.execute(self.sql.give_back_idempotency, vec![json(&losers)])
                .await?;
            self.settle(|item| lost.get(&item.entry.id).copied().map(GateAnswer::Spent));
            // Whose key one of these held is told of no call that never was: the key is free for who asks again.
            for answer in &mut self.answers {
                if matches!(answer, Some(GateAnswer::Taken(record)) if lost.contains_key(&record.entry)) {
                    *answer = Some(GateAnswer::Stale);
                }
            }
        }
        Ok(())
    }

    /// 4. The entries: the last statement before the commit.
    async fn append(self, tx: &mut Tx, standing: &mut Standing) -> Result<Vec<GateAnswer>, StoreError> {
        let at = tx.now();
        let mut answers = Vec::with_capacity(self.items.len());
        let mut rows = Vec::with_capacity(self.items.len());
        let mut moved = BTreeSet::new();
        for (item, answer) in self.items.iter().zip(self.answers) {
            if let Some(answer) = answer {
                answers.push(answer);
                continue;
            }
            let chain = standing
                .chains
                .get_mut(&item.org)
                .ok_or(StoreError::Inconsistent { table: "epochs" })?;
            chain.add_behind_start(tx, &item.entry, &mut rows)?;
            moved.insert(item.org);
            let secret = standing.secrets.remove(&item.entry.id);
            answers.push(GateAnswer::Committed { at, secret });
        }
        if !rows.is_empty() {
            let moved = moved.iter().filter_map(|org| standing.chains.remove(org));
            tx.insert_entries(rows, moved.collect()).await?;
        }
        Ok(answers)
    }

    fn running(&self) -> impl Iterator<Item = &GateItem> {
        self.items
            .iter()
            .zip(&self.answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(item, _)| item)
    }

    /// Answers the items still running for which `answer` has one.
    fn settle(&mut self, mut answer: impl FnMut(&GateItem) -> Option<GateAnswer>) {
        for (item, slot) in self.items.iter().zip(&mut self.answers) {
            if slot.is_none() {
                *slot = answer(item);
            }
        }
    }
}

/// A grant's last use is written at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
