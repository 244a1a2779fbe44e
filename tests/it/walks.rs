//! Over PostgreSQL every statement is held to its orgs by policies. That must not keep it from the indexes: what is looked
//! up for a release, a refresh or the log's growth is read, and not everything the org has.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use postern::{
    domain::{GrantId, connector::Category, decision::UnverifiedDecision},
    flows::{Deps, Refusal, decide, sequence, vend},
    store::{Claim, ClaimAsk, Location, SecretKind},
};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinSet;

use super::harness::{World, database};

/// A large org on PostgreSQL.
struct Large {
    world: World,
    grant: GrantId,
    /// Rows in each table that is looked into.
    many: u64,
    superuser: PgConnection,
}

impl Large {
    /// Where an index can be used, it is; where a policy forbids it, a walk is all that is left.
    async fn indexed() -> Self {
        let large = Self::of(20_000).await;
        let name = database_of(&large.world);
        for other in ["seqscan", "hashjoin", "mergejoin"] {
            let off = format!("ALTER DATABASE {name} SET enable_{other} = off");
            database::raw_sql(&large.world.location, &off).await;
        }
        large
    }

    async fn of(many: u64) -> Self {
        let world = World::on_postgres().await;
        let grant = world.connect(world.ada, &[Category::Read, Category::Write]).await;
        world.seed(grant, many).await;
        for sql in seeds(&world, grant, many) {
            world.raw_sql(&sql).await;
        }
        database::raw_sql(&world.location, "ANALYZE").await;
        let superuser = database::superuser(&database_of(&world)).await;
        Self {
            world,
            grant,
            many,
            superuser,
        }
    }

    /// The tables another replica walks over some work.
    async fn walked(&mut self, work: impl AsyncFnOnce(&World, &Arc<Deps>, GrantId)) -> Vec<(String, i64)> {
        // What a server process has read it tells at the latest when its connection ends: those that made the rows first.
        self.until_open("<>", 0).await;
        let (connections, before) = (self.connections("=").await, self.read().await);
        let deps = self.world.replica().await.unwrap();
        work(&self.world, &deps, self.grant).await;
        deps.store.close().await;
        self.until_open("=", connections).await;
        let after = self.read().await;
        after
            .into_iter()
            .map(|(table, rows)| (rows - before.get(&table).copied().unwrap_or(0), table))
            // Who walks an org's rows reads all of them.
            .filter(|(rows, _)| *rows >= i64::try_from(self.many / 2).unwrap())
            .map(|(rows, table)| (table, rows))
            .collect()
    }

