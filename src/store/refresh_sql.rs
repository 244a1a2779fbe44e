//! The statements that refreshes of many grants share, in both dialects side by side. One JSON parameter carries all rows.

use super::grants::{floors_over_grant, grant_columns};

/// What refreshes, and the look ahead, ask of a database. `$1` is a JSON array of rows that are arrays, unless said.
#[derive(Debug)]
pub(super) struct RefreshSql {
    /// What is known of grants: which row of `$1`, from 0; the grant; its secret of that kind; its refresh token; when its
    /// lease ends. Rows: org, grant, kind.
    pub(super) looks: &'static str,
    /// The clients of the orgs of `$1`, an array of ids: org, then the client.
    pub(super) clients: &'static str,
    /// The data keys of the orgs of `$1` that are in use or among the ids of `$2`, the newest first: org, whether it is in
    /// use, then the key.
    pub(super) odks: &'static str,
    /// Locks the leases of active grants until the transaction ends, those that were never claimed as well. Rows: org,
    /// grant. Nothing, where whoever writes is alone.
    pub(super) lock_leases: Option<&'static str>,
    /// Active grants with their refresh leases: org, grant, generation, fence, end, intent, failures, not before; then the
    /// org's incarnation and counter, and the ends of the chains of writers `$2` and `$3` there. Rows: org, grant.
    pub(super) leases: &'static str,
    /// Gives leases to holder `$2` at `$3`; a question without an answer stays as old as it was. Rows: org, grant, fence, end,
    /// intent.
    pub(super) claim: &'static str,
    /// Which rows of `$1`, from 0, are of active grants of that generation under that fence; locks their leases. Rows: org,
    /// grant, fence, generation.
    pub(super) standing: &'static str,
    /// Gives leases back with their questions answered. Rows: org, grant.
    pub(super) release: &'static str,
    /// Moves grants on. Rows: org, grant, generation, when it is looked at again, whether the end of its access token is
    /// another one, that end.
    pub(super) renew: &'static str,
    /// Keeps secrets at `$2`. Rows: org, grant, kind, generation, data key, sealed as hex, wrapped key as hex, scopes, end.
    pub(super) put_secrets: &'static str,
    /// At most `$3` grants at connector `$1` that are to be looked at again at `$2`, the longest overdue first, but for those of
    /// the orgs of `$4`, an array of ids.
    pub(super) renewals: &'static str,
    /// At most `$2` grants at connector `$1` without a time to be looked at again, but for those of the orgs of `$3`.
    pub(super) renewals_without_time: &'static str,
}

