//! What happened: the list of entries with its filters, and one entry in full.

use askama::Template;

use crate::{
    domain::{entry::Entry, id::EntryId},
    web::{
        Shell, Shown,
        parts::{Choice, EntryLine},
    },
};

/// `GET /activity?user=&agent=&connector=&outcome=&kind=&before=&after=`; empty fields mean all.
#[derive(Debug, Template)]
#[template(path = "postern/pages/activity.html")]
pub struct ActivityPage {
    /// The frame.
    pub shell: Shell,
    /// Whether all of the organisation is shown, or only the person's own.
    pub everyone: bool,
    /// The filters.
    pub filters: ActivityFilters,
    /// One page of entries, newest first.
    pub entries: Vec<EntryLine>,
    /// The page of newer entries, if there is one: `after` this id.
    pub newer: Option<EntryId>,
    /// The page of older entries, if there is one: `before` this id.
    pub older: Option<EntryId>,
}

/// The lists of the filter form, with what is chosen. An empty list leaves its filter out.
#[derive(Debug, Clone, Default)]
pub struct ActivityFilters {
    /// `user`: people.
    pub people: Vec<Choice>,
    /// `agent`: agents.
    pub agents: Vec<Choice>,
    /// `connector`: connectors.
    pub connectors: Vec<Choice>,
    /// `outcome`: outcome codes.
    pub outcomes: Vec<Choice>,
    /// `kind`: `human` or `agent`.
    pub kinds: Vec<Choice>,
    /// Whether there are more people or agents than the lists name.
    pub more: bool,
}

impl ActivityFilters {
    fn lists(&self) -> impl Iterator<Item = (&'static str, &'static str, &[Choice])> {
        [
            ("user", "Person", self.people.as_slice()),
            ("agent", "Agent", self.agents.as_slice()),
            ("connector", "App", self.connectors.as_slice()),
            ("outcome", "Outcome", self.outcomes.as_slice()),
            ("kind", "Done by", self.kinds.as_slice()),
        ]
        .into_iter()
        .filter(|(_, _, choices)| !choices.is_empty())
    }

    fn chosen(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.lists().filter_map(|(name, _, choices)| {
            choices
                .iter()
                .find(|choice| choice.selected)
                .map(|choice| (name, choice.value.as_str()))
        })
    }

    fn any(&self) -> bool {
        self.chosen().next().is_some()
    }
}

impl ActivityPage {
    fn page(&self, name: &str, id: &EntryId) -> String {
        let query = ::url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(self.filters.chosen())
            .append_pair(name, &id.to_string())
            .finish();
        format!("/activity?{query}")
    }
}

/// `GET /activity/{id}`.
#[derive(Debug, Template)]
#[template(path = "postern/pages/entry.html")]
pub struct EntryPage {
    /// The frame.
    pub shell: Shell,
    /// The entry as a sentence.
    pub line: EntryLine,
    /// All its members.
    members: Vec<Member>,
    /// The decision it relies on.
    decision: Vec<Member>,
    /// The policy that answered.
    policy: Vec<Member>,
}

/// How to check the log without trusting this server.
const VERIFY_COMMANDS: [&str; 3] = [
    "postern audit key > log.vkey",
    "postern audit export --out log.jsonl",
    "postern audit verify log.jsonl --public-key log.vkey",
];

/// One member of an entry.
#[derive(Debug)]
struct Member {
    name: &'static str,
    value: Shown,
}

impl EntryPage {
    /// All of `entry`, under its sentence.
    #[must_use]
    pub fn new(shell: Shell, line: EntryLine, entry: &Entry) -> Self {
        Self {
            shell,
            line,
            members: members(entry),
            decision: decision(entry),
            policy: policy(entry),
        }
    }
}

fn members(entry: &Entry) -> Vec<Member> {
    let draft = &entry.draft;
    let approvals: Vec<_> = draft
        .approvals
        .iter()
        .map(|approval| approval.id.to_string())
        .collect();
    let mut members = Members::default();
    members.put("Entry", entry.id);
    members.put("Type", entry.kind.as_str());
    members.put("Time", entry.ts);
    members.put("Organisation", entry.org);
    members.maybe("Person", draft.user);
    members.maybe("Agent", draft.agent);
    members.maybe("On behalf of", joined(&draft.on_behalf));
    members.maybe("Connection", draft.grant);
    members.maybe("Generation", draft.generation);
    members.maybe("Connector", draft.connector.as_ref());
    members.maybe("Account (keyed hash)", draft.account_hash.as_ref());
    members.maybe("Tool", draft.tool.as_ref());
    members.maybe("Action (keyed hash)", draft.action_hash.as_ref());
    members.maybe("Caller’s context (digest)", draft.context_digest.as_ref());
    members.maybe("Approvals", joined(&approvals));
    members.maybe("Mode", draft.mode);
    members.maybe("Outcome", draft.outcome.as_ref());
    members.maybe("Reason", draft.reason.as_ref());
    members.maybe("Belongs to", draft.correlation.as_ref());
    members.put("Epoch", entry.epoch);
    members.put("Writer", &entry.writer);
    members.put("Number of this writer", entry.writer_seq);
    members.put("Hash of the one before", &entry.prev);
    members.put("Schema", entry.schema);
    members.0
}

fn decision(entry: &Entry) -> Vec<Member> {
    let mut members = Members::default();
    if let Some(decision) = &entry.draft.decision {
        members.put("Said", decision.outcome.as_str());
        members.put("Decision", &decision.jti);
        members.put("Signed by", &decision.iss);
        members.put("SHA-256 of the signed text", &decision.sha256);
    }
    members.0
}

fn policy(entry: &Entry) -> Vec<Member> {
    let mut members = Members::default();
    if let Some(policy) = &entry.draft.policy {
        members.put("Policy", &policy.id);
        members.put("Version", &policy.version);
        members.put("Digest", &policy.digest);
    }
    members.0
}

fn joined(texts: &[String]) -> Option<String> {
    (!texts.is_empty()).then(|| texts.join(", "))
}

#[derive(Default)]
struct Members(Vec<Member>);

impl Members {
    fn put(&mut self, name: &'static str, value: impl ToString) {
        self.0.push(Member {
            name,
            value: Shown::long(&value.to_string()),
        });
    }

    fn maybe(&mut self, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}
