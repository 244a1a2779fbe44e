//! The Cedar schema, generated from the connectors' actions: what policies may name and how it is typed.
//!
//! One namespace, the empty one. `Agent` is the principal, `Grant` the resource, a grant is `in` the `User` who owns
//! it. An action is `Action::"<connector>:<tool>"`, `in` its category and `in` its connector's group.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, Schema, SchemaFragment};
use serde_json::{Map, Value, json};

use super::{
    compile::ConnectorActions,
    finding::{PolicyFinding, Severity},
    limits,
    shape::{self, ArgShape, long, optional, record, set, text},
};
use crate::domain::connector::{Category, ConnectorId, HTTP_REQUEST};

/// The types of entities, parsed once.
#[derive(Debug, Clone)]
pub(super) struct Kinds {
    pub(super) agent: EntityTypeName,
    pub(super) user: EntityTypeName,
    pub(super) grant: EntityTypeName,
    action: EntityTypeName,
}

/// One tool of a connector, as policies name it.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) uid: EntityUid,
    /// Its place among its connector's.
    pub(super) number: usize,
    /// Its category's group, if it has a category, and its connector's.
    pub(super) groups: Vec<EntityUid>,
    pub(super) args: BTreeMap<String, ArgShape>,
    /// `None`: `http.request`.
    pub(super) category: Option<Category>,
}

/// The tools of one connector and the action entities they need.
#[derive(Debug)]
pub(super) struct ConnectorTools {
    pub(super) tools: BTreeMap<String, Tool>,
    pub(super) entities: Entities,
}

/// Everything the schema is made of: what policies may name. Large, and the same for all policies of a deployment: made
/// once and shared.
#[derive(Debug)]
pub struct Vocabulary {
    pub(super) kinds: Kinds,
    pub(super) schema: Schema,
    pub(super) connectors: HashMap<ConnectorId, Arc<ConnectorTools>>,
    /// Which connector an action or a connector's group belongs to; a category is not here.
    pub(super) owner: HashMap<EntityUid, ConnectorId>,
}

impl Kinds {
    fn new() -> Option<Self> {
        Some(Self {
            agent: "Agent".parse().ok()?,
            user: "User".parse().ok()?,
            grant: "Grant".parse().ok()?,
            action: "Action".parse().ok()?,
        })
    }

    pub(super) fn action(&self, name: &str) -> EntityUid {
        uid(&self.action, name)
    }
}

/// An entity's identifier.
pub(super) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

