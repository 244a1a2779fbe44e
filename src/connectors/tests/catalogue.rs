//! Which connector files load, built in or not.

use std::{collections::BTreeSet, fs};

use super::{
    super::{catalogue::parse, digest::binding},
    *,
};
use crate::domain::connector::{Category, Evidence};

#[test]
fn every_built_in_file_loads() {
    let ids: Vec<String> = catalogue()
        .iter()
        .map(|connector| connector.id.to_string())
        .collect();
    assert_eq!(ids, ["acme-mail", "github", "gmail", "slack"]);
}

#[test]
fn every_connector_has_five_typed_actions_with_one_that_reads_and_one_that_destroys() {
    for connector in catalogue().iter() {
        assert!(connector.actions.len() >= 5, "{}", connector.id);
        for category in [Category::Read, Category::Write, Category::Destructive] {
            assert!(
                connector.actions.iter().any(|action| action.category == category),
                "{}",
                connector.id
            );
        }
    }
}

#[test]
fn nothing_claims_to_have_been_run_live() {
    assert!(
        catalogue()
            .iter()
            .all(|connector| connector.status != Evidence::LiveVerified)
    );
}

#[test]
fn only_acme_mail_is_plain_http_and_only_where_it_runs() {
    let without = Catalogue::load(&Options::default()).unwrap();
    assert!(without.get(&"acme-mail".parse().unwrap()).is_none());
    let acme = connector("acme-mail");
    assert_eq!(acme.server.token_url, "http://127.0.0.1:4701/token");
    assert_eq!(acme.api.hosts, ["127.0.0.1:4701"]);
    assert!(acme.narrows_by_refresh());
}

#[test]
fn an_origin_that_is_more_or_less_than_an_origin_is_refused() {
    for origin in [
        "",
        "127.0.0.1:1",
        "http://127.0.0.1:4701/",
        "http://127.0.0.1:4701/x",
        "http://u@127.0.0.1:4701",
        "http://127.0.0.1:80",
        "http://LOCALHOST:4701",
        "file:///etc",
        "http://127.0.0.1:4701\"\nx = \"",
    ] {
        let options = Options {
            acme_mail_origin: Some(origin),
            ..Options::default()
        };
        assert!(
            matches!(Catalogue::load(&options), Err(CatalogueError::Origin)),
            "{origin:?}"
        );
    }
}

#[test]
fn only_narrowing_with_proof_and_grace_is_believed() {
    assert!(connector("gmail").narrows_by_refresh());
    assert!(!connector("slack").narrows_by_refresh());
    assert!(!connector("github").narrows_by_refresh());
}

#[test]
fn the_operators_directory_adds_connectors_but_takes_no_built_in_id() {
    let dir = tempfile::tempdir().unwrap();
    let own = include_str!("../../../connectors/slack.toml").replace("id = \"slack\"", "id = \"own\"");
    fs::write(dir.path().join("own.toml"), &own).unwrap();
    fs::write(dir.path().join("notes.txt"), "not a connector").unwrap();
    let options = Options {
        dir: Some(dir.path()),
        ..Options::default()
    };
    assert!(
        Catalogue::load(&options)
            .unwrap()
            .get(&"own".parse().unwrap())
            .is_some()
    );
    for taken in ["slack", "acme-mail"] {
        let path = dir.path().join(format!("{taken}.toml"));
        fs::write(&path, own.replace("id = \"own\"", &format!("id = \"{taken}\""))).unwrap();
        assert!(
            matches!(Catalogue::load(&options), Err(CatalogueError::Taken { .. })),
            "{taken}"
        );
        fs::remove_file(path).unwrap();
    }
    fs::write(dir.path().join("other.toml"), &own).unwrap();
    assert!(matches!(
        Catalogue::load(&options),
        Err(CatalogueError::Invalid { .. })
    ));
}

#[test]
fn plain_http_needs_the_exact_origin_in_the_operators_list() {
    let text = include_str!("../../../connectors/slack.toml")
        .replace("https://slack.com", "http://slack.test:4702")
        .replace("[\"slack.com\"]", "[\"slack.test:4702\"]");
    let allowed = |origin: &str| parse("slack.toml", &text, &BTreeSet::from([origin.to_owned()]));
    assert!(allowed("http://slack.test:4702").is_ok());
    for origin in [
        "http://slack.test",
        "http://slack.test:4703",
        "https://slack.test:4702",
        "http://test:4702",
    ] {
        assert!(
            matches!(allowed(origin), Err(CatalogueError::Invalid { .. })),
            "{origin}"
        );
    }
}

