//! Revocation for admins: choose, see the counts, type the word, read the receipt (protocol §8).

use askama::Template;

use crate::{
    domain::id::RevocationId,
    web::{
        Shell, Shown, When,
        parts::{Choice, Icon, UpstreamResult},
        words,
    },
};

/// `GET /admin/revoke`. Posts `{csrf, what, user, agent, connector, grant, reason}` to `/admin/revoke/preview`; `what`
/// is `user`, `agent`, `connector`, `grant` or `all`, and says which of the other fields counts.
#[derive(Debug, Template)]
#[template(path = "postern/pages/revoke.html")]
pub struct RevokePage {
    /// The frame.
    pub shell: Shell,
    /// What has to be put right first.
    pub problem: Option<RevokeProblem>,
    /// Which `what` is chosen.
    pub what: What,
    /// The people.
    pub people: Vec<Choice>,
    /// The agents.
    pub agents: Vec<Choice>,
    /// The connectors.
    pub connectors: Vec<Choice>,
    /// The living grants.
    pub grants: Vec<Choice>,
    /// Whether there are more of any of these than the lists name.
    pub more: bool,
    /// The reason as typed so far.
    pub reason: String,
}

/// What kind of thing is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Everything of one person.
    User,
    /// One agent.
    Agent,
    /// Every grant at one connector.
    Connector,
    /// One grant.
    Grant,
    /// Everything of the organisation.
    All,
}

impl What {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] = [Self::User, Self::Agent, Self::Connector, Self::Grant, Self::All];

    /// The value in the form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Connector => "connector",
            Self::Grant => "grant",
            Self::All => "all",
        }
    }

    /// The one whose form value this is.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == text)
    }

    /// The word that has to be typed to go through with it.
    #[must_use]
    pub fn word(self) -> &'static str {
        if self == Self::All {
            "revoke everything"
        } else {
            "revoke"
        }
    }

    /// Whether `typed` is that word; case and space around it do not matter.
    #[must_use]
    pub fn is_word(self, typed: &str) -> bool {
        typed.trim().eq_ignore_ascii_case(self.word())
    }

    fn title(self) -> &'static str {
        match self {
            Self::User => "One person",
            Self::Agent => "One agent",
            Self::Connector => "One app",
            Self::Grant => "One connection",
            Self::All => "Everything",
        }
    }

    fn question(self) -> &'static str {
        match self {
            Self::User => "End all access of",
            Self::Agent => "Turn off",
            Self::Connector => "End everyone’s connections to",
            Self::Grant => "End the connection",
            Self::All => "End everything in",
        }
    }

    /// What the receipt says before and after the name.
    fn done(self) -> (&'static str, &'static str) {
        match self {
            Self::User => ("All access of", "has ended"),
            Self::Agent => ("The agent", "is turned off"),
            Self::Connector => ("Everyone’s connections to", "have ended"),
            Self::Grant => ("The connection", "has ended"),
            Self::All => ("Everything in", "has ended"),
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::User => "Ends their connections, sessions, links, and what they let agents do.",
            Self::Agent => "Turns it off and ends what people let it do. Connections stay.",
            Self::Connector => "Ends everyone’s connections to it that exist now.",
            Self::Grant => "Ends a single connection to one account, and nothing else.",
            Self::All => "Ends every connection of the organisation that exists now.",
        }
    }
}

/// What is wrong with the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeProblem {
    /// Nothing was chosen, or it does not exist any more.
    NothingChosen,
    /// No reason was given.
    NoReason,
}

impl RevokePage {
    fn choices(&self, what: &What) -> &[Choice] {
        match what {
            What::User => &self.people,
            What::Agent => &self.agents,
            What::Connector => &self.connectors,
            What::Grant => &self.grants,
            What::All => &[],
        }
    }
}

/// The answer to `POST /admin/revoke/preview`: a dry run.
///
/// Posts `{csrf, what, <what>, reason, word}` to `/admin/revoke`; shown again with `mistyped` if the word is wrong.
#[derive(Debug, Template)]
#[template(path = "postern/pages/revoke_preview.html")]
pub struct RevokePreviewPage {
    /// The frame.
    pub shell: Shell,
    /// What kind of thing.
    pub what: What,
    /// Its id, as the form sends it on; empty for everything.
    pub value: String,
    /// Its name: "Ben (ben@acme.example)", "Acme Mail".
    pub target: Shown,
    /// The reason, as the form sends it on.
    pub reason: String,
    /// What would end.
    pub counts: RevocationCounts,
    /// Whether the word was typed wrong.
    pub mistyped: bool,
}

impl RevokePreviewPage {
    fn shown_reason(&self) -> Shown {
        Shown::long(&self.reason)
    }
}

