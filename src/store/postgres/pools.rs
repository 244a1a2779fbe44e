//! The connections of a process: three pools, so that neither a release nor the end of anything waits for what somebody else
//! does with one.

use std::time::Duration;

use sqlx::{
    PgConnection, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::{
    super::{
        StoreError,
        engine::Mode,
        shares::{Party, Place, PoolShares, Shares},
    },
    ACQUIRE, BATCHES,
    begin::settings_of_gate,
};

/// The open pools.
#[derive(Debug)]
pub(super) struct Pools {
    /// For everything that has no other: each org has a share.
    pub(super) cold: PgPool,
    pub(super) places: PoolShares,
    /// The gate's batches have connections of their own: nobody's page can make a release wait.
    gate: PgPool,
    /// Whether its connections were made with what all batches run under.
    pub(super) gate_has_settings: bool,
    /// So has what ends something, each org a share.
    ends: PgPool,
    ending: Shares,
}

impl Pools {
    /// Opens them; there are so many connections for everything that has no others.
    pub(super) async fn open(
        connections: u32,
        options: PgConnectOptions,
        pooler: bool,
    ) -> Result<Self, StoreError> {
        // They stay open: a server without room for another one would be found out too late. Not as `min_connections`, for whose
        // sake a host that is gone is tried for minutes, and a stop waits.
        let ends = pool(ENDS).idle_timeout(None).max_lifetime(None);
        let ends = ends.connect_with(options.clone()).await?;
        let (first, second) = tokio::try_join!(ends.acquire(), ends.acquire())?;
        drop((first, second));
        let cold = pool(connections).connect_with(options.clone()).await?;
        let (gate, gate_has_settings) = gate(options, pooler).await?;
        Ok(Self {
            cold,
            places: PoolShares::new(connections),
            gate,
            gate_has_settings,
            ends,
            ending: Shares::new(ENDS),
        })
    }

    /// A connection, and the share of `party` that it is.
    ///
    /// # Errors
    /// When there is none within a few seconds, be it for the server's sake or the share's.
    pub(super) async fn take(
        &self,
        mode: Mode,
        party: Party,
    ) -> Result<(PoolConnection<Postgres>, Option<Place>), StoreError> {
        if mode == Mode::Gate {
            return Ok((self.gate.acquire().await?, None));
        }
        let mut has_place = false;
        let taken = async {
            let (pool, place) = match mode {
                // Whatever is free first: the few may all be waiting for locks of orgs in trouble.
                Mode::End => tokio::select! {
                    biased;
                    place = self.ending.take(party) => (&self.ends, place),
                    place = self.places.take(party) => (&self.cold, place),
                },
                _ => (&self.cold, self.places.take(party).await),
            };
            has_place = true;
            Ok::<_, sqlx::Error>((pool.acquire().await?, Some(place)))
        };
        let taken = tokio::time::timeout(ACQUIRE, taken).await;
        match taken {
            Ok(taken) => Ok(taken?),
            Err(_) if has_place => Err(sqlx::Error::PoolTimedOut.into()),
            Err(_) => Err(self.places.none_for(party)),
        }
    }

    pub(super) async fn close(&self) {
        self.cold.close().await;
        self.gate.close().await;
        self.ends.close().await;
    }
}

/// The gate's connections, and whether they bring along what its transactions run under. Not through a pooler: it gives each
/// transaction another connection, and refuses what it cannot say on that one too.
async fn gate(options: PgConnectOptions, pooler: bool) -> Result<(PgPool, bool), StoreError> {
    if pooler {
        return Ok((pool(BATCHES).connect_with(options).await?, false));
    }
    // As the client's own at the start they go before what is set for server, database and role, and `RESET` keeps them.
    let made = pool(BATCHES)
        .after_connect(|connection, _| {
            Box::pin(async move {
                quiet(connection).await?;
                refuse_without_settings(connection).await
            })
        })
        .connect_with(options.clone().options(settings_of_gate()))
        .await;
    match made {
        Ok(gate) => Ok((gate, true)),
        Err(cause) => {
            // Whatever is wrong with the server itself is wrong without them too.
            let gate = pool(BATCHES).connect_with(options).await?;
            tracing::warn!(
                cause = %cause,
                "the gate's connections cannot be given their limits when they are made: every batch of releases \
                 says them itself, which takes longer; set `pooler = true` under [store] if a pooler stands in \
                 between, otherwise restart once the cause is mended"
            );
            Ok((gate, false))
        }
    }
}

/// SECURITY: what stands in between may leave out what it does not know, and a batch without its limits of time would hold a
/// guard for as long as its process stands still.
async fn refuse_without_settings(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (names, values): (Vec<String>, Vec<String>) = settings_of_gate()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .unzip();
    let has_them: bool = sqlx::query_scalar(
        "SELECT count(*) = cardinality($1::text[]) FROM pg_settings
         WHERE (name, setting) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
    )
    .persistent(false)
    .bind(names)
    .bind(values)
    .fetch_one(connection)
    .await?;
    if has_them {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(
            "a connection was made without the settings it was asked for with".to_owned(),
        ))
    }
}

/// Else the server warns, whenever a connection is given back, that there was no transaction to end.
async fn quiet(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let quiet = sqlx::raw_sql("SET client_min_messages = error");
    quiet.execute(connection).await.map(drop)
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(quiet(connection)))
        .after_release(|connection, _| {
            // A reader comes back with its snapshot still open.
            Box::pin(async move { Ok(sqlx::raw_sql("ROLLBACK").execute(connection).await.is_ok()) })
        })
        .before_acquire(|connection, held| {
            Box::pin(async move {
                // A connection that lay idle may have lost its server; one in use says so by itself. There
                // has to be time left for another one.
                let ping = tokio::time::timeout(PING, sqlx::Connection::ping(connection));
                Ok(held.idle_for < IDLE || matches!(ping.await, Ok(Ok(()))))
            })
        })
}

/// Connections for what ends something. It is over in milliseconds, and of one org there is one at a time.
const ENDS: u32 = 2;
/// How long a connection that lay idle may take to answer.
const PING: Duration = Duration::from_secs(2);
/// A connection that lay idle longer is tried before it is used.
const IDLE: Duration = Duration::from_secs(1);
