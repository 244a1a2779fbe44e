//! What a configuration file and the environment may say.

use secrecy::ExposeSecret as _;

use super::*;

const LEAST: &str = r#"[server]
public_url = "https://postern.example"
[store]
url = "sqlite:///var/lib/postern/postern.db"
[data]
dir = "/var/lib/postern"
[keys]
kek = { kind = "local", file = "/etc/postern/kek" }
"#;

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Settings::parse("postern.toml", text, &env)
}

fn complaint(text: &str, env: &[(&str, &str)]) -> String {
    parse(text, env).unwrap_err().to_string()
}

#[test]
fn the_example_file_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postern.example.toml");
    let settings = Settings::load(&path, &BTreeMap::new()).unwrap();
    assert_eq!(settings.server.public_url.issuer(), "https://postern.example");
    assert_eq!(settings.egress_allow.len(), 1);
}

#[test]
fn a_receiver_of_notices_needs_a_secret_and_a_safe_address() {
    let with = |text: &str| complaint(&format!("{LEAST}[webhooks]\n{text}"), &[]);
    assert!(with("url = \"https://hooks.example\"").contains("secret_file"));
    for url in [
        "http://hooks.example",
        "https://user:word@hooks.example",
        "ftp://hooks.example",
        "x",
    ] {
        let said = with(&format!("url = \"{url}\"\nsecret_file = \"/etc/secret\""));
        assert!(said.contains("https://receiver.example/in"), "{said}");
    }
    let text = format!("{LEAST}[webhooks]\nurl = \"http://127.0.0.1:9/in\"\nsecret_file = \"/etc/secret\"");
    let webhook = parse(&text, &[]).unwrap().webhook.unwrap();
    assert_eq!(webhook.secret_file, Path::new("/etc/secret"));
}

#[test]
fn the_example_file_shows_every_key() {
    let example: toml::Value = toml::from_str(include_str!("../../deploy/postern.example.toml")).unwrap();
    for (table, keys) in [
        ("server", "listen ops_listen public_url"),
        ("store", "url password_file connections pooler"),
        ("data", "dir"),
        ("keys", "kek cache_ttl allow_unlocked"),
        ("connectors", "dir"),
        ("egress.allow", "org connector address"),
        ("audit.sink", "name kind path url secret_file"),
        ("audit.witness", "url key"),
        ("webhooks", "url secret_file"),
        ("log", "format level"),
        (
            "limits",
            "connections header_timeout idle_timeout handler_timeout body_bytes drain",
        ),
    ] {
        let shown = table
            .split('.')
            .fold(&example, |shown, name| shown.get(name).unwrap());
        for key in keys.split(' ') {
            let has = |table: &toml::Value| table.get(key).is_some();
            let is_shown = shown
                .as_array()
                .map_or_else(|| has(shown), |tables| tables.iter().any(has));
            assert!(is_shown, "[{table}] {key}");
        }
    }
}

#[test]
fn what_is_not_said_has_a_safe_default() {
    let settings = parse(LEAST, &[]).unwrap();
    assert!(settings.server.listen.ip().is_loopback() && settings.server.ops_listen.ip().is_loopback());
    assert_eq!(settings.keys.cache_ttl, Duration::from_secs(30));
    assert!(!settings.keys.allow_unlocked);
    assert!(settings.egress_allow.is_empty());
    assert_eq!(
        settings.log,
        Log {
            format: LogFormat::Json,
            level: "info".into()
        }
    );
    assert_eq!(settings.limits.header_timeout, Duration::from_secs(5));
    assert_eq!(settings.limits.idle_timeout, Duration::from_secs(75));
}

