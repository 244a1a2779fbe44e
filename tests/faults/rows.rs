//! What the database itself says, as whoever owns it sees it.

use postern::store::Location;
use sqlx::{Connection as _, Decode, Postgres, Sqlite, SqlitePool, Type};

use crate::database;

/// The one value that is asked for, if there is a row.
pub(crate) async fn scalar<T>(location: &Location, sql: &'static str) -> Option<T>
where
    T: Send + Unpin + Type<Sqlite> + Type<Postgres>,
    T: for<'r> Decode<'r, Sqlite> + for<'r> Decode<'r, Postgres>,
{
    match location {
        Location::Sqlite(path) => {
            let pool = SqlitePool::connect(&format!("sqlite://{}", path.display()))
                .await
                .unwrap();
            let value = sqlx::query_scalar(sql).fetch_optional(&pool).await.unwrap();
            pool.close().await;
            value
        }
        Location::Postgres(settings) => {
            let mut connection = database::superuser(&database::name_of(settings)).await;
            let value = sqlx::query_scalar(sql)
                .fetch_optional(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
            value
        }
    }
}
