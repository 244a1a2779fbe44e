//! Facts as Cedar values: the entities of one agent and grant, and the context of one request.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, EntityUid, RestrictedExpression};
use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use serde_json::Value;

use super::{
    facts::{ApprovalKind, Parties, Question, WrongFacts},
    schema::{Kinds, Tool, uid},
    shape::expressed_record,
};
use crate::domain::{AgentId, Time};

/// The three entities of an evaluation.
#[derive(Debug, Clone)]
pub(super) struct Uids {
    pub(super) agent: EntityUid,
    pub(super) user: EntityUid,
    pub(super) grant: EntityUid,
}

impl Uids {
    pub(super) fn new(kinds: &Kinds, parties: &Parties) -> Self {
        Self {
            agent: agent_uid(kinds, parties.agent.id),
            user: uid(&kinds.user, &parties.user.id.to_string()),
            grant: uid(&kinds.grant, &parties.grant.id.to_string()),
        }
    }
}

/// An agent as an entity.
pub(super) fn agent_uid(kinds: &Kinds, agent: AgentId) -> EntityUid {
    uid(&kinds.agent, &agent.to_string())
}

/// Builds the entities; `actions` are those of the grant's connector, which all its grants share.
pub(super) fn entities(uids: &Uids, parties: &Parties, actions: &Entities) -> Result<Entities, WrongFacts> {
    let ours = [agent(uids, parties)?, user(uids, parties)?, grant(uids, parties)?];
    actions.clone().add_entities(ours, None).map_err(|_| WrongFacts)
}

fn agent(uids: &Uids, parties: &Parties) -> Result<Entity, WrongFacts> {
    let attributes = HashMap::from([("name".to_owned(), string(&parties.agent.name))]);
    Entity::new(uids.agent.clone(), attributes, HashSet::new()).map_err(|_| WrongFacts)
}

fn user(uids: &Uids, parties: &Parties) -> Result<Entity, WrongFacts> {
    let user = &parties.user;
    let managed_by = user
        .managed_by
        .map_or_else(|| "postern".to_owned(), |service| service.to_string());
    let mut attributes = HashMap::from([
        ("role".to_owned(), string(user.role.as_str())),
        ("managed_by".to_owned(), string(&managed_by)),
    ]);
    if let Some((local, domain)) = user.email.as_deref().and_then(address) {
        let email = expressed_record([("local", string(local)), ("domain", string(&domain))])?;
        attributes.insert("email".to_owned(), email);
        attributes.insert("domain".to_owned(), string(&domain));
    }
    Entity::new(uids.user.clone(), attributes, HashSet::new()).map_err(|_| WrongFacts)
}

fn grant(uids: &Uids, parties: &Parties) -> Result<Entity, WrongFacts> {
    let grant = &parties.grant;
    let mut account = vec![("label", string(&grant.account.label))];
    account.extend(grant.account.id.as_deref().map(|id| ("id", string(id))));
    account.extend(
        grant
            .account
            .tenant
            .as_deref()
            .map(|tenant| ("tenant", string(tenant))),
    );
    let mut attributes = HashMap::from([
        (
            "owner".to_owned(),
            RestrictedExpression::new_entity_uid(uids.user.clone()),
        ),
        ("connector".to_owned(), string(grant.connector.as_str())),
        ("account".to_owned(), expressed_record(account)?),
        ("scopes".to_owned(), strings(grant.scopes.iter())),
    ]);
    if let Some(label) = &grant.label {
        attributes.insert("label".to_owned(), string(label));
    }
    Entity::new(uids.grant.clone(), attributes, HashSet::from([uids.user.clone()])).map_err(|_| WrongFacts)
}

/// Local part and domain, the domain in lower-case A-labels as in arguments: what is compared must be one form.
fn address(email: &str) -> Option<(&str, String)> {
    let (local, domain) = email.rsplit_once('@')?;
    match url::Host::parse(domain) {
        Ok(url::Host::Domain(domain)) if !local.is_empty() => Some((local, domain)),
        _ => None,
    }
}

