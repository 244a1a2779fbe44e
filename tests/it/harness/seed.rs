//! Many grants: really connected, each by a person of its own; or very many in a few statements, copies of one.

use postern::{
    domain::{GrantId, OrgId, connector::Category},
    flows::{apply, found, sequence},
    store::Location,
};
use serde_json::{Value, json};

use super::{Outcome, World, connect_as, database};

impl World {
    /// Connects Acme Mail for `count` new people.
    pub async fn connect_many(&self, count: usize) -> Vec<GrantId> {
        let email = |number: usize| format!("person-{number}@acme.example");
        let people: Vec<Value> = (0..count)
            .map(|number| json!({"email": email(number), "role": "member"}))
            .collect();
        let document = toml::to_string(&json!({"person": people})).unwrap();
        apply::apply(&self.deps, self.org, "test".to_owned(), &document)
            .await
            .unwrap();
        let mut grants = Vec::new();
        for number in 0..count {
            let mut tx = self.deps.store.read(self.org).await.unwrap();
            let found = tx.user_by_email(self.org, &email(number)).await.unwrap();
            drop(tx);
            let account = ACCOUNTS[number % ACCOUNTS.len()];
            let connected = connect_as(self, found.unwrap().id, account, &[Category::Read], false).await;
            let Outcome::Granted(grant) = connected else {
                panic!("not connected: {connected:?}")
            };
            grants.push(grant);
        }
        grants
    }

    /// So many orgs, each with a log of what founding it entered, in the order of their ids.
    pub async fn orgs_with_logs(&self, count: usize) -> Vec<OrgId> {
        let mut orgs = vec![self.org];
        for number in 1..count {
            let founded = found::found(&self.deps, "Another", &format!("eve@org{number}.example")).await;
            orgs.push(founded.unwrap().org);
        }
        for org in &orgs {
            sequence::run(&self.deps, *org).await.unwrap();
        }
        orgs.sort();
        orgs
    }

    /// Makes `count` living grants beside `model`, four to a person of their own, each delegated as the model is. Their
    /// secrets are left out: nothing can be released with them, and nothing that ends them opens one.
    pub async fn seed(&self, model: GrantId, count: u64) {
        let sqlite = matches!(self.location, Location::Sqlite(_));
        let numbers = if sqlite {
            format!(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
            )
        } else {
            format!("WITH numbers (n) AS (SELECT generate_series(1, {count}))")
        };
        let id = |kind: &str, number: &str| {
            if sqlite {
                format!("printf('{kind}_%026d', {number})")
            } else {
                format!("'{kind}_' || lpad(({number})::text, 26, '0')")
            }
        };
        let user = id("usr", "(n + 3) / 4");
        for (table, columns, select, from) in [
            (
                "users",
                "org_id, id, email, role, service_id, external_id, created_at",
                format!(
                    "m.org_id, {}, NULL, m.role, NULL, NULL, m.created_at",
                    id("usr", "n")
                ),
                format!("users m WHERE m.id = '{}' AND n <= ({count} + 3) / 4", self.ada),
            ),
            (
                "grants",
                "org_id, id, user_id, connector, account_id, account_label, account_tenant, label, scopes, state, \
                 state_reason, state_at, connected_epoch, generation, binding, access_expires_at, has_refresh_token, \
                 connected_at, last_used_at, upstream, renew_at",
                format!(
                    "m.org_id, {}, {user}, m.connector, m.account_id, m.account_label, m.account_tenant, m.label, \
                     m.scopes, m.state, m.state_reason, m.state_at, m.connected_epoch, m.generation, m.binding, \
                     m.access_expires_at, m.has_refresh_token, m.connected_at, m.last_used_at, m.upstream, {NEVER}",
                    id("grt", "n")
                ),
                format!("grants m WHERE m.id = '{model}'"),
            ),
            (
                "delegations",
                "org_id, id, user_id, agent_id, grant_id, categories, tools, raw, expires_at, made_epoch, ended_at",
                format!(
                    "m.org_id, {}, {user}, m.agent_id, {}, m.categories, m.tools, m.raw, m.expires_at, m.made_epoch, \
                     m.ended_at",
                    id("dlg", "n"),
                    id("grt", "n")
                ),
                format!("delegations m WHERE m.grant_id = '{model}'"),
            ),
        ] {
            let insert =
                format!("INSERT INTO {table} ({columns}) {numbers} SELECT {select} FROM numbers, {from}");
            let made = database::raw_sql(&self.location, &insert).await;
            assert!(made > 0, "{table}");
        }
        if !sqlite {
            // As autovacuum would have done by the time anybody connected so many.
            for table in ["users", "grants", "delegations"] {
                database::raw_sql(&self.location, &format!("VACUUM ANALYZE {table}")).await;
            }
        }
    }
}

/// No test looks at a grant as late as this.
const NEVER: i64 = i64::MAX;

/// Those of Acme Mail: the grants of one account spare each other when they end.
const ACCOUNTS: [&str; 3] = ["ada@acme.example", "ben@acme.example", "other@else.example"];
