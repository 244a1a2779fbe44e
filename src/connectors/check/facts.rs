//! The OAuth facts of a file.

use super::{Report, is_free_header};
use crate::{
    connectors::{formats, vars},
    domain::{
        ScopeSet,
        connector::{
            ClientAuth, Connector, ErrorRule, IdentityHow, NarrowHow, Proof, RevokeAuth, RevokeHow,
            TokenPlacement,
        },
    },
};

pub(super) fn check(report: &mut Report<'_>) {
    let connector = report.connector;
    report.require(connector.schema == 1, || "schema: only 1 is known".to_owned());
    report.require(!connector.name.is_empty() && connector.name.len() <= 80, || {
        "name: is empty or long".to_owned()
    });
    variables(report, connector);
    endpoints(report, connector);
    headers(report, connector);
    api(report, connector);
    scopes(report, connector);
    identity(report, connector);
    errors(report, connector);
    revocation(report, connector);
    narrowing(report, connector);
}

fn variables(report: &mut Report<'_>, connector: &Connector) {
    for (name, spec) in &connector.vars {
        let hosts = spec
            .host_suffixes
            .iter()
            .all(|host| formats::host(host).as_ref() == Ok(host) && host.contains('.'));
        report.require(hosts, || {
            format!("vars.{name}: a host suffix is not a host name with a dot")
        });
        let default = spec.default.as_ref().is_none_or(|value| vars::fits(spec, value));
        report.require(default, || format!("vars.{name}: the default is not allowed"));
        report.require(name != "client_id", || {
            "vars.client_id: the name is taken".to_owned()
        });
    }
}

fn endpoints(report: &mut Report<'_>, connector: &Connector) {
    let server = &connector.server;
    let urls = [
        ("server.authorize_url", Some(&server.authorize_url)),
        ("server.token_url", Some(&server.token_url)),
        ("server.refresh_url", server.refresh_url.as_ref()),
        ("server.device_url", server.device_url.as_ref()),
        ("server.issuer", server.issuer.as_ref()),
        ("narrow.introspect_url", connector.narrow.introspect_url.as_ref()),
        ("docs_url", connector.docs_url.as_ref()),
        ("manage_url", connector.manage_url.as_ref()),
    ];
    for (what, url) in urls {
        if let Some(url) = url {
            report.url(what, url, &[]);
        }
    }
    report.require(!server.iss_required || server.issuer.is_some(), || {
        "server.iss_required: there is no issuer to compare with".to_owned()
    });
    let client_id = &connector.client.id_param;
    report.require(!client_id.is_empty(), || "client.id_param: is empty".to_owned());
    report.require(!connector.authorize.scope_param.is_empty(), || {
        "authorize.scope_param: is empty".to_owned()
    });
    const OURS: [&str; 8] = [
        "response_type",
        "client_id",
        "redirect_uri",
        "state",
        "scope",
        "code_challenge",
        "code_challenge_method",
        "response_mode",
    ];
    for name in connector.authorize.params.keys() {
        report.require(!OURS.contains(&name.as_str()), || {
            format!("authorize.params.{name}: is set by postern")
        });
    }
    for (name, actor) in &connector.actors {
        report.require(!actor.scope_param.is_empty(), || {
            format!("actors.{name}.scope_param: is empty")
        });
    }
}

fn headers(report: &mut Report<'_>, connector: &Connector) {
    for (what, headers) in [
        ("client.headers", &connector.client.headers),
        ("api.headers", &connector.api.headers),
    ] {
        for (name, value) in headers {
            report.require(is_free_header(name, value), || {
                format!("{what}.{name}: cannot be set by a file")
            });
        }
    }
    if let TokenPlacement::Header(name) = &connector.api.token_in {
        report.require(http::HeaderName::try_from(name.as_str()).is_ok(), || {
            "api.token_in: is no header".to_owned()
        });
    }
}

fn api(report: &mut Report<'_>, connector: &Connector) {
    let api = &connector.api;
    report.require(!api.hosts.is_empty(), || "api.hosts: is empty".to_owned());
    for host in &api.hosts {
        let sample = vars::fill(host, &report.samples);
        let url = url::Url::parse(&format!("https://{sample}/")).ok();
        let plain = url.as_ref().and_then(vars::authority).as_ref() == Some(&sample);
        report.require(plain, || {
            format!("api.hosts: {host} is not host or host:port in normal form")
        });
    }
    if let Some(origin) = &api.origin
        && let Some(url) = report.url("api.origin", origin, &[])
    {
        let bare = url.path() == "/" && url.query().is_none() && !origin.ends_with('/');
        report.require(bare, || "api.origin: holds more than an origin".to_owned());
        report.require(report.is_api_host(&url), || {
            "api.origin: is none of api.hosts".to_owned()
        });
    }
    for pattern in api.paths.iter().chain(&api.deny) {
        let inner_star = pattern
            .split('/')
            .any(|segment| segment != "**" && segment.trim_end_matches('*').contains('*'));
        let fits = pattern.starts_with('/') && !inner_star && !pattern.contains("***");
        report.require(fits, || {
            format!("api: the pattern {pattern} is not a path pattern")
        });
    }
}