pub(super) const SQLITE: RefreshSql = RefreshSql {
    looks: concat!(
        "SELECT j.key, ",
        grant_columns!(),
        ", c.generation, c.scopes, c.expires_at, c.odk, c.sealed, c.wrapped_dek,
          r.generation, r.scopes, r.expires_at, r.odk, r.sealed, r.wrapped_dek, coalesce(l.expires_at, 0)
        FROM json_each($1) j
        JOIN grants g ON g.org_id = j.value ->> 0 AND g.id = j.value ->> 1
        LEFT JOIN secrets c ON c.org_id = g.org_id AND c.row_id = g.id AND c.kind = j.value ->> 2
        LEFT JOIN secrets r ON r.org_id = g.org_id AND r.row_id = g.id AND r.kind = 'refresh_token'
        LEFT JOIN refresh_leases l ON l.org_id = g.org_id AND l.grant_id = g.id"
    ),
    clients: "SELECT c.org_id, c.connector, c.client_id, c.generation, c.odk, c.sealed, c.wrapped_dek
        FROM json_each($1) j JOIN connector_clients c ON c.org_id = j.value",
    odks: "SELECT k.org_id, k.retired_at IS NULL, k.id, k.kek_ref, k.wrapped, k.commitment
        FROM json_each($1) j JOIN odks k ON k.org_id = j.value
        WHERE k.retired_at IS NULL OR k.id IN (SELECT value FROM json_each($2))
        ORDER BY k.created_at DESC, k.id DESC",
    lock_leases: None,
    leases: concat!(
        "SELECT g.org_id, g.id, g.generation, coalesce(l.fence, 0), coalesce(l.expires_at, 0), l.intent,
          coalesce(l.failures, 0), coalesce(l.not_before, 0), e.incarnation, e.counter,
          coalesce((SELECT w.seq FROM writers w WHERE w.org_id = g.org_id AND w.writer = $2), 0),
          coalesce((SELECT w.seq FROM writers w WHERE w.org_id = g.org_id AND w.writer = $3), 0)
        FROM json_each($1) j
        JOIN grants g ON g.org_id = j.value ->> 0 AND g.id = j.value ->> 1 AND g.state = 'active'
        JOIN epochs e ON e.org_id = g.org_id
        LEFT JOIN refresh_leases l ON l.org_id = g.org_id AND l.grant_id = g.id
        WHERE NOT EXISTS (SELECT 1 ",
        floors_over_grant!(),
        ")"
    ),
    claim: "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, $2, j.value ->> 3, j.value ->> 4, $3
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, grant_id) DO UPDATE SET fence = excluded.fence, holder = excluded.holder,
          expires_at = excluded.expires_at, intent = excluded.intent,
          intent_at = CASE WHEN refresh_leases.expires_at > 0
            THEN coalesce(refresh_leases.intent_at, excluded.intent_at) ELSE excluded.intent_at END",
    standing: concat!(
        "SELECT j.key FROM json_each($1) j
        JOIN grants g ON g.org_id = j.value ->> 0 AND g.id = j.value ->> 1 AND g.state = 'active'
          AND g.generation = j.value ->> 3
        JOIN refresh_leases l ON l.org_id = g.org_id AND l.grant_id = g.id AND l.fence = j.value ->> 2
        WHERE NOT EXISTS (SELECT 1 ",
        floors_over_grant!(),
        ")"
    ),
    release: "UPDATE refresh_leases SET expires_at = 0, intent = NULL, intent_at = NULL, failures = 0, not_before = 0
        WHERE (org_id, grant_id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM json_each($1) j)",
    // The table of JSON has an `id` of its own.
    renew: "UPDATE grants SET generation = j.value ->> 2, renew_at = j.value ->> 3,
          access_expires_at = CASE WHEN j.value ->> 4 THEN j.value ->> 5 ELSE access_expires_at END
        FROM json_each($1) j WHERE grants.org_id = j.value ->> 0 AND grants.id = j.value ->> 1",
    put_secrets: "INSERT INTO secrets (org_id, row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at,
          created_at)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, unhex(j.value ->> 5),
          unhex(j.value ->> 6), j.value ->> 7, j.value ->> 8, $2
        FROM json_each($1) j WHERE true
        ON CONFLICT (org_id, row_id, kind) DO UPDATE SET generation = excluded.generation, odk = excluded.odk,
          sealed = excluded.sealed, wrapped_dek = excluded.wrapped_dek, scopes = excluded.scopes,
          expires_at = excluded.expires_at, created_at = excluded.created_at",
    renewals: "SELECT org_id, id FROM grants
        WHERE renew_at IS NOT NULL AND state = 'active' AND connector = $1 AND renew_at <= $2
          AND org_id NOT IN (SELECT value FROM json_each($4))
        ORDER BY renew_at LIMIT $3",
    renewals_without_time: "SELECT org_id, id FROM grants WHERE renew_at IS NULL AND state = 'active' AND connector = $1
          AND org_id NOT IN (SELECT value FROM json_each($3))
        LIMIT $2",
};

