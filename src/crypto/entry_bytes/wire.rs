//! The members of an entry in the order of RFC 8785 §3.2.3, for writing and for strict reading.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::{
    AgentId, EntryId, GrantId, Mode, OrgId, Time, UserId,
    connector::ConnectorId,
    decision::{ApprovalRef, Outcome, PolicyRef},
    entry::{Entry, EntryDecision, EntryDraft, EntryType, Epoch},
};

/// INVARIANT: members stand in the order of their names. Absent ones are `null`, never left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire<'a> {
    account_hash: Option<Cow<'a, str>>,
    action_hash: Option<Cow<'a, str>>,
    agent: Option<AgentId>,
    approvals: Cow<'a, [ApprovalRef]>,
    connector: Option<Cow<'a, ConnectorId>>,
    context_digest: Option<Cow<'a, str>>,
    correlation: Option<Cow<'a, str>>,
    decision: Option<WireDecision<'a>>,
    epoch: Epoch,
    generation: Option<u64>,
    grant: Option<GrantId>,
    id: EntryId,
    mode: Option<Mode>,
    on_behalf: Cow<'a, [String]>,
    org: OrgId,
    outcome: Option<Cow<'a, str>>,
    policy: Option<WirePolicy<'a>>,
    prev: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    schema: u8,
    tool: Option<Cow<'a, str>>,
    ts: Time,
    #[serde(rename = "type")]
    kind: EntryType,
    user: Option<UserId>,
    writer: Cow<'a, str>,
    writer_seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDecision<'a> {
    iss: Cow<'a, str>,
    jti: Cow<'a, str>,
    outcome: Outcome,
    sha256: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePolicy<'a> {
    digest: Cow<'a, str>,
    id: Cow<'a, str>,
    version: Cow<'a, str>,
}

impl<'a> From<&'a Entry> for Wire<'a> {
    fn from(entry: &'a Entry) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        let draft = &entry.draft;
        Self {
            account_hash: text(&draft.account_hash),
            action_hash: text(&draft.action_hash),
            agent: draft.agent,
            approvals: Cow::Borrowed(&draft.approvals),
            connector: draft.connector.as_ref().map(Cow::Borrowed),
            context_digest: text(&draft.context_digest),
            correlation: text(&draft.correlation),
            decision: draft.decision.as_ref().map(|decision| WireDecision {
                iss: Cow::Borrowed(&decision.iss),
                jti: Cow::Borrowed(&decision.jti),
                outcome: decision.outcome,
                sha256: Cow::Borrowed(&decision.sha256),
            }),
            epoch: entry.epoch,
            generation: draft.generation,
            grant: draft.grant,
            id: entry.id,
            mode: draft.mode,
            on_behalf: Cow::Borrowed(&draft.on_behalf),
            org: entry.org,
            outcome: text(&draft.outcome),
            policy: draft.policy.as_ref().map(|policy| WirePolicy {
                digest: Cow::Borrowed(&policy.digest),
                id: Cow::Borrowed(&policy.id),
                version: Cow::Borrowed(&policy.version),
            }),
            prev: Cow::Borrowed(&entry.prev),
            reason: text(&draft.reason),
            schema: entry.schema,
            tool: text(&draft.tool),
            ts: entry.ts,
            kind: entry.kind,
            user: draft.user,
            writer: Cow::Borrowed(&entry.writer),
            writer_seq: entry.writer_seq,
        }
    }
}

impl From<Wire<'_>> for Entry {
    fn from(wire: Wire<'_>) -> Self {
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Self {
            schema: wire.schema,
            id: wire.id,
            org: wire.org,
            epoch: wire.epoch,
            ts: wire.ts,
            writer: wire.writer.into_owned(),
            writer_seq: wire.writer_seq,
            prev: wire.prev.into_owned(),
            kind: wire.kind,
            draft: EntryDraft {
                user: wire.user,
                agent: wire.agent,
                on_behalf: wire.on_behalf.into_owned(),
                grant: wire.grant,
                generation: wire.generation,
                connector: wire.connector.map(Cow::into_owned),
                account_hash: text(wire.account_hash),
                tool: text(wire.tool),
                action_hash: text(wire.action_hash),
                decision: wire.decision.map(|decision| EntryDecision {
                    jti: decision.jti.into_owned(),
                    iss: decision.iss.into_owned(),
                    sha256: decision.sha256.into_owned(),
                    outcome: decision.outcome,
                }),
                context_digest: text(wire.context_digest),
                policy: wire.policy.map(|policy| PolicyRef {
                    id: policy.id.into_owned(),
                    version: policy.version.into_owned(),
                    digest: policy.digest.into_owned(),
                }),
                approvals: wire.approvals.into_owned(),
                mode: wire.mode,
                outcome: text(wire.outcome),
                reason: text(wire.reason),
                correlation: text(wire.correlation),
            },
        }
    }
}
