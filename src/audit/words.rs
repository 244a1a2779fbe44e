//! An entry in plain English, for the page and the command line.
//!
//! Promises: one line of visible characters per text, whatever names and details hold; names as they were at that time
//! where the sealed details are still there, else as they are now, else the id. Never says more than the entry does.

mod verbs;

use std::fmt;

use serde_json::Value;

use super::encoding::cap_text;
use crate::domain::{
    Mode,
    entry::{Entry, EntryType},
};
use verbs::{in_words, lower_first, past_tense};

/// Names as they are now. Whatever is absent falls back to the id.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// The person the entry concerns.
    pub user: Option<&'a str>,
    /// The agent.
    pub agent: Option<&'a str>,
    /// Who stood behind it: the first of `on_behalf`, a person or an admin key.
    pub actor: Option<&'a str>,
    /// The connector.
    pub connector: Option<&'a str>,
    /// The account at the provider.
    pub account: Option<&'a str>,
    /// The tool's title, an imperative: "Read a message".
    pub tool_title: Option<&'a str>,
}

/// An entry in words: "Mail Assistant listed messages in Acme Mail as Ada: allowed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Who did it.
    pub who: String,
    /// What, as a verb phrase.
    pub what: String,
    /// What came of it.
    pub outcome: String,
    /// Why, if the entry says.
    pub why: Option<String>,
    /// How it should look.
    pub tone: Tone,
    /// The arguments, if the details are still there: name and value, each capped.
    pub details: Vec<(String, String)>,
}

/// How an outcome should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It was allowed or went well.
    Good,
    /// It was refused, stopped or went wrong.
    Bad,
    /// Neither, or not known.
    Neutral,
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.who, self.what)?;
        if !self.outcome.is_empty() {
            write!(f, ": {}", self.outcome)?;
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ", {why}"))
    }
}

/// Tells an entry in words. `details` is what was sealed beside it, if it could be opened:
/// `{"args": {…}, "names": {"user", "agent", "account"}}`.
#[must_use]
pub fn describe(entry: &Entry, names: &Names<'_>, details: Option<&Value>) -> Sentence {
    let told = Told {
        entry,
        names,
        details,
    };
    let (outcome, tone) = told.outcome();
    let (who, what) = told.who_and_what();
    Sentence {
        who,
        what,
        outcome,
        why: told.why(),
        tone,
        details: told.args(),
    }
}

struct Told<'a> {
    entry: &'a Entry,
    names: &'a Names<'a>,
    details: Option<&'a Value>,
}

