//! An entry as an event of the Open Cybersecurity Schema Framework (OCSF 1.3): who logged in is Authentication (3002),
//! everything else API Activity (6003). What has no attribute there stands in `unmapped`, the entry itself in
//! `raw_data`, so that nothing is lost on the way. An attribute that does not apply is absent, never null.

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
    let (status, status_name) = status(&entry);
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
    leave_out_nulls(&mut event);
    Ok(event)
}

fn leave_out_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| {
            leave_out_nulls(member);
            !member.is_null()
        });
    }
}

/// What was done, as the class numbers it; whether it came about is its status.
fn activity(entry: &Entry) -> (u32, &'static str) {
    let draft = &entry.draft;
    match (entry.kind, draft.outcome.as_deref()) {
        (EntryType::Session, Some("login")) => (1, "Logon"),
        (EntryType::Session, Some("logout")) => (2, "Logoff"),
        (EntryType::Session, _) => (99, "Other"),
        (EntryType::Connect, Some("discarded")) => DELETE,
        (EntryType::Connect, Some("ok")) if draft.reason.as_deref() == Some("reconnected") => UPDATE,
        (EntryType::Connect, _) => CREATE,
        (EntryType::Delegation, Some("made")) => CREATE,
        (EntryType::Delegation, Some("ended")) => DELETE,
        (EntryType::Release | EntryType::Decision | EntryType::Outcome, _) => (2, "Read"),
        (EntryType::Admin, Some("org_created" | "person_added" | "key_created")) => CREATE,
        (EntryType::Admin, Some("key_revoked" | "engine_disabled")) => DELETE,
        (EntryType::Admin, Some("copied")) => OTHER,
        (EntryType::Delegation | EntryType::Refresh | EntryType::Admin, _) => UPDATE,
        (EntryType::Revoke | EntryType::UpstreamRevoke, _) => DELETE,
        (EntryType::Dropped | EntryType::Writer, _) => OTHER,
    }
}

/// A code not known here says nothing of success.
fn status(entry: &Entry) -> (u32, &'static str) {
    let draft = &entry.draft;
    // What was given up here lives on at the provider.
    let lives_on = matches!(
        draft.reason.as_deref(),
        Some("unsupported" | "not_revocable_alone")
    );
    match draft.outcome.as_deref().unwrap_or_default() {
        // A renewal that came to nothing.
        "discarded" if lives_on || entry.kind == EntryType::Refresh => FAILURE,
        "deny" | "escalate" | "rejected" | "failed" | "not_sent" | "dropped" | "needs_reconnect"
        | "unsupported" => FAILURE,
        "active" | "allow" | "applied" | "copied" | "discarded" | "ended" | "engine_disabled"
        | "key_created" | "key_revoked" | "login" | "login_link" | "logout" | "made" | "ok"
        | "org_created" | "person_added" | "recovered" | "revoked" | "started" | "stopped" => (1, "Success"),
        _ => (0, "Unknown"),
    }
}

