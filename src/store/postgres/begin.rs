//! The statements that begin a transaction, sent as one.

use super::{
    super::{
        batch_sql::durably,
        engine::{Mode, Reach},
    },
    Isolation,
    trips::STATEMENT,
};
use crate::{crypto::digest, domain::OrgId};

/// How a transaction begins. One that is `brief` is on a connection that brought [`settings`] along, and its guard does the rest
/// (`BatchSql::guard`): it asks for the time, and says that it commits durably.
pub(super) fn begin(mode: Mode, isolation: Isolation, reach: Reach<'_>, brief: bool) -> String {
    let mut sql = String::from(match (mode, isolation) {
        // Every statement sees one snapshot. What is read here is held to the epoch read with it. A standby refuses the first
        // statement: what it shows before it is promoted may be from before what its primary promised.
        (Mode::Read, _) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; SET TRANSACTION READ ONLY;",
        // INVARIANT: the gate and the writers beside it hold a lock before they read anything, and each statement sees
        // what was committed before it, so they see all there is. A snapshot from before the lock would only make them
        // fail.
        (_, Isolation::ReadCommitted) => "BEGIN ISOLATION LEVEL READ COMMITTED;",
        (_, Isolation::Serializable) => "BEGIN ISOLATION LEVEL SERIALIZABLE;",
    });
    if !brief {
        let mut all = settings(mode, reach);
        let is_checked = isolation == Isolation::Serializable && mode != Mode::Read;
        if is_checked && matches!(reach, Reach::Org(_)) {
            // Whoever reads a table from end to end has read what everybody writes there: a revocation would be told for ever
            // that releases were in its way. The planner does read a table so that it knows to be short.
            all.extend(by_key());
        }
        for (name, value) in all {
            sql.push_str(&format!("SET LOCAL {name} = {value};"));
        }
    }
    match reach {
        Reach::Deployment | Reach::Due => {}
        Reach::Org(org) => sql.push_str(&admit(&[org])),
        Reach::Orgs(orgs) => sql.push_str(&admit(orgs)),
        Reach::Hash(hash) => {
            sql.push_str(&format!("SET LOCAL postern.hash = '{}';", digest::hex(hash)));
        }
    }
    // The login role inherits nothing: what a transaction may do is what its role may.
    sql.push_str(match reach {
        Reach::Due => "SET LOCAL ROLE postern_due;",
        _ => "SET LOCAL ROLE postern_app;",
    });
    if brief {
        return sql;
    }
    // Writers outside the gate stand in line, as they do on SQLite: what one has read, no other changes meanwhile.
    match (mode, reach) {
        (Mode::Write | Mode::End | Mode::Hasty, Reach::Org(org)) => sql.push_str(&match isolation {
            Isolation::ReadCommitted => {
                format!("SELECT 1 FROM orgs WHERE org_id = '{org}' FOR NO KEY UPDATE;")
            }
            // The snapshot is from before the wait. Whoever waited for a row that was changed is refused and begins anew
            // with a fresh one; after a row that was only locked, it would go on with the old one.
            Isolation::Serializable => format!("UPDATE orgs SET name = name WHERE org_id = '{org}';"),
        }),
        // In one order, or two of them could wait for each other.
        (Mode::Write | Mode::End | Mode::Hasty, Reach::Orgs(orgs)) => {
            let orgs: Vec<String> = orgs.iter().map(|org| format!("'{org}'")).collect();
            let lock = format!(
                "SELECT org_id FROM orgs WHERE org_id IN ({}) ORDER BY org_id FOR NO KEY UPDATE",
                orgs.join(",")
            );
            sql.push_str(&match isolation {
                Isolation::ReadCommitted => format!("{lock};"),
                Isolation::Serializable => format!("UPDATE orgs SET name = name WHERE org_id IN ({lock});"),
            });
        }
        (Mode::Write | Mode::End | Mode::Hasty, _) => sql.push_str(match isolation {
            Isolation::ReadCommitted => "SELECT 1 FROM meta WHERE name = 'writer' FOR UPDATE;",
            Isolation::Serializable => "UPDATE meta SET value = value WHERE name = 'writer';",
        }),
        (Mode::Read | Mode::Rows | Mode::Gate, _) => {}
    }
    sql.push_str("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    if mode != Mode::Read {
        sql.push_str(concat!(", ", durably!()));
    }
    sql
}

/// What a transaction runs under, as `pg_settings` shows it: milliseconds, and what the planner may do.
pub(super) fn settings(mode: Mode, reach: Reach<'_>) -> Vec<(&'static str, String)> {
    let lock = match mode {
        Mode::Read | Mode::Write | Mode::End | Mode::Gate => "5000",
        // Others wait for them; whoever holds a lock for longer is in trouble.
        Mode::Hasty | Mode::Rows => "500",
    };
    // Nothing of ours waits for anything else while a transaction is open, so one that says nothing belongs to a process
    // that was stopped or cut off. It ends within the second in which a revocation takes effect that waits for its locks;
    // who was only late is told so and begins anew. Nobody waits for a reader.
    let idle = match mode {
        Mode::Read => "3000",
        _ => "800",
    };
    let mut settings = vec![
        ("statement_timeout", STATEMENT.as_millis().to_string()),
        ("lock_timeout", lock.to_owned()),
        ("idle_in_transaction_session_timeout", idle.to_owned()),
    ];
    if matches!(reach, Reach::Orgs(_)) {
        // What a batch asks for, it names by key. The planner does not know how short such a list is, and would rather
        // read all rows of all these orgs once than look a hundred up.
        settings.extend(by_key());
    }
    settings
}

/// Has the planner look up by key, and by nothing else where that can be done.
fn by_key() -> [(&'static str, String); 3] {
    ["enable_seqscan", "enable_hashjoin", "enable_mergejoin"].map(|name| (name, "off".to_owned()))
}

/// What every transaction of the gate runs under.
pub(super) fn settings_of_gate() -> Vec<(&'static str, String)> {
    settings(Mode::Gate, Reach::Orgs(&[]))
}

pub(super) fn admit(orgs: &[OrgId]) -> String {
    let orgs: Vec<String> = orgs.iter().map(OrgId::to_string).collect();
    format!("SET LOCAL postern.orgs = '{}';", orgs.join(","))
}