impl Told<'_> {
    fn who_and_what(&self) -> (String, String) {
        let (user, agent, place) = (self.user(), self.agent(), self.place());
        let as_user = match &user {
            Some(user) => format!("{place} as {user}"),
            None => place.clone(),
        };
        let postern = || "Postern".to_owned();
        let whose = user
            .as_ref()
            .map_or_else(|| "the".to_owned(), |user| format!("{user}’s"));
        let app = self.connector().unwrap_or_else(|| "app".to_owned());
        match self.entry.kind {
            EntryType::Decision => (
                self.agent_or_actor(),
                format!("asked to {}{as_user}", lower_first(&self.title())),
            ),
            EntryType::Release => (self.agent_or_actor(), format!("{}{as_user}", self.released())),
            EntryType::Outcome => (
                postern(),
                format!("sent {}{place} for {}", self.request(), self.agent_or_actor()),
            ),
            EntryType::Dropped => (
                postern(),
                format!(
                    "stopped {} of {}{as_user} before anything left",
                    self.request(),
                    self.agent_or_actor()
                ),
            ),
            EntryType::Refresh => (
                postern(),
                format!("renewed the access to {whose} {app} account{}", self.account()),
            ),
            EntryType::Connect => (
                user.unwrap_or_else(|| self.actor()),
                format!("connected {app}{}", self.account()),
            ),
            EntryType::Delegation => {
                let agent = agent.unwrap_or_else(|| "an agent".to_owned());
                (
                    self.actor_or_user(),
                    format!("changed what {agent} may do{place}"),
                )
            }
            EntryType::Revoke => (self.actor_or_user(), format!("revoked {}", self.selection())),
            EntryType::UpstreamRevoke => (
                postern(),
                format!("asked {app} to revoke {whose} tokens{}", self.account()),
            ),
            EntryType::Session => (user.unwrap_or_else(|| self.actor()), self.event("used the login")),
            EntryType::Admin => (self.actor_or_user(), "changed the organisation".to_owned()),
            EntryType::Writer => (
                format!("Postern’s log writer {}", self.entry.writer),
                self.event("wrote of itself"),
            ),
        }
    }

    /// For types whose outcome is the event itself: "Ada logged in".
    fn event(&self, otherwise: &str) -> String {
        match self.entry.draft.outcome.as_deref() {
            None | Some("ok") => otherwise.to_owned(),
            Some("link_made") => "was given a login link".to_owned(),
            Some("link_used") => "used a login link".to_owned(),
            Some("failed") => format!("{otherwise} without success"),
            Some(code) => in_words(&cap(code)),
        }
    }

    fn released(&self) -> String {
        let title = lower_first(&self.title());
        match self.entry.draft.mode {
            Some(Mode::Handle) => format!("was given a handle to {title}"),
            Some(Mode::Token) => format!("was given a narrowed token to {title}"),
            Some(Mode::Raw) => format!("was given the full access token to {title}"),
            Some(Mode::Execute) | None => past_tense(&self.title()),
        }
    }

    fn request(&self) -> String {
        format!("the request to {}", lower_first(&self.title()))
    }

    fn selection(&self) -> String {
        let draft = &self.entry.draft;
        let user = self.user();
        let of_user = user
            .as_ref()
            .map(|user| format!(" of {user}"))
            .unwrap_or_default();
        let app = self.connector();
        match (draft.grant, self.agent(), app) {
            (Some(_), _, Some(app)) => format!("the {app} grant{of_user}{}", self.account()),
            (Some(_), _, None) => format!("a grant{of_user}{}", self.account()),
            (None, Some(agent), _) => format!("the agent {agent}"),
            (None, None, Some(app)) => format!("every {app} grant{of_user}"),
            (None, None, None) => user.map_or_else(
                || "every grant of the organisation".to_owned(),
                |user| format!("everything of {user}"),
            ),
        }
    }

    fn outcome(&self) -> (String, Tone) {
        if matches!(self.entry.kind, EntryType::Session | EntryType::Writer) {
            return (String::new(), Tone::Neutral);
        }
        let Some(code) = self.entry.draft.outcome.as_deref() else {
            let decided = self
                .entry
                .draft
                .decision
                .as_ref()
                .map(|decision| decision.outcome.as_str());
            return decided.map_or((String::new(), Tone::Neutral), outcome_in_words);
        };
        outcome_in_words(code)
    }

    fn why(&self) -> Option<String> {
        self.entry
            .draft
            .reason
            .as_deref()
            .map(|code| in_words(&cap(code)))
    }

    fn title(&self) -> String {
        match (self.names.tool_title, &self.entry.draft.tool) {
            (Some(title), _) => cap(title),
            (None, Some(tool)) => format!("use {}", cap(tool)),
            (None, None) => "act".to_owned(),
        }
    }

    fn place(&self) -> String {
        self.connector()
            .map(|name| format!(" in {name}"))
            .unwrap_or_default()
    }

    fn connector(&self) -> Option<String> {
        let id = self.entry.draft.connector.as_ref().map(|id| id.as_str());
        self.names.connector.or(id).map(cap)
    }

    fn account(&self) -> String {
        self.then("account")
            .or_else(|| self.names.account.map(cap))
            .map(|name| format!(" ({name})"))
            .unwrap_or_default()
    }

    fn user(&self) -> Option<String> {
        let id = self.entry.draft.user?;
        Some(
            self.then("user")
                .or_else(|| self.names.user.map(cap))
                .unwrap_or_else(|| id.to_string()),
        )
    }

    fn agent(&self) -> Option<String> {
        let id = self.entry.draft.agent?;
        Some(
            self.then("agent")
                .or_else(|| self.names.agent.map(cap))
                .unwrap_or_else(|| id.to_string()),
        )
    }

    fn agent_or_actor(&self) -> String {
        self.agent().unwrap_or_else(|| self.actor_or_user())
    }

    fn actor_or_user(&self) -> String {
        if self.entry.draft.on_behalf.is_empty() {
            self.user().unwrap_or_else(|| self.actor())
        } else {
            self.actor()
        }
    }

    fn actor(&self) -> String {
        match (self.names.actor, self.entry.draft.on_behalf.first()) {
            (Some(name), _) => cap(name),
            (None, Some(id)) if id.starts_with("key_") => format!("An administrator ({})", cap(id)),
            (None, Some(id)) => cap(id),
            (None, None) => "Postern".to_owned(),
        }
    }

    /// A name as it was when the entry was written.
    fn then(&self, name: &str) -> Option<String> {
        self.details?.get("names")?.get(name)?.as_str().map(cap)
    }

    fn args(&self) -> Vec<(String, String)> {
        let args = self
            .details
            .and_then(|details| details.get("args"))
            .and_then(Value::as_object);
        args.into_iter()
            .flatten()
            .take(MAX_DETAILS)
            .map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (cap(name), cap_text(&value, MAX_DETAIL).into_owned())
            })
            .collect()
    }
}

fn outcome_in_words(code: &str) -> (String, Tone) {
    let (words, tone) = match code {
        "allow" => ("allowed", Tone::Good),
        "deny" => ("denied", Tone::Bad),
        "escalate" => ("a person has to say yes first", Tone::Neutral),
        "ok" => ("done", Tone::Good),
        "failed" => ("failed", Tone::Bad),
        "unknown" => ("Postern cannot tell whether it happened", Tone::Bad),
        "unsupported" => ("the provider has no way to do that", Tone::Neutral),
        "unconfirmed" => ("the provider did not confirm", Tone::Bad),
        "revoked" => ("revoked", Tone::Good),
        "dropped" => ("nothing left", Tone::Bad),
        "quarantined" => ("put in quarantine", Tone::Bad),
        other => return (in_words(&cap(other)), Tone::Neutral),
    };
    (words.to_owned(), tone)
}

// SECURITY: names come from people and providers; every one is capped and its hidden characters made visible.
fn cap(text: &str) -> String {
    cap_text(text, MAX_NAME).into_owned()
}

const MAX_NAME: usize = 128;
const MAX_DETAIL: usize = 512;
const MAX_DETAILS: usize = 64;

#[cfg(test)]
mod tests;
