//! The statements of the gate's batch and the sequencer's, in both dialects side by side. One JSON parameter carries all rows;
//! entries alone, which are long, are bound value by value (`Connection::insert_entries`).

/// What the gate and the sequencer ask of a database. `$1` is a JSON array of ids, or of rows that are arrays, unless said.
#[derive(Debug)]
pub(super) struct BatchSql {
    /// Locks the guards of the orgs in `$1` shared, in org order: org, incarnation, counter; and in each row the time, NULL on
    /// SQLite. Orgs that somebody is changing right now are missing. On SQLite it begins the transaction; on PostgreSQL, where a
    /// row is locked, it says that this commits durably.
    pub(super) guard: &'static str,
    /// The same, but waits for whoever is changing them.
    pub(super) patient_guard: &'static str,
    /// What each request of `$1` stands on: its entry; the ends of the chains of writers `$2` (number, hash) and `$3` (number)
    /// in its org; and, if its grant is active and its secret of that generation, the grant's last use and the sealed
    /// secret. Rows: org, entry, grant, kind, generation; the last three are NULL where no secret is asked for.
    pub(super) standing: &'static str,
    /// Writes `$2` as last use of the grants in `$1`, unless a later one stands there. Rows: org, grant.
    pub(super) touch: &'static str,
    /// Takes idempotency keys that nobody holds at `$2`. Rows: as the table's columns.
    pub(super) take_idempotency: &'static str,
    /// Which of them another entry holds: own entry, then the record.
    pub(super) idempotency_losers: &'static str,
    /// Gives idempotency keys back. Rows: org, entry.
    pub(super) give_back_idempotency: &'static str,
    /// Spends decisions and answers with the entries that did. Rows: as the table's columns.
    pub(super) spend: &'static str,
    /// Which of them another entry spent: own entry, theirs.
    pub(super) spend_losers: &'static str,
    /// The epochs of the orgs of `$1` and the ends of writer `$2`'s chains there: org, incarnation,
    /// counter, number, hash.
    pub(super) chains: &'static str,
    /// The writers of the orgs of `$1` with entries that have no place, by org and name: org, name, last with a place.
    pub(super) waiting: &'static str,
    /// What waits of writers: which row of `$1`, from 0, and an entry, in order. Rows: org, writer, after, up to.
    pub(super) waiting_entries: &'static str,
    /// The heads of the logs of the orgs of `$1`: org, size, head, checkpoint.
    pub(super) log_heads: &'static str,
    /// Tiles: org, level, index, hashes. Rows: org, level, index.
    pub(super) tiles: &'static str,
    /// Writes heads at `$2`. Rows are objects, so that each long text is parsed once: org, size, head, checkpoint.
    pub(super) put_logs: &'static str,
    /// Writes tiles, whose hashes stand one behind another in `$2`. Rows: org, level, index, where its hashes begin there, from
    /// 1, and how many bytes they are.
    pub(super) put_tiles: &'static str,
    /// Gives entries their places. Rows: org, index, entry.
    pub(super) place: &'static str,
    /// Notes how far writers have a place. Rows: org, writer, number.
    pub(super) placed: &'static str,
}

macro_rules! sqlite_guard {
    () => {
        "SELECT e.org_id, e.incarnation, e.counter, NULL
        FROM json_each($1) j JOIN epochs e ON e.org_id = j.value"
    };
}

/// Commits durably whatever is set for server, database or role, and whatever is read anew meanwhile; what is set beyond that
/// stays. Whoever sets less, to be faster, would have a failover forget entries that something was released on.
macro_rules! durably {
    () => {
        "set_config('synchronous_commit', CASE current_setting('synchronous_commit')
          WHEN 'off' THEN 'on' WHEN 'local' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
    };
}
pub(super) use durably;

