use super::*;
use crate::store::{
    connects::connects_to_end,
    counts::{delegations_of_selector, grants_of_selector},
    due::{
        CONNECTORS_WITHOUT_TIME, NEXT_CONNECTOR, ORGS_TO_TELL, OUTBOX, OUTBOX_ORGS, OUTCOMES, QUARANTINES,
        RENEWAL_CONNECTORS,
    },
    entries::{ABOUT, INCARNATIONS, LISTED, LISTED_AMONG},
    error::is_outage,
    grants::whose::{BACK, LIVING_OF_ACCOUNT, LIVING_OF_ANY, LIVING_OF_PERSON, LIVING_UNTOLD, OF_CLIENT},
    lineage::NUMBERED,
    listing::UPSTREAM_TOTALS,
    notices::{DUE, TAKE},
    once::Outlived,
    outbox::{CLAIM, OF_REVOCATION},
    refresh_sql,
    revocations::{IN_FLIGHT, grants_to_bury},
    sql::Kind,
};

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

/// An entry that says this everywhere.
fn entry(text: &str) -> Vec<Value> {
    let value = |(_, kind): &(_, Kind)| match kind {
        Kind::Int => Value::Int(1),
        Kind::Text => Value::Text(text.to_owned()),
        Kind::Blob => Value::Blob(vec![1]),
    };
    entries::COLUMNS.iter().map(value).collect()
}

/// The entries and the commit are one step: where the entries cannot be written, nothing is committed.
#[tokio::test]
async fn entries_that_cannot_be_written_take_with_them_what_came_before() {
    let (_dir, engine) = engine().await;
    let row = || entry("x");
    for (rows, is_written) in [(vec![row(), row()], false), (vec![row()], true)] {
        let mut writer = engine.begin(Mode::Write).await.unwrap();
        writer
            .execute("INSERT INTO meta (name, value) VALUES ('mark', 'x')", Vec::new())
            .await
            .unwrap();
        writer.insert_entries(rows, "r1/hot", &[]).await.unwrap();
        assert_eq!(writer.commit().await.is_ok(), is_written);
        let mut next = engine.begin(Mode::Read).await.unwrap();
        assert_eq!(mark(&mut next).await.is_some(), is_written);
        let entries = next.rows("SELECT id FROM entries", Vec::new()).await.unwrap();
        assert_eq!(entries.len(), usize::from(is_written));
    }
}

/// Writes a mark and then much more, in a statement of its own or with the commit.
async fn write_much(engine: &Engine, with_the_commit: bool) -> Result<(), StoreError> {
    let much = "x".repeat(1 << 20);
    let mut writer = engine.begin(Mode::Write).await?;
    writer
        .execute("INSERT INTO meta (name, value) VALUES ('mark', 'x')", Vec::new())
        .await?;
    if with_the_commit {
        writer.insert_entries(vec![entry(&much)], "r1/hot", &[]).await?;
    } else {
        writer
            .execute(
                "INSERT INTO meta (name, value) VALUES ('much', $1)",
                vec![Value::Text(much)],
            )
            .await?;
    }
    writer.commit().await
}

/// A full disk, as SQLite says it (SQLITE_FULL).
#[tokio::test]
async fn a_write_without_room_is_an_outage_and_leaves_nothing_half_written() {
    let (_dir, engine) = engine().await;
    for with_the_commit in [false, true] {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(&engine.writer)
            .await
            .unwrap();
        let limit = format!("PRAGMA max_page_count = {pages}");
        sqlx::raw_sql(AssertSqlSafe(limit))
            .execute(&engine.writer)
            .await
            .unwrap();
        let failed = write_much(&engine, with_the_commit).await.unwrap_err();
        assert!(failed.outage().is_some(), "{failed:?}");
        let mut reader = engine.begin(Mode::Read).await.unwrap();
        assert!(mark(&mut reader).await.is_none());
        let entries = reader.rows("SELECT id FROM entries", Vec::new()).await.unwrap();
        assert!(entries.is_empty());
    }
    // The limit was that of the connections that failed: they are gone.
    write_much(&engine, false).await.unwrap();
    let mut reader = engine.begin(Mode::Read).await.unwrap();
    assert!(mark(&mut reader).await.is_some());
}

