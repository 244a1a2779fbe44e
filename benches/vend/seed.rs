//! Many grants behind Postern's back: rows copied from a real grant under ids of their own, each with a person, its
//! sealed secrets and a delegation. A copied secret has the shape of a real one and opens nowhere; what is vended is
//! sealed anew (`in_use`).

use std::io::{IsTerminal as _, Write as _};

use postern::{
    domain::{DelegationId, GrantId, UserId},
    store::Location,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    measure::Done,
    served::{Served, Tenant},
    world::database,
};

/// Grants written by one statement.
const CHUNK: usize = 5_000;

/// A copied grant, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) grant: GrantId,
    pub(crate) user: UserId,
}

/// Makes the orgs hold `count` grants altogether, the connected ones among them. Returns, org by org, those copies that
/// are to be used where `in_use` grants are altogether: spread evenly over all of them.
pub(crate) async fn grants(served: &Served, count: usize, in_use: usize) -> Done<Vec<Vec<Copied>>> {
    let orgs = served.tenants.len();
    let more = (count / orgs).saturating_sub(1);
    let used = (in_use / orgs).saturating_sub(1).min(more);
    let (all, mut done) = (more * orgs, 0);
    let mut rows = Rows::open(&served.world.location).await?;
    let mut chosen = Vec::with_capacity(orgs);
    for tenant in &served.tenants {
        let (mut left, mut number, mut of_org) = (more, 0, Vec::with_capacity(used));
        while left > 0 {
            let chunk = left.min(CHUNK);
            for copied in rows.copy(served, tenant, chunk).await? {
                // As many steps are taken in `more` numbers as are used.
                if number * used / more != (number + 1) * used / more {
                    of_org.push(copied);
                }
                number += 1;
            }
            left -= chunk;
            tell(done, done + chunk, all)?;
            done += chunk;
        }
        chosen.push(of_org);
    }
    rows.close().await?;
    Ok(chosen)
}

/// How far it is: one line that moves on a terminal, elsewhere a line for each tenth.
fn tell(before: usize, done: usize, all: usize) -> Done<()> {
    let mut out = std::io::stderr();
    let percent = done * 100 / all;
    if out.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        write!(out, "\rseeding: {done} of {all} grants ({percent} %){end}")?;
        out.flush()?;
    } else if before * 10 / all != done * 10 / all {
        writeln!(out, "seeding: {done} of {all} grants ({percent} %)")?;
    }
    Ok(())
}

/// A connection of the owner's, past the program.
pub(crate) enum Rows {
    Sqlite(SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Rows {
    pub(crate) async fn open(location: &Location) -> Done<Self> {
        Ok(match location {
            Location::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .busy_timeout(std::time::Duration::from_secs(60))
                    // What is seeded need not survive a crash.
                    .pragma("synchronous", "OFF");
                Self::Sqlite(SqliteConnection::connect_with(&options).await?)
            }
            Location::Postgres(settings) => {
                Self::Postgres(database::superuser(&database::name_of(settings)).await)
            }
        })
    }

    async fn copy(&mut self, served: &Served, from: &Tenant, count: usize) -> Done<Vec<Copied>> {
        let (now, random) = (served.world.deps.clock.now(), &*served.world.deps.random);
        let (mut ids, mut copied) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let (user, grant) = (UserId::new(now, random)?, GrantId::new(now, random)?);
            ids.push(json!([user, grant, DelegationId::new(now, random)?]));
            copied.push(Copied { grant, user });
        }
        let ids = serde_json::to_string(&ids)?;
        let (org, grant) = (from.org.to_string(), from.grant.to_string());
        let (each, noise) = match self {
            Self::Sqlite(_) => ("json_each($1) j", "randomblob(length(s.sealed))"),
            Self::Postgres(_) => ("json_array_elements($1::json) j(value)", "s.sealed"),
        };
        for sql in [
            format!(
                "INSERT INTO users (org_id, id, email, role, created_at)
                 SELECT u.org_id, j.value ->> 0, NULL, 'member', u.created_at
                 FROM {each} CROSS JOIN grants g JOIN users u ON u.org_id = g.org_id AND u.id = g.user_id
                 WHERE g.org_id = $2 AND g.id = $3"
            ),
            // Looked at again in a month, as a grant is whose token nobody uses.
            format!(
                "INSERT INTO grants (org_id, id, user_id, connector, account_id, account_label, scopes, state,
                   connected_epoch, generation, binding, access_expires_at, has_refresh_token, connected_at, renew_at)
                 SELECT g.org_id, j.value ->> 1, j.value ->> 0, g.connector, g.account_id, g.account_label, g.scopes,
                   g.state, g.connected_epoch, g.generation, g.binding, g.access_expires_at, g.has_refresh_token,
                   g.connected_at, g.connected_at + 2592000000000
                 FROM {each} CROSS JOIN grants g WHERE g.org_id = $2 AND g.id = $3"
            ),
            format!(
                "INSERT INTO secrets (org_id, row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at,
                   created_at)
                 SELECT s.org_id, j.value ->> 1, s.kind, s.generation, s.odk, {noise}, s.wrapped_dek, s.scopes,
                   s.expires_at, s.created_at
                 FROM {each} CROSS JOIN secrets s WHERE s.org_id = $2 AND s.row_id = $3"
            ),
            format!(
                "INSERT INTO delegations (org_id, id, user_id, agent_id, grant_id, categories, tools, raw, made_epoch)
                 SELECT d.org_id, j.value ->> 2, j.value ->> 0, d.agent_id, j.value ->> 1, d.categories, d.tools, d.raw,
                   d.made_epoch
                 FROM {each} CROSS JOIN delegations d WHERE d.org_id = $2 AND d.grant_id = $3"
            ),
        ] {
            let sql = AssertSqlSafe(sql);
            match self {
                Self::Sqlite(connection) => {
                    sqlx::query(sql).bind(&ids).bind(&org).bind(&grant).execute(connection).await?;
                }
                Self::Postgres(connection) => {
                    sqlx::query(sql).bind(&ids).bind(&org).bind(&grant).execute(connection).await?;
                }
            }
        }
        Ok(copied)
    }

    /// Forgets when grants were used, as if nobody ever had.
    pub(crate) async fn unused(&mut self) -> Done<()> {
        let sql = "UPDATE grants SET last_used_at = NULL WHERE last_used_at IS NOT NULL";
        match self {
            Self::Sqlite(connection) => sqlx::query(sql).execute(connection).await.map(drop)?,
            Self::Postgres(connection) => sqlx::query(sql).execute(connection).await.map(drop)?,
        }
        Ok(())
    }

    /// When the oldest entry was written that has no place in its log yet, in microseconds.
    pub(crate) async fn oldest_without_a_place(&mut self) -> Done<Option<i64>> {
        // A writer's entries get their places in their order.
        let sql = "SELECT min(e.ts) FROM writers w JOIN entries e
                     ON e.org_id = w.org_id AND e.writer = w.writer AND e.writer_seq = w.placed + 1
                   WHERE w.waits = 1";
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await?,
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await?,
        })
    }

    async fn close(self) -> Done<()> {
        match self {
            Self::Sqlite(mut connection) => {
                sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
                    .execute(&mut connection)
                    .await?;
                Ok(connection.close().await?)
            }
            Self::Postgres(mut connection) => {
                // As autovacuum does within a minute of it: connections go on with plans made for nearly empty tables until then.
                sqlx::query("ANALYZE").execute(&mut connection).await?;
                sqlx::query("CHECKPOINT").execute(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }
}
