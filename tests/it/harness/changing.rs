//! Somebody who is changing an org, for as long as a test likes. Over PostgreSQL a transaction of Postern's that says nothing
//! for a moment is ended.

use std::time::{Duration, Instant};

use postern::store::{Location, Selector, Tx};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{World, database};

/// A change of an org that comes to nothing. Until it is given up, none of the org's releases commit.
pub enum Change {
    Sqlite(Box<Tx>),
    /// What Postern would lock, held by somebody who may be silent.
    Postgres(PgConnection),
}

impl World {
    /// Begins to change the demo organisation.
    pub async fn changing(&self) -> Change {
        let Location::Postgres(settings) = &self.location else {
            let mut tx = self.deps.store.write(self.org).await.unwrap();
            tx.advance_epoch(self.org, &Selector::All(true)).await.unwrap();
            return Change::Sqlite(Box::new(tx));
        };
        let locks = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED;
             SELECT 1 FROM orgs WHERE org_id = '{org}' FOR NO KEY UPDATE;
             SELECT pg_advisory_xact_lock(hashtextextended('{org}', 0));
             UPDATE epochs SET counter = counter + 1 WHERE org_id = '{org}'",
            org = self.org
        );
        let mut connection = database::superuser(&database::name_of(settings)).await;
        sqlx::raw_sql(AssertSqlSafe(locks))
            .execute(&mut connection)
            .await
            .unwrap();
        Change::Postgres(connection)
    }

    /// Keeps a transaction about the demo organisation open for so long, in which it says something now and then.
    pub async fn keep_open(&self, tx: &mut Tx, long: Duration) {
        let until = Instant::now() + long;
        while Instant::now() < until {
            tx.epoch(self.org).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Change {
    pub async fn given_up(self) {
        match self {
            Self::Sqlite(tx) => drop(tx),
            Self::Postgres(mut connection) => {
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
            }
        }
    }
}
