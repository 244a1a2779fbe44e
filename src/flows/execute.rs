//! Rung 0: Postern makes the call itself, so that what was decided is what is sent, and the agent holds nothing.

use std::sync::Arc;

use crate::{
    connectors::{self, ErrorClass, FilteredResponse, Tool},
    domain::{
        EntryId, GrantId,
        entry::{EntryDraft, EntryType},
        grant::Grant,
        secret::AccessToken,
    },
    egress::{EgressError, InboundResponse, Purpose},
    failpoints::Failpoint,
    release::{
        AuditReceipt, DeadReceipt,
        open::{self, OpenError},
    },
};

use super::{
    Deps, Refusal,
    actions::Prepared,
    record,
    refresh::{self, Obtained, Want},
    token::Ready,
};

/// Opens the token, sends the rendered request, filters the answer and appends the outcome.
///
/// # Errors
/// When nothing could be sent, or something was and no answer came.
pub async fn run(
    deps: &Arc<Deps>,
    prepared: &Prepared,
    receipt: &AuditReceipt,
    ready: &Ready,
) -> Result<FilteredResponse, Refusal> {
    let entry = receipt.entry();
    let grant = &prepared.grant.facts.grant;
    let token = match open::access_token(receipt, &ready.key, grant, &ready.kind) {
        Ok(token) => token,
        Err(error) => return Err(dropped(deps, prepared, entry, &error).await),
    };
    Failpoint::ExecuteOpened.reached();
    // The action was prepared from this very tool.
    let tool = Tool::find(&prepared.connector, &prepared.action.tool).ok_or(Refusal::NotFound)?;
    let is_generic = matches!(tool, Tool::HttpRequest);
    let sent = match send(deps, prepared, tool, receipt, token).await {
        Ok(first) if is_dead(prepared, &first.answer) && may_renew(deps, grant, tool) => {
            // RFC 6750 §3.1: the provider calls the token dead. One refresh, one resend, while the receipt lives.
            match again(deps, prepared, receipt, ready, tool).await {
                // No time was left: what the provider said to the first call stands.
                Ok(Err(EgressError::TooLate)) => Ok(first),
                // Any address may say so, whatever the token: that is an answer, too.
                Ok(Err(error)) if is_generic && !error.may_have_been_sent() => Ok(first),
                Ok(resent) => resent,
                Err(refusal) => {
                    outcome_entry(deps, prepared, entry, "failed", Some(first.answer.status)).await;
                    return Err(refusal);
                }
            }
        }
        sent => sent,
    };
    match sent {
        Ok(Answered { answer, token }) => {
            let filtered = connectors::filter(tool, &answer, &token);
            let outcome = if filtered.success { "ok" } else { "failed" };
            outcome_entry(deps, prepared, entry, outcome, Some(answer.status)).await;
            Ok(filtered)
        }
        Err(error) if error.may_have_been_sent() => {
            outcome_entry(deps, prepared, entry, "unknown", None).await;
            Err(Refusal::OutcomeUnknown { entry: Some(entry) })
        }
        Err(EgressError::TooLate) => {
            dropped(deps, prepared, entry, &DeadReceipt.into()).await;
            Err(Refusal::ProviderUnavailable)
        }
        Err(_) => {
            outcome_entry(deps, prepared, entry, "not_sent", None).await;
            Err(Refusal::ProviderUnavailable)
        }
    }
}

/// An answer and the token its request carried: each is filtered for the echo of the token it answers to.
struct Answered {
    answer: InboundResponse,
    token: AccessToken,
}

async fn send(
    deps: &Deps,
    prepared: &Prepared,
    tool: Tool<'_>,
    receipt: &AuditReceipt,
    token: AccessToken,
) -> Result<Answered, EgressError> {
    // INVARIANT: the request is rendered from the action that was decided, nothing else.
    let rendered =
        connectors::render(&prepared.connector, tool, &prepared.args).map_err(|_| EgressError::Setup)?;
    let mut request = rendered.with_token(&prepared.connector, &token);
    // Every send, resends included, begins on a live receipt or not at all.
    request.begin_by = Some(receipt.begin_by());
    let answer = deps
        .egress
        .send(&Purpose::connector(&prepared.connector.id), request)
        .await?;
    Ok(Answered { answer, token })
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
) -> Result<Result<Answered, EgressError>, Refusal> {
    let grant = &prepared.grant.facts.grant;
    let want = Want::Renewed {
        than: Some(ready.row.generation),
    };
    let Obtained { row, is_fresh } = refresh::ensure(deps, grant, want).await?;
    prepared.grant.keep_token(&ready.kind, row.clone());
    let key = deps.key_of(grant.org, row.sealed.odk).await?;
    let resent = match open::renewed_access_token(receipt, &key, grant, &row) {
        Ok(token) => send(deps, prepared, tool, receipt, token).await,
        Err(OpenError::Dead(_)) => Err(EgressError::TooLate),
        Err(error) => {
            tracing::warn!(cause = %error, "the renewed token of {} is not used: {error}", grant.id);
            return Err(Refusal::KeyUnavailable);
        }
    };
    let is_dead = resent
        .as_ref()
        .is_ok_and(|resent| is_dead(prepared, &resent.answer));
    // An address that no file describes may refuse every person's token: that is its answer, and says nothing of this one. It
    // came after this call had passed the gate, whoever asked for it, and the next call has it: that needs no fresher one.
    if matches!(tool, Tool::HttpRequest) && (is_dead || resent.is_err()) {
        deps.flights
            .refused_fresh(connection(grant), deps.clock.since_boot());
        return Ok(resent);
    }
    if !is_dead {
        return Ok(resent);
    }
    // A fresh token is dead too: only the person can mend that.
    if is_fresh && refresh::give_up(deps, grant, row.generation).await? {
        return Err(Refusal::GrantNeedsReconnect(grant.id));
    }
    // It was there before, had by somebody else or kept beside a database that was gone, and has died since; or another one has
    // taken its place meanwhile. The next call has a fresh one, or learns that even that is dead.
    Err(Refusal::ProviderUnavailable)
}

/// Whether a token that is called dead may be renewed for this tool. Not because of what an address says that no file describes,
/// where the grant has no refresh token: it would end, and the token may be as good as ever. Nor if a fresh one was of no use
/// there a moment ago: asking for another one on each call would rotate the refresh token without end.
fn may_renew(deps: &Deps, grant: &Grant, tool: Tool<'_>) -> bool {
    if !matches!(tool, Tool::HttpRequest) {
        return true;
    }
    let since_boot = deps.clock.since_boot();
    grant.has_refresh_token && !deps.flights.refuses_fresh(&connection(grant), since_boot)
}

/// A grant as its person connected it.
fn connection(grant: &Grant) -> (GrantId, i64) {
    (grant.id, grant.connected_epoch)
}

/// A release that opened nothing says so in the log.
pub(super) async fn dropped(deps: &Deps, prepared: &Prepared, entry: EntryId, error: &OpenError) -> Refusal {
    tracing::error!(entry.id = %entry, cause = %error, "the release {entry} was dropped: nothing left");
    append(deps, prepared, EntryType::Dropped, entry, "dropped", None).await;
    match error {
        OpenError::Dead(_) => Refusal::TooLate,
        OpenError::Nothing | OpenError::Sealed(_) | OpenError::NotText => Refusal::KeyUnavailable,
    }
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
