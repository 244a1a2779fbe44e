//! The guard (the org's epoch) and the audit entries that commit with every change.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crypto::{
        SealedSecret,
        entry_bytes::{self, Stamp},
    },
    domain::{
        AgentId, EntryId, OrgId, UserId,
        connector::ConnectorId,
        entry::{Entry, EntryDraft, EntryType, Epoch},
    },
};

use super::{
    Selector, StoreError,
    outside::Fact,
    sql::{Fields, Kind, Row, Tx, Value, json, params},
};

/// An entry about to be written: everything but its place.
#[derive(Debug)]
pub struct NewEntry {
    /// Its id, made beforehand: the sealed details are bound to it.
    pub id: EntryId,
    /// What it is about.
    pub kind: EntryType,
    /// What it says.
    pub draft: EntryDraft,
    /// Salt, args and display names, sealed under the org's key (kind `entry`, row = `id`, generation 0).
    pub sealed: Option<SealedSecret>,
}

/// An entry as stored.
#[derive(Debug)]
pub struct EntryRow {
    /// The canonical JSON that was hashed.
    pub bytes: String,
    /// What was sealed beside it.
    pub sealed: Option<SealedSecret>,
    /// Its place in the org's log, once it has one; read for one entry alone, never for a list.
    pub log_index: Option<u64>,
}

/// Which entries to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    /// Older than this entry.
    pub after: Option<EntryId>,
    /// About this person.
    pub user: Option<UserId>,
    /// By this agent.
    pub agent: Option<AgentId>,
    /// `true`: by an agent; `false`: by a human.
    pub by_agent: Option<bool>,
    /// At this connector.
    pub connector: Option<ConnectorId>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// Among so many made last; `None`: among all, however long it takes to look through them.
    pub among: Option<u64>,
    /// At most so many.
    pub limit: u64,
}

