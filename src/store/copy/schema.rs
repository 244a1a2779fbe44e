//! What there is to copy. Tables, columns and keys are read from the databases' own catalogues; what this file adds is
//! a decision about every table. One that nobody decided about stops the copy before it begins.

use std::collections::BTreeMap;

use super::{CopyError, Which};
use crate::store::{
    StoreError,
    engine::{Connection, Engine},
    sql::{Value, params},
};

/// Tables that are copied, in this order.
const COPIED: [&str; 33] = [
    "meta",
    "instance_keys",
    "odks",
    "orgs",
    "epochs",
    "floors",
    "users",
    "agents",
    "services",
    "engines",
    "api_keys",
    "connector_clients",
    "policies",
    "sessions",
    "login_links",
    "connect_sessions",
    "grants",
    "secrets",
    "delegations",
    "refresh_leases",
    "spent",
    "idempotency",
    "entries",
    KEPT_BY_TRIGGERS,
    "writers",
    "logs",
    "leaves",
    "tiles",
    "sink_cursors",
    "revocations",
    "outbox",
    "providers",
    "notices",
];

/// Tables that are not copied, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    (
        "replicas",
        "names of the processes of one database; the next one takes a name where it starts",
    ),
    (
        "_sqlx_migrations",
        "how this database came to its schema; both have to be at the same version already",
    ),
];

/// Marks in `meta` that belong to one database: the row writers stand in line for, room for a probe of the disk, and
/// what copies say about themselves.
const OWN_MARKS: &str = "\"name\" NOT IN ('writer', 'room', 'copy', 'copied_to')";

/// Writing entries fills and empties this table, in an order the entries' keys do not have. It is emptied and copied
/// once the entries are there.
const KEPT_BY_TRIGGERS: &str = "open_calls";

/// Values in one statement: SQLite takes 32,766, PostgreSQL 65,535.
const MOST_VALUES: usize = 16_000;
/// Rows in one: each commit waits for the disk, each batch is held in memory, twice while it is compared.
const MOST_ROWS: usize = 1000;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Text,
    Blob,
}

/// A table of both databases: columns in the order of their names, whatever order a database keeps them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    columns: Vec<(String, Kind)>,
    /// Where in a row the primary key stands, `org_id` left out.
    key: Vec<usize>,
    /// Whether its rows belong to orgs.
    of_orgs: bool,
}

impl Table {
    /// Whether writing other tables writes this one too.
    pub(super) fn is_kept_by_triggers(&self) -> bool {
        self.name == KEPT_BY_TRIGGERS
    }

    /// Whether its rows belong to orgs.
    pub(super) fn is_of_orgs(&self) -> bool {
        self.of_orgs
    }

    /// The key of a row within its org.
    pub(super) fn key_of(&self, row: &[Value]) -> Vec<Value> {
        self.key
            .iter()
            .filter_map(|index| row.get(*index))
            .cloned()
            .collect()
    }

    /// Whether an org has at most one row of it.
    pub(super) fn is_single(&self) -> bool {
        self.key.is_empty()
    }