/// One change to a good file, and a word of the complaint.
const CHANGES: &[(&str, &str, &str)] = &[
    ("schema = 1", "schema = 2", "schema"),
    ("id = \"slack\"", "id = \"other\"", "file's name"),
    ("name = \"Slack\"", "name = \"\"", "name"),
    (
        "https://slack.com/oauth/v2/authorize",
        "http://slack.com/oauth/v2/authorize",
        "not https",
    ),
    (
        "https://slack.com/oauth/v2/authorize",
        "https://{team}.slack.com/x",
        "{team} is not declared",
    ),
    (
        "https://slack.com/oauth/v2/authorize",
        "https://u:p@slack.com/x",
        "credentials",
    ),
    (
        "https://slack.com/oauth/v2/authorize",
        "https://slack.com/a/../b",
        "canonical",
    ),
    ("hosts = [\"slack.com\"]", "hosts = []", "hosts"),
    (
        "hosts = [\"slack.com\"]",
        "hosts = [\"Slack.com\"]",
        "normal form",
    ),
    (
        "hosts = [\"slack.com\"]",
        "hosts = [\"slack.com/x\"]",
        "normal form",
    ),
    (
        "hosts = [\"slack.com\"]",
        "hosts = [\"other.com\"]",
        "none of api.hosts",
    ),
    (
        "url = \"https://slack.com/api/auth.test\"",
        "url = \"https://evil.example/me\"",
        "identity.url",
    ),
    ("\"/api/oauth.*\"", "\"api/oauth.*\"", "path pattern"),
    ("\"/api/oauth.*\"", "\"/api/*auth\"", "path pattern"),
    ("name = \"users.info\"", "name = \"chat.delete\"", "listed twice"),
    (
        "name = \"users.info\"",
        "name = \"http.request\"",
        "not a tool name",
    ),
    (
        "name = \"users.info\"",
        "name = \"users/info\"",
        "not a tool name",
    ),
    (
        "scopes = [\"users:read\"]",
        "scopes = [\"users:all\"]",
        "not described",
    ),
    (
        "scopes = [\"users:read\"]",
        "scopes = [\"chat:write\"]",
        "reads with a scope that acts",
    ),
    (
        "scopes = [\"reactions:write\"]",
        "scopes = [\"users:read\"]",
        "only read",
    ),
    (
        "query = { user = \"{user}\" }",
        "query = { user = \"{person}\" }",
        "not an argument",
    ),
    (
        "query = { user = \"{user}\" }",
        "query = { user = \"x{user}\" }",
        "neither an argument nor literal",
    ),
    (
        "query = { user = \"{user}\" }",
        "query = { a = \"b\" }",
        "used nowhere",
    ),
    ("api/users.info\"", "api/users.info/{user}x\"", "whole segment"),
    ("api/users.info\"", "api/users.info?x=1\"", "query"),
    (
        "https://slack.com/api/users.info",
        "https://files.slack.com/api/users.info",
        "host is none",
    ),
    (
        "summary = \"Look up the person {user}\"",
        "summary = \"Look up {who}\"",
        "summary",
    ),
    (
        "summary = \"Look up the person {user}\"",
        "summary = \"Look up {user\"",
        "braces",
    ),
    (
        "user = { type = \"string\", format = \"id\", required = true, max = 80 }",
        "user = { type = \"string\", format = \"id\", default = \"a/b\", max = 80 }",
        "default does not fit",
    ),
    (
        "user = { type = \"string\", format = \"id\", required = true, max = 80 }",
        "user = { type = \"integer\", format = \"id\", required = true }",
        "for strings",
    ),
    (
        "user = { type = \"string\", format = \"id\", required = true, max = 80 }",
        "user = { type = \"array\", required = true }",
        "items",
    ),
    (
        "user = { type = \"string\", format = \"id\", required = true, max = 80 }",
        "user = { type = \"integer\", required = true, max = 9007199254740993 }",
        "2^53",
    ),
    (
        "method = \"GET\", url = \"https://slack.com/api/users.info\"",
        "method = \"POST\", url = \"https://slack.com/api/users.info\"",
        "reading is done by GET",
    ),
    (
        "method = \"POST\", url = \"https://slack.com/api/reactions.add\"",
        "method = \"DELETE\", url = \"https://slack.com/api/reactions.add\"",
        "DELETE is destructive",
    ),
    (
        "category = \"destructive\"\nscopes = [\"chat:write\"]",
        "category = \"destructive\"",
        "scope of its own",
    ),
    (
        "transient = [",
        "consent_ = []\ntransient = [",
        "not a connector file",
    ),
    (
        "transient = [",
        "transient = [{ at = \"api\" },",
        "matches everything",
    ),
    (
        "scope_separator = \",\"",
        "scope_separator = \":\"",
        "not one scope",
    ),
    (
        "[authorize]",
        "[authorize]\nparams = { state = \"x\" }",
        "set by postern",
    ),
    (
        "[refresh]",
        "[narrow]\nhow = \"refresh_scope\"\nproof = \"returned_scope\"\n[refresh]",
        "narrow",
    ),
    ("url = \"https://slack.com/api/auth.revoke\"\n", "", "revoke.url"),
    ("auth = \"bearer\"\n", "", "which token"),
    ("kills = \"token\"\n", "", "revoke.kills"),
    ("[server]", "[server]\niss_required = true", "no issuer"),
    (
        "how = \"call\"\nurl = \"https://slack.com/api/auth.test\"\nmethod = \"POST\"",
        "how = \"id_token\"",
        "issuer",
    ),
    (
        "[api]",
        "[api]\nheaders = { Authorization = \"Bearer x\" }",
        "cannot be set",
    ),
    (
        "[api]",
        "[api]\nheaders = { \"X-A\" = \"a\\r\\nb: c\" }",
        "cannot be set",
    ),
    ("[api]", "[api]\ntoken_in = \"cookie:x\"", "not a connector file"),
    (
        "verified_on = 2026-11-20",
        "verified_on = \"soon\"",
        "not a connector file",
    ),
    ("[client]", "[client]\nsecret = \"x\"", "not a connector file"),
];