// Row-level security looks at a row before an operator that may leak does: what is taken out of JSON is taken out first,
// or no index is used.
pub(super) const POSTGRES: RefreshSql = RefreshSql {
    looks: concat!(
        "WITH asked AS MATERIALIZED (SELECT place - 1 AS place, value ->> 0 AS org, value ->> 1 AS grant_id,
            value ->> 2 AS kind FROM json_array_elements($1::json) WITH ORDINALITY j(value, place))
        SELECT a.place, ",
        grant_columns!(),
        ", c.generation, c.scopes, c.expires_at, c.odk, c.sealed, c.wrapped_dek,
          r.generation, r.scopes, r.expires_at, r.odk, r.sealed, r.wrapped_dek, coalesce(l.expires_at, 0)
        FROM asked a
        JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id
        LEFT JOIN secrets c ON c.org_id = g.org_id AND c.row_id = g.id AND c.kind = a.kind
        LEFT JOIN secrets r ON r.org_id = g.org_id AND r.row_id = g.id AND r.kind = 'refresh_token'
        LEFT JOIN refresh_leases l ON l.org_id = g.org_id AND l.grant_id = g.id"
    ),
    clients: "SELECT c.org_id, c.connector, c.client_id, c.generation, c.odk, c.sealed, c.wrapped_dek
        FROM json_array_elements_text($1::json) j JOIN connector_clients c ON c.org_id = j.value",
    odks: "SELECT k.org_id, k.retired_at IS NULL, k.id, k.kek_ref, k.wrapped, k.commitment
        FROM json_array_elements_text($1::json) j JOIN odks k ON k.org_id = j.value
        WHERE k.retired_at IS NULL OR k.id IN (SELECT value FROM json_array_elements_text($2::json))
        ORDER BY k.created_at DESC, k.id DESC",
    // In one order, or two of them could wait for each other.
    lock_leases: Some(
        "WITH asked AS MATERIALIZED (SELECT DISTINCT value ->> 0 AS org, value ->> 1 AS grant_id
            FROM json_array_elements($1::json))
        INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at)
        SELECT g.org_id, g.id, 0, '', 0 FROM asked a
        JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id AND g.state = 'active' ORDER BY 1, 2
        ON CONFLICT (org_id, grant_id) DO UPDATE SET fence = refresh_leases.fence",
    ),
    leases: concat!(
        "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS grant_id
            FROM json_array_elements($1::json))
        SELECT g.org_id, g.id, g.generation, coalesce(l.fence, 0), coalesce(l.expires_at, 0), l.intent,
          coalesce(l.failures, 0), coalesce(l.not_before, 0), e.incarnation, e.counter,
          coalesce((SELECT w.seq FROM writers w WHERE w.org_id = g.org_id AND w.writer = $2), 0),
          coalesce((SELECT w.seq FROM writers w WHERE w.org_id = g.org_id AND w.writer = $3), 0)
        FROM asked a
        JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id AND g.state = 'active'
        JOIN epochs e ON e.org_id = g.org_id
        LEFT JOIN refresh_leases l ON l.org_id = g.org_id AND l.grant_id = g.id
        WHERE NOT EXISTS (SELECT 1 ",
        floors_over_grant!(),
        ")"
    ),
    claim: "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at, intent, intent_at)
        SELECT j.value ->> 0, j.value ->> 1, (j.value ->> 2)::bigint, $2, (j.value ->> 3)::bigint, j.value ->> 4, $3
        FROM json_array_elements($1::json) j ORDER BY 1, 2
        ON CONFLICT (org_id, grant_id) DO UPDATE SET fence = excluded.fence, holder = excluded.holder,
          expires_at = excluded.expires_at, intent = excluded.intent,
          intent_at = CASE WHEN refresh_leases.expires_at > 0
            THEN coalesce(refresh_leases.intent_at, excluded.intent_at) ELSE excluded.intent_at END",
    // A sub-select for each lease: the planner, which may have no statistics of them yet, would rather compare each lease
    // there is with each row that is asked for. In the order of `lock_leases`.
    standing: concat!(
        "WITH asked AS MATERIALIZED (SELECT place - 1 AS place, value ->> 0 AS org, value ->> 1 AS grant_id,
            (value ->> 2)::bigint AS fence, (value ->> 3)::bigint AS generation
            FROM json_array_elements($1::json) WITH ORDINALITY j(value, place)
            ORDER BY (value ->> 0) COLLATE \"C\", (value ->> 1) COLLATE \"C\")
        SELECT a.place FROM asked a
        CROSS JOIN LATERAL (SELECT fence FROM refresh_leases
          WHERE org_id = a.org AND grant_id = a.grant_id AND fence = a.fence FOR UPDATE) l
        JOIN grants g ON g.org_id = a.org AND g.id = a.grant_id AND g.state = 'active' AND g.generation = a.generation
        WHERE NOT EXISTS (SELECT 1 ",
        floors_over_grant!(),
        ")"
    ),
    // They are all there. Found by their key, for the same reason.
    release: "INSERT INTO refresh_leases (org_id, grant_id, fence, holder, expires_at)
        SELECT j.value ->> 0, j.value ->> 1, 0, '', 0 FROM json_array_elements($1::json) j ORDER BY 1, 2
        ON CONFLICT (org_id, grant_id) DO UPDATE SET expires_at = 0, intent = NULL, intent_at = NULL, failures = 0,
          not_before = 0",
    renew: "WITH asked AS MATERIALIZED (SELECT value ->> 0 AS org, value ->> 1 AS grant_id,
            (value ->> 2)::bigint AS generation, (value ->> 3)::bigint AS renew_at, (value ->> 4)::boolean AS is_wide,
            (value ->> 5)::bigint AS ends FROM json_array_elements($1::json))
        UPDATE grants g SET generation = a.generation, renew_at = a.renew_at,
          access_expires_at = CASE WHEN a.is_wide THEN a.ends ELSE g.access_expires_at END
        FROM asked a WHERE g.org_id = a.org AND g.id = a.grant_id",
    put_secrets: "INSERT INTO secrets (org_id, row_id, kind, generation, odk, sealed, wrapped_dek, scopes, expires_at,
          created_at)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, (j.value ->> 3)::bigint, j.value ->> 4,
          decode(j.value ->> 5, 'hex'), decode(j.value ->> 6, 'hex'), j.value ->> 7, (j.value ->> 8)::bigint, $2
        FROM json_array_elements($1::json) j ORDER BY 1, 2, 3
        ON CONFLICT (org_id, row_id, kind) DO UPDATE SET generation = excluded.generation, odk = excluded.odk,
          sealed = excluded.sealed, wrapped_dek = excluded.wrapped_dek, scopes = excluded.scopes,
          expires_at = excluded.expires_at, created_at = excluded.created_at",
    renewals: "SELECT org_id, id FROM grants
        WHERE renew_at IS NOT NULL AND state = 'active' AND connector = $1 AND renew_at <= $2
          AND org_id NOT IN (SELECT value FROM json_array_elements_text($4::json))
        ORDER BY renew_at LIMIT $3",
    renewals_without_time: "SELECT org_id, id FROM grants WHERE renew_at IS NULL AND state = 'active' AND connector = $1
          AND org_id NOT IN (SELECT value FROM json_array_elements_text($3::json))
        LIMIT $2",
};
