//! Every page in every state, once as on an ordinary day and once with hostile text wherever text comes from outside.

mod govern;
mod own;

use std::{cell::Cell, collections::BTreeSet};

use crate::{
    domain::{
        Mode, Time,
        connector::Category,
        entry::EntryType,
        grant::ReconnectReason,
        id::{AgentId, EntryId, GrantId, RevocationId},
    },
    web::{
        Person, Shell, Shown, Template, UrlToken, When,
        parts::{
            AgentBoxes, AgentMay, EntryFacts, EntryLine, GrantStatus, OutcomeMark, Permission,
            PermissionKind, Permissions, UpstreamResult, sentence,
        },
    },
};

/// How outside text sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum Voice {
    /// As on an ordinary day.
    Plain,
    /// As an attacker would write it.
    Hostile,
}

/// All pages as (file name, HTML).
pub(in crate::web) fn all(voice: Voice) -> Vec<(String, String)> {
    let maker = Maker {
        voice,
        turn: Cell::new(0),
    };
    let mut book = Book {
        voice,
        pages: Vec::new(),
    };
    own::login(&maker, &mut book);
    own::connections(&maker, &mut book);
    own::connect(&maker, &mut book);
    own::failures(&maker, &mut book);
    govern::admin(&maker, &mut book);
    govern::revoke(&maker, &mut book);
    govern::activity(&maker, &mut book);
    govern::errors(&maker, &mut book);
    book.pages
}

struct Book {
    voice: Voice,
    pages: Vec<(String, String)>,
}

impl Book {
    fn add(&mut self, name: &str, page: &impl Template) {
        let name = match self.voice {
            Voice::Plain => name.to_owned(),
            Voice::Hostile => format!("hostile-{name}"),
        };
        assert!(self.pages.iter().all(|(other, _)| *other != name), "{name} twice");
        self.pages.push((name, page.render().unwrap()));
    }
}

const NOW: i64 = 1_795_166_040; // 2026-11-20T09:14:00Z

fn hostile(turn: usize) -> String {
    let texts = [
        "<script>alert(1)</script>".to_owned(),
        "\"><img src=x onerror=alert(1)>".to_owned(),
        "' onfocus='alert(1)' autofocus='".to_owned(),
        "invoice\u{202e}gpj.exe".to_owned(),
        "x".repeat(10_000),
        "adm\u{200b}in\u{feff}".to_owned(),
        "</title></textarea></select><script>alert(1)</script>".to_owned(),
        "\0\u{1b}[31m\r\nSet-Cookie: a=b".to_owned(),
        "W".repeat(79),
        format!("z{}", "\u{301}".repeat(60)),
        "{{ 7*7 }} {% raw %} &lt;script&gt; &#60;b&#62;".to_owned(),
        "שלום \u{2067}עולם\u{2069}".to_owned(),
        "   ".to_owned(),
    ];
    texts[turn % texts.len()].clone()
}

struct Maker {
    voice: Voice,
    turn: Cell<usize>,
}

impl Maker {
    fn raw(&self, ordinary: &str) -> String {
        match self.voice {
            Voice::Plain => ordinary.to_owned(),
            Voice::Hostile => {
                self.turn.set(self.turn.get() + 1);
                hostile(self.turn.get())
            }
        }
    }

    fn say(&self, ordinary: &str) -> Shown {
        Shown::new(&self.raw(ordinary))
    }

    fn shell(&self, is_admin: bool) -> Shell {
        let person = Person {
            name: self.say("Ada Lovelace"),
            email: self.say("ada@acme.example"),
            is_admin,
        };
        Shell {
            org: Some(self.say("Acme")),
            person: Some(person),
            csrf: token(),
        }
    }

    fn outside(&self) -> Shell {
        Shell {
            org: Some(self.say("Acme")),
            person: None,
            csrf: token(),
        }
    }

    fn permission(&self, kind: PermissionKind, words: &str, scope: &str) -> Permission {
        Permission {
            kind,
            words: self.say(words),
            scope: Some(self.say(scope)),
        }
    }

    fn permissions(&self) -> Permissions {
        Permissions(vec![
            self.permission(PermissionKind::Read, "Read and search your messages", "mail.read"),
            self.permission(PermissionKind::Act, "Send messages as you", "mail.send"),
            self.permission(PermissionKind::Act, "Write drafts", "mail.write"),
            self.permission(
                PermissionKind::Sensitive,
                "Delete messages for good",
                "mail.write",
            ),
        ])
    }

    fn few(&self) -> Permissions {
        Permissions(vec![self.permission(
            PermissionKind::Read,
            "Read and search your messages",
            "mail.read",
        )])
    }

