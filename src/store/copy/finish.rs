//! Handing over: the source is closed, every org of the target begins a new epoch, the target is opened. In this order,
//! and each step once: a copy that is killed in between leaves two databases that do not start, and goes on when it is
//! run again.

use std::sync::Arc;

use super::{
    CopyError, Copying, Which,
    mark::{COPIED_TO, COPY, Mark, State},
    side::Scope,
    verify::TableReport,
};
use crate::{
    domain::{
        EntryId, OrgId,
        entry::{EntryDraft, EntryType, Epoch},
    },
    failpoints::Failpoint,
    store::{NewEntry, Replica, Store, StoreError, engine::Engine, sql::params, vigil, writers},
};

impl Copying {
    /// From a comparison that found no difference to a target that may be opened.
    pub(super) async fn finish(&mut self, mut mark: Mark) -> Result<Vec<TableReport>, CopyError> {
        let State::Finishing { after, tables } = &mark.state else {
            return Err(CopyError::NotThisCopy);
        };
        let (after, tables) = (after.clone(), tables.clone());
        self.from.let_go(COPIED_TO, &mark.id).await?;
        Failpoint::CopySourceClosed.reached();
        let store = self.store()?;
        for scope in &self.scopes {
            let Scope::Org(org) = *scope else { continue };
            if after.as_ref().is_some_and(|after| *after >= org.to_string()) {
                continue;
            }
            mark.state = State::Finishing {
                after: Some(org.to_string()),
                tables: tables.clone(),
            };
            self.begin_epoch(&store, org, &mark)
                .await
                .map_err(|error| Which::Target.failed(error))?;
            Failpoint::CopyEpochBegun.reached();
        }
        store.stop_writers().await;
        mark.state = State::Complete {
            tables: tables.clone(),
        };
        let text = mark.text().map_err(|error| Which::Target.failed(error))?;
        Failpoint::CopyOpening.reached();
        self.to.let_go(COPY, &text).await?;
        Ok(tables)
    }

    /// A new incarnation of the org's epoch, so that nothing that was decided over the source is fresh here, that a
    /// data directory which has seen the copy seals the source, and that the two can always be told apart; and an entry
    /// that says so.
    async fn begin_epoch(&self, store: &Store, org: OrgId, mark: &Mark) -> Result<(), StoreError> {
        let mut incarnation = [0_u8; 4];
        self.random
            .fill(&mut incarnation)
            .map_err(|_| StoreError::Randomness)?;
        let mut tx = store.write(org).await?;
        let epoch = tx
            .epoch(org)
            .await?
            .ok_or(StoreError::Inconsistent { table: "epochs" })?;
        let next = Epoch {
            incarnation: u32::from_be_bytes(incarnation),
            counter: epoch.counter + 1,
        };
        tx.begin_incarnation(org, next).await?;
        // Whoever held a lease over the source is gone. What it asked of a provider stays, to be asked again.
        tx.void_refreshes().await?;
        let entry = NewEntry {
            id: EntryId::new(tx.now(), &*self.random).map_err(|_| StoreError::Randomness)?,
            kind: EntryType::Admin,
            draft: EntryDraft {
                on_behalf: vec!["postern copy-database".to_owned()],
                outcome: Some("copied".to_owned()),
                reason: Some(format!(
                    "{}_to_{}",
                    kind_of(&self.from.engine),
                    kind_of(&store.engine)
                )),
                ..EntryDraft::default()
            },
            sealed: None,
        };
        tx.append_entry(org, entry).await?;
        tx.execute(
            "UPDATE meta SET value = $2 WHERE name = $1",
            params![COPY, mark.text()?],
        )
        .await?;
        tx.commit().await
    }

    /// The target as the service sees it, under the name the first process has. No other process can have it: the
    /// target is held and does not start.
    fn store(&self) -> Result<Store, CopyError> {
        let replica = Replica::new(&*self.random).map_err(|error| Which::Target.failed(error))?;
        Ok(Store {
            engine: Arc::clone(&self.to.engine),
            clock: Arc::clone(&self.to.clock),
            random: Arc::clone(&self.random),
            replica: Arc::new(replica),
            vigil: Arc::new(vigil::Vigil::default()),
            begun: Arc::new(writers::Begun::new(Arc::clone(&self.random))),
        })
    }
}

fn kind_of(engine: &Engine) -> &'static str {
    match engine {
        Engine::Sqlite(_) => "sqlite",
        Engine::Postgres(_) => "postgres",
    }
}
