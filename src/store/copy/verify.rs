//! Whether the copy is the source: both databases are read back side by side, in the order of their keys, and every
//! row is compared. Of each table and side one digest is made, so that two runs, or two people, can compare.

use serde::{Deserialize, Serialize};

use super::{
    CopyError, Copying, Progress, Told,
    schema::Table,
    side::{Scope, Side},
};
use crate::{crypto::digest, store::sql::Value};

/// A table, as it was read back from both databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// `sha256:…` over its name, its columns' names and every row in the order of orgs and keys; the same on both sides.
    pub digest: String,
}

/// A digest over rows: H(… H(H(heading) ‖ row 1) … ‖ row n).
struct Running([u8; 32]);

impl Running {
    fn new(table: &Table) -> Self {
        Self(digest::sha256(table.heading().as_bytes()))
    }

    fn add(&mut self, row: &[Value]) {
        let mut bytes = self.0.to_vec();
        for value in row {
            // Kind, length, value: no two rows are written the same.
            let (kind, value): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Int(int) => (1, &int.to_be_bytes()),
                Value::Text(text) => (2, text.as_bytes()),
                Value::Blob(blob) => (3, blob),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
            bytes.extend_from_slice(value);
        }
        self.0 = digest::sha256(&bytes);
    }

    fn text(&self) -> String {
        format!("sha256:{}", digest::hex(&self.0))
    }
}

impl Copying {
    /// Compares every row of both databases.
    pub(super) async fn compare(&self, told: Told<'_>) -> Result<Vec<TableReport>, CopyError> {
        let of = self.counts.iter().map(|count| count.rows).sum();
        let mut compared = 0;
        let mut reports = Vec::new();
        for table in &self.tables {
            let mut sums = (Running::new(table), Running::new(table));
            let before = compared;
            for scope in self.scopes.iter().filter(|scope| scope.has(table)) {
                self.compare_one(table, *scope, &mut sums, &mut |rows| {
                    compared += rows;
                    told(&Progress {
                        step: "comparing",
                        table: table.name.clone(),
                        rows: compared,
                        of,
                    });
                })
                .await?;
            }
            let rows = compared - before;
            let odd = |how| CopyError::Mismatch {
                table: table.name.clone(),
                key: "(all)".to_owned(),
                how,
            };
            if sums.0.0 != sums.1.0 {
                return Err(odd("digests differ though no row does"));
            }
            if self.to.count_all(table).await?.is_some_and(|all| all != rows) {
                return Err(odd("belong to an organisation the source does not have"));
            }
            reports.push(TableReport {
                table: table.name.clone(),
                rows,
                digest: sums.1.text(),
            });
        }
        if self.to.scopes().await? != self.scopes {
            return Err(CopyError::Mismatch {
                table: "epochs".to_owned(),
                key: "(all)".to_owned(),
                how: "belong to an organisation the source does not have",
            });
        }
        match self.to.broken_reference().await? {
            Some(table) => Err(CopyError::Mismatch {
                table,
                key: "(any)".to_owned(),
                how: "refers to a row that is not there",
            }),
            None => Ok(reports),
        }
    }

    async fn compare_one(
        &self,
        table: &Table,
        scope: Scope,
        sums: &mut (Running, Running),
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), CopyError> {
        let mut here = self.from.read(scope).await?;
        let mut there = self.to.read(scope).await?;
        let mut behind: Option<Vec<Value>> = None;
        loop {
            let ours = self
                .from
                .batch(&mut here, table, scope, behind.as_deref())
                .await?;
            let theirs = self.to.batch(&mut there, table, scope, behind.as_deref()).await?;
            if let Some(found) = first_difference(table, scope, &ours, &theirs) {
                return Err(found);
            }
            ours.iter().for_each(|row| sums.0.add(row));
            theirs.iter().for_each(|row| sums.1.add(row));
            let Some(last) = ours.last() else { return Ok(()) };
            told(ours.len() as u64);
            if table.is_single() {
                return Ok(());
            }
            behind = Some(table.key_of(last));
        }
    }
}

/// What the source is: a process of Postern that worked over it since would have changed this.
pub(super) async fn fingerprint(
    from: &Side,
    tables: &[Table],
    scopes: &[Scope],
) -> Result<String, CopyError> {
    let mut all = Vec::new();
    for table in tables
        .iter()
        .filter(|table| TELLING.contains(&table.name.as_str()))
    {
        let mut sum = Running::new(table);
        for scope in scopes.iter().filter(|scope| scope.has(table)) {
            let mut source = from.read(*scope).await?;
            let mut behind: Option<Vec<Value>> = None;
            loop {
                let rows = from.batch(&mut source, table, *scope, behind.as_deref()).await?;
                rows.iter().for_each(|row| sum.add(row));
                match rows.last() {
                    Some(last) if !table.is_single() => behind = Some(table.key_of(last)),
                    _ => break,
                }
            }
        }
        all.extend_from_slice(&sum.0);
    }
    Ok(digest::sha256_text(&all))
}

/// The first row, in the order of keys, that is not the same on both sides.
fn first_difference(
    table: &Table,
    scope: Scope,
    ours: &[Vec<Value>],
    theirs: &[Vec<Value>],
) -> Option<CopyError> {
    let length = ours.len().max(theirs.len());
    (0..length).find_map(|index| {
        let (key, how) = match (ours.get(index), theirs.get(index)) {
            (Some(ours), Some(theirs)) if ours == theirs => return None,
            (Some(ours), Some(theirs)) => {
                let (here, there) = (table.key_of(ours), table.key_of(theirs));
                match order(&here).cmp(&order(&there)) {
                    std::cmp::Ordering::Equal => (here, "is not the same in source and target"),
                    std::cmp::Ordering::Less => (here, "is missing in the target"),
                    std::cmp::Ordering::Greater => (there, "is in the target only"),
                }
            }
            (Some(ours), None) => (table.key_of(ours), "is missing in the target"),
            (None, Some(theirs)) => (table.key_of(theirs), "is in the target only"),
            (None, None) => return None,
        };
        Some(CopyError::Mismatch {
            table: table.name.clone(),
            key: key_text(scope, &key),
            how,
        })
    })
}

/// Keys in the order both databases keep them in: numbers by size, text and bytes by their bytes.
fn order(key: &[Value]) -> Vec<(i64, &[u8])> {
    key.iter()
        .map(|value| match value {
            Value::Null => (i64::MIN, &[][..]),
            Value::Int(int) => (*int, &[][..]),
            Value::Text(text) => (0, text.as_bytes()),
            Value::Blob(blob) => (0, blob.as_slice()),
        })
        .collect()
}

/// A row's key for people: its org and what else names it. Keys hold no secret; hashes of some are among them.
pub(super) fn key_text(scope: Scope, key: &[Value]) -> String {
    let of = match scope {
        Scope::Deployment => "deployment".to_owned(),
        Scope::Org(org) => org.to_string(),
    };
    let parts = key.iter().map(|value| match value {
        Value::Null => "null".to_owned(),
        Value::Int(int) => int.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(blob) => digest::hex(blob),
    });
    std::iter::once(of).chain(parts).collect::<Vec<_>>().join("/")
}

/// Tables that change whenever anything of consequence does: keys, epochs, how many entries there are.
const TELLING: [&str; 3] = ["instance_keys", "epochs", "writers"];
