//! Many entries in one statement.

use std::sync::LazyLock;

use super::{
    super::{
        StoreError,
        entries::{self, Chain},
        sql::{Kind, Value},
    },
    Connection,
};

impl Connection {
    /// Inserts entries, rows of [`entries::COLUMNS`], one array for each column, and moves the writer's chains on.
    pub(in super::super) async fn insert_entries(
        &mut self,
        rows: Vec<Vec<Value>>,
        writer: &str,
        chains: &[Chain],
    ) -> Result<(), StoreError> {
        let mut columns: Vec<Vec<Value>> = entries::COLUMNS.map(|_| Vec::with_capacity(rows.len())).into();
        for row in rows {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        let orgs: Vec<_> = chains.iter().map(|chain| chain.org.to_string()).collect();
        let seqs = chains
            .iter()
            .map(|chain| i64::try_from(chain.seq))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| StoreError::Inconsistent { table: "writers" })?;
        let hashes: Vec<Vec<u8>> = chains.iter().map(|chain| chain.hash.to_vec()).collect();
        let query = sqlx::query(INSERT.as_str())
            .persistent(self.persistent)
            .bind(writer)
            .bind(orgs)
            .bind(seqs)
            .bind(hashes);
        let query =
            entries::COLUMNS
                .iter()
                .zip(columns)
                .fold(query, |query, ((_, kind), column)| match kind {
                    Kind::Int => query.bind(column.into_iter().map(Value::into_int).collect::<Vec<_>>()),
                    Kind::Text => query.bind(column.into_iter().map(Value::into_text).collect::<Vec<_>>()),
                    Kind::Blob => query.bind(column.into_iter().map(Value::into_blob).collect::<Vec<_>>()),
                });
        let inserted = query.execute(&mut *self.connection);
        self.trips.wait(inserted).await.map(drop)
    }
}

/// Entries, column by column, and the ends of the chains they are in: one statement, one round trip. In the order of the
/// orgs, or two of them could wait for each other.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = entries::COLUMNS.map(|(name, _)| name).join(", ");
    let arrays: Vec<String> = (FIRST..)
        .zip(entries::COLUMNS)
        .map(|(number, (_, kind))| match kind {
            Kind::Int => format!("${number}::bigint[]"),
            Kind::Text => format!("${number}::text[]"),
            Kind::Blob => format!("${number}::bytea[]"),
        })
        .collect();
    format!(
        "WITH moved AS (INSERT INTO writers (org_id, writer, seq, hash)
            SELECT org, $1, seq, hash FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS ends(org, seq, hash)
            ORDER BY org
            ON CONFLICT (org_id, writer) DO UPDATE SET seq = excluded.seq, hash = excluded.hash)
        INSERT INTO entries ({columns}) SELECT * FROM unnest({})",
        arrays.join(", ")
    )
});

/// The number of the first column's parameter.
const FIRST: usize = 5;
