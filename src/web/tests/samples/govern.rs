//! The pages of admins, the record, and what went wrong.

use super::{
    Book, EntryType, Maker, Shell, UpstreamResult, agent, ago, bytes, entry_id, grant, revocation, time,
    token,
};
use crate::{
    domain::{
        Mode,
        decision::{Outcome, PolicyRef},
        entry::{Entry, EntryDecision, EntryDraft, Epoch},
        id::{OrgId, UserId},
        principal::Role,
    },
    web::{
        OutwardUrl,
        pages::{
            activity::{ActivityFilters, ActivityPage, EntryPage},
            admin::{AgentRow, AgentsPage, LoginLinkPage, PeoplePage, PersonRow},
            error::{ErrorKind, ErrorPage},
            revoke::{
                RevocationCounts, RevokePage, RevokePreviewPage, RevokeProblem, RevokeReceiptPage,
                RevokedGrant, UpstreamCounts, What,
            },
        },
        parts::{Choice, Notice},
    },
};

fn user(number: u8) -> UserId {
    UserId::from_bytes(bytes(number))
}

pub(super) fn admin(maker: &Maker, book: &mut Book) {
    let people = [
        ("Ada Lovelace", Some("ada@acme.example"), Role::Admin, 2, None),
        ("Ben Okafor", Some("ben@acme.example"), Role::Member, 1, None),
        ("customer-4711", None, Role::Member, 0, Some("Acme Intranet")),
    ];
    let people = people
        .into_iter()
        .zip(1..)
        .map(|((name, email, role, connections, host), number)| PersonRow {
            id: user(number),
            name: maker.say(name),
            email: email.map(|email| maker.say(email)),
            role,
            connections,
            managed_by: host.map(|host| maker.say(host)),
        });
    book.add(
        "people",
        &PeoplePage {
            shell: maker.shell(true),
            notice: None,
            first: false,
            next: Some(user(9)),
            people: people.collect(),
        },
    );
    let notice = Some(Notice::warn("There is no such person."));
    book.add(
        "people-empty",
        &PeoplePage {
            shell: maker.shell(true),
            notice,
            first: true,
            next: None,
            people: Vec::new(),
        },
    );
    book.add(
        "login-link",
        &LoginLinkPage {
            shell: maker.shell(true),
            name: maker.say("Ben Okafor"),
            email: maker.say("ben@acme.example"),
            url: OutwardUrl::parse(&format!("http://127.0.0.1:7700/login/{}", token())).unwrap(),
            expires: ago(-10),
        },
    );
    let agents = [
        ("Mail helper", true, 4, Some(2)),
        ("Old importer", false, 0, None),
    ];
    let agents = agents
        .into_iter()
        .zip(1..)
        .map(|((name, active, delegations, used), number)| AgentRow {
            id: agent(number),
            name: maker.say(name),
            active,
            delegations,
            registered: ago(20_000),
            last_used: used.map(ago),
        });
    book.add(
        "agents",
        &AgentsPage {
            shell: maker.shell(true),
            first: true,
            next: Some(agent(9)),
            agents: agents.collect(),
        },
    );
    book.add(
        "agents-empty",
        &AgentsPage {
            shell: maker.shell(true),
            first: true,
            next: None,
            agents: Vec::new(),
        },
    );
}

pub(super) fn revoke(maker: &Maker, book: &mut Book) {
    let choices = |labels: &[&str]| -> Vec<Choice> {
        labels
            .iter()
            .zip(1..)
            .map(|(label, number)| Choice::new(user(number), maker.say(label)))
            .collect()
    };
    for (name, problem, what) in [
        ("revoke", None, What::User),
        (
            "revoke-nothing",
            Some(RevokeProblem::NothingChosen),
            What::Connector,
        ),
        ("revoke-no-reason", Some(RevokeProblem::NoReason), What::All),
    ] {
        book.add(
            name,
            &RevokePage {
                shell: maker.shell(true),
                problem,
                what,
                people: choices(&["Ada Lovelace (ada@acme.example)", "Ben Okafor (ben@acme.example)"]),
                agents: choices(&["Mail helper", "Weekly report"]),
                connectors: vec![
                    Choice::new("acme-mail", maker.say("Acme Mail")).selected_if(Some("acme-mail")),
                ],
                grants: Vec::new(),
                more: true,
                reason: maker.raw("Laptop lost on the train"),
            },
        );
    }
    let counts = RevocationCounts {
        grants: 2,
        delegations: 3,
        sessions: 1,
        ..Default::default()
    };
    for (name, what, target, mistyped) in [
        (
            "revoke-preview",
            What::User,
            "Ben Okafor (ben@acme.example)",
            false,
        ),
        ("revoke-preview-mistyped", What::Agent, "Mail helper", true),
        ("revoke-preview-all", What::All, "Acme", false),
    ] {
        book.add(
            name,
            &RevokePreviewPage {
                shell: maker.shell(true),
                what,
                value: if what == What::All {
                    String::new()
                } else {
                    user(2).to_string()
                },
                target: maker.say(target),
                reason: maker.raw("Laptop lost on the train"),
                counts,
                mistyped,
            },
        );
    }
    let results = [
        UpstreamResult::Revoked,
        UpstreamResult::Pending,
        UpstreamResult::Unsupported,
        UpstreamResult::Unconfirmed,
    ];
    let grants = results.map(|upstream| RevokedGrant {
        person: maker.say("Ben Okafor"),
        connector: maker.say("Acme Mail"),
        account: maker.say("ben@acme.example"),
        upstream,
    });
    let receipt = |what, grants: Vec<RevokedGrant>, more: u64, in_flight| RevokeReceiptPage {
        shell: maker.shell(true),
        id: revocation(),
        what,
        target: maker.say("Ben Okafor (ben@acme.example)"),
        reason: maker.say("Laptop lost on the train"),
        by: Some(maker.say("Ada Lovelace")),
        at: ago(1),
        // Very many are still being counted when the receipt is first looked at.
        counts: (more < 10_000).then_some(counts),
        done: 3,
        total: (more < 10_000).then(|| 4 * u64::from(!grants.is_empty()) + more),
        in_flight,
        grants,
        more,
        upstream: UpstreamCounts {
            pending: 1,
            revoked: 1,
            unsupported: 1,
            unconfirmed: 1,
        },
    };
    book.add("receipt", &receipt(What::User, grants.to_vec(), 0, 1));
    book.add("receipt-all", &receipt(What::All, grants.to_vec(), 1_196, 0));
    book.add(
        "receipt-counting",
        &receipt(What::All, grants.to_vec(), 999_996, 0),
    );
    let begun = RevokeReceiptPage {
        done: 0,
        upstream: UpstreamCounts {
            pending: 1_200,
            ..UpstreamCounts::default()
        },
        ..receipt(What::All, Vec::new(), 1_200, 0)
    };
    book.add("receipt-begun", &begun);
    book.add("receipt-agent", &receipt(What::Agent, Vec::new(), 0, 0));
}

