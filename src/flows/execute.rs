//! Rung 0: Postern makes the call itself, so that what was decided is what is sent, and the agent holds nothing.

use std::sync::Arc;

use crate::{
    connectors::{self, ErrorClass, FilteredResponse, Tool},
    domain::{
        EntryId,
        entry::{EntryDraft, EntryType},
        secret::AccessToken,
    },
    egress::{EgressError, InboundResponse, Purpose},
    release::{
        AuditReceipt,
        open::{self, OpenError},
    },
};

use super::{
    Deps, Refusal,
    actions::Prepared,
    record,
    refresh::{self, Want},
    token::Ready,
};

/// What came back from the provider, filtered.
pub type Executed = FilteredResponse;

/// Opens the token, sends the rendered request, filters the answer and appends the outcome.
///
/// # Errors
/// When nothing could be sent, or something was and no answer came.
pub async fn run(
    deps: &Arc<Deps>,
    prepared: &Prepared,
    receipt: &AuditReceipt,
    ready: &Ready,
) -> Result<Executed, Refusal> {
    let entry = receipt.entry();
    let grant = &prepared.grant.facts.grant;
    let token = match open::access_token(receipt, &ready.key, grant, &ready.kind) {
        Ok(token) => token,
        Err(error) => return Err(dropped(deps, prepared, entry, &error).await),
    };
    // The action was prepared from this very tool.
    let tool = Tool::find(&prepared.connector, &prepared.action.tool).ok_or(Refusal::NotFound)?;
    let sent = send(deps, prepared, tool, receipt, &token).await;
    let sent = match sent {
        Ok(answer) if is_dead(prepared, &answer) => {
            // RFC 6750 §3.1: the provider calls the token dead. One refresh, one resend, while the receipt lives.
            match again(deps, prepared, receipt, ready, tool).await {
                Ok(resent) => resent,
                Err(refusal) => {
                    outcome_entry(deps, prepared, entry, "failed", Some(answer.status)).await;
                    return Err(refusal);
                }
            }
        }
        sent => sent,
    };
    match sent {
        Ok(answer) => {
            let filtered = connectors::filter(tool, &answer, &token);
            let outcome = if filtered.success { "ok" } else { "failed" };
            outcome_entry(deps, prepared, entry, outcome, Some(answer.status)).await;
            Ok(filtered)
        }
        Err(error) if error.may_have_been_sent() => {
            outcome_entry(deps, prepared, entry, "unknown", None).await;
            Err(Refusal::OutcomeUnknown { entry })
        }
        Err(_) => {
            outcome_entry(deps, prepared, entry, "not_sent", None).await;
            Err(Refusal::ProviderUnavailable)
        }
    }
}

async fn send(
    deps: &Deps,
    prepared: &Prepared,
    tool: Tool<'_>,
    receipt: &AuditReceipt,
    token: &AccessToken,
) -> Result<InboundResponse, EgressError> {
    // Every send, resends included, needs a live receipt.
    if receipt.live().is_err() {
        return Err(EgressError::Setup);
    }
    // INVARIANT: the request is rendered from the action that was decided, nothing else.
    let rendered =
        connectors::render(&prepared.connector, tool, &prepared.args).map_err(|_| EgressError::Setup)?;
    let request = rendered.with_token(&prepared.connector, token);
    deps.egress
        .send(&Purpose::connector(&prepared.connector.id), request)
        .await
}

fn is_dead(prepared: &Prepared, answer: &InboundResponse) -> bool {
    let body = serde_json::from_slice(&answer.body).unwrap_or_default();
    connectors::classify_api(&prepared.connector, answer.status, &body) == Some(ErrorClass::Dead)
}

async fn again(
    deps: &Arc<Deps>,
    prepared: &Prepared,
    receipt: &AuditReceipt,
    ready: &Ready,
    tool: Tool<'_>,
) -> Result<Result<InboundResponse, EgressError>, Refusal> {
    let grant = &prepared.grant.facts.grant;
    let want = Want::Renewed {
        than: Some(ready.row.generation),
    };
    let row = refresh::ensure(deps, grant, want).await?;
    prepared.grant.keep_token(&ready.kind, row.clone());
    let key = deps.key_of(grant.org, row.sealed.odk).await?;
    let token =
        open::renewed_access_token(receipt, &key, grant, &row).map_err(|_| Refusal::KeyUnavailable)?;
    let resent = send(deps, prepared, tool, receipt, &token).await;
    if resent.as_ref().is_ok_and(|answer| is_dead(prepared, answer)) {
        // A fresh token is dead too: only the person can mend that.
        refresh::give_up(deps, grant).await?;
        return Err(Refusal::GrantNeedsReconnect(grant.id));
    }
    Ok(resent)
}

/// A release that opened nothing says so in the log.
pub(super) async fn dropped(deps: &Deps, prepared: &Prepared, entry: EntryId, error: &OpenError) -> Refusal {
    tracing::error!(entry.id = %entry, cause = %error, "the release {entry} was dropped: nothing left");
    append(deps, prepared, EntryType::Dropped, entry, "dropped", None).await;
    Refusal::KeyUnavailable
}

async fn outcome_entry(deps: &Deps, prepared: &Prepared, entry: EntryId, outcome: &str, status: Option<u16>) {
    append(deps, prepared, EntryType::Outcome, entry, outcome, status).await;
}

/// Appends what became of a release. If that fails the sweeper writes `unknown`; the call has been made either way.
async fn append(
    deps: &Deps,
    prepared: &Prepared,
    kind: EntryType,
    entry: EntryId,
    outcome: &str,
    status: Option<u16>,
) {
    let action = &prepared.action;
    let draft = EntryDraft {
        user: Some(action.user),
        agent: Some(action.agent),
        grant: Some(action.grant),
        connector: Some(action.connector.clone()),
        tool: Some(action.tool.clone()),
        outcome: Some(outcome.to_owned()),
        reason: status.map(|status| format!("http_{status}")),
        correlation: Some(entry.to_string()),
        ..EntryDraft::default()
    };
    let appended = match record::open(deps, kind, draft) {
        Ok(new) => deps.gate.follow_up(action.org, new).await.is_ok(),
        Err(_) => false,
    };
    if !appended {
        tracing::error!(entry.id = %entry, "the outcome of {entry} could not be recorded yet");
    }
}