const CREATE: (u32, &str) = (1, "Create");
const UPDATE: (u32, &str) = (3, "Update");
const DELETE: (u32, &str) = (4, "Delete");
const OTHER: (u32, &str) = (99, "Other");
const FAILURE: (u32, &str) = (2, "Failure");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        EntryId, OrgId, Time, UserId,
        entry::{EntryDraft, Epoch},
    };

    const ID: [u8; 16] = 0x0190_0000_0000_7000_8000_0000_0000_0001_u128.to_be_bytes();

    fn event_of(kind: EntryType, draft: EntryDraft) -> Value {
        let entry = Entry {
            schema: 1,
            id: EntryId::from_bytes(ID),
            org: OrgId::from_bytes(ID),
            epoch: Epoch {
                incarnation: 1,
                counter: 1,
            },
            ts: Time::from_unix_seconds(1_795_000_000),
            writer: "r1/cold".to_owned(),
            writer_seq: 1,
            prev: "0".repeat(64),
            kind,
            draft,
        };
        event(7, &serde_json::to_string(&entry).unwrap()).unwrap()
    }

    fn said(outcome: &str, reason: &str) -> EntryDraft {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        EntryDraft {
            outcome: text(outcome),
            reason: text(reason),
            ..EntryDraft::default()
        }
    }

    #[test]
    fn every_entry_says_what_was_done_and_whether_it_came_about() {
        use EntryType::{
            Admin, Connect, Decision, Delegation, Dropped, Outcome, Refresh, Release, Revoke, Session,
            UpstreamRevoke, Writer,
        };
        for (kind, outcome, reason, type_uid, status) in [
            (Session, "login", "", 300_201, 1_usize),
            (Session, "logout", "", 300_202, 1),
            (Session, "login_link", "", 300_299, 1),
            (Connect, "ok", "", 600_301, 1),
            (Connect, "ok", "reconnected", 600_303, 1),
            (Connect, "awaiting_complete", "", 600_301, 0),
            (Connect, "failed", "denied", 600_301, 2),
            (Connect, "discarded", "superseded", 600_304, 1),
            (Connect, "discarded", "quarantine_over", 600_304, 1),
            (Connect, "discarded", "not_revocable_alone", 600_304, 2),
            (Connect, "discarded", "unsupported", 600_304, 2),
            (Delegation, "made", "", 600_301, 1),
            (Delegation, "ended", "", 600_304, 1),
            (Release, "allow", "", 600_302, 1),
            (Decision, "allow", "", 600_302, 1),
            (Decision, "deny", "not_delegated", 600_302, 2),
            (Decision, "escalate", "", 600_302, 2),
            (Decision, "rejected", "expired", 600_302, 2),
            (Outcome, "ok", "http_200", 600_302, 1),
            (Outcome, "failed", "http_500", 600_302, 2),
            (Outcome, "unknown", "", 600_302, 0),
            (Outcome, "not_sent", "", 600_302, 2),
            (Refresh, "ok", "", 600_303, 1),
            (Refresh, "active", "binding_restored", 600_303, 1),
            (Refresh, "failed", "transient", 600_303, 2),
            (Refresh, "needs_reconnect", "refresh_token_dead", 600_303, 2),
            (Refresh, "discarded", "came_too_late", 600_303, 2),
            (Refresh, "discarded", "not_revocable_alone", 600_303, 2),
            (Admin, "org_created", "", 600_301, 1),
            (Admin, "person_added", "", 600_301, 1),
            (Admin, "key_created", "", 600_301, 1),
            (Admin, "key_revoked", "", 600_304, 1),
            (Admin, "engine_disabled", "", 600_304, 1),
            (Admin, "applied", "", 600_303, 1),
            (Admin, "recovered", "", 600_303, 1),
            (Admin, "copied", "", 600_399, 1),
            (Revoke, "stopped", "leaked", 600_304, 1),
            (UpstreamRevoke, "revoked", "", 600_304, 1),
            (UpstreamRevoke, "unsupported", "", 600_304, 2),
            (UpstreamRevoke, "unconfirmed", "not_revocable_alone", 600_304, 0),
            (Dropped, "dropped", "", 600_399, 2),
            (Writer, "started", "", 600_399, 1),
            (Writer, "stopped", "", 600_399, 1),
            (Admin, "what_comes_later", "", 600_303, 0),
            (Admin, "", "", 600_303, 0),
        ] {
            let event = event_of(kind, said(outcome, reason));
            let told = format!("{kind:?} {outcome} {reason}: {event}");
            assert_eq!(
                (&event["type_uid"], &event["status_id"]),
                (&json!(type_uid), &json!(status)),
                "{told}"
            );
            let (class, activity) = (type_uid / 100, type_uid % 100);
            assert_eq!(
                (&event["class_uid"], &event["activity_id"]),
                (&json!(class), &json!(activity)),
                "{told}"
            );
            let name = match (class, activity) {
                (3002, 1) => "Authentication: Logon",
                (3002, 2) => "Authentication: Logoff",
                (3002, _) => "Authentication: Other",
                (_, 1) => "API Activity: Create",
                (_, 2) => "API Activity: Read",
                (_, 3) => "API Activity: Update",
                (_, 4) => "API Activity: Delete",
                _ => "API Activity: Other",
            };
            assert_eq!(event["type_name"], name, "{told}");
            assert_eq!(
                event["status"],
                ["Unknown", "Success", "Failure"][status],
                "{told}"
            );
        }
    }

    #[test]
    fn an_attribute_that_does_not_apply_is_absent() {
        for user in [None, Some(UserId::from_bytes(ID))] {
            for (kind, outcome) in [
                (EntryType::Writer, ""),
                (EntryType::Session, "login"),
                (EntryType::Admin, "applied"),
            ] {
                let draft = EntryDraft {
                    user,
                    ..said(outcome, "")
                };
                let mut event = event_of(kind, draft);
                // The entry itself, in which every member is present.
                let raw = event.as_object_mut().unwrap().remove("raw_data").unwrap();
                assert!(raw.as_str().unwrap().contains("null"));
                assert!(!event.to_string().contains("null"), "{event}");
                assert_eq!(event["actor"].get("user").is_some(), user.is_some(), "{event}");
                assert_eq!(event.get("status_code").is_some(), !outcome.is_empty(), "{event}");
            }
        }
    }
}