    /// Waits until no more connections of Postern (`=`), or of others (`<>`), are open.
    async fn until_open(&mut self, whose: &str, most: i64) {
        for _ in 0..1000 {
            if self.connections(whose).await <= most {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a connection stays open")
    }

    async fn connections(&mut self, whose: &str) -> i64 {
        let open = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND usename {whose} 'postern' AND pid <> pg_backend_pid()"
        );
        sqlx::query_scalar(AssertSqlSafe(open))
            .fetch_one(&mut self.superuser)
            .await
            .unwrap()
    }

    /// How many rows of each table were ever read, by walks over it and over its indexes.
    async fn read(&mut self) -> BTreeMap<String, i64> {
        sqlx::query_as(
            "SELECT t.relname::text, (t.seq_tup_read + coalesce(sum(i.idx_tup_read), 0))::bigint
             FROM pg_stat_user_tables t LEFT JOIN pg_stat_user_indexes i USING (relid) GROUP BY t.relid, 1, t.seq_tup_read",
        )
        .fetch_all(&mut self.superuser)
        .await
        .unwrap()
        .into_iter()
        .collect()
    }
}

fn database_of(world: &World) -> String {
    let Location::Postgres(settings) = &world.location else {
        panic!("it is not on PostgreSQL")
    };
    database::name_of(settings)
}

/// What makes the org large besides its grants: a secret and a lease for each, and entries, writers, tiles, keys and spent
/// decisions. They stand before what is asked for in their indexes: a walk ends where it finds the one row there is.
fn seeds(world: &World, grant: GrantId, many: u64) -> [String; 7] {
    let (org, numbers) = (world.org, format!("generate_series(1, {many}) n"));
    [
        format!(
            "INSERT INTO secrets SELECT (jsonb_populate_record(m, jsonb_build_object('row_id', g.id))).*
             FROM grants g, secrets m WHERE m.row_id = '{grant}' AND g.id <> '{grant}'"
        ),
        format!(
            "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at)
             SELECT org_id, id, 1, 'seed', 0 FROM grants WHERE id <> '{grant}'"
        ),
        format!(
            "INSERT INTO entries SELECT (jsonb_populate_record(m,
               jsonb_build_object('id', 'ent_' || lpad(n::text, 26, '0'), 'writer', 'seed', 'writer_seq', n))).*
             FROM entries m, {numbers} WHERE m.kind = 'connect'"
        ),
        format!(
            "INSERT INTO writers (org_id, writer, seq, hash, placed)
             SELECT '{org}', '-' || n, 1, '\\x00', 1 FROM {numbers}"
        ),
        format!(
            "INSERT INTO tiles (org_id, level, tile, hashes) SELECT '{org}', -1, n, '\\x00' FROM {numbers}"
        ),
        format!(
            "INSERT INTO idempotency (org_id, principal, route, key, digest, entry_id, status, code, keep_until)
             SELECT '{org}', 'a', 'vend', n, 'd', 'ent_0' || n, 200, 'released', 4000000000000000 FROM {numbers}"
        ),
        format!(
            "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
             SELECT '{org}', 'a', n, 'ent_0' || n, 4000000000000000 FROM {numbers}"
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_walks_nothing_of_a_large_org() {
    let mut large = Large::indexed().await;
    let walked = large
        .walked(async |world, deps, grant| {
            let decided = decide::decide(deps, world.agent, &world.read(grant))
                .await
                .unwrap();
            for number in 0..6 {
                let mut ask = world.read(grant);
                ask.idempotency = Some((format!("key-{number}"), "digest".to_owned()));
                ask.decision = Some(UnverifiedDecision(decided.jws.clone())).filter(|_| number % 2 == 0);
                match vend::vend(deps, world.agent, ask).await {
                    Ok(_) => {}
                    // Its key is given back.
                    Err(Refusal::DecisionSpent { .. }) => assert!(number == 2 || number == 4),
                    Err(other) => panic!("{other:?}"),
                }
                world.later(Duration::from_secs(10));
            }
        })
        .await;
    assert_eq!(walked, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_walks_nothing_of_a_large_org() {
    let mut large = Large::indexed().await;
    let walked = large
        .walked(async |world, deps, grant| {
            for _ in 0..3 {
                world.later(Duration::from_secs(400));
                vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
            }
        })
        .await;
    assert_eq!(walked, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_growth_of_the_log_walks_nothing_of_a_large_org() {
    let mut large = Large::indexed().await;
    let walked = large
        .walked(async |world, deps, grant| {
            for _ in 0..3 {
                vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
                assert!(sequence::run(deps, world.org).await.unwrap() > 0);
            }
        })
        .await;
    assert_eq!(walked, []);
}

/// The planner takes any list for a hundred rows, and would rather read a table of this size whole than look a hundred up.
/// How a batch's transaction begins keeps it from that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_look_up_what_they_are_asked_for_whatever_the_planner_prefers() {
    let mut large = Large::of(2_000).await;
    let claim = large.world.claim_ask(large.grant).await;
    let walked = large
        .walked(async |world, deps, grant| {
            let (mut looks, mut claims) = (JoinSet::new(), JoinSet::new());
            for number in 1..=16 {
                let seeded: GrantId = format!("grt_{number:026}").parse().unwrap();
                let (org, lanes) = (world.org, (deps.looks.clone(), deps.claims.clone()));
                let ask = ClaimAsk {
                    grant: seeded,
                    ..claim.clone()
                };
                looks.spawn(async move { lanes.0.look(org, seeded, SecretKind::AccessToken).await });
                claims.spawn(async move { lanes.1.claim(ask).await });
            }
            for look in looks.join_all().await {
                assert!(look.unwrap().is_some_and(|look| look.current.is_some()));
            }
            for claim in claims.join_all().await {
                assert!(matches!(claim, Ok(Claim::Ours(_))), "{claim:?}");
            }
            // An answer is kept, and a release stands on its grant and secret.
            for _ in 0..3 {
                world.later(Duration::from_secs(400));
                vend::vend(deps, world.agent, world.read(grant)).await.unwrap();
            }
        })
        .await;
    assert_eq!(walked, []);
}
