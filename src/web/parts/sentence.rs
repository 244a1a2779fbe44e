//! An audit entry as a sentence people can read: the one place that puts outcomes of the flows into words.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::{
    domain::{entry::EntryType, mode::Mode},
    web::{Shown, words},
};

/// What a sentence is made of; names, not ids, are looked up by the caller.
#[derive(Debug, Clone, Default)]
pub struct EntryFacts {
    /// The person concerned.
    pub user: Option<Shown>,
    /// The agent that acted.
    pub agent: Option<Shown>,
    /// Who did it on their own account, if neither: an admin, a key.
    pub by: Option<Shown>,
    /// The connector's name.
    pub connector: Option<Shown>,
    /// The title of the tool, else its name.
    pub tool: Option<Shown>,
    /// The mode of a release.
    pub mode: Option<Mode>,
    /// The entry's outcome code.
    pub outcome: Option<String>,
    /// The entry's reason code.
    pub reason: Option<String>,
}

/// A sentence with names in it.
///
/// As `Display` it is escaped HTML; [`Sentence::plain`] is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Words(String),
    Name(Shown),
    Quoted(Shown),
}

impl Sentence {
    /// The sentence without markup.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Words(text) => text.clone(),
                Piece::Name(name) => name.to_string(),
                Piece::Quoted(name) => format!("“{name}”"),
            })
            .collect()
    }

    fn say(mut self, words: &str) -> Self {
        self.0.push(Piece::Words(words.to_owned()));
        self
    }

    fn name(mut self, name: Option<&Shown>, otherwise: &str) -> Self {
        self.0.push(
            name.cloned()
                .map_or_else(|| Piece::Words(otherwise.to_owned()), Piece::Name),
        );
        self
    }

    fn tool(mut self, tool: Option<&Shown>) -> Self {
        self.0.push(
            tool.cloned()
                .map_or_else(|| Piece::Words("an action".to_owned()), Piece::Quoted),
        );
        self
    }

    /// ` in Acme Mail as Ada`, as far as it is known.
    fn place(mut self, facts: &EntryFacts) -> Self {
        if facts.connector.is_some() {
            self = self.say(" in ").name(facts.connector.as_ref(), "");
        }
        if facts.user.is_some() {
            self = self.say(" as ").name(facts.user.as_ref(), "");
        }
        self
    }

    fn end(self, facts: &EntryFacts) -> Self {
        match &facts.reason {
            Some(reason) => self.say(&format!(": {}.", words::code_words(Shown::new(reason).as_str()))),
            None => self.say("."),
        }
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Words(text) => write_escaped(text, f)?,
                Piece::Name(name) => {
                    f.write_str("<bdi class=\"name\">")?;
                    write_escaped(name.as_str(), f)?;
                    f.write_str("</bdi>")?;
                }
                Piece::Quoted(name) => {
                    f.write_str("“<bdi>")?;
                    write_escaped(name.as_str(), f)?;
                    f.write_str("</bdi>”")?;
                }
            }
        }
        Ok(())
    }
}

// Every piece is escaped above.
impl HtmlSafe for Sentence {}

fn write_escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match askama::filters::escape(text, askama::filters::Html) {
        Ok(escaped) => write!(f, "{escaped}"),
        Err(never) => match never {},
    }
}