    fn act_only(&self) -> Permissions {
        Permissions(vec![self.permission(
            PermissionKind::Act,
            "Send messages as you",
            "mail.send",
        )])
    }

    fn may(&self, name: &str, categories: &[Category], raw: bool) -> AgentMay {
        AgentMay {
            agent: self.say(name),
            categories: categories.iter().copied().collect(),
            raw,
        }
    }

    fn boxes(&self, raw: bool) -> Vec<AgentBoxes> {
        let first = AgentBoxes::proposed(agent(1), self.say("Mail helper"));
        let mut second = AgentBoxes::proposed(agent(2), self.say("Weekly report"));
        second.ticked = BTreeSet::from([Category::Read]);
        let mut both = vec![first, second];
        if raw {
            both[0].raw = Some(false);
            both[1].raw = Some(true);
        }
        both
    }

    fn line(
        &self,
        minutes: i64,
        kind: EntryType,
        outcome: &str,
        reason: Option<&str>,
        mode: Option<Mode>,
    ) -> EntryLine {
        let facts = EntryFacts {
            user: Some(self.say("Ada Lovelace")),
            agent: Some(self.say("Mail helper")),
            by: matches!(kind, EntryType::Admin | EntryType::Revoke).then(|| self.say("Ada Lovelace")),
            connector: Some(self.say("Acme Mail")),
            tool: Some(self.say("Send a message")),
            mode,
            outcome: Some(self.raw(outcome)),
            reason: reason.map(|reason| self.raw(reason)),
        };
        EntryLine {
            id: entry_id(minutes),
            at: ago(minutes),
            sentence: sentence(kind, &facts),
            outcome: Some(OutcomeMark::from_code(&self.raw(outcome))),
        }
    }

    fn lines(&self) -> Vec<EntryLine> {
        vec![
            self.line(2, EntryType::Outcome, "ok", None, None),
            self.line(3, EntryType::Release, "allow", None, Some(Mode::Execute)),
            self.line(
                9,
                EntryType::Decision,
                "deny",
                Some("recipient_outside_company"),
                None,
            ),
            self.line(40, EntryType::Release, "allow", None, Some(Mode::Token)),
            self.line(41, EntryType::Refresh, "ok", None, None),
            self.line(95, EntryType::Outcome, "unknown", None, None),
            self.line(1_600, EntryType::Delegation, "ok", None, None),
            self.line(1_601, EntryType::Connect, "ok", None, None),
            self.line(1_640, EntryType::UpstreamRevoke, "unconfirmed", None, None),
            self.line(1_641, EntryType::Revoke, "revoked", None, None),
            self.line(1_700, EntryType::Session, "login", None, None),
        ]
    }
}

fn token() -> UrlToken {
    UrlToken::parse("Vb3xkqkM0y6i2mO8w0q5o1d2H9nQeJt7cLrYfA4sU-_").unwrap()
}

fn time(minutes_ago: i64) -> Time {
    Time::from_unix_seconds(NOW - minutes_ago * 60)
}

fn ago(minutes: i64) -> When {
    When::new(time(minutes), time(0))
}

fn bytes(number: u8) -> [u8; 16] {
    let mut bytes = [0x5a; 16];
    bytes[0] = 1;
    bytes[15] = number;
    bytes
}

fn agent(number: u8) -> AgentId {
    AgentId::from_bytes(bytes(number))
}

fn grant(number: u8) -> GrantId {
    GrantId::from_bytes(bytes(number))
}

fn revocation() -> RevocationId {
    RevocationId::from_bytes(bytes(9))
}

fn entry_id(number: i64) -> EntryId {
    let mut bytes = bytes(0);
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    EntryId::from_bytes(bytes)
}

fn statuses() -> [(&'static str, GrantStatus); 8] {
    [
        ("active", GrantStatus::Active),
        (
            "dead",
            GrantStatus::NeedsReconnect(ReconnectReason::RefreshTokenDead),
        ),
        ("lost", GrantStatus::NeedsReconnect(ReconnectReason::RotationLost)),
        (
            "changed",
            GrantStatus::NeedsReconnect(ReconnectReason::BindingChanged),
        ),
        (
            "consent",
            GrantStatus::NeedsReconnect(ReconnectReason::ConsentRequired),
        ),
        ("expired", GrantStatus::NeedsReconnect(ReconnectReason::Expired)),
        (
            "quarantined",
            GrantStatus::Quarantined {
                until: ago(-7 * 1_440),
            },
        ),
        (
            "revoked",
            GrantStatus::Revoked {
                at: ago(90),
                upstream: UpstreamResult::Revoked,
            },
        ),
    ]
}