impl Vocabulary {
    /// Builds the vocabulary of these connectors.
    ///
    /// # Errors
    /// When connectors clash with each other or with a category's name.
    pub fn of(connectors: &[ConnectorActions<'_>]) -> Result<Arc<Self>, Vec<PolicyFinding>> {
        let built = limits::on_a_deep_stack(|| vocabulary(connectors)).unwrap_or_else(|| {
            let message = "the schema could not be built".to_owned();
            Err(vec![connector_finding("schema", message)])
        });
        built.map(Arc::new)
    }
}

fn vocabulary(connectors: &[ConnectorActions<'_>]) -> Result<Vocabulary, Vec<PolicyFinding>> {
    let described = describe(connectors)?;
    let fault = |message: String| vec![connector_finding("schema", message)];
    let schema =
        Schema::from_json_value(schema_json(&described)).map_err(|error| fault(error.to_string()))?;
    let kinds = Kinds::new().ok_or_else(|| fault("the entity types do not parse".to_owned()))?;
    let mut all: HashMap<EntityUid, Entity> = schema
        .action_entities()
        .map_err(|error| fault(error.to_string()))?
        .into_iter()
        .map(|entity| (entity.uid(), entity))
        .collect();
    let mut vocabulary = Vocabulary {
        kinds,
        schema,
        connectors: HashMap::new(),
        owner: HashMap::new(),
    };
    let kinds = &vocabulary.kinds;
    let categories: Vec<Entity> = Category::ALL
        .into_iter()
        .filter_map(|category| all.remove(&kinds.action(category.as_str())))
        .collect();
    for (connector, tools) in described {
        let group = kinds.action(connector.as_str());
        let mut entities = categories.clone();
        entities.extend(all.remove(&group));
        let mut named = BTreeMap::new();
        for (number, (name, (category, args))) in tools.into_iter().enumerate() {
            let uid = kinds.action(&action_name(&connector, &name));
            entities.extend(all.remove(&uid));
            vocabulary.owner.insert(uid.clone(), connector.clone());
            let groups = category
                .map(|category| kinds.action(category.as_str()))
                .into_iter()
                .chain([group.clone()])
                .collect();
            let tool = Tool {
                uid,
                number,
                groups,
                args,
                category,
            };
            named.insert(name, tool);
        }
        vocabulary.owner.insert(group, connector.clone());
        let tools = ConnectorTools {
            tools: named,
            entities: Entities::from_entities(entities, None).map_err(|error| fault(error.to_string()))?,
        };
        vocabulary.connectors.insert(connector, Arc::new(tools));
    }
    Ok(vocabulary)
}

/// The schema in Cedar's own syntax, for editors and for people who write policies.
///
/// # Errors
/// When connectors clash with each other or with a category's name.
pub fn schema_text(connectors: &[ConnectorActions<'_>]) -> Result<String, Vec<PolicyFinding>> {
    let described = describe(connectors)?;
    SchemaFragment::from_json_value(schema_json(&described))
        .map_err(|error| error.to_string())
        .and_then(|fragment| fragment.to_cedarschema().map_err(|error| error.to_string()))
        .map_err(|message| vec![connector_finding("schema", message)])
}

type Tools = BTreeMap<String, (Option<Category>, BTreeMap<String, ArgShape>)>;

fn describe(connectors: &[ConnectorActions<'_>]) -> Result<BTreeMap<ConnectorId, Tools>, Vec<PolicyFinding>> {
    let mut described = BTreeMap::new();
    let mut findings = Vec::new();
    for connector in connectors {
        let id = connector.id;
        // A connector called `read` would put its tools into the category of that name.
        if id.as_str().parse::<Category>().is_ok() {
            findings.push(connector_finding(
                id.as_str(),
                "is the name of a category".to_owned(),
            ));
        }
        let mut tools: Tools = connector
            .actions
            .iter()
            .map(|action| {
                let shape = (Some(action.category), shape::of_args(&action.args));
                (action.name.clone(), shape)
            })
            .collect();
        if tools.len() != connector.actions.len() || tools.contains_key(HTTP_REQUEST) {
            findings.push(connector_finding(id.as_str(), "names a tool twice".to_owned()));
        }
        tools.insert(HTTP_REQUEST.to_owned(), (None, shape::of_http_request()));
        if described.insert(id.clone(), tools).is_some() {
            findings.push(connector_finding(id.as_str(), "is given twice".to_owned()));
        }
    }
    if findings.is_empty() {
        Ok(described)
    } else {
        Err(findings)
    }
}

fn connector_finding(name: &str, message: String) -> PolicyFinding {
    PolicyFinding {
        file: format!("connector {name}"),
        line: 1,
        column: 1,
        severity: Severity::Error,
        message,
        fix: None,
    }
}

fn action_name(connector: &ConnectorId, tool: &str) -> String {
    format!("{connector}:{tool}")
}

fn schema_json(connectors: &BTreeMap<ConnectorId, Tools>) -> Value {
    let mut actions = Map::new();
    for category in Category::ALL {
        actions.insert(category.as_str().to_owned(), json!({}));
    }
    for (connector, tools) in connectors {
        actions.insert(connector.to_string(), json!({}));
        for (name, (category, args)) in tools {
            let groups: Vec<Value> = category
                .map(Category::as_str)
                .into_iter()
                .chain([connector.as_str()])
                .map(|group| json!({"id": group}))
                .collect();
            let action = json!({
                "memberOf": groups,
                "appliesTo": {
                    "principalTypes": ["Agent"],
                    "resourceTypes": ["Grant"],
                    "context": context_json(args),
                },
            });
            actions.insert(action_name(connector, name), action);
        }
    }
    json!({"": {"commonTypes": common_types(), "entityTypes": entity_types(), "actions": actions}})
}

fn context_json(args: &BTreeMap<String, ArgShape>) -> Value {
    let args: Map<String, Value> = args
        .iter()
        .map(|(name, arg)| {
            let kind = arg.shape.schema();
            (name.clone(), if arg.required { kind } else { optional(kind) })
        })
        .collect();
    record(&[
        ("args", json!({"type": "Record", "attributes": args})),
        ("time", json!({"type": "Moment"})),
        ("live_session", json!({"type": "Boolean"})),
        ("admission_age_s", optional(long())),
        ("approvals", set(&text())),
        (
            "budgets",
            record(&[("left", set(&text())), ("spent", set(&text()))]),
        ),
        ("claimed", set(&json!({"type": "Claim"}))),
    ])
}

fn common_types() -> Value {
    json!({
        "Email": record(&[("local", text()), ("domain", text())]),
        "Moment": record(&[("unix_s", long()), ("hour", long()), ("minute", long()), ("weekday", long())]),
        "Claim": record(&[("path", text()), ("value", text())]),
    })
}

fn entity_types() -> Value {
    json!({
        "Agent": {"shape": record(&[("name", text())])},
        "User": {"shape": record(&[
            ("email", optional(json!({"type": "Email"}))),
            ("domain", optional(text())),
            ("role", text()),
            ("managed_by", text()),
        ])},
        "Grant": {"memberOfTypes": ["User"], "shape": record(&[
            ("owner", json!({"type": "Entity", "name": "User"})),
            ("connector", text()),
            ("account", record(&[("id", optional(text())), ("label", text()), ("tenant", optional(text()))])),
            ("label", optional(text())),
            ("scopes", set(&text())),
        ])},
    })
}