    /// The columns' names, as a digest begins with them.
    pub(super) fn heading(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} {}", self.name, names.join(" "))
    }

    /// A batch of rows in the order of their keys; parameters: the org, if rows belong to orgs, then the key they lie `behind`.
    pub(super) fn select(&self, behind: bool) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        let mut wanted = self.conditions();
        let keys: Vec<String> = self
            .key
            .iter()
            .filter_map(|index| names.get(*index).cloned())
            .collect();
        if behind && !keys.is_empty() {
            let first = 1 + usize::from(self.of_orgs);
            let places: Vec<String> = (first..first + keys.len()).map(|n| format!("${n}")).collect();
            wanted.push(format!("({}) > ({})", keys.join(", "), places.join(", ")));
        }
        let mut sql = format!("SELECT {} FROM {}", names.join(", "), quoted(&self.name));
        if !wanted.is_empty() {
            sql.push_str(&format!(" WHERE {}", wanted.join(" AND ")));
        }
        if !keys.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", keys.join(", ")));
        }
        let batch = (MOST_VALUES / self.columns.len().max(1)).min(MOST_ROWS);
        sql.push_str(&format!(" LIMIT {batch}"));
        sql
    }

    /// How many rows an org, or the deployment, has.
    pub(super) fn count(&self) -> String {
        match self.conditions() {
            wanted if wanted.is_empty() => self.count_all(),
            wanted => format!("{} WHERE {}", self.count_all(), wanted.join(" AND ")),
        }
    }

    /// How many rows there are at all, for whoever may see them.
    pub(super) fn count_all(&self) -> String {
        format!("SELECT count(*) FROM {}", quoted(&self.name))
    }

    /// Writes `rows` rows.
    pub(super) fn insert(&self, engine: &Engine, rows: usize) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        let width = self.columns.len();
        let tuples: Vec<String> = (0..rows)
            .map(|row| {
                let places = self.columns.iter().enumerate().map(|(column, (_, kind))| {
                    let place = row * width + column + 1;
                    match (engine, kind) {
                        (Engine::Sqlite(_), _) => format!("${place}"),
                        // A NULL says no type of its own.
                        (Engine::Postgres(_), Kind::Int) => format!("${place}::bigint"),
                        (Engine::Postgres(_), Kind::Text) => format!("${place}::text"),
                        (Engine::Postgres(_), Kind::Blob) => format!("${place}::bytea"),
                    }
                });
                format!("({})", places.collect::<Vec<_>>().join(", "))
            })
            .collect();
        format!(
            "INSERT INTO {} ({}) VALUES {}",
            quoted(&self.name),
            names.join(", "),
            tuples.join(", ")
        )
    }

    fn conditions(&self) -> Vec<String> {
        if self.of_orgs {
            vec!["\"org_id\" = $1".to_owned()]
        } else if self.name == "meta" {
            vec![OWN_MARKS.to_owned()]
        } else {
            Vec::new()
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables of two databases that are to be copied, in order, if both have the same and each was decided about.
pub(super) fn agreed(
    mut from: BTreeMap<String, Table>,
    mut to: BTreeMap<String, Table>,
) -> Result<Vec<Table>, CopyError> {
    let odd = |table: &str, problem| CopyError::Schema {
        table: table.to_owned(),
        problem,
    };
    for (name, _why) in LEFT_OUT {
        from.remove(name);
        to.remove(name);
    }
    let mut tables = Vec::new();
    for name in COPIED {
        let (Some(here), Some(there)) = (from.remove(name), to.remove(name)) else {
            return Err(odd(name, "one of the databases does not have it"));
        };
        if here != there {
            return Err(odd(
                name,
                "its columns or its key are not the same in both databases",
            ));
        }
        tables.push(here);
    }
    match from.into_keys().chain(to.into_keys()).next() {
        Some(name) => Err(odd(&name, "nobody has decided whether it is copied")),
        None => Ok(tables),
    }
}

/// Every table of a database, by its catalogue.
pub(super) async fn tables(
    which: Which,
    engine: &Engine,
    connection: &mut Connection,
) -> Result<BTreeMap<String, Table>, CopyError> {
    let sql = match engine {
        Engine::Sqlite(_) => SQLITE_CATALOGUE,
        Engine::Postgres(_) => POSTGRES_CATALOGUE,
    };
    let rows = connection
        .rows(sql, params![])
        .await
        .map_err(|error| which.failed(error))?;
    let mut columns: BTreeMap<String, BTreeMap<String, (Kind, i64)>> = BTreeMap::new();
    for row in rows {
        let mut fields = row.fields("catalogue");
        let mut read = || -> Result<(String, String, String, i64), StoreError> {
            Ok((fields.text()?, fields.text()?, fields.text()?, fields.int()?))
        };
        let (table, column, kind, place) = read().map_err(|error| which.failed(error))?;
        let kind = match kind.as_str() {
            "INTEGER" | "bigint" => Kind::Int,
            "TEXT" | "text" => Kind::Text,
            "BLOB" | "bytea" => Kind::Blob,
            // Of no table that is copied; a new one that is has to be of these three.
            _ if LEFT_OUT.iter().any(|(left, _)| *left == table) => continue,
            _ => {
                return Err(CopyError::Schema {
                    table,
                    problem: "it has a column of a type that is in one of the databases only",
                });
            }
        };
        columns.entry(table).or_default().insert(column, (kind, place));
    }
    Ok(columns
        .into_iter()
        .map(|(name, columns)| (name.clone(), table(name, columns)))
        .collect())
}

fn table(name: String, columns: BTreeMap<String, (Kind, i64)>) -> Table {
    let of_orgs = columns.contains_key("org_id");
    let mut key: Vec<(i64, usize)> = columns
        .iter()
        .enumerate()
        .filter(|(_, (column, (_, place)))| *place > 0 && column.as_str() != "org_id")
        .map(|(index, (_, (_, place)))| (*place, index))
        .collect();
    key.sort_unstable();
    Table {
        name,
        columns: columns
            .into_iter()
            .map(|(column, (kind, _))| (column, kind))
            .collect(),
        key: key.into_iter().map(|(_, index)| index).collect(),
        of_orgs,
    }
}

/// Table, column, type, place in the primary key from 1.
const SQLITE_CATALOGUE: &str = "SELECT t.name, c.name, c.type, c.pk
     FROM sqlite_schema t JOIN pragma_table_info(t.name) c
     WHERE t.type = 'table' AND substr(t.name, 1, 7) <> 'sqlite_'";

/// The same, of the schema the service's statements speak of. Neither shows columns that are computed from others.
const POSTGRES_CATALOGUE: &str = "SELECT t.relname::text, c.attname::text, format_type(c.atttypid, NULL),
       coalesce(array_position(string_to_array(k.indkey::text, ' ')::smallint[], c.attnum), 0)::bigint
     FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped AND c.attgenerated = ''
     LEFT JOIN pg_index k ON k.indrelid = t.oid AND k.indisprimary
     WHERE t.relkind IN ('r', 'p') AND t.relnamespace = current_schema()::regnamespace";
