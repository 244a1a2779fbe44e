//! The typed actions of a file.

use serde_json::Value;

use super::{Report, is_free_header};
use crate::{
    connectors::{
        args::{self, MAX_SAFE},
        render, template,
    },
    domain::connector::{
        ActionDefinition, ArgFormat, ArgSpec, ArgType, BodyKind, Category, HTTP_REQUEST, ScopeKind,
    },
};

pub(super) fn check(report: &mut Report<'_>) {
    for (index, action) in report.connector.actions.iter().enumerate() {
        let first = report
            .connector
            .actions
            .iter()
            .position(|other| other.name == action.name)
            == Some(index);
        report.require(first, || format!("action {}: is listed twice", action.name));
        names(report, action);
        target(report, action);
        category(report, action);
        arguments(report, action);
        placeholders(report, action);
        body(report, action);
    }
}

fn names(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let plain = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    report.require(plain && name != HTTP_REQUEST, || {
        format!("action {name}: is not a tool name")
    });
    report.require(!action.title.is_empty(), || {
        format!("action {name}: has no title")
    });
    for scope in action.scopes.iter() {
        report.require(report.connector.scope(scope).is_some(), || {
            format!("action {name}: scope {scope} is not described")
        });
    }
}

fn target(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let request = &action.request;
    let path_args = path_args(action);
    if let Some(url) = report.url(&format!("action {name}: url"), &request.url, &path_args) {
        report.require(url.query().is_none(), || {
            format!("action {name}: the query goes into request.query")
        });
        report.require(report.is_api_host(&url), || {
            format!("action {name}: the host is none of api.hosts")
        });
    }
    let (origin, path) = template::split_origin(&request.url).unwrap_or_default();
    let in_origin = template::names(origin).unwrap_or_default();
    report.require(
        in_origin.iter().all(|name| report.samples.contains_key(*name)),
        || format!("action {name}: an argument stands outside the path"),
    );
    for segment in path.split('/') {
        let whole = template::placeholder(segment).is_some() || !segment.contains(['{', '}']);
        report.require(whole, || {
            format!("action {name}: a path argument must be a whole segment")
        });
    }
    report.require(!path.is_empty(), || format!("action {name}: the url has no path"));
    for (header, value) in &request.headers {
        report.require(is_free_header(header, value), || {
            format!("action {name}: header {header} cannot be set")
        });
    }
    report.require(
        matches!(
            request.method.as_str(),
            "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
        ),
        || format!("action {name}: the method is not GET, POST, PUT, PATCH or DELETE"),
    );
}

fn category(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let method = action.request.method.as_str();
    report.require((action.category == Category::Read) == (method == "GET"), || {
        format!("action {name}: reading is done by GET, and GET only reads")
    });
    if method == "DELETE" {
        report.require(
            matches!(action.category, Category::Destructive | Category::Admin),
            || format!("action {name}: DELETE is destructive"),
        );
    }
    if matches!(action.category, Category::Destructive) {
        report.require(!action.scopes.is_empty(), || {
            format!("action {name}: destroys without a scope of its own")
        });
    }
    let acts = action.scopes.iter().any(|scope| {
        report
            .connector
            .scope(scope)
            .is_some_and(|scope| scope.kind == ScopeKind::Act)
    });
    report.require(!(acts && action.category == Category::Read), || {
        format!("action {name}: reads with a scope that acts")
    });
    let reads = !action.scopes.is_empty()
        && action.scopes.iter().all(|scope| {
            report
                .connector
                .scope(scope)
                .is_some_and(|scope| scope.kind == ScopeKind::Read)
        });
    report.require(!(reads && action.category != Category::Read), || {
        format!("action {name}: changes things with scopes that only read")
    });
}

fn arguments(report: &mut Report<'_>, action: &ActionDefinition) {
    for (arg, spec) in &action.args {
        let place = format!("action {}: argument {arg}", action.name);
        report.require(!report.samples.contains_key(arg), || {
            format!("{place}: is also a variable")
        });
        report.require(is_arg_name(arg), || format!("{place}: is not an argument name"));
        spec_fits(report, &place, spec);
        if let Some(default) = &spec.default {
            let mut errors = Vec::new();
            let checked = args::check(spec, default, "", &mut errors);
            // A default that changes when it is parsed would be hashed in two ways.
            report.require(
                checked.is_some_and(|(canonical, _)| canonical == *default),
                || format!("{place}: the default does not fit"),
            );
            report.require(!spec.required, || {
                format!("{place}: is required and has a default")
            });
        }
        if spec.multi_segment {
            report.require(path_args(action).contains(&arg.as_str()), || {
                format!("{place}: stands in no path")
            });
        }
    }
}