/// Says what an entry of this kind says.
#[must_use]
pub fn sentence(kind: EntryType, facts: &EntryFacts) -> Sentence {
    let start = Sentence(Vec::new());
    let outcome = facts.outcome.as_deref().unwrap_or_default();
    match kind {
        EntryType::Release => released(facts),
        EntryType::Decision if outcome == "allow" => start
            .name(facts.agent.as_ref(), "An agent")
            .say(" asked, and may do ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say(". Nothing was released yet."),
        EntryType::Decision => start
            .name(facts.agent.as_ref(), "An agent")
            .say(" asked to do ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say(" and was refused")
            .end(facts),
        EntryType::Outcome => start
            .tool(facts.tool.as_ref())
            .say(" by ")
            .name(facts.agent.as_ref(), "an agent")
            .place(facts)
            .say(outcome_words(outcome))
            .end(facts),
        EntryType::Dropped => start
            .tool(facts.tool.as_ref())
            .say(" by ")
            .name(facts.agent.as_ref(), "an agent")
            .place(facts)
            .say(" was stopped before anything left Postern")
            .end(facts),
        EntryType::Refresh => start
            .say(if outcome == "ok" {
                "Postern renewed the access to "
            } else {
                "Postern could not renew the access to "
            })
            .name(facts.connector.as_ref(), "an app")
            .say(" for ")
            .name(facts.user.as_ref(), "a person")
            .end(facts),
        EntryType::Connect => start
            .name(facts.user.as_ref(), "A person")
            .say(match outcome {
                "failed" => " could not connect ",
                "awaiting_complete" => " asked to connect ",
                "discarded" => " left an access behind to ",
                _ => " connected ",
            })
            .name(facts.connector.as_ref(), "an app")
            .end(facts),
        EntryType::Delegation => start
            .name(facts.by.as_ref().or(facts.user.as_ref()), "A person")
            .say(" changed what ")
            .name(facts.agent.as_ref(), "an agent")
            .say(" may do with ")
            .name(facts.connector.as_ref(), "a connection")
            .end(facts),
        EntryType::Revoke => revoked(facts),
        EntryType::UpstreamRevoke => start
            .name(facts.connector.as_ref(), "The app")
            .say(match outcome {
                "revoked" => " ended the access of ",
                "unsupported" => " cannot be told to end the access of ",
                _ => " has not confirmed that it ended the access of ",
            })
            .name(facts.user.as_ref(), "a person")
            .end(facts),
        EntryType::Session => start
            .name(facts.user.as_ref().or(facts.by.as_ref()), "A person")
            .say(session_words(outcome))
            .end(facts),
        EntryType::Admin => administered(facts),
        EntryType::Writer => start
            .say("A Postern process ")
            .say(if outcome == "stopped" {
                "stopped writing"
            } else {
                "started writing"
            })
            .say(" this log")
            .end(facts),
    }
}

fn released(facts: &EntryFacts) -> Sentence {
    let start = Sentence(Vec::new()).name(facts.agent.as_ref(), "An agent");
    match facts.mode {
        Some(Mode::Token) => start
            .say(" received a narrowed token for ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say("."),
        Some(Mode::Raw) => start
            .say(" received a raw token for ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say("."),
        Some(Mode::Handle) => start
            .say(" received a reference for ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say("."),
        Some(Mode::Execute) | None => start
            .say(" was allowed ")
            .tool(facts.tool.as_ref())
            .place(facts)
            .say("; Postern made the call."),
    }
}

fn revoked(facts: &EntryFacts) -> Sentence {
    let start = Sentence(Vec::new())
        .name(facts.by.as_ref().or(facts.user.as_ref()), "An admin")
        .say(" ended ");
    let named = match (&facts.agent, &facts.connector) {
        (Some(_), _) => start
            .say("everything ")
            .name(facts.agent.as_ref(), "")
            .say(" could do"),
        (None, Some(_)) => start.say("access to ").name(facts.connector.as_ref(), ""),
        (None, None) => start.say("access"),
    };
    match (&facts.by, &facts.user) {
        (Some(_), Some(_)) => named.say(" for ").name(facts.user.as_ref(), "").end(facts),
        _ => named.end(facts),
    }
}

fn administered(facts: &EntryFacts) -> Sentence {
    let start = Sentence(Vec::new()).name(facts.by.as_ref().or(facts.user.as_ref()), "An admin");
    let key = |start: Sentence, words: &str| match &facts.agent {
        Some(_) => start.say(words).say(" of ").name(facts.agent.as_ref(), ""),
        None => start.say(words),
    };
    match facts.outcome.as_deref() {
        Some("org_created") => start.say(" founded the organisation"),
        Some("person_added") => start.say(" added ").name(facts.user.as_ref(), "a person"),
        Some("key_created") => key(start, " made an API key"),
        Some("key_revoked") => key(start, " revoked an API key"),
        Some("engine_disabled") => start.say(" disabled a policy engine"),
        Some("recovered") => start.say(" went on with an older database"),
        Some("copied") => start.say(" copied the database"),
        _ => start.say(" changed the organisation"),
    }
    .end(facts)
}

fn outcome_words(outcome: &str) -> &'static str {
    match outcome {
        "ok" => " was done",
        "unknown" => " was sent, and no answer came",
        "failed" => " did not succeed",
        "not_sent" => " was not sent",
        _ => " came to an end",
    }
}

fn session_words(outcome: &str) -> &'static str {
    match outcome {
        "login" => " signed in",
        "logout" => " signed out",
        "login_link" => " was given a login link",
        _ => " had a change of session",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> EntryFacts {
        EntryFacts {
            user: Some("Ada".into()),
            agent: Some("Mail helper".into()),
            connector: Some("Acme Mail".into()),
            tool: Some("Send a message".into()),
            ..EntryFacts::default()
        }
    }

    #[test]
    fn a_release_says_who_did_what_where_and_as_whom() {
        let text = sentence(
            EntryType::Release,
            &EntryFacts {
                mode: Some(Mode::Execute),
                ..facts()
            },
        )
        .plain();
        assert_eq!(
            text,
            "Mail helper was allowed “Send a message” in Acme Mail as Ada; Postern made the call."
        );
    }

    #[test]
    fn a_refusal_says_why() {
        let denied = EntryFacts {
            outcome: Some("deny".into()),
            reason: Some("recipient_outside_company".into()),
            ..facts()
        };
        assert_eq!(
            sentence(EntryType::Decision, &denied).plain(),
            "Mail helper asked to do “Send a message” in Acme Mail as Ada and was refused: recipient outside company."
        );
    }

    #[test]
    fn what_an_admin_did_is_named() {
        for (outcome, agent, said) in [
            ("applied", None, "Ada changed the organisation."),
            ("key_created", None, "Ada made an API key."),
            (
                "key_revoked",
                Some("Mail helper"),
                "Ada revoked an API key of Mail helper.",
            ),
            ("engine_disabled", None, "Ada disabled a policy engine."),
            ("recovered", None, "Ada went on with an older database."),
            ("copied", None, "Ada copied the database."),
        ] {
            let facts = EntryFacts {
                by: Some("Ada".into()),
                agent: agent.map(Shown::new),
                outcome: Some(outcome.to_owned()),
                ..EntryFacts::default()
            };
            assert_eq!(sentence(EntryType::Admin, &facts).plain(), said);
        }
    }

    #[test]
    fn an_access_that_needs_its_person_was_not_renewed() {
        let facts = EntryFacts {
            outcome: Some("needs_reconnect".into()),
            ..facts()
        };
        let text = sentence(EntryType::Refresh, &facts).plain();
        assert_eq!(text, "Postern could not renew the access to Acme Mail for Ada.");
    }

    #[test]
    fn a_sentence_escapes_names_and_codes() {
        let hostile = EntryFacts {
            agent: Some("<script>x</script>".into()),
            reason: Some("<img src=x>\u{202e}".into()),
            ..facts()
        };
        let html = sentence(EntryType::Decision, &hostile).to_string();
        assert!(
            !html.contains("<script") && !html.contains("<img") && !html.contains('\u{202e}'),
            "{html}"
        );
    }

    #[test]
    fn every_kind_is_a_sentence_even_when_nothing_is_known() {
        for kind in [
            EntryType::Decision,
            EntryType::Release,
            EntryType::Outcome,
            EntryType::Dropped,
            EntryType::Refresh,
            EntryType::Connect,
            EntryType::Delegation,
            EntryType::Revoke,
            EntryType::UpstreamRevoke,
            EntryType::Session,
            EntryType::Admin,
            EntryType::Writer,
        ] {
            let text = sentence(kind, &EntryFacts::default()).plain();
            assert!(
                text.ends_with('.') && !text.contains("  ") && !text.contains(" ."),
                "{kind:?}: {text}"
            );
        }
    }
}
