//! Which database the tests run over: SQLite, or the PostgreSQL server whose superuser's URL is in
//! `POSTERN_TEST_POSTGRES`. Every world has a database of its own there, copied from one that was migrated once.

use std::path::Path;

use postern::store::{Location, PostgresSettings};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::sync::OnceCell;
use url::Url;

/// Where a world's rows are.
pub async fn location(dir: &Path) -> Location {
    match std::env::var("POSTERN_TEST_POSTGRES") {
        Ok(server) => Location::Postgres(postgres(&server, dir).await),
        Err(_) => sqlite(dir),
    }
}

pub fn sqlite(dir: &Path) -> Location {
    Location::Sqlite(dir.join("postern.db"))
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
            let tables: Vec<String> =
                sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
            let mut places = Vec::new();
            for table in tables {
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

fn name_of(settings: &PostgresSettings) -> String {
    let url = Url::parse(&settings.url).unwrap();
    url.path().trim_start_matches('/').to_owned()
}

async fn postgres(server: &str, dir: &Path) -> PostgresSettings {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE.get_or_init(|| template(server)).await;
    let name: String = dir.file_name().unwrap().to_string_lossy().to_lowercase();
    let name = format!(
        "w_{}_{}",
        std::process::id(),
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "")
    );
    let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut superuser("postgres").await)
        .await
        .unwrap();
    settings(server, "postern", &name)
}

/// A migrated database without rows, and the roles a deployment has.
async fn template(server: &str) -> String {
    let name = format!("template_{}", std::process::id());
    let mut connection = superuser("postgres").await;
    let statements = [
        "DO $$ BEGIN CREATE ROLE postern_owner LOGIN CREATEROLE; EXCEPTION WHEN duplicate_object THEN NULL; END $$".to_owned(),
        format!("CREATE DATABASE {name} OWNER postern_owner"),
    ];
    for sql in statements {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    postern::store::migrate(&settings(server, "postern_owner", &name))
        .await
        .unwrap();
    let role = "DO $$ BEGIN CREATE ROLE postern LOGIN IN ROLE postern_app, postern_due;
                EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    sqlx::raw_sql(role).execute(&mut connection).await.unwrap();
    name
}

pub fn settings(server: &str, role: &str, database: &str) -> PostgresSettings {
    let mut url = Url::parse(server).unwrap();
    url.set_username(role).unwrap();
    url.set_path(database);
    PostgresSettings {
        url: url.into(),
        password: None,
        connections: 8,
        pooler: false,
    }
}

pub async fn superuser(database: &str) -> PgConnection {
    let server = std::env::var("POSTERN_TEST_POSTGRES").unwrap();
    let url = settings(&server, "postgres", database).url;
    PgConnection::connect(&url).await.unwrap()
}
