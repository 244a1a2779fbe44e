use super::*;

async fn engine() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(&dir.path().join("test.db")).await.unwrap();
    (dir, engine)
}

/// Waits until every reader has come back to its pool.
async fn all_back(engine: &Engine) {
    while engine.readers.size() == 0 || engine.readers.num_idle() < engine.readers.size() as usize {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn mark(tx: &mut Connection) -> Option<Row> {
    let mut rows = tx
        .rows("SELECT value FROM meta WHERE name = 'mark'", Vec::new())
        .await
        .unwrap();
    rows.pop()
}

#[tokio::test]
async fn a_reader_that_is_dropped_is_used_again() {
    let (_dir, engine) = engine().await;
    let mut first = engine.begin(Mode::Read).await.unwrap();
    first.rows("PRAGMA cache_size = 77", Vec::new()).await.unwrap();
    drop(first);
    all_back(&engine).await;
    let mut second = engine.begin(Mode::Read).await.unwrap();
    let row = second.rows("PRAGMA cache_size", Vec::new()).await.unwrap().pop();
    assert_eq!(row.unwrap().fields("pragma").int().unwrap(), 77);
}

#[tokio::test]
async fn a_reader_that_comes_back_has_given_its_snapshot_up() {
    let (_dir, engine) = engine().await;
    for _ in 0..8 {
        let mut old = engine.begin(Mode::Read).await.unwrap();
        assert!(mark(&mut old).await.is_none());
    }
    all_back(&engine).await;
    let mut writer = engine.begin(Mode::Write).await.unwrap();
    writer
        .execute("INSERT INTO meta (name, value) VALUES ('mark', 'x')", Vec::new())
        .await
        .unwrap();
    writer.commit().await.unwrap();
    for _ in 0..8 {
        let mut new = engine.begin(Mode::Read).await.unwrap();
        assert!(mark(&mut new).await.is_some());
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing_behind() {
    let (_dir, engine) = engine().await;
    let mut writer = engine.begin(Mode::Write).await.unwrap();
    writer
        .execute("INSERT INTO meta (name, value) VALUES ('mark', 'x')", Vec::new())
        .await
        .unwrap();
    drop(writer);
    let mut next = engine.begin(Mode::Write).await.unwrap();
    assert!(mark(&mut next).await.is_none());
}

/// How the planner means to find rows, for a reader and for the writer that made the database.
async fn plans(sql: &'static str) -> Vec<String> {
    let (_dir, engine) = engine().await;
    let mut plans = Vec::new();
    for mut tx in [
        engine.begin(Mode::Read).await.unwrap(),
        engine.begin(Mode::Write).await.unwrap(),
    ] {
        let row = tx.rows(sql, Vec::new()).await.unwrap().swap_remove(0);
        let mut fields = row.fields("plan");
        for _ in 0..3 {
            fields.int().unwrap();
        }
        plans.push(fields.text().unwrap());
    }
    plans
}

#[tokio::test]
async fn the_delegations_of_a_grant_are_not_looked_for_among_all_of_the_org() {
    for plan in plans(
        "EXPLAIN QUERY PLAN SELECT id, user_id FROM delegations
         WHERE org_id = '1' AND grant_id = '2' AND agent_id = '3' AND ended_at IS NULL ORDER BY id",
    )
    .await
    {
        assert!(
            plan.contains("delegations_grant (org_id=? AND grant_id=? AND agent_id=?)"),
            "{plan}"
        );
    }
}

#[tokio::test]
async fn the_grants_of_a_person_are_not_looked_for_among_all_of_the_org() {
    for plan in plans(
        "EXPLAIN QUERY PLAN SELECT id, label FROM grants
         WHERE org_id = '1' AND user_id = '2' AND connector = '3' ORDER BY id",
    )
    .await
    {
        assert!(
            plan.contains("grants_user (org_id=? AND user_id=? AND connector=?)"),
            "{plan}"
        );
    }
}