pub(super) fn activity(maker: &Maker, book: &mut Book) {
    let filters = |chosen: Option<&str>| ActivityFilters {
        people: vec![
            Choice::new(user(1), maker.say("Ada Lovelace")),
            Choice::new(user(2), maker.say("Ben Okafor")),
        ],
        agents: vec![Choice::new(agent(1), maker.say("Mail helper")).selected_if(chosen)],
        connectors: vec![Choice::new("acme-mail", maker.say("Acme Mail"))],
        outcomes: vec![
            Choice::new("allow", maker.say("Allowed")),
            Choice::new("deny", maker.say("Refused")).selected_if(chosen),
        ],
        more: true,
        kinds: vec![
            Choice::new("human", maker.say("People")),
            Choice::new("agent", maker.say("Agents")),
        ],
    };
    let page = |filters, entries, everyone| ActivityPage {
        shell: maker.shell(everyone),
        everyone,
        filters,
        entries,
        newer: everyone.then(|| entry_id(2)),
        older: everyone.then(|| entry_id(1_700)),
    };
    book.add("activity", &page(filters(None), maker.lines(), true));
    book.add(
        "activity-filtered",
        &page(filters(Some("deny")), maker.lines(), true),
    );
    book.add(
        "activity-empty",
        &page(ActivityFilters::default(), Vec::new(), false),
    );
    let line = maker.line(
        9,
        EntryType::Decision,
        "deny",
        Some("recipient_outside_company"),
        None,
    );
    book.add("entry", &EntryPage::new(maker.shell(true), line, &entry(maker)));
    let line = maker.line(9, EntryType::Writer, "started", None, None);
    let bare = Entry {
        kind: EntryType::Writer,
        draft: EntryDraft::default(),
        ..entry(maker)
    };
    book.add("entry-bare", &EntryPage::new(maker.shell(true), line, &bare));
}

fn entry(maker: &Maker) -> Entry {
    Entry {
        schema: 1,
        id: entry_id(9),
        org: OrgId::from_bytes(bytes(1)),
        epoch: Epoch {
            incarnation: 0x5eed_0001,
            counter: 42,
        },
        ts: time(9),
        writer: maker.raw("replica-1/0"),
        writer_seq: 118,
        prev: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        kind: EntryType::Decision,
        draft: EntryDraft {
            user: Some(user(1)),
            agent: Some(agent(1)),
            on_behalf: vec![maker.raw("usr_7zzzzzzzzzzzzzzzzzzzzzzzzz")],
            grant: Some(grant(1)),
            generation: Some(3),
            connector: Some("acme-mail".parse().unwrap()),
            tool: Some(maker.raw("messages.send")),
            action_hash: Some(maker.raw("n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg")),
            decision: Some(EntryDecision {
                jti: maker.raw("dec_01h2xcejqtf2nbrexx3vqjhp41"),
                iss: maker.raw("http://127.0.0.1:7700"),
                sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
                outcome: Outcome::Deny,
            }),
            policy: Some(PolicyRef {
                id: maker.raw("acme-mail"),
                version: maker.raw("7"),
                digest: maker.raw("sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
            }),
            mode: Some(Mode::Execute),
            outcome: Some(maker.raw("deny")),
            reason: Some(maker.raw("recipient_outside_company")),
            ..EntryDraft::default()
        },
    }
}

pub(super) fn errors(maker: &Maker, book: &mut Book) {
    for (name, kind) in [
        ("400", ErrorKind::BadRequest),
        ("403-form", ErrorKind::StaleForm),
        ("403", ErrorKind::Forbidden),
        ("404", ErrorKind::NotFound),
        ("429", ErrorKind::TooMany),
        (
            "500",
            ErrorKind::Internal {
                support: maker.say("req_01h2xcejqtf2nbrexx3vqjhp41"),
            },
        ),
        ("503", ErrorKind::Unavailable),
        ("504", ErrorKind::Unknown),
    ] {
        book.add(
            &format!("error-{name}"),
            &ErrorPage {
                shell: maker.shell(true),
                kind,
            },
        );
    }
    let nobody = || Shell {
        org: None,
        person: None,
        csrf: token(),
    };
    book.add(
        "error-404-outside",
        &ErrorPage {
            shell: nobody(),
            kind: ErrorKind::NotFound,
        },
    );
}
