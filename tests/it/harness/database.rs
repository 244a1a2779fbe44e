//! Which database the tests run over: SQLite, or PostgreSQL with `POSTERN_TEST_STORE=postgres`. Tests about PostgreSQL run
//! over it always. One server serves the whole run and ends with it; every world has a database of its own there, copied
//! from one that was migrated once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr as _,
};

use postern::store::{Isolation, Location, PostgresSettings};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqlitePool,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use tokio::sync::OnceCell;
use url::Url;

/// Where a world's rows are.
pub async fn location(dir: &Path) -> Location {
    if is_postgres() {
        postgres(dir).await
    } else {
        sqlite(dir)
    }
}

/// Whether this run's worlds are over PostgreSQL.
pub fn is_postgres() -> bool {
    match std::env::var("POSTERN_TEST_STORE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("POSTERN_TEST_STORE={other}: there are sqlite and postgres"),
    }
}

pub fn sqlite(dir: &Path) -> Location {
    Location::Sqlite(dir.join("postern.db"))
}

/// Whether this process has the files of a SQLite database open.
pub fn is_open(path: &Path) -> bool {
    let path = path.canonicalize().unwrap();
    let files = ["", "-wal", "-shm"].map(|end| format!("{}{end}", path.display()));
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .any(|open| files.iter().any(|file| open.as_os_str() == file.as_str()))
}

/// Changes rows behind Postern's back, as whoever owns the database could.
pub async fn raw_sql(location: &Location, sql: &str) -> u64 {
    match location {
        Location::Sqlite(path) => {
            let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path))
                .await
                .unwrap();
            let done = sqlx::query(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
            pool.close().await;
            done.rows_affected()
        }
        Location::Postgres(settings) => {
            let mut connection = superuser(&name_of(settings)).await;
            let done = sqlx::query(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .unwrap();
            done.rows_affected()
        }
    }
}

/// Everything the database holds, place by place: files as they are, or every row of every table as text.
pub async fn contents(location: &Location) -> Vec<(String, Vec<u8>)> {
    match location {
        Location::Sqlite(path) => [path.clone(), path.with_extension("db-wal")]
            .into_iter()
            .map(|path| {
                (
                    path.display().to_string(),
                    std::fs::read(&path).unwrap_or_default(),
                )
            })
            .collect(),
        Location::Postgres(settings) => {
            let mut connection = superuser(&name_of(settings)).await;
            let mut places = Vec::new();
            for table in tables(&mut connection).await {
                let sql = format!("SELECT coalesce(string_agg(to_jsonb(t)::text, ' '), '') FROM {table} t");
                let rows: String = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                places.push((table, rows.into_bytes()));
            }
            places
        }
    }
}

/// How many rows every table has.
pub async fn counts(location: &Location) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    match location {
        Location::Sqlite(path) => {
            let mut connection = SqliteConnectOptions::new()
                .filename(path)
                .connect()
                .await
                .unwrap();
            let tables: Vec<String> =
                sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
            for table in tables {
                let sql = format!("SELECT count(*) FROM {table}");
                let count = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await;
                counts.insert(table, count.unwrap());
            }
            connection.close().await.unwrap();
        }
        Location::Postgres(settings) => {
            let mut connection = superuser(&name_of(settings)).await;
            for table in tables(&mut connection).await {
                let sql = format!("SELECT count(*) FROM {table}");
                let count = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await;
                counts.insert(table, count.unwrap());
            }
        }
    }
    counts
}

async fn tables(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(connection)
        .await
        .unwrap()
}

/// The name of the database.
pub fn name_of(settings: &PostgresSettings) -> String {
    let url = Url::parse(&settings.url).unwrap();
    url.path().trim_start_matches('/').to_owned()
}