#[test]
fn complaints_name_the_line_and_a_fix() {
    let table: [(&str, &str, &str, &str); 17] = [
        (
            "dir = \"/var/lib/postern\"",
            "dri = \"/x\"",
            "postern.toml:6",
            "unknown field `dri`",
        ),
        (
            "https://postern.example",
            "http://postern.example",
            "postern.toml:2",
            "plain http",
        ),
        (
            "https://postern.example",
            "https://postern.example/x",
            "postern.toml:2",
            "more than scheme",
        ),
        (
            "https://postern.example",
            "https://u:p@postern.example",
            "postern.toml:2",
            "more than scheme",
        ),
        (
            "https://postern.example",
            "ftp://postern.example",
            "postern.toml:2",
            "neither https nor http",
        ),
        (
            "sqlite:///var",
            "mysql:///var",
            "postern.toml:4",
            "this build does not have",
        ),
        ("sqlite:///var", "sqlite://var", "postern.toml:4", "absolute path"),
        (
            "dir = \"/var/lib/postern\"",
            "dir = \"data\"",
            "postern.toml:6",
            "absolute path",
        ),
        (
            "kind = \"local\"",
            "kind = \"lokal\"",
            "postern.toml:8",
            "`lokal`",
        ),
        (
            "file = \"/etc/postern/kek\"",
            "file = \"/a\", passphrase_file = \"/b\"",
            "postern.toml:8",
            "more than one source",
        ),
        (", file = \"/etc/postern/kek\"", "", "postern.toml:8", "no source"),
        (
            "[keys]\n",
            "[keys]\ncache_ttl = \"30\"\n",
            "postern.toml:8",
            "length of time",
        ),
        (
            "[keys]\n",
            "[keys]\ncache_ttl = \"2h\"\n",
            "postern.toml:8",
            "out of range",
        ),
        (
            "[keys]\n",
            "[limits]\nconnections = 1\n[keys]\n",
            "postern.toml:8",
            "out of range",
        ),
        (
            "[keys]\n",
            "[log]\nlevel = \"a=b=c\"\n[keys]\n",
            "postern.toml:8",
            "log level",
        ),
        (
            "[keys]\n",
            "[server.x]\n[keys]\n",
            "postern.toml:7",
            "unknown field `x`",
        ),
        (
            "public_url = \"https://postern.example\"",
            "",
            "postern.toml:1",
            "`public_url` is missing",
        ),
    ];
    for (old, new, place, problem) in table {
        let text = LEAST.replacen(old, new, 1);
        assert_ne!(text, LEAST, "{old}");
        let complaint = complaint(&text, &[]);
        assert!(complaint.starts_with(place), "{place}: {complaint}");
        assert!(
            complaint.contains(problem) && complaint.contains("fix: "),
            "{problem}: {complaint}"
        );
    }
}

#[test]
fn an_allowed_address_is_one_address_of_one_connector() {
    for (org, connector, address) in [
        ("acme", "acme-mail", "a.internal:443"),
        ("*", "*", "a.internal:443"),
        ("*", "Acme", "a.internal:443"),
        ("*", "acme-mail", "a.internal"),
        ("*", "acme-mail", "*.internal:443"),
        ("*", "acme-mail", "a.internal:0"),
        ("*", "acme-mail", "https://a.internal:443"),
        ("*", "acme-mail", "10.0.0.0/8:443"),
    ] {
        let text = format!(
            "{LEAST}[[egress.allow]]\norg = \"{org}\"\nconnector = \"{connector}\"\naddress = \"{address}\"\n"
        );
        assert!(parse(&text, &[]).is_err(), "{org} {connector} {address}");
    }
}

#[test]
fn addresses_are_read_in_one_form() {
    for (text, host, port) in [
        ("10.0.0.7:8443", "10.0.0.7", 8443),
        ("Mail.Internal:443", "mail.internal", 443),
        ("[fd00::1]:443", "fd00::1", 443),
    ] {
        assert_eq!(
            text.parse::<HostPort>().unwrap(),
            HostPort {
                host: host.into(),
                port
            }
        );
    }
}

#[test]
fn loopback_may_be_plain_http() {
    for url in [
        "http://127.0.0.1:8700",
        "http://localhost:8700",
        "http://[::1]:8700",
    ] {
        assert_eq!(url.parse::<PublicUrl>().unwrap().issuer(), url);
    }
    assert!("http://127.0.0.1.evil.test".parse::<PublicUrl>().is_err());
}