fn spec_fits(report: &mut Report<'_>, place: &str, spec: &ArgSpec) {
    let limits = spec.max.is_none_or(|max| max <= MAX_SAFE)
        && spec.min.is_none_or(|min| min.unsigned_abs() <= MAX_SAFE);
    report.require(limits, || format!("{place}: a limit is beyond 2^53"));
    let texts_only = spec.kind == ArgType::String
        || (spec.format.is_none() && spec.choices.is_none() && !spec.multi_segment);
    report.require(texts_only, || {
        format!("{place}: format, enum and multi_segment are for strings")
    });
    report.require((spec.kind == ArgType::Array) == spec.items.is_some(), || {
        format!("{place}: items go with arrays")
    });
    if let Some(items) = &spec.items {
        let nested =
            items.kind == ArgType::Array || items.required || items.default.is_some() || items.multi_segment;
        report.require(!nested, || format!("{place}: items are plain values"));
        spec_fits(report, place, items);
    }
}

fn placeholders(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let known = |arg: &str| action.args.contains_key(arg);
    for arg in path_args(action) {
        let fits = action.args.get(arg).is_some_and(|spec| {
            (spec.required || spec.default.is_some())
                && matches!(spec.kind, ArgType::String | ArgType::Integer)
        });
        report.require(fits, || {
            format!("action {name}: path argument {arg} must be a required string or integer")
        });
    }
    for value in action.request.query.values() {
        let arg = template::placeholder(value);
        report.require(arg.is_none_or(known), || {
            format!("action {name}: query {value} is not an argument")
        });
        report.require(arg.is_some() || !value.contains(['{', '}']), || {
            format!("action {name}: query {value} is neither an argument nor literal")
        });
    }
    let mut used = Vec::new();
    for value in action.request.members.iter().flat_map(|members| members.values()) {
        collect(value, &mut used);
    }
    for arg in &used {
        report.require(known(arg), || {
            format!("action {name}: member {{{arg}}} is not an argument")
        });
    }
    match template::names(&action.summary) {
        Some(names) => {
            for arg in names {
                report.require(known(arg), || {
                    format!("action {name}: summary {{{arg}}} is not an argument")
                });
            }
        }
        None => report
            .problems
            .push(format!("action {name}: braces of the summary do not match")),
    }
    report.require(!action.summary.is_empty(), || {
        format!("action {name}: has no summary")
    });
    // An argument that goes nowhere would be approved and have no effect.
    let rest_goes_to_body =
        action.request.members.is_none() && matches!(action.request.body, BodyKind::Json | BodyKind::Form);
    let elsewhere = render::used_elsewhere(action);
    for arg in action.args.keys().map(String::as_str) {
        let goes = rest_goes_to_body || elsewhere.contains(&arg) || used.iter().any(|name| name == arg);
        report.require(goes, || format!("action {name}: argument {arg} is used nowhere"));
    }
}

fn body(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let request = &action.request;
    report.require(request.method != "GET" || request.body == BodyKind::None, || {
        format!("action {name}: GET has no body")
    });
    report.require(
        request.body != BodyKind::None || request.members.is_none(),
        || format!("action {name}: members without a body"),
    );
    match request.body {
        BodyKind::None | BodyKind::Json => {}
        BodyKind::Form => {
            let scalar = action.args.values().all(|spec| spec.kind != ArgType::Array);
            report.require(scalar, || format!("action {name}: a form holds no arrays"));
            let literal = request
                .members
                .iter()
                .flat_map(|members| members.values())
                .all(|value| !value.is_object() && !value.is_array());
            report.require(literal, || format!("action {name}: a form is flat"));
        }
        BodyKind::MimeRaw | BodyKind::MimeRawMessage => mail(report, action),
    }
}

fn mail(report: &mut Report<'_>, action: &ActionDefinition) {
    let name = &action.name;
    let of = |arg: &str| action.args.get(arg);
    let is_email = |spec: &ArgSpec| match spec.kind {
        ArgType::Array => spec
            .items
            .as_ref()
            .is_some_and(|items| items.format == Some(ArgFormat::Email)),
        _ => spec.format == Some(ArgFormat::Email),
    };
    for arg in ["to", "cc", "bcc"] {
        report.require(of(arg).is_none_or(is_email), || {
            format!("action {name}: {arg} must be e-mail addresses")
        });
    }
    report.require(of("to").is_some_and(|spec| spec.required), || {
        format!("action {name}: a mail needs to")
    });
    report.require(
        of("subject").is_some_and(|spec| spec.required && spec.format == Some(ArgFormat::Line)),
        || format!("action {name}: a mail needs a subject, one line"),
    );
    report.require(
        of("body").is_some_and(|spec| spec.required && spec.kind == ArgType::String),
        || format!("action {name}: a mail needs a body"),
    );
    let shadows = action
        .request
        .members
        .iter()
        .flat_map(|members| members.keys())
        .any(|member| member == "raw");
    report.require(!shadows, || format!("action {name}: raw is made from the mail"));
}

/// The arguments in the path, variables left out.
fn path_args(action: &ActionDefinition) -> Vec<&str> {
    let (_, path) = template::split_origin(&action.request.url).unwrap_or_default();
    path.split('/')
        .filter_map(template::placeholder)
        .filter(|name| action.args.contains_key(*name))
        .collect()
}

fn collect(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(text) => names.extend(template::placeholder(text).map(str::to_owned)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        Value::Object(members) => members.values().for_each(|value| collect(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_arg_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
