//! An entry as an event of the Open Cybersecurity Schema Framework (OCSF 1.3): who logged in is Authentication (3002),
//! everything else API Activity (6003). What has no attribute there stands in `unmapped`, the entry itself in
//! `raw_data`, so that nothing is lost on the way.

use serde_json::{Value, json};

use super::SinkError;
use crate::domain::entry::{Entry, EntryType};

/// The event of one entry.
pub(super) fn event(index: u64, bytes: &str) -> Result<Value, SinkError> {
    let entry: Entry = serde_json::from_str(bytes).map_err(|_| SinkError::Entry)?;
    let (class, class_name, category, category_name) = match entry.kind {
        EntryType::Session => (3002, "Authentication", 3, "Identity & Access Management"),
        _ => (6003, "API Activity", 6, "Application Activity"),
    };
    let (activity, activity_name) = activity(&entry);
    let (status, status_name) = status(entry.draft.outcome.as_deref());
    let draft = &entry.draft;
    let mut event = json!({
        "class_uid": class,
        "class_name": class_name,
        "category_uid": category,
        "category_name": category_name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class * 100 + activity,
        "type_name": format!("{class_name}: {activity_name}"),
        "severity_id": 1,
        "severity": "Informational",
        "time": entry.ts.unix_millis(),
        "status_id": status,
        "status": status_name,
        "status_code": draft.outcome,
        "status_detail": draft.reason,
        "message": entry.kind.as_str(),
        "metadata": {
            "version": "1.3.0",
            "product": {"name": "Postern", "vendor_name": "Postern", "version": env!("CARGO_PKG_VERSION")},
            "uid": entry.id,
            "sequence": index,
            "correlation_uid": draft.correlation,
            "tenant_uid": entry.org,
            "log_name": "audit",
        },
        "actor": {
            "user": draft.user.map(|user| json!({"uid": user})),
            "app_uid": draft.agent,
            "app_name": if draft.agent.is_some() { "agent" } else { "person" },
        },
        "src_endpoint": {"name": entry.writer},
        "unmapped": {
            "type": entry.kind,
            "epoch": entry.epoch,
            "grant": draft.grant,
            "mode": draft.mode,
            "decision": draft.decision,
            "policy": draft.policy,
        },
        "raw_data": bytes,
    });
    // What one of the two classes demands the other does not know.
    let own = match entry.kind {
        EntryType::Session => json!({
            "user": draft.user.map_or_else(|| json!({"name": "unknown"}), |user| json!({"uid": user})),
            "service": {"name": "postern"},
        }),
        _ => json!({"api": {
            "operation": draft.tool.as_deref().unwrap_or(entry.kind.as_str()),
            "service": {"name": draft.connector.as_ref().map_or("postern", |connector| connector.as_str())},
        }}),
    };
    if let (Some(event), Value::Object(own)) = (event.as_object_mut(), own) {
        event.extend(own);
    }
    Ok(event)
}

fn activity(entry: &Entry) -> (u32, &'static str) {
    match (entry.kind, entry.draft.outcome.as_deref()) {
        (EntryType::Session, Some("login")) => (1, "Logon"),
        (EntryType::Session, Some("logout")) => (2, "Logoff"),
        (EntryType::Session, _) => (99, "Other"),
        (EntryType::Connect | EntryType::Delegation, _) => (1, "Create"),
        (EntryType::Release | EntryType::Decision | EntryType::Outcome, _) => (2, "Read"),
        (EntryType::Refresh | EntryType::Admin, _) => (3, "Update"),
        (EntryType::Revoke | EntryType::UpstreamRevoke, _) => (4, "Delete"),
        (EntryType::Dropped | EntryType::Writer, _) => (99, "Other"),
    }
}

fn status(outcome: Option<&str>) -> (u32, &'static str) {
    match outcome {
        None | Some("unknown" | "unconfirmed") => (0, "Unknown"),
        Some(
            "deny" | "escalate" | "rejected" | "failed" | "not_sent" | "dropped" | "needs_reconnect"
            | "unsupported",
        ) => (2, "Failure"),
        Some(_) => (1, "Success"),
    }
}