impl Tx {
    /// The org's epoch; `None` if there is no such org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn epoch(&mut self, org: OrgId) -> Result<Option<Epoch>, StoreError> {
        let row = self
            .row(
                "SELECT incarnation, counter FROM epochs WHERE org_id = $1",
                params![org],
            )
            .await?;
        row.map(|row| read_epoch(&mut row.fields("epochs"))).transpose()
    }

    /// Takes the guard exclusively and moves the epoch on: for every change that can turn an allow into a deny.
    /// `loser` covers everything that may have lost something by it: outside the database that is remembered, so that
    /// an older database put back cannot give it back.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such org; [`StoreError::Lost`] if the epoch is known to have been there
    /// already.
    pub async fn advance_epoch(&mut self, org: OrgId, loser: &Selector) -> Result<Epoch, StoreError> {
        self.connection.queue_for_guard(org).await?;
        // INVARIANT: a revocation is the first entry of its epoch, so a writer's start belongs to the one before.
        self.start(org).await?;
        self.change(
            "epochs",
            "UPDATE epochs SET counter = counter + 1 WHERE org_id = $1",
            params![org],
        )
        .await?;
        let epoch = self
            .epoch(org)
            .await?
            .ok_or(StoreError::Inconsistent { table: "epochs" })?;
        self.expect_new_epoch(org, epoch)?;
        let (kind, id) = loser.floor();
        let kind = kind.to_owned();
        self.tell_outside(org, epoch, Fact::Moved { kind, id });
        Ok(epoch)
    }

    /// Begins another incarnation of the org's epoch, behind every counter anybody has heard of: for recovery.
    ///
    /// # Errors
    /// When the database is unavailable or there is no such org.
    pub async fn begin_incarnation(&mut self, org: OrgId, epoch: Epoch) -> Result<(), StoreError> {
        self.change(
            "epochs",
            "UPDATE epochs SET incarnation = $2, counter = $3 WHERE org_id = $1 AND counter < $3",
            params![org, i64::from(epoch.incarnation), epoch.counter],
        )
        .await?;
        self.tell_outside(org, epoch, Fact::Recovered);
        Ok(())
    }

    /// Writes an entry as the last statement but the commit: its number in the writer's chain has no gaps.
    ///
    /// # Errors
    /// When the database is unavailable; then nothing may be committed.
    pub async fn append_entry(&mut self, org: OrgId, new: NewEntry) -> Result<EntryId, StoreError> {
        self.append_entries(&[(org, &new)]).await?;
        Ok(new.id)
    }

    /// Writes entries of several orgs, each behind this writer's start where it has not begun: in few statements, the last
    /// before the commit.
    ///
    /// # Errors
    /// When the database is unavailable; then nothing may be committed.
    pub(super) async fn append_entries(&mut self, entries: &[(OrgId, &NewEntry)]) -> Result<(), StoreError> {
        let orgs: BTreeSet<OrgId> = entries.iter().map(|(org, _)| *org).collect();
        let sql = self.connection.batch_sql().chains;
        let mut chains = BTreeMap::new();
        for row in self.rows(sql, params![json(&orgs), &self.writer]).await? {
            let mut fields = row.fields("writers");
            let org = fields.parse()?;
            let epoch = read_epoch(&mut fields)?;
            chains.insert(org, Chain::read(self, org, epoch, &mut fields)?);
        }
        let mut rows = Vec::with_capacity(entries.len());
        for (org, entry) in entries {
            let chain = chains
                .get_mut(org)
                .ok_or(StoreError::Inconsistent { table: "epochs" })?;
            chain.add_behind_start(self, entry, &mut rows)?;
        }
        self.insert_entries(rows, chains.into_values().collect()).await
    }

    /// Writes this writer's start in the org, if it has not begun there.
    async fn start(&mut self, org: OrgId) -> Result<(), StoreError> {
        match self.start_in(org)? {
            Some(started) => self.append_entries(&[(org, &started)]).await,
            None => Ok(()),
        }
    }

    /// Inserts rows of [`COLUMNS`], and moves these chains on.
    pub(super) async fn insert_entries(
        &mut self,
        rows: Vec<Vec<Value>>,
        chains: Vec<Chain>,
    ) -> Result<(), StoreError> {
        self.connection
            .insert_entries(rows, &self.writer, &chains)
            .await?;
        for chain in &chains {
            self.numbered(chain);
        }
        Ok(())
    }

    /// One entry of the org.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn entry(&mut self, org: OrgId, id: EntryId) -> Result<Option<EntryRow>, StoreError> {
        let row = self
            .row(
                "SELECT e.bytes, e.odk, e.sealed, e.wrapped_dek, l.log_index FROM entries e
                 LEFT JOIN leaves l ON l.org_id = e.org_id AND l.entry_id = e.id
                 WHERE e.org_id = $1 AND e.id = $2",
                params![org, id],
            )
            .await?;
        row.map(read_entry).transpose()
    }

    /// Whether the org has this entry.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn has_entry(&mut self, org: OrgId, id: EntryId) -> Result<bool, StoreError> {
        let row = self
            .row(
                "SELECT 1 FROM entries WHERE org_id = $1 AND id = $2",
                params![org, id],
            )
            .await?;
        Ok(row.is_some())
    }

    /// An entry of the org's epoch among those made last, with its counter. Ids are in the order of the replicas' clocks, which
    /// are not quite the same: one that is behind moves the epoch on under an id that lies before many of the epoch before.
    /// `None` if it has none among the 100,000 made last: the search is bounded, for there is no index over epochs.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn last_entry(&mut self, org: OrgId) -> Result<Option<(i64, EntryId)>, StoreError> {
        let row = self
            .row(
                "SELECT epoch, id FROM (
                   SELECT epoch, id FROM entries WHERE org_id = $1 ORDER BY id DESC LIMIT 100000
                 ) AS made_last WHERE epoch = (SELECT counter FROM epochs WHERE org_id = $1) LIMIT 1",
                params![org],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut fields = row.fields("entries");
        Ok(Some((fields.int()?, fields.parse()?)))
    }

    /// The entries with which an incarnation of the org's epoch began, in their order: of a recovery or a copy.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn incarnations(&mut self, org: OrgId) -> Result<Vec<Entry>, StoreError> {
        let rows = self.rows(INCARNATIONS, params![org]).await?;
        rows.into_iter().map(|row| row.fields("entries").json()).collect()
    }

    /// What ended at this epoch.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn ended_at(&mut self, org: OrgId, counter: i64) -> Result<Vec<Selector>, StoreError> {
        let rows = self
            .rows(
                "SELECT selector FROM revocations WHERE org_id = $1 AND epoch = $2",
                params![org, counter],
            )
            .await?;
        rows.into_iter()
            .map(|row| row.fields("revocations").json())
            .collect()
    }

    /// The entries that belong to another one (an outcome to its release).
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn entries_about(
        &mut self,
        org: OrgId,
        correlation: &str,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let rows = self.rows(ABOUT, params![org, correlation]).await?;
        rows.into_iter().map(read_entry).collect()
    }

    /// Entries of the org, the one made last first: in the order of their ids, which are found without looking through the
    /// rest.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn entries(&mut self, org: OrgId, filter: &EntryFilter) -> Result<Vec<EntryRow>, StoreError> {
        let mut params = params![
            org,
            filter.after,
            filter.user,
            filter.agent,
            filter.by_agent,
            filter.connector.as_ref().map(ConnectorId::as_str),
            filter.outcome.as_deref(),
            filter.limit
        ];
        let rows = match filter.among {
            None => self.rows(LISTED, params).await?,
            Some(among) => {
                params.extend(params![among]);
                self.rows(LISTED_AMONG, params).await?
            }
        };
        rows.into_iter().map(read_entry).collect()
    }
}