/// Behind a guard's `WITH`. The last two are no row's own: as sub-selects they are asked for once, by the first row. INVARIANT:
/// I6; who has no guard writes nothing.
macro_rules! postgres_guard {
    () => {
        concat!(
            " SELECT e.org_id, e.incarnation, e.counter,
              (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
              (SELECT ",
            durably!(),
            ")
            FROM free JOIN epochs e ON e.org_id = free.org
            ORDER BY e.org_id FOR SHARE OF e"
        )
    };
}

pub(super) const SQLITE: BatchSql = BatchSql {
    // One process and `BEGIN IMMEDIATE`: whoever is here is alone. Every step to the connection's thread and back is one in
    // which the lane waits for a processor, so that the guard begins the transaction itself.
    guard: concat!("BEGIN IMMEDIATE; ", sqlite_guard!()),
    patient_guard: sqlite_guard!(),
    standing: "SELECT j.value ->> 1, w.seq, w.hash, coalesce(o.seq, 0), g.last_used_at,
          s.generation, s.scopes, s.expires_at, s.odk, s.sealed, s.wrapped_dek
        FROM json_each($1) j
        LEFT JOIN writers w ON w.org_id = j.value ->> 0 AND w.writer = $2
        LEFT JOIN writers o ON o.org_id = j.value ->> 0 AND o.writer = $3
        LEFT JOIN grants g ON g.org_id = j.value ->> 0 AND g.id = j.value ->> 2 AND g.state = 'active'
        LEFT JOIN secrets s ON s.org_id = g.org_id AND s.row_id = g.id AND s.kind = j.value ->> 3
          AND s.generation = j.value ->> 4",
    touch: "UPDATE grants SET last_used_at = $2
        WHERE (org_id, id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each($1) j)
          AND coalesce(last_used_at, 0) < $2",
    take_idempotency:
        "INSERT INTO idempotency (org_id, principal, route, key, digest, entry_id, status, code, keep_until)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
          j.value ->> 6, j.value ->> 7, j.value ->> 8
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, principal, route, key) DO UPDATE SET digest = excluded.digest,
          entry_id = excluded.entry_id, status = excluded.status, code = excluded.code,
          keep_until = excluded.keep_until
        WHERE idempotency.keep_until <= $2",
    idempotency_losers: "SELECT j.value ->> 5, i.digest, i.entry_id, i.status, i.code FROM json_each($1) j
        JOIN idempotency i ON i.org_id = j.value ->> 0 AND i.principal = j.value ->> 1 AND i.route = j.value ->> 2
          AND i.key = j.value ->> 3 AND i.entry_id <> j.value ->> 5",
    give_back_idempotency: "DELETE FROM idempotency
        WHERE (org_id, entry_id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each($1) j)",
    // `OR FAIL` as for entries (`sqlite::Connection::insert_entries`).
    spend: "INSERT OR FAIL INTO spent (org_id, iss, jti, entry_id, keep_until)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4 FROM json_each($1) j
        WHERE true ON CONFLICT (org_id, iss, jti) DO NOTHING RETURNING entry_id",
    spend_losers: "SELECT j.value ->> 3, s.entry_id FROM json_each($1) j
        JOIN spent s ON s.org_id = j.value ->> 0 AND s.iss = j.value ->> 1 AND s.jti = j.value ->> 2
          AND s.entry_id <> j.value ->> 3",
    chains: "SELECT e.org_id, e.incarnation, e.counter, w.seq, w.hash FROM json_each($1) j
        JOIN epochs e ON e.org_id = j.value
        LEFT JOIN writers w ON w.org_id = e.org_id AND w.writer = $2",
    waiting: "SELECT w.org_id, w.writer, w.placed, w.seq, w.hash FROM json_each($1) j
        JOIN writers w ON w.org_id = j.value AND w.waits = 1 ORDER BY w.org_id, w.writer",
    // The numbers of a writer have no gaps.
    waiting_entries: "SELECT j.key, e.bytes FROM json_each($1) j
        JOIN entries e ON e.org_id = j.value ->> 0 AND e.writer = j.value ->> 1
          AND e.writer_seq > j.value ->> 2 AND e.writer_seq <= j.value ->> 3
        ORDER BY j.key, e.writer_seq",
    log_heads: "SELECT l.org_id, l.size, l.head, l.checkpoint FROM json_each($1) j JOIN logs l ON l.org_id = j.value",
    tiles: "SELECT t.org_id, t.level, t.tile, t.hashes FROM json_each($1) j
        JOIN tiles t ON t.org_id = j.value ->> 0 AND t.level = j.value ->> 1 AND t.tile = j.value ->> 2",
    put_logs: "INSERT INTO logs (org_id, size, head, checkpoint, updated_at)
        SELECT j.value ->> 'org', j.value ->> 'size', j.value ->> 'head', j.value ->> 'checkpoint', $2
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id) DO UPDATE SET size = excluded.size, head = excluded.head,
          checkpoint = excluded.checkpoint, updated_at = excluded.updated_at",
    put_tiles: "INSERT INTO tiles (org_id, level, tile, hashes)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, substr($2, j.value ->> 3, j.value ->> 4)
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, level, tile) DO UPDATE SET hashes = excluded.hashes",
    place: "INSERT OR FAIL INTO leaves (org_id, log_index, entry_id)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each($1) j",
    placed: "UPDATE writers SET placed = j.value ->> 2 FROM json_each($1) j
        WHERE org_id = j.value ->> 0 AND writer = j.value ->> 1",
};

