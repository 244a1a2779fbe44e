//! What living replicas do all the while, and those of a test only when it says so.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use postern::{domain::Time, store::Location};
use sqlx::{AssertSqlSafe, Connection as _};

use super::database;

/// What comes of some work while all that hold a lease renew it. What they say stays as it is.
pub(super) async fn renewed_during<T>(location: &Location, now: Time, work: impl Future<Output = T>) -> T {
    let is_done = AtomicBool::new(false);
    let working = async {
        let done = work.await;
        is_done.store(true, Ordering::Release);
        done
    };
    let renewing = async {
        while !is_done.load(Ordering::Acquire) {
            // Whoever is in its way is gone at the next time.
            let _in_time = tokio::time::timeout(Duration::from_secs(5), renew(location, now)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(working, renewing).0
}

async fn renew(location: &Location, now: Time) -> Result<(), sqlx::Error> {
    let Location::Postgres(settings) = location else {
        return Ok(());
    };
    let sql = format!(
        "UPDATE replicas SET expires_at = expires_at + 1 WHERE expires_at > {}",
        now.unix_micros()
    );
    let mut connection = database::superuser_of(settings).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}