/// A writer's chain in an org: where it ends, and of which epoch its next entries are.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) org: OrgId,
    pub(super) seq: u64,
    pub(super) hash: [u8; 32],
    pub(super) epoch: Epoch,
    /// The last entry that was added here.
    pub(super) last: Option<EntryId>,
}

impl Chain {
    /// Reads where it ends, number and hash; both are NULL where the writer has written nothing yet.
    pub(super) fn read(tx: &Tx, org: OrgId, epoch: Epoch, fields: &mut Fields) -> Result<Self, StoreError> {
        let seq = u64::try_from(fields.opt_int()?.unwrap_or(0)).map_err(|_| fields.bad())?;
        let hash = fields.opt_hash()?.unwrap_or(entry_bytes::FIRST_PREV);
        tx.expect_epoch(org, epoch)?;
        tx.expect_number(org, seq)?;
        Ok(Self {
            org,
            seq,
            hash,
            epoch,
            last: None,
        })
    }

    /// Adds an entry to the chain and to `rows`; before it the writer's start, if it has not begun in the org.
    pub(super) fn add_behind_start(
        &mut self,
        tx: &mut Tx,
        entry: &NewEntry,
        rows: &mut Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        let started = tx.start_in(self.org)?;
        for entry in started.iter().chain([entry]) {
            rows.push(self.add(tx, entry)?);
        }
        Ok(())
    }

    /// Adds an entry; as the values of [`COLUMNS`].
    fn add(&mut self, tx: &Tx, new: &NewEntry) -> Result<Vec<Value>, StoreError> {
        self.seq += 1;
        let (org, epoch, draft) = (self.org, self.epoch, &new.draft);
        let stamp = Stamp {
            id: new.id,
            org,
            epoch,
            ts: tx.now,
            writer: &tx.writer,
            writer_seq: self.seq,
            prev: self.hash,
        };
        let encoded = entry_bytes::finish(new.kind, draft.clone(), stamp).map_err(StoreError::Entry)?;
        let bytes =
            String::from_utf8(encoded.bytes).map_err(|_| StoreError::Inconsistent { table: "entries" })?;
        self.hash = encoded.hash;
        self.last = Some(new.id);
        Ok(params![
            org,
            new.id,
            epoch.counter,
            tx.now,
            &tx.writer,
            self.seq,
            new.kind.as_str(),
            draft.user,
            draft.agent,
            draft.connector.as_ref().map(ConnectorId::as_str),
            draft.outcome.as_deref(),
            draft.mode.map(crate::domain::Mode::as_str),
            draft.correlation.as_deref(),
            bytes,
            new.sealed.as_ref().map(|sealed| sealed.odk),
            new.sealed.as_ref().map(|sealed| sealed.sealed.as_slice()),
            new.sealed.as_ref().map(|sealed| sealed.wrapped_dek.as_slice()),
        ])
    }
}

