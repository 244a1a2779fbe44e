//! What a row takes up with its indexes, as the database counts it: whole pages, with what is free in them.

use sqlx::AssertSqlSafe;

use crate::{
    Figures,
    measure::{Done, Spread},
    seed::Rows,
    served::Served,
};

/// Weighs what grows with grants and with vends.
pub(crate) async fn measure(figures: &mut Figures, served: &Served) -> Done<()> {
    let mut rows = Rows::open(&served.world.location).await?;
    for (what, tables, per) in WEIGHED {
        let mut bytes = 0.0;
        for table in tables {
            bytes += rows.bytes(table).await?;
        }
        let count = rows.count(per).await?;
        figures.show(format!("bytes per {what}"), Spread::of(vec![bytes / count]));
        figures.show(format!("bytes per {what}: of so many"), Spread::of(vec![count]));
    }
    Ok(())
}

impl Rows {
    /// Of a table and its indexes.
    async fn bytes(&mut self, table: &str) -> Done<f64> {
        Ok(match self {
            // Every build of ours has `dbstat`: the bundled SQLite is compiled with it. It reads every page.
            Self::Sqlite(connection) => {
                let sql = "SELECT CAST(coalesce(sum(d.pgsize), 0) AS DOUBLE PRECISION)
                    FROM sqlite_schema s CROSS JOIN dbstat d
                    WHERE s.tbl_name = $1 AND s.type IN ('table', 'index') AND d.name = s.name";
                sqlx::query_scalar(sql).bind(table).fetch_one(connection).await?
            }
            Self::Postgres(connection) => {
                let sql = format!("SELECT CAST(pg_total_relation_size('{table}') AS DOUBLE PRECISION)");
                sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(connection)
                    .await?
            }
        })
    }

    async fn count(&mut self, table: &str) -> Done<f64> {
        let sql = AssertSqlSafe(format!("SELECT CAST(count(*) AS DOUBLE PRECISION) FROM {table}"));
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await?,
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await?,
        })
    }
}

/// What is weighed, in which tables, and by whose rows it is divided.
const WEIGHED: [(&str, &[&str], &str); 4] = [
    (
        "grant, its sealed secrets with it",
        &["grants", "secrets"],
        "grants",
    ),
    (
        "grant for its person and its delegation",
        &["users", "delegations"],
        "grants",
    ),
    ("entry", &["entries"], "entries"),
    ("entry for its place in the log", &["leaves", "tiles"], "leaves"),
];