#[test]
fn the_environment_overrides_the_file() {
    let settings = parse(
        LEAST,
        &[
            ("POSTERN_SERVER_LISTEN", "0.0.0.0:9000"),
            ("POSTERN_LOG_FORMAT", "human"),
        ],
    )
    .unwrap();
    assert_eq!(settings.server.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(settings.log.format, LogFormat::Human);
}

#[test]
fn a_bad_variable_is_named_without_its_value() {
    let complaint = complaint(LEAST, &[("POSTERN_STORE_URL", "postgres://u:canary@db/x")]);
    assert!(
        complaint.starts_with("environment variable POSTERN_STORE_URL: "),
        "{complaint}"
    );
    assert!(!complaint.contains("canary"), "{complaint}");
}

#[test]
fn a_misspelt_variable_is_refused() {
    assert!(complaint(LEAST, &[("POSTERN_SERVER_LISTN", "x")]).contains("is not a variable of postern"));
}

#[test]
fn variables_of_other_programs_and_verbs_are_left_alone() {
    assert!(parse(LEAST, &[("PATH", "/bin"), ("POSTERN_URL", "http://127.0.0.1:1")]).is_ok());
}

#[test]
fn a_passphrase_may_come_from_the_environment_and_never_shows() {
    let text = LEAST.replace(", file = \"/etc/postern/kek\"", "");
    let settings = parse(&text, &[("POSTERN_KEK_PASSPHRASE", "canary")]).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    assert!(
        matches!(settings.keys.kek, Kek::Passphrase(passphrase) if passphrase.expose_secret() == "canary")
    );
}

#[test]
fn a_missing_file_says_so() {
    let error = Settings::load(Path::new("/nonexistent/postern.toml"), &BTreeMap::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/postern.toml: cannot be read"),
        "{error}"
    );
}

#[test]
fn the_environment_alone_is_enough() {
    let env = [
        ("POSTERN_SERVER_PUBLIC_URL", "https://postern.example"),
        ("POSTERN_STORE_URL", "sqlite:///data/postern.db"),
        ("POSTERN_DATA_DIR", "/data"),
        ("POSTERN_KEK_PASSPHRASE", "canary"),
    ];
    assert!(parse("", &env).is_ok());
    assert!(complaint("", &[]).contains("`public_url` is missing in [server]"));
}

#[test]
fn every_kind_of_sink_is_read() {
    let text = format!(
        "{LEAST}
[[audit.sink]]
name = \"a\"
kind = \"file\"
path = \"/var/log/a\"
[[audit.sink]]
name = \"b\"
kind = \"ocsf\"
path = \"/var/log/b\"
[[audit.sink]]
name = \"c\"
kind = \"webhook\"
url = \"https://c.example/in\"
secret_file = \"/etc/c\"
[[audit.sink]]
name = \"d\"
kind = \"otlp\"
url = \"http://127.0.0.1:4318/v1/logs\"
"
    );
    let sinks = parse(&text, &[]).unwrap().sinks;
    assert_eq!(sinks.len(), 4);
    assert!(
        matches!(&sinks[2].kind, SinkKind::Webhook { url, .. } if url.as_str() == "https://c.example/in")
    );
}

#[test]
fn a_witness_is_read_and_one_that_cannot_be_is_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postern.example.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let witness = parse(&text, &[]).unwrap().witness.unwrap();
    assert_eq!(witness.key.name(), "witness.example/w1");
    assert_eq!(witness.monitoring_url, witness.url);
    let other = "[audit.witness]\nmonitoring_url = \"https://monitor.example\"";
    let apart = parse(&text.replace("[audit.witness]", other), &[])
        .unwrap()
        .witness
        .unwrap();
    assert_eq!(apart.monitoring_url.as_str(), "https://monitor.example/");
    assert_eq!(apart.url, witness.url);
    let key = witness.key.to_string();
    for (from, to, problem) in [
        (key.as_str(), "witness.example/w1", "not the key of a witness"),
        ("w1+", "w1+0", "not the key of a witness"),
        (
            "https://witness.example",
            "http://witness.example",
            "not an address anything may be sent to",
        ),
    ] {
        let wrong = text.replace(from, to);
        assert_ne!(wrong, text);
        let said = complaint(&wrong, &[]);
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_database_named_outside_of_a_file_has_no_password_in_its_url() {
    let named = |url: &str, file: Option<&str>| {
        let env = [(
            "POSTERN_STORE_PASSWORD".to_owned(),
            "of the environment".to_owned(),
        )]
        .into();
        Database::named("TO", url, file.map(Into::into), &env)
    };
    let found = named("postgres://postern@db.example/postern", None).unwrap();
    assert!(found.password.is_some() && found.password_file.is_none());
    let found = named("postgres://postern@db.example/postern", Some("/file")).unwrap();
    assert!(found.password.is_none() && found.password_file.is_some());
    for url in [
        "postgres://postern:hunter2@db.example/postern",
        "mysql://hunter2@db",
    ] {
        let said = named(url, None).unwrap_err().to_string();
        assert!(said.starts_with("TO: ") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_sink_that_cannot_be_is_refused_at_its_line() {
    for (lines, problem) in [
        ("name = \"a\"\nkind = \"file\"", "`path` is missing"),
        ("name = \"a\"\nkind = \"tape\"", "not a kind of sink"),
        ("name = \"A b\"\nkind = \"file\"\npath = \"/a\"", "not a name"),
        (
            "name = \"a\"\nkind = \"file\"\npath = \"a\"",
            "not an absolute path",
        ),
        (
            "name = \"a\"\nkind = \"file\"\npath = \"/a\"\nurl = \"https://x.example\"",
            "has no `url`",
        ),
        (
            "name = \"a\"\nkind = \"otlp\"\nurl = \"http://10.0.0.1/v1/logs\"",
            "not an address",
        ),
        (
            "name = \"a\"\nkind = \"otlp\"\nurl = \"https://u:p@x.example\"",
            "not an address",
        ),
        (
            "name = \"a\"\nkind = \"file\"\npath = \"/a\"\n[[audit.sink]]\nname = \"a\"\nkind = \"file\"\npath = \"/b\"",
            "two sinks have this name",
        ),
    ] {
        let said = complaint(&format!("{LEAST}[[audit.sink]]\n{lines}\n"), &[]);
        assert!(said.contains(problem) && !said.contains(":1:"), "{said}");
    }
}