#[test]
fn what_a_database_says_to_everybody_is_an_outage() {
    // Busy, locked, read-only, an I/O error, damaged, full, not to be opened, no database; and PostgreSQL's.
    for code in [
        "5", "261", "517", "6", "8", "10", "778", "5386", "11", "13", "14", "26", "08006", "53100", "57P01",
        "25006",
    ] {
        assert!(is_outage(code), "{code}");
    }
    // An error in SQL, what breaks a rule, too much; and PostgreSQL's.
    for code in [
        "", "1", "19", "787", "1555", "2067", "18", "20", "53", "57014", "55P03", "40001", "23505",
    ] {
        assert!(!is_outage(code), "{code}");
    }
}

#[tokio::test]
async fn a_second_way_to_the_file_leads_to_the_same_lock() {
    let (dir, first) = engine().await;
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(dir.path().join("test.db"), &link).unwrap();
    let second = Engine::open(&link).await;
    assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    first.close().await;
    Engine::open(&link).await.unwrap().close().await;
}

#[tokio::test]
async fn the_writer_sets_how_long_the_wals_file_may_stay() {
    let (_dir, engine) = engine().await;
    let mut writer = engine.begin(Mode::Write).await.unwrap();
    let rows = writer.rows("PRAGMA journal_size_limit", Vec::new()).await;
    let kept = rows.unwrap().pop().unwrap().fields("pragma").int().unwrap();
    assert_eq!(kept.to_string(), WAL_KEPT);
}

/// How the planner means to find rows, for a reader and for the writer that made the database.
async fn plans(sql: &str) -> Vec<String> {
    let (_dir, engine) = engine().await;
    let sql: &'static str = format!("EXPLAIN QUERY PLAN {sql}").leak();
    let mut plans = Vec::new();
    for mut tx in [
        engine.begin(Mode::Read).await.unwrap(),
        engine.begin(Mode::Write).await.unwrap(),
    ] {
        let rows = tx.rows(sql, Vec::new()).await.unwrap();
        let step = |row: Row| {
            let mut fields = row.fields("plan");
            for _ in 0..3 {
                fields.int().unwrap();
            }
            fields.text().unwrap()
        };
        plans.push(rows.into_iter().map(step).collect::<Vec<_>>().join("\n"));
    }
    plans
}

/// Every way named here is taken, and no table is walked from end to end.
async fn finds(sql: &str, ways: &[&str]) {
    for plan in plans(sql).await {
        for way in ways {
            assert!(plan.contains(way), "{way} is not in:\n{plan}");
        }
        assert!(!plan.contains("SCAN"), "{plan}");
    }
}

