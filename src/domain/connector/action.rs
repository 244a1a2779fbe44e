//! The typed actions of a connector: arguments, request, answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Category;
use crate::domain::scope::ScopeSet;

/// The type of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgType {
    /// UTF-8 text.
    String,
    /// Within ±(2^53−1).
    Integer,
    /// A JSON number; the only type whose literal may have `.` or an exponent.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of `items`.
    Array,
}

/// A rule for the text of an argument. One strict parse yields what policy sees, what is shown and what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgFormat {
    /// One address; policy sees `{local, domain}`, the domain in lower-case A-labels.
    Email,
    /// A host name in lower-case A-labels.
    Host,
    /// An absolute https URL.
    Url,
    /// An identifier safe in a path: no `/ \ % ? #`, no controls, not `.` or `..`.
    Id,
    /// One line: no controls. Whatever goes into a header is a line.
    Line,
}

/// One argument of an action: a subset of JSON Schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgSpec {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ArgType,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// Filled in before hashing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Longest text in characters, most items, or greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Least characters, items or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// A rule for text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ArgFormat>,
    /// The only texts allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// What an array holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Box<ArgSpec>>,
    /// In a path: may hold `/`, checked segment by segment.
    #[serde(default)]
    pub multi_segment: bool,
}

/// A typed action of a connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionDefinition {
    /// The tool's name, unique in the connector.
    pub name: String,
    /// What people read.
    pub title: String,
    /// What it does to the world.
    pub category: Category,
    /// The scopes one call needs.
    #[serde(default)]
    pub scopes: ScopeSet,
    /// Whether a repeat does no more than one call.
    #[serde(default)]
    pub idempotent: bool,
    /// How the request is rendered.
    pub request: RequestTemplate,
    /// How a `2xx` answer is known to be a success; absent: the status alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<SuccessRule>,
    /// What of the answer the agent may see.
    #[serde(default)]
    pub response: ResponseRule,
    /// What an approver reads first; `{arg}` stands for an argument.
    pub summary: String,
    /// The arguments; no others are accepted.
    #[serde(default)]
    pub args: BTreeMap<String, ArgSpec>,
}

/// How an action becomes a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestTemplate {
    /// The HTTP method.
    pub method: String,
    /// An absolute URL; `{arg}` in the path stands for a path parameter.
    pub url: String,
    /// Query parameters: name → `{arg}` or literal text. Absent arguments leave theirs out.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// How the body is made.
    #[serde(default)]
    pub body: BodyKind,
    /// For `json` and `form`: body member → `{arg}` or literal; absent: every argument not used elsewhere, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<BTreeMap<String, Value>>,
    /// Fixed request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// How the body of a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// No body.
    #[default]
    None,
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// JSON `{"raw": base64url(RFC 5322 message)}`, made from `to`, `cc`, `subject`, `body` (Gmail).
    MimeRaw,
    /// JSON `{"message": {"raw": …}}` (Gmail drafts).
    MimeRawMessage,
}

/// `path` (dotted) must hold `equals`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessRule {
    /// Dotted member path into the JSON body.
    pub path: String,
    /// The value that means success.
    pub equals: Value,
}

/// What of an answer is kept from the agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseRule {
    /// Dotted paths that may hold freshly minted secrets; `*` stands for every item or member.
    #[serde(default)]
    pub redact: Vec<String>,
}