pub(super) const POSTGRES: BatchSql = BatchSql {
    // Where rows are looked up by what a document says, the document is read first, `MATERIALIZED`: `->>` counts as leaky,
    // and row-level security lets no condition with it near an index. Each lookup would walk all of an org.
    //
    // The advisory lock is for fairness only: without it, sharers overtake a waiting change for ever. The promise rests
    // on the row lock. Each function is called for one row of a materialised list and never for anybody else's.
    guard: concat!(
        "WITH asked AS MATERIALIZED (SELECT value AS org FROM json_array_elements_text($1::json)),
          free AS MATERIALIZED (SELECT org FROM asked WHERE pg_try_advisory_xact_lock_shared(hashtextextended(org, 0)))",
        postgres_guard!()
    ),
    patient_guard: concat!(
        "WITH asked AS MATERIALIZED (SELECT value AS org FROM json_array_elements_text($1::json)),
          free AS MATERIALIZED (SELECT org, pg_advisory_xact_lock_shared(hashtextextended(org, 0)) FROM asked)",
        postgres_guard!()
    ),
    standing: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS entry, value ->> 2 AS grant_id,
            value ->> 3 AS kind, (value ->> 4)::bigint AS generation FROM json_array_elements($1::json))
        SELECT a.entry, w.seq, w.hash, coalesce(o.seq, 0), g.last_used_at,
          s.generation, s.scopes, s.expires_at, s.odk, s.sealed, s.wrapped_dek
        FROM asked a
        LEFT JOIN writers w ON w.org_id = a.org AND w.writer = $2
        LEFT JOIN writers o ON o.org_id = a.org AND o.writer = $3
        LEFT JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id AND g.state = 'active'
        LEFT JOIN secrets s ON s.org_id = g.org_id AND s.row_id = g.id AND s.kind = a.kind
          AND s.generation = a.generation",
    // In key order, so that two batches never wait for each other in a circle.
    touch: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS grant_id
            FROM json_array_elements($1::json))
        UPDATE grants SET last_used_at = $2
        WHERE (org_id, id) IN (SELECT g.org_id, g.id FROM asked a
            JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id
            WHERE coalesce(g.last_used_at, 0) < $2
            ORDER BY g.org_id, g.id FOR NO KEY UPDATE OF g SKIP LOCKED)",
    take_idempotency:
        "INSERT INTO idempotency (org_id, principal, route, key, digest, entry_id, status, code, keep_until)
        SELECT DISTINCT ON (1, 2, 3, 4)
          j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5,
          (j.value ->> 6)::bigint, j.value ->> 7, (j.value ->> 8)::bigint
        FROM json_array_elements($1::json) WITH ORDINALITY j(value, place) ORDER BY 1, 2, 3, 4, place
        ON CONFLICT (org_id, principal, route, key) DO UPDATE SET digest = excluded.digest,
          entry_id = excluded.entry_id, status = excluded.status, code = excluded.code,
          keep_until = excluded.keep_until
        WHERE idempotency.keep_until <= $2",
    idempotency_losers: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS principal,
            value ->> 2 AS route, value ->> 3 AS key, value ->> 5 AS entry FROM json_array_elements($1::json))
        SELECT a.entry, i.digest, i.entry_id, i.status, i.code FROM asked a
        JOIN idempotency i ON i.org_id = a.org AND i.principal = a.principal AND i.route = a.route
          AND i.key = a.key AND i.entry_id <> a.entry",
    give_back_idempotency: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS entry
            FROM json_array_elements($1::json))
        DELETE FROM idempotency i USING asked a WHERE i.org_id = a.org AND i.entry_id = a.entry",
    spend: "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, (j.value ->> 4)::bigint
        FROM json_array_elements($1::json) j ORDER BY 1, 2, 3
        ON CONFLICT (org_id, iss, jti) DO NOTHING RETURNING entry_id",
    spend_losers: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS iss, value ->> 2 AS jti,
            value ->> 3 AS entry FROM json_array_elements($1::json))
        SELECT a.entry, s.entry_id FROM asked a
        JOIN spent s ON s.org_id = a.org AND s.iss = a.iss AND s.jti = a.jti AND s.entry_id <> a.entry",
    chains: "SELECT e.org_id, e.incarnation, e.counter, w.seq, w.hash FROM json_array_elements_text($1::json) j
        JOIN epochs e ON e.org_id = j.value
        LEFT JOIN writers w ON w.org_id = e.org_id AND w.writer = $2",
    waiting: "SELECT w.org_id, w.writer, w.placed, w.seq, w.hash FROM json_array_elements_text($1::json) j
        JOIN writers w ON w.org_id = j.value AND w.waits = 1 ORDER BY w.org_id, w.writer",
    // A sub-select for each writer, which OFFSET keeps apart: asked for all at once, the planner reads every entry there is.
    // Within it, what the document says is a parameter, which no policy minds.
    waiting_entries: "SELECT j.place - 1, e.bytes FROM json_array_elements($1::json) WITH ORDINALITY j(value, place)
        CROSS JOIN LATERAL (SELECT bytes, writer_seq FROM entries
          WHERE org_id = j.value ->> 0 AND writer = j.value ->> 1 AND writer_seq > (j.value ->> 2)::bigint
            AND writer_seq <= (j.value ->> 3)::bigint
          ORDER BY writer_seq OFFSET 0) e
        ORDER BY j.place, e.writer_seq",
    log_heads: "SELECT l.org_id, l.size, l.head, l.checkpoint FROM json_array_elements_text($1::json) j
        JOIN logs l ON l.org_id = j.value",
    tiles: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, (value ->> 1)::bigint AS level,
            (value ->> 2)::bigint AS tile FROM json_array_elements($1::json))
        SELECT t.org_id, t.level, t.tile, t.hashes FROM asked a
        JOIN tiles t ON t.org_id = a.org AND t.level = a.level AND t.tile = a.tile",
    put_logs: "INSERT INTO logs (org_id, size, head, checkpoint, updated_at)
        SELECT j.org, j.size, j.head, j.checkpoint, $2
        FROM json_to_recordset($1::json) AS j(org text, size bigint, head text, checkpoint text) ORDER BY 1
        ON CONFLICT (org_id) DO UPDATE SET size = excluded.size, head = excluded.head,
          checkpoint = excluded.checkpoint, updated_at = excluded.updated_at",
    put_tiles: "INSERT INTO tiles (org_id, level, tile, hashes)
        SELECT j.value ->> 0, (j.value ->> 1)::bigint, (j.value ->> 2)::bigint,
          substring($2::bytea FROM (j.value ->> 3)::integer FOR (j.value ->> 4)::integer)
        FROM json_array_elements($1::json) j ORDER BY 1, 2, 3
        ON CONFLICT (org_id, level, tile) DO UPDATE SET hashes = excluded.hashes",
    place: "INSERT INTO leaves (org_id, log_index, entry_id)
        SELECT j.value ->> 0, (j.value ->> 1)::bigint, j.value ->> 2 FROM json_array_elements($1::json) j",
    // The gate moves these rows on in the order of the orgs: so does this, or the two could wait for each other.
    placed: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS writer,
            (value ->> 2)::bigint AS number FROM json_array_elements($1::json)),
          held AS MATERIALIZED (SELECT w.org_id, w.writer, a.number FROM asked a
            JOIN writers w ON w.org_id = a.org AND w.writer = a.writer
            ORDER BY w.org_id, w.writer FOR NO KEY UPDATE OF w)
        UPDATE writers w SET placed = h.number FROM held h WHERE w.org_id = h.org_id AND w.writer = h.writer",
};