/// Nor are they sorted: of very many entries the last ones are read.
#[tokio::test]
async fn entries_are_listed_from_the_last_one_on() {
    finds(LISTED, &["entries_1 (org_id=? AND id<?)"]).await;
    for plan in plans(LISTED).await {
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    for plan in plans(LISTED_AMONG).await {
        assert!(plan.contains("entries_1 (org_id=? AND id<?)"), "{plan}");
    }
}

#[tokio::test]
async fn an_entry_is_found_by_its_number() {
    finds(
        NUMBERED,
        &["entries_writer (org_id=? AND writer=? AND writer_seq=?)"],
    )
    .await;
}

#[tokio::test]
async fn the_delegations_of_a_grant_are_not_looked_for_among_all_of_the_org() {
    finds(
        "SELECT id, user_id FROM delegations
         WHERE org_id = '1' AND grant_id = '2' AND agent_id = '3' AND ended_at IS NULL ORDER BY id",
        &["delegations_grant (org_id=? AND grant_id=? AND agent_id=?)"],
    )
    .await;
}

#[tokio::test]
async fn the_grants_of_a_person_are_not_looked_for_among_all_of_the_org() {
    finds(
        "SELECT id, label FROM grants WHERE org_id = '1' AND user_id = '2' AND connector = '3' ORDER BY id",
        &["grants_user (org_id=? AND user_id=? AND connector=?)"],
    )
    .await;
}

#[tokio::test]
async fn orgs_with_something_to_sequence_are_not_looked_for_among_all_writers() {
    finds(
        "SELECT DISTINCT org_id FROM writers WHERE waits = 1 AND org_id > '' ORDER BY org_id LIMIT 9",
        &["writers_waiting (org_id>?)"],
    )
    .await;
}

#[tokio::test]
async fn calls_in_flight_cost_what_is_open_and_not_the_length_of_the_log() {
    finds(
        IN_FLIGHT,
        &[
            "SEARCH c USING PRIMARY KEY (org_id=? AND entry_id>?)",
            "SEARCH e USING INDEX sqlite_autoindex_entries_1 (org_id=? AND id=?)",
        ],
    )
    .await;
    finds(OUTCOMES, &["open_calls_due (sent_at<?)"]).await;
    finds(QUARANTINES, &["grants_quarantined (state_at<?)"]).await;
    finds(
        "DELETE FROM open_calls WHERE org_id = $1 AND entry_id = $2",
        &["PRIMARY KEY (org_id=? AND entry_id=?)"],
    )
    .await;
}

#[tokio::test]
async fn what_belongs_to_an_entry_is_not_looked_for_in_all_of_the_log() {
    finds(ABOUT, &["entries_correlation (org_id=? AND correlation=?)"]).await;
    finds(INCARNATIONS, &["entries_incarnations (org_id=?)"]).await;
}

#[tokio::test]
async fn a_revocation_looks_only_at_what_it_names() {
    let of_grant = "SEARCH g USING PRIMARY KEY (org_id=? AND id=?)";
    let of_person = "SEARCH g USING INDEX grants_user (org_id=? AND user_id=?)";
    for (kind, way) in [("grant", of_grant), ("user", of_person)] {
        finds(grants_of_selector(kind), &[way]).await;
        finds(grants_to_bury(kind), &[way]).await;
        let delegations = "delegations_grant (org_id=? AND grant_id=?)";
        finds(delegations_of_selector(kind), &[way, delegations]).await;
    }
    for kind in ["all", "user", "connector", "agent"] {
        finds(
            connects_to_end(kind),
            &["connect_sessions_open (org_id=? AND made_epoch<?)"],
        )
        .await;
    }
}

/// Each step of a fan-out costs what the step does, however many grants there are.
#[tokio::test]
async fn a_fan_out_finds_who_is_next_without_walking_who_is_not() {
    for kind in ["all", "connector", "agent"] {
        for plan in plans(grants_to_bury(kind)).await {
            assert!(plan.contains("INDEX grants_living (org_id=?"), "{kind}: {plan}");
            assert!(
                !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"),
                "{kind}: {plan}"
            );
        }
    }
    finds(CLAIM, &["PRIMARY KEY (org_id=? AND grant_id=?)"]).await;
}

#[tokio::test]
async fn what_is_to_be_renewed_is_not_looked_for_among_all_grants() {
    for (sql, way) in [
        (
            refresh_sql::SQLITE.renewals,
            "grants_renewal (connector=? AND renew_at>? AND renew_at<?)",
        ),
        (
            refresh_sql::SQLITE.renewals_without_time,
            "grants_unset (connector=?)",
        ),
        (CONNECTORS_WITHOUT_TIME, "grants_unset (connector>?)"),
        (RENEWAL_CONNECTORS, "grants_renewal (connector>?)"),
        (
            RENEWAL_CONNECTORS,
            "grants_renewal (connector=? AND renew_at>? AND renew_at<?)",
        ),
    ] {
        for plan in plans(sql).await {
            assert!(plan.contains(way), "{way} is not in:\n{plan}");
            assert!(
                !plan.contains("SCAN g") && !plan.contains("TEMP B-TREE"),
                "{plan}"
            );
        }
    }
}

/// Asked for each grant that is to be ended at its provider, while very many others of the org end as well.
#[tokio::test]
async fn whoever_could_end_with_a_grant_is_found_without_walking_those_that_ended() {
    let of_account = "grants_beside (org_id=? AND connector=? AND account_id=? AND connected_epoch>?)";
    finds(LIVING_OF_ACCOUNT, &[of_account]).await;
    let of_any = "grants_beside (org_id=? AND connector=? AND account_id>?)";
    finds(LIVING_OF_ANY, &[of_any]).await;
    for sql in [LIVING_OF_ACCOUNT, LIVING_OF_ANY] {
        for plan in plans(sql).await {
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
    let of_person = "grants_account (org_id=? AND user_id=? AND connector=? AND account_id=?)";
    finds(LIVING_OF_PERSON, &[of_person]).await;
    finds(
        LIVING_UNTOLD,
        &["grants_user (org_id=? AND user_id=? AND connector=?)"],
    )
    .await;
    finds(OF_CLIENT, &["PRIMARY KEY (org_id=? AND connector=?)"]).await;
    finds(BACK, &["connect_sessions_open (org_id=? AND made_epoch>?)"]).await;
}

#[tokio::test]
async fn what_is_due_at_one_provider_is_not_looked_for_among_all_that_waits() {
    let of_an_org = "outbox_due (connector=? AND org_id=? AND due_at>? AND due_at<?)";
    finds(OUTBOX, &[of_an_org]).await;
    finds(NEXT_CONNECTOR, &["outbox_due (connector>?)"]).await;
    for plan in plans(OUTBOX).await {
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    for plan in plans(OUTBOX_ORGS).await {
        let jump = "outbox_due (connector=? AND org_id>?)";
        assert!(plan.contains(jump) && plan.contains(of_an_org), "{plan}");
        // What is gone through one by one are the orgs.
        assert!(
            !plan.contains("SCAN o") && !plan.contains("TEMP B-TREE"),
            "{plan}"
        );
    }
}

/// A look costs as much as there are orgs with something to tell, however much it is, and a turn what is taken up.
#[tokio::test]
async fn whom_there_is_to_tell_of_is_found_without_walking_what_is_to_be_told() {
    for plan in plans(ORGS_TO_TELL).await {
        let [jump, glance] = ["notices_due (org_id>?)", "notices_due (org_id=? AND due_at>?)"];
        assert!(plan.contains(jump) && plan.contains(glance), "{plan}");
        // What is gone through one by one are the orgs.
        assert!(
            !plan.contains("SCAN n") && !plan.contains("TEMP B-TREE"),
            "{plan}"
        );
    }
    finds(
        DUE,
        &["COVERING INDEX notices_due (org_id=? AND due_at>? AND due_at<?)"],
    )
    .await;
    for plan in plans(DUE).await {
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
    finds(TAKE, &["PRIMARY KEY (org_id=? AND grant_id=?)"]).await;
}

#[tokio::test]
async fn how_far_a_revocation_has_come_is_read_from_what_it_ended_alone() {
    finds(
        UPSTREAM_TOTALS,
        &["COVERING INDEX outbox_result (org_id=? AND revocation_id=?)"],
    )
    .await;
    finds(
        OF_REVOCATION,
        &["outbox_revocation (org_id=? AND revocation_id=?"],
    )
    .await;
    for plan in plans(OF_REVOCATION).await {
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}

/// A look costs as much as there are orgs, and a step what it removes.
#[tokio::test]
async fn what_has_outlived_its_purpose_is_found_without_walking_what_has_not() {
    for (what, index, until) in [
        (Outlived::Decisions, "spent_due", "keep_until"),
        (Outlived::Keys, "idempotency_due", "keep_until"),
        (Outlived::Links, "login_links_due", "expires_at"),
        (Outlived::Sessions, "sessions_due", "expires_at"),
    ] {
        let sql = what.sql();
        for plan in plans(sql.orgs).await {
            // What is gone through one by one are the orgs.
            assert!(plan.contains("(org_id>?)"), "{plan}");
            assert!(plan.contains(&format!("{index} (org_id=?)")), "{plan}");
            assert!(
                !plan.contains("SCAN r") && !plan.contains("TEMP B-TREE"),
                "{plan}"
            );
        }
        finds(sql.first_to_stay, &[&format!("{index} (org_id=? AND {until}<?)")]).await;
        for plan in plans(sql.first_to_stay).await {
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
        // By its moment, or by that and the key behind it.
        finds(sql.remove, &[&format!("{index} (org_id=? AND ")]).await;
    }
}