/// Whether a context can be built that fits the schema: refuses exactly what [`context`] and the schema together would.
pub(super) fn check(question: &Question, tool: &Tool) -> Result<(), WrongFacts> {
    let Value::Object(members) = &question.args else {
        return Err(WrongFacts);
    };
    let mut required = tool.args.iter().filter(|(_, arg)| arg.required);
    let mut given = members.iter().map(|(name, value)| (tool.args.get(name), value));
    if !required.all(|(name, _)| members.contains_key(name))
        || !given.all(|(arg, value)| arg.is_some_and(|arg| arg.shape.fits(value)))
    {
        return Err(WrongFacts);
    }
    date(question.now)?;
    admission_age_s(question)?;
    // The rest is typed: it always fits.
    Ok(())
}

/// Builds the context of one request, with these approvals.
pub(super) fn context(
    question: &Question,
    tool: &Tool,
    approvals: &BTreeSet<ApprovalKind>,
) -> Result<Context, WrongFacts> {
    let mut pairs = vec![
        ("args", args(&question.args, tool)?),
        ("time", moment(question.now)?),
        (
            "live_session",
            RestrictedExpression::new_bool(question.live_session),
        ),
        ("approvals", strings(approvals.iter().map(ApprovalKind::as_str))),
        ("budgets", budgets(question)?),
        ("claimed", claimed(question.claimed.as_ref())?),
    ];
    if let Some(age) = admission_age_s(question)? {
        pairs.push(("admission_age_s", RestrictedExpression::new_long(age)));
    }
    Context::from_pairs(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)))
        .map_err(|_| WrongFacts)
}

fn args(args: &Value, tool: &Tool) -> Result<RestrictedExpression, WrongFacts> {
    let Value::Object(members) = args else {
        return Err(WrongFacts);
    };
    let fields: Vec<(String, RestrictedExpression)> = members
        .iter()
        .map(|(name, value)| {
            let arg = tool.args.get(name).ok_or(WrongFacts)?;
            Ok((name.clone(), arg.shape.express(value)?))
        })
        .collect::<Result<_, WrongFacts>>()?;
    RestrictedExpression::new_record(fields).map_err(|_| WrongFacts)
}

fn admission_age_s(question: &Question) -> Result<Option<i64>, WrongFacts> {
    let age = question.admission_age_s.map(i64::try_from);
    age.transpose().map_err(|_| WrongFacts)
}

fn date(now: Time) -> Result<DateTime<Utc>, WrongFacts> {
    DateTime::from_timestamp_micros(now.unix_micros()).ok_or(WrongFacts)
}

fn moment(now: Time) -> Result<RestrictedExpression, WrongFacts> {
    let time = date(now)?;
    let long = |value: u32| RestrictedExpression::new_long(i64::from(value));
    expressed_record([
        ("unix_s", RestrictedExpression::new_long(now.unix_seconds())),
        ("hour", long(time.hour())),
        ("minute", long(time.minute())),
        ("weekday", long(time.weekday().number_from_monday())),
    ])
}

fn budgets(question: &Question) -> Result<RestrictedExpression, WrongFacts> {
    let named = |left: bool| {
        strings(
            question
                .budgets
                .iter()
                .filter(move |budget| (budget.left > 0) == left)
                .map(|budget| budget.name.as_str()),
        )
    };
    expressed_record([("left", named(true)), ("spent", named(false))])
}

/// Every leaf of what the caller claims, as `{path (RFC 6901), value}`: a strict schema cannot type free JSON.
fn claimed(value: Option<&Value>) -> Result<RestrictedExpression, WrongFacts> {
    let mut leaves = Vec::new();
    let mut open: Vec<(String, &Value)> = value.map(|value| (String::new(), value)).into_iter().collect();
    while let Some((path, value)) = open.pop() {
        let text = match value {
            Value::Object(members) if !members.is_empty() => {
                open.extend(members.iter().map(|(name, value)| {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    (format!("{path}/{name}"), value)
                }));
                continue;
            }
            Value::Array(items) if !items.is_empty() => {
                open.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, value)| (format!("{path}/{index}"), value)),
                );
                continue;
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        leaves.push(expressed_record([
            ("path", string(&path)),
            ("value", string(&text)),
        ])?);
    }
    Ok(RestrictedExpression::new_set(leaves))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(texts.map(string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_seen_in_the_form_arguments_have() {
        assert_eq!(
            address("Ada@Bücher.Example"),
            Some(("Ada", "xn--bcher-kva.example".to_owned()))
        );
        for text in ["ada", "@acme.example", "ada@", "ada@[::1]", "ada@127.0.0.1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