fn scopes(report: &mut Report<'_>, connector: &Connector) {
    for (index, scope) in connector.scopes.iter().enumerate() {
        let one =
            ScopeSet::parse(&scope.name, ' ').is_ok_and(|set| set.len() == 1 && set.contains(&scope.name));
        let separable = !scope.name.contains(connector.authorize.scope_separator);
        report.require(one && separable, || {
            format!("scope {}: is not one scope", scope.name)
        });
        report.require(!scope.title.is_empty(), || {
            format!("scope {}: has no title", scope.name)
        });
        let first = connector.scopes.iter().position(|other| other.name == scope.name) == Some(index);
        report.require(first, || format!("scope {}: is listed twice", scope.name));
    }
    for name in &connector.authorize.scopes_always {
        report.require(connector.scope(name).is_some(), || {
            format!("authorize.scopes_always: {name} is not described")
        });
    }
}

fn identity(report: &mut Report<'_>, connector: &Connector) {
    let identity = &connector.identity;
    let calls = matches!(identity.how, IdentityHow::Userinfo | IdentityHow::Call);
    report.require(calls == identity.url.is_some(), || {
        "identity.url: goes with userinfo and call only".to_owned()
    });
    report.require(
        (identity.how == IdentityHow::None) == identity.id.is_empty(),
        || "identity.id: is needed, and only where there is an identity".to_owned(),
    );
    report.require(
        identity.email_verified.is_none() || identity.email.is_some(),
        || "identity.email_verified: goes with an email".to_owned(),
    );
    if identity.how == IdentityHow::IdToken {
        // OpenID Connect Core §3.1.3.7 (2): the issuer must be known to be compared.
        report.require(connector.server.issuer.is_some(), || {
            "identity.how: id_token needs server.issuer".to_owned()
        });
    }
    report.require(
        matches!(identity.method.as_deref(), None | Some("GET" | "POST")),
        || "identity.method: is neither GET nor POST".to_owned(),
    );
    if let Some(url) = identity
        .url
        .as_ref()
        .and_then(|url| report.url("identity.url", url, &[]))
    {
        // It is called with the access token.
        report.require(report.is_api_host(&url), || {
            "identity.url: is none of api.hosts".to_owned()
        });
    }
}

fn errors(report: &mut Report<'_>, connector: &Connector) {
    let errors = &connector.errors;
    let rules: Vec<&ErrorRule> = errors
        .dead
        .iter()
        .chain(&errors.transient)
        .chain(&errors.config)
        .chain(&errors.consent)
        .collect();
    for rule in rules {
        let says = rule.status.is_some() || !rule.is.is_empty();
        report.require(says, || {
            "errors: a rule without status and values matches everything".to_owned()
        });
    }
}

fn revocation(report: &mut Report<'_>, connector: &Connector) {
    let revoke = &connector.revoke;
    let exists = revoke.how != RevokeHow::None;
    report.require(exists == revoke.url.is_some(), || {
        "revoke.url: goes with a way to revoke".to_owned()
    });
    report.require(exists == revoke.kills.is_some(), || {
        "revoke.kills: goes with a way to revoke".to_owned()
    });
    if let Some(url) = &revoke.url {
        report.url("revoke.url", url, &["client_id"]);
    }
    let own = revoke.method.is_some() || revoke.body.is_some() || revoke.param.is_some();
    report.require(!own || revoke.how == RevokeHow::Call, || {
        "revoke: method, body and param go with how = \"call\"".to_owned()
    });
    report.require(revoke.body.is_some() == revoke.param.is_some(), || {
        "revoke: body and param go together".to_owned()
    });
    if revoke.how == RevokeHow::Call {
        let named = revoke.param.is_some() || revoke.auth == Some(RevokeAuth::Bearer);
        report.require(named, || "revoke: nothing tells which token to end".to_owned());
    }
    report.require(
        revoke
            .method
            .as_deref()
            .is_none_or(|method| matches!(method, "POST" | "DELETE" | "GET")),
        || "revoke.method: is not GET, POST or DELETE".to_owned(),
    );
    report.require((1..=1000).contains(&revoke.per_second), || {
        "revoke.per_second: is 1 to 1000".to_owned()
    });
}

fn narrowing(report: &mut Report<'_>, connector: &Connector) {
    let narrow = &connector.narrow;
    let claims = narrow.how != NarrowHow::None;
    report.require(claims == connector.narrows_by_refresh(), || {
        "narrow: needs scope_on_refresh = \"safe\", a proof, and no rotation or a grace of 60 s".to_owned()
    });
    report.require(
        (narrow.proof == Proof::Introspect) == narrow.introspect_url.is_some(),
        || "narrow.introspect_url: goes with proof = \"introspect\"".to_owned(),
    );
    let public = connector.client.auth == ClientAuth::None && narrow.proof == Proof::Introspect;
    report.require(!public, || "narrow: a public client cannot introspect".to_owned());
}
