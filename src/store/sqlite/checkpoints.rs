//! Checkpoints of the write-ahead log (WAL): its pages copied back into the database file, on a connection of their own.
//!
//! Left to itself, SQLite does that within a commit of the one writer, and everybody behind that commit waits until
//! thousands of pages have been written and synced. A passive checkpoint of another connection is in nobody's way. But it
//! never lets a WAL that somebody reads from begin anew, and on a busy service somebody always does.
//! Source: SQLite, "Write-Ahead Logging", §3.2 and §6.

use std::time::Duration;

use sqlx::{Row as _, SqliteConnection, SqlitePool};
use tokio::sync::mpsc;

/// Whom writers tell of their commits.
#[derive(Debug, Clone)]
pub(super) struct Written(mpsc::Sender<()>);

impl Written {
    /// There is something to copy.
    pub(super) fn tell(&self) {
        // Full: it is about to be looked at anyway.
        let _told = self.0.try_send(());
    }
}

/// Copies what is committed a little later, until its pools are closed or nobody can tell it anything any more. A WAL of
/// `long` pages begins anew.
pub(super) fn start(own: SqlitePool, writer: SqlitePool, long: i64) -> Written {
    let (tell, mut told) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut most = long;
        while told.recv().await.is_some() {
            tokio::time::sleep(EVERY).await;
            match copy(&own, &writer, most).await {
                Ok(Copied::All) => {}
                Ok(Copied::Anew) => most = long,
                Ok(Copied::InUse(pages)) => {
                    // Once, until it begins anew.
                    if most == long {
                        tracing::warn!(
                            wal.pages = pages,
                            "the write-ahead log grows, {pages} pages by now: somebody has been reading from it for long"
                        );
                    }
                    // Not at once: whoever writes waits for each try.
                    most = pages + long;
                }
                Err(sqlx::Error::PoolClosed) => return,
                Err(error) => {
                    tracing::warn!(cause = %error, "the write-ahead log was not copied back; it is tried again");
                }
            }
        }
    });
    Written(tell)
}

/// What came of it.
enum Copied {
    /// What could be copied was.
    All,
    /// The next commit begins the WAL anew.
    Anew,
    /// It is too long, of so many pages, but somebody has been reading from it for long.
    InUse(i64),
}

/// What grew too long begins anew: that takes a moment in which all of it has been copied, nobody writes, and nobody
/// reads from it. What the second pass leaves over for it is what came during the second pass.
async fn copy(own: &SqlitePool, writer: &SqlitePool, most: i64) -> Result<Copied, sqlx::Error> {
    if pass(own).await? < most {
        return Ok(Copied::All);
    }
    let pages = pass(own).await?;
    let mut held = writer.acquire().await?;
    // Whoever begins to read once all is copied reads from the file. So this waits for those only who read already, which
    // a passive checkpoint would find at any time where many read.
    wait_at_most(&mut held, READERS_END).await?;
    let in_use = sqlx::query_scalar("PRAGMA wal_checkpoint(RESTART)")
        .fetch_one(&mut *held)
        .await;
    wait_at_most(&mut held, super::BUSY).await?;
    let in_use: i64 = in_use?;
    Ok(if in_use == 0 {
        Copied::Anew
    } else {
        Copied::InUse(pages)
    })
}

async fn wait_at_most(connection: &mut SqliteConnection, time: Duration) -> Result<(), sqlx::Error> {
    let sql = format!("PRAGMA busy_timeout = {}", time.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

/// One passive checkpoint: how many pages the WAL has.
async fn pass(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(pool)
        .await?
        .try_get(1)
}

/// How long after a commit. The same few pages are changed by every batch of the gate: the rarer they are copied, the fewer
/// copies there are.
const EVERY: Duration = Duration::from_millis(250);
/// How long whoever writes waits, where the WAL begins anew, for those who read from it.
const READERS_END: Duration = Duration::from_millis(100);
/// Pages of a long WAL, 64 MiB at 4 KiB each.
pub(super) const LONG: i64 = 16_384;
/// Pages at which a commit copies them after all: the checkpoints do not keep up.
pub(super) const TOO_LONG: &str = "65536";

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Instant};

    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

    use super::*;

    async fn pool(path: &Path) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .pragma("wal_autocheckpoint", "0");
        SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .unwrap()
    }

    async fn run(pool: &SqlitePool, sql: &'static str) {
        sqlx::raw_sql(sql).execute(pool).await.unwrap();
    }

    /// What the database file holds without its WAL.
    async fn in_the_file(path: &Path) -> Option<i64> {
        let alone = path.with_extension("alone");
        std::fs::copy(path, &alone).unwrap();
        let pool = pool(&alone).await;
        let rows = sqlx::query_scalar("SELECT count(*) FROM pieces").fetch_one(&pool);
        let rows = rows.await.ok();
        pool.close().await;
        rows
    }

    #[tokio::test]
    async fn what_is_committed_comes_into_the_file_though_nobody_writes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let (own, writer) = (pool(&path).await, pool(&path).await);
        let written = start(own, writer.clone(), LONG);
        run(&writer, "CREATE TABLE pieces (bytes BLOB)").await;
        run(&writer, "INSERT INTO pieces VALUES (x'00')").await;
        assert_eq!(in_the_file(&path).await, None);
        written.tell();
        let late = Instant::now() + Duration::from_secs(60);
        while in_the_file(&path).await != Some(1) {
            assert!(Instant::now() < late, "it is not copied");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    const PIECE: &str = "CREATE TABLE pieces (bytes BLOB); INSERT INTO pieces VALUES (NULL)";

    /// Writes without a pause; how many bytes.
    async fn write_for(time: Duration, writer: &SqlitePool, written: &Written) -> u64 {
        let (begun, mut bytes) = (Instant::now(), 0);
        while begun.elapsed() < time {
            run(writer, "UPDATE pieces SET bytes = randomblob(131072)").await;
            bytes += 131_072;
            written.tell();
        }
        bytes
    }

    /// The file of a WAL never shrinks: it is as long as the WAL has ever been.
    fn assert_began_anew(path: &Path, bytes: u64) {
        let longest = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
        assert!(longest * 2 < bytes, "{longest} of {bytes} bytes");
    }

    #[tokio::test]
    async fn the_wal_begins_anew_under_a_writer_that_never_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let (own, writer) = (pool(&path).await, pool(&path).await);
        let written = start(own, writer.clone(), 100);
        run(&writer, PIECE).await;
        let bytes = write_for(8 * EVERY, &writer, &written).await;
        assert_began_anew(&path, bytes);
    }

    /// Readers of a busy service never all pause at once; each of them reads for a moment only.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_wal_begins_anew_under_readers_that_never_all_pause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let (own, writer) = (pool(&path).await, pool(&path).await);
        let written = start(own, writer.clone(), 100);
        run(&writer, PIECE).await;
        let mut readers = tokio::task::JoinSet::new();
        for n in 0..4 {
            let readers_own = pool(&path).await;
            readers.spawn(async move {
                // Out of step with each other.
                tokio::time::sleep(Duration::from_millis(5 * n)).await;
                loop {
                    let mut reading = readers_own.acquire().await.unwrap();
                    let read = "BEGIN; SELECT count(*) FROM pieces";
                    sqlx::raw_sql(read).execute(&mut *reading).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    sqlx::raw_sql("ROLLBACK").execute(&mut *reading).await.unwrap();
                }
            });
        }
        let bytes = write_for(16 * EVERY, &writer, &written).await;
        readers.shutdown().await;
        assert_began_anew(&path, bytes);
    }
}