#[test]
fn every_kind_of_mistake_in_a_file_is_named() {
    let good = include_str!("../../../connectors/slack.toml");
    assert!(parse("slack.toml", good, &BTreeSet::new()).is_ok());
    for (from, to, complaint) in CHANGES {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        let error = parse("slack.toml", &bad, &BTreeSet::new())
            .expect_err(to)
            .to_string();
        assert!(error.contains(complaint), "{to}: {error}");
    }
}

#[test]
fn a_mail_must_be_made_of_addresses_and_lines() {
    let good = include_str!("../../../connectors/gmail.toml");
    for (from, to, complaint) in [
        (
            "cc = { type = \"array\", items = { type = \"string\", format = \"email\" }, max = 50 }",
            "cc = { type = \"array\", items = { type = \"string\" }, max = 50 }",
            "e-mail addresses",
        ),
        (
            "subject = { type = \"string\", format = \"line\", required = true, max = 500 }",
            "subject = { type = \"string\", required = true, max = 500 }",
            "one line",
        ),
        (
            "members = { threadId = \"{thread}\" }",
            "members = { threadId = \"{thread}\", raw = \"x\" }",
            "raw",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = parse("gmail.toml", &good.replacen(from, to, 1), &BTreeSet::new())
            .expect_err(to)
            .to_string();
        assert!(error.contains(complaint), "{to}: {error}");
    }
}

#[test]
fn variables_become_part_of_endpoints_and_hosts_and_of_the_binding() {
    let text = include_str!("../../../connectors/slack.toml")
        .replace("https://slack.com", "https://{team}.slack.com")
        .replace("hosts = [\"slack.com\"]", "hosts = [\"{team}.slack.com\"]")
        .replace(
            "[client]",
            "[vars.team]\nlabel = \"Team\"\nsource = \"user\"\n[client]",
        );
    let slack = parse("slack.toml", &text, &BTreeSet::new()).unwrap();
    let vars = |team: &str| Vars::from([("team".to_owned(), team.to_owned())]);
    let acme = vars("acme");
    let there = filled(&slack, &acme).unwrap();
    let sent = request(&there, "users.info", &serde_json::json!({"user": "U1"})).unwrap();
    assert_eq!(sent.url.as_str(), "https://acme.slack.com/api/users.info?user=U1");
    assert_eq!(
        filled(&slack, &Vars::new()).unwrap_err(),
        VarError::Missing("team".to_owned())
    );
    for team in [
        "evil.example/",
        "a.b",
        "evil.example#",
        "x@evil.example",
        "Acme",
        "",
    ] {
        assert_eq!(
            filled(&slack, &vars(team)).unwrap_err(),
            VarError::Invalid("team".to_owned()),
            "{team}"
        );
    }
    assert_ne!(binding(&slack, &acme), binding(&slack, &vars("other")));
}

#[test]
fn a_variable_is_its_default_and_one_without_is_refused_when_the_files_are_loaded() {
    let text = |more: &str| {
        include_str!("../../../connectors/slack.toml")
            .replace("id = \"slack\"", "id = \"own\"")
            .replace("https://slack.com", "https://{team}.slack.com")
            .replace("hosts = [\"slack.com\"]", "hosts = [\"{team}.slack.com\"]")
            .replace(
                "[client]",
                &format!("[vars.team]\nlabel = \"Team\"\nsource = \"user\"\n{more}\n[client]"),
            )
    };
    let load = |text: String| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.toml"), text).unwrap();
        Catalogue::load(&Options {
            dir: Some(dir.path()),
            ..Options::default()
        })
    };
    let error = load(text("")).unwrap_err().to_string();
    assert!(
        error.contains("own.toml") && error.contains("the variable team is missing"),
        "{error}"
    );
    let own = |team: &str| {
        let catalogue = load(text(&format!("default = \"{team}\""))).unwrap();
        Arc::clone(catalogue.get(&"own".parse().unwrap()).unwrap())
    };
    let acme = own("acme");
    let sent = request(&acme, "users.info", &serde_json::json!({"user": "U1"})).unwrap();
    assert_eq!(sent.url.as_str(), "https://acme.slack.com/api/users.info?user=U1");
    assert_eq!(
        acme.server.token_url,
        "https://acme.slack.com/api/oauth.v2.access"
    );
    let none = Vars::new();
    assert_ne!(binding(&acme, &none), binding(&own("other"), &none));
}
