//! The rows: counted, then copied in batches, org by org, table by table, in the order of keys.

use sqlx::AssertSqlSafe;

use super::{
    CopyError, Copying, Progress, TableCount, Told, Which,
    mark::{COPY, Mark, Part, Place, State},
    schema::Table,
    side::{Scope, Side, set_mark},
    verify,
};
use crate::{
    failpoints::Failpoint,
    store::{
        engine::Engine,
        sql::{Value, params},
    },
};

impl Copying {
    /// Copies what is not copied yet.
    pub(super) async fn rows(&self, mark: &mut Mark, told: Told<'_>) -> Result<(), CopyError> {
        let of = self.counts.iter().map(|count| count.rows).sum();
        for scope in &self.scopes {
            if is_behind(mark, *scope) {
                continue;
            }
            let mut source = self.from.read(*scope).await?;
            for table in self.tables.iter().filter(|table| scope.has(table)) {
                loop {
                    let behind = match self.next(mark, *scope, table)? {
                        Next::Beginning => None,
                        Next::Behind(key) => Some(key),
                        Next::Done => break,
                    };
                    let batch = self
                        .from
                        .batch(&mut source, table, *scope, behind.as_deref())
                        .await?;
                    if batch.is_empty() && !(behind.is_none() && table.is_kept_by_triggers()) {
                        break;
                    }
                    self.write(mark, *scope, table, behind.is_none(), batch).await?;
                    Failpoint::CopyBatch.reached();
                    told(&progress("copying", table, mark, of));
                }
            }
        }
        Ok(())
    }

    /// Where a table goes on here.
    fn next(&self, mark: &Mark, scope: Scope, table: &Table) -> Result<Next, CopyError> {
        let State::Copying { at: Some(at), .. } = &mark.state else {
            return Ok(Next::Beginning);
        };
        let place = |name: &str| self.tables.iter().position(|table| table.name == name);
        if at.scope != scope.text() || place(&at.table) < place(&table.name) {
            return Ok(Next::Beginning);
        }
        if place(&at.table) > place(&table.name) || at.key.is_empty() {
            return Ok(Next::Done);
        }
        Part::values(&at.key)
            .map(Next::Behind)
            .ok_or(CopyError::NotThisCopy)
    }

    async fn write(
        &self,
        mark: &mut Mark,
        scope: Scope,
        table: &Table,
        first: bool,
        batch: Vec<Vec<Value>>,
    ) -> Result<(), CopyError> {
        let key = batch.last().map(|row| table.key_of(row)).unwrap_or_default();
        if let State::Copying { rows, at } = &mut mark.state {
            *rows += batch.len() as u64;
            *at = Some(Place {
                scope: scope.text(),
                table: table.name.clone(),
                key: Part::of(&key),
            });
        }
        let nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
        if let Some(row) = batch.iter().find(|row| row.iter().any(nul))
            && matches!(*self.to.engine, Engine::Postgres(_))
        {
            let key = verify::key_text(scope, &table.key_of(row));
            let table = table.name.clone();
            return Err(CopyError::Nul { table, key });
        }
        let mut connection = self.to.write(scope).await?;
        let written = async {
            if first && table.is_kept_by_triggers() {
                let sql = format!("DELETE FROM {} WHERE org_id = $1", table.name);
                connection
                    .execute(AssertSqlSafe(sql), params![scope.text()])
                    .await?;
            }
            if !batch.is_empty() {
                let sql = table.insert(&self.to.engine, batch.len());
                let values = batch.into_iter().flatten().collect();
                connection.execute(AssertSqlSafe(sql), values).await?;
            }
            set_mark(&mut connection, COPY, &mark.text()?).await?;
            connection.commit().await
        };
        written.await.map_err(|error| Which::Target.failed(error))
    }
}

/// Where the copying of a table goes on.
enum Next {
    Beginning,
    /// Behind the row with this key.
    Behind(Vec<Value>),
    /// Nowhere: all of it is copied.
    Done,
}

/// Whether everything of a scope is copied.
fn is_behind(mark: &Mark, scope: Scope) -> bool {
    match &mark.state {
        State::Copying { at: Some(at), .. } => scope.text() < at.scope,
        _ => false,
    }
}

fn progress(step: &'static str, table: &Table, mark: &Mark, of: u64) -> Progress {
    let rows = match &mark.state {
        State::Copying { rows, .. } => *rows,
        State::Finishing { .. } | State::Complete { .. } => of,
    };
    Progress {
        step,
        table: table.name.clone(),
        rows,
        of,
    }
}

/// How many rows there are, table by table; every one of them belongs to somebody.
pub(super) async fn count(
    from: &Side,
    tables: &[Table],
    scopes: &[Scope],
) -> Result<Vec<TableCount>, CopyError> {
    if scopes.len() < 2 {
        return Err(CopyError::Empty);
    }
    let mut counts: Vec<TableCount> = tables
        .iter()
        .map(|table| TableCount {
            table: table.name.clone(),
            rows: 0,
        })
        .collect();
    for scope in scopes {
        let mut source = from.read(*scope).await?;
        for (table, count) in tables.iter().zip(&mut counts) {
            if scope.has(table) {
                count.rows += from.count(&mut source, table, *scope).await?;
            }
        }
    }
    for (table, count) in tables.iter().zip(&counts) {
        match from.count_all(table).await? {
            Some(all) if all != count.rows => {
                return Err(CopyError::Orphans {
                    table: table.name.clone(),
                    rows: all.saturating_sub(count.rows),
                });
            }
            _ => {}
        }
    }
    Ok(counts)
}