pub(super) const INCARNATIONS: &str = "SELECT bytes FROM entries
     WHERE org_id = $1 AND kind = 'admin' AND outcome IN ('recovered', 'copied') ORDER BY epoch";

macro_rules! listed {
    ($entries:literal) => {
        concat!(
            "SELECT bytes, odk, sealed, wrapped_dek, NULL FROM ",
            $entries,
            " WHERE org_id = $1 AND id < coalesce(CAST($2 AS TEXT), 'f')
               AND (CAST($3 AS TEXT) IS NULL OR user_id = $3)
               AND (CAST($4 AS TEXT) IS NULL OR agent_id = $4)
               AND (CAST($5 AS BIGINT) IS NULL OR CASE WHEN agent_id IS NULL THEN 0 ELSE 1 END = $5)
               AND (CAST($6 AS TEXT) IS NULL OR connector = $6)
               AND (CAST($7 AS TEXT) IS NULL OR outcome = $7)
             ORDER BY id DESC LIMIT $8"
        )
    };
}

/// Every id of an entry begins with `ent_`, and so comes before `f`.
pub(super) const LISTED: &str = listed!("entries");
pub(super) const LISTED_AMONG: &str = listed!(
    "(SELECT * FROM entries WHERE org_id = $1 AND id < coalesce(CAST($2 AS TEXT), 'f') ORDER BY id DESC LIMIT $9) AS made_last"
);

pub(super) const ABOUT: &str = "SELECT bytes, odk, sealed, wrapped_dek, NULL FROM entries
     WHERE org_id = $1 AND correlation = $2 ORDER BY ts, id LIMIT 50";

/// What the row of an entry is made of.
pub(super) const COLUMNS: [(&str, Kind); 17] = [
    ("org_id", Kind::Text),
    ("id", Kind::Text),
    ("epoch", Kind::Int),
    ("ts", Kind::Int),
    ("writer", Kind::Text),
    ("writer_seq", Kind::Int),
    ("kind", Kind::Text),
    ("user_id", Kind::Text),
    ("agent_id", Kind::Text),
    ("connector", Kind::Text),
    ("outcome", Kind::Text),
    ("mode", Kind::Text),
    ("correlation", Kind::Text),
    ("bytes", Kind::Text),
    ("odk", Kind::Text),
    ("sealed", Kind::Blob),
    ("wrapped_dek", Kind::Blob),
];

pub(super) fn read_epoch(fields: &mut Fields) -> Result<Epoch, StoreError> {
    let incarnation = u32::try_from(fields.int()?).map_err(|_| fields.bad())?;
    Ok(Epoch {
        incarnation,
        counter: fields.int()?,
    })
}

fn read_entry(row: Row) -> Result<EntryRow, StoreError> {
    let mut fields = row.fields("entries");
    Ok(EntryRow {
        bytes: fields.text()?,
        sealed: read_sealed(&mut fields)?,
        log_index: fields.opt_int()?.and_then(|index| u64::try_from(index).ok()),
    })
}

/// Reads the three columns odk, sealed, wrapped_dek, all present or all absent.
pub(super) fn read_sealed(fields: &mut Fields) -> Result<Option<SealedSecret>, StoreError> {
    match (fields.opt_parse()?, fields.opt_blob()?, fields.opt_blob()?) {
        (Some(odk), Some(sealed), Some(wrapped_dek)) => Ok(Some(SealedSecret {
            odk,
            sealed,
            wrapped_dek,
        })),
        (None, None, None) => Ok(None),
        _ => Err(fields.bad()),
    }
}