/// What a revocation ends, or would end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RevocationCounts {
    /// Grants.
    pub grants: u64,
    /// Agents turned off.
    pub agents: u64,
    /// Delegations.
    pub delegations: u64,
    /// Browser sessions.
    pub sessions: u64,
    /// Connections being made.
    pub pending_connects: u64,
}

impl RevocationCounts {
    /// Those that are not nought, in words, connections always first.
    fn lines(&self) -> Vec<(String, &'static str)> {
        let all = [
            (self.grants, "connection", "connections"),
            (self.agents, "agent turned off", "agents turned off"),
            (
                self.delegations,
                "delegation to an agent",
                "delegations to agents",
            ),
            (self.sessions, "signed-in browser", "signed-in browsers"),
            (
                self.pending_connects,
                "connection being made",
                "connections being made",
            ),
        ];
        all.into_iter()
            .enumerate()
            .filter(|(index, (number, ..))| *index == 0 || *number > 0)
            .map(|(_, (number, one, many))| (words::thousands(number), if number == 1 { one } else { many }))
            .collect()
    }
}

/// `GET /admin/revocations/{id}`: the receipt, with the state of each grant.
#[derive(Debug, Template)]
#[template(path = "postern/pages/revoke_receipt.html")]
pub struct RevokeReceiptPage {
    /// The frame.
    pub shell: Shell,
    /// The revocation.
    pub id: RevocationId,
    /// What kind of thing.
    pub what: What,
    /// Its name.
    pub target: Shown,
    /// Why.
    pub reason: Shown,
    /// Who did it.
    pub by: Option<Shown>,
    /// Since when nothing of it is released.
    pub at: When,
    /// What ended; `None` while it is counted.
    pub counts: Option<RevocationCounts>,
    /// How many grants have the provider's final answer.
    pub done: u64,
    /// How many grants there are; `None` while they are counted.
    pub total: Option<u64>,
    /// Calls that had already been sent when it took effect.
    pub in_flight: u64,
    /// The grants, at most a page of them.
    pub grants: Vec<RevokedGrant>,
    /// How many more there are.
    pub more: u64,
    /// How many grants stand where, over all of them.
    pub upstream: UpstreamCounts,
}

impl RevokeReceiptPage {
    fn calls_sent(&self) -> String {
        words::count(self.in_flight, "call", "calls")
    }

    /// While answers are missing: how many there are, of how many.
    fn under_way(&self) -> Option<(u64, u64)> {
        self.total
            .map(|total| (self.done, total))
            .filter(|(done, total)| done < total)
    }

    /// Only what was counted as nought is nothing.
    fn nothing_to_ask(&self) -> bool {
        self.grants.is_empty() && self.total == Some(0)
    }

    fn answered(done: &u64, total: &u64) -> String {
        let of = words::count(*total, "connection", "connections");
        format!("{} of {of} ended at the app or given up", words::thousands(*done))
    }

    fn more_grants(&self) -> String {
        let at_least = if self.total.is_none() { "at least " } else { "" };
        format!(
            "{at_least}{}",
            words::count(self.more, "more connection", "more connections")
        )
    }
}

/// One grant of a revocation; Postern stopped using it when the revocation took effect.
#[derive(Debug, Clone)]
pub struct RevokedGrant {
    /// Whose.
    pub person: Shown,
    /// The connector's name.
    pub connector: Shown,
    /// What people read of the account.
    pub account: Shown,
    /// What the provider said so far.
    pub upstream: UpstreamResult,
}

/// How many grants stand where at their providers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// Not answered yet.
    pub pending: u64,
    /// Ended there too.
    pub revoked: u64,
    /// Cannot be told.
    pub unsupported: u64,
    /// Told, not confirmed.
    pub unconfirmed: u64,
}

impl UpstreamCounts {
    fn lines(&self) -> Vec<(UpstreamResult, String)> {
        [
            (UpstreamResult::Pending, self.pending),
            (UpstreamResult::Revoked, self.revoked),
            (UpstreamResult::Unsupported, self.unsupported),
            (UpstreamResult::Unconfirmed, self.unconfirmed),
        ]
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(result, number)| (result, words::thousands(number)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_goes_through_with_it() {
        assert!(What::User.is_word(" Revoke "));
        assert!(What::All.is_word("revoke everything"));
        for typed in ["", "yes", "revok", "revoke all"] {
            assert!(!What::User.is_word(typed) && !What::All.is_word(typed), "{typed}");
        }
        assert!(!What::All.is_word("revoke"));
    }

    #[test]
    fn a_dry_run_names_its_connections_even_if_there_are_none() {
        assert_eq!(
            RevocationCounts::default().lines(),
            [("0".to_owned(), "connections")]
        );
    }
}