/// A database of its own on the run's server.
pub async fn postgres(dir: &Path) -> Location {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE.get_or_init(template).await;
    let own: String = dir.file_name().unwrap().to_string_lossy().to_lowercase();
    let name = format!("w{}", own.replace(|c: char| !c.is_ascii_alphanumeric(), ""));
    let create = format!("CREATE DATABASE {name} TEMPLATE {template} OWNER postern_owner");
    // What everybody may do in a new database does not come from its template.
    let revoke = format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC");
    let mut connection = superuser("postgres").await;
    for sql in [create, revoke] {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let mut settings = settings("postern", &name).await;
    if is_pooled() {
        let mut url = Url::parse(&settings.url).unwrap();
        url.set_port(Some(bouncer(url.port().unwrap()).await)).unwrap();
        settings.url = url.into();
        settings.pooler = true;
    }
    Location::Postgres(settings)
}

/// Whether this run's worlds reach PostgreSQL through a PgBouncer.
pub fn is_pooled() -> bool {
    std::env::var_os("POSTERN_TEST_PGBOUNCER").is_some()
}

/// Where the run's PgBouncer keeps its files; its `log` names every connection it makes.
pub fn bouncer_dir() -> PathBuf {
    std::env::temp_dir().join(format!("postern-pgbouncer-{}", std::process::id()))
}

/// The port of a PgBouncer before the run's server, in transaction mode; started when it is first asked for.
async fn bouncer(server: u16) -> u16 {
    static PORT: OnceCell<u16> = OnceCell::const_new();
    *PORT
        .get_or_init(async || {
            let started = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pgbouncer"))
                .arg("start")
                .arg(bouncer_dir())
                .args([server.to_string(), std::process::id().to_string()])
                .output()
                .unwrap();
            assert!(
                started.status.success(),
                "{}",
                String::from_utf8_lossy(&started.stderr)
            );
            String::from_utf8(started.stdout).unwrap().trim().parse().unwrap()
        })
        .await
}

/// A migrated database without rows, and the roles a deployment has.
async fn template() -> String {
    let name = "postern_template".to_owned();
    let mut connection = superuser("postgres").await;
    for sql in [
        "CREATE ROLE postern_owner LOGIN CREATEROLE",
        "CREATE DATABASE postern_template OWNER postern_owner",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    postern::store::migrate(&settings("postern_owner", &name).await)
        .await
        .unwrap();
    sqlx::raw_sql("CREATE ROLE postern LOGIN NOINHERIT IN ROLE postern_app, postern_due")
        .execute(&mut connection)
        .await
        .unwrap();
    if std::env::var_os("POSTERN_TEST_CONFLICTS").is_some() {
        sqlx::raw_sql(CONFLICTS)
            .execute(&mut superuser(&name).await)
            .await
            .unwrap();
    }
    name
}

/// With `POSTERN_TEST_CONFLICTS`, every second of Postern's transactions is told at its first change that another was in its
/// way, as engines do that run them side by side and let one of two go on.
const CONFLICTS: &str = "
    CREATE SEQUENCE conflicts;
    GRANT USAGE ON SEQUENCE conflicts TO PUBLIC;
    CREATE FUNCTION in_the_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF current_user NOT IN ('postgres', 'postern_owner') AND hashtext(pg_current_xact_id()::text) % 2 = 0 THEN
            PERFORM nextval('public.conflicts');
            RAISE EXCEPTION 'in the way' USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN NULL;
    END $$;
    DO $$ DECLARE named text; BEGIN
        FOR named IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE format('CREATE TRIGGER in_the_way BEFORE INSERT OR UPDATE OR DELETE ON %I
                FOR EACH STATEMENT EXECUTE FUNCTION in_the_way()', named);
        END LOOP;
    END $$;
";

/// The superuser's URL of the run's server, which is started when it is first asked for.
async fn server() -> &'static str {
    static SERVER: OnceCell<String> = OnceCell::const_new();
    SERVER
        .get_or_init(async || {
            // Hundreds of databases that live for a second each: what is tested is not the disk. What is measured is.
            let settings = std::env::var("POSTERN_TEST_POSTGRES_CONF").unwrap_or("fsync = off".to_owned());
            let dir = std::env::temp_dir().join(format!("postern-postgres-{}", std::process::id()));
            let started = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
                .arg("start")
                .arg(dir)
                .arg(std::process::id().to_string())
                .env("POSTERN_TEST_POSTGRES_CONF", settings)
                .output()
                .unwrap();
            assert!(
                started.status.success(),
                "{}",
                String::from_utf8_lossy(&started.stderr)
            );
            String::from_utf8(started.stdout).unwrap().trim().to_owned()
        })
        .await
}

/// How a role reaches a database of the run's server.
pub async fn settings(role: &str, database: &str) -> PostgresSettings {
    let mut url = Url::parse(server().await).unwrap();
    url.set_username(role).unwrap();
    url.set_path(database);
    PostgresSettings {
        url: url.into(),
        password: None,
        connections: 16,
        pooler: false,
        isolation: isolation(),
    }
}

/// With `POSTERN_TEST_POSTGRES_ISOLATION=serializable`, PostgreSQL behaves like engines that know nothing weaker.
fn isolation() -> Isolation {
    match std::env::var("POSTERN_TEST_POSTGRES_ISOLATION").as_deref() {
        Ok("serializable") => Isolation::Serializable,
        Err(_) => Isolation::ReadCommitted,
        Ok(other) => panic!("POSTERN_TEST_POSTGRES_ISOLATION={other}: there is serializable"),
    }
}

/// A connection past every policy.
pub async fn superuser(database: &str) -> PgConnection {
    let url = settings("postgres", database).await.url;
    by_hand(&url).await.unwrap()
}

/// The same to where somebody's settings lead, on whatever server; only a pooler, which knows no superuser, is left out.
pub async fn superuser_of(settings: &PostgresSettings) -> Result<PgConnection, sqlx::Error> {
    let mut url = Url::parse(&settings.url).unwrap();
    if settings.pooler {
        url = Url::parse(server().await).unwrap();
        url.set_path(&name_of(settings));
    }
    url.set_username("postgres").unwrap();
    by_hand(url.as_str()).await
}

/// What a test does itself is in nobody's way for having read something, whatever the server's default is.
async fn by_hand(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options =
        PgConnectOptions::from_str(url)?.options([("default_transaction_isolation", "read committed")]);
    PgConnection::connect_with(&options).await
}
