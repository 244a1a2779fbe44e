//! The extra members of problems (protocol §6), typed. Absent members are not sent.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{ApprovalId, ConnectSessionId, DecisionId, EntryId, GrantId, Mode, Time};

/// A problem as it goes over the wire (RFC 9457 §3), `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// `/problems/<code>`: a page that explains the code.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// What the code means, in a few words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: &'static str,
    /// What was wrong this time, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The request, to be named to the operator; only with `internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the code adds.
    #[serde(flatten)]
    pub members: Members,
}

/// Everything a code may add.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ProblemMembers)]
pub struct Members {
    /// With `approval_pending`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalLink>,
    /// With `invalid_request` and `invalid_args`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With `denied`: stable and safe to show to a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With `denied`: a sentence that is safe to show to a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_message: Option<String>,
    /// With `denied`: the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub decision_id: Option<DecisionId>,
    /// With `decision_rejected`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_error: Option<String>,
    /// With `connection_required` and `reconnect_required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ConnectLink>,
    /// With `account_selection_required`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountChoice>,
    /// The audit entry concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub entry_id: Option<EntryId>,
    /// With `already_released`: the status the first request was answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_status: Option<u16>,
    /// With `revoked`: the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// With `revoked`: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Time>,
    /// With `mode_unavailable`: the modes that are available. Sent even when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub modes: Option<Vec<Mode>>,
}

/// Where a person can approve.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalLink {
    /// The approval.
    #[schema(value_type = String)]
    pub id: ApprovalId,
    /// The page the approver opens.
    pub url: String,
    /// When it is too late.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Time,
}

/// Where a person can connect.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConnectLink {
    /// The connect session.
    #[schema(value_type = String)]
    pub session: ConnectSessionId,
    /// The link to show to the person; not a login.
    pub url: String,
    /// When it stops working.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Time,
}

/// An account the caller may choose.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AccountChoice {
    /// The grant of that account.
    #[schema(value_type = String)]
    pub grant: GrantId,
    /// What the provider or the person calls it.
    pub account: String,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// RFC 6901 JSON pointer into the body; empty for the whole, `?name` for a query parameter.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl FieldError {
    /// Something wrong at `pointer`.
    #[must_use]
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}
