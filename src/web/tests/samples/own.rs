//! The pages of a person: signing in, connections, connecting.

use super::{
    AgentMay, Book, Category, GrantStatus, Maker, PermissionKind, Permissions, Shell, Shown, UpstreamResult,
    ago, grant, revocation, statuses, token,
};
use crate::web::{
    OutwardUrl,
    pages::{
        connect::{AskedBy, ConfirmPage, ConnectPage, ConnectedPage, ContinuePage, HandBackPage},
        connect_failure::{ConnectFailure, ConnectFailurePage, NextStep},
        connections::{
            AvailableConnector, ConnectionsPage, DisconnectPage, DisconnectedPage, GrantCard, GrantPage,
            LastUse, UpstreamReach,
        },
        login::{LoginPage, LoginRefusal, LoginRefusedPage, NotSignedInPage, SignedOutPage},
    },
    parts::Notice,
};

pub(super) fn login(maker: &Maker, book: &mut Book) {
    book.add(
        "login",
        &LoginPage {
            shell: maker.outside(),
            token: token(),
            name: maker.say("Ada Lovelace"),
            email: maker.say("ada@acme.example"),
            expires: ago(-9),
        },
    );
    book.add(
        "login-gone",
        &LoginRefusedPage {
            shell: maker.outside(),
            why: LoginRefusal::LinkGone,
        },
    );
    book.add(
        "login-gone-signed-in",
        &LoginRefusedPage {
            shell: maker.shell(false),
            why: LoginRefusal::LinkGone,
        },
    );
    book.add(
        "login-other",
        &LoginRefusedPage {
            shell: maker.shell(false),
            why: LoginRefusal::AnotherPerson,
        },
    );
    book.add(
        "not-signed-in",
        &NotSignedInPage {
            shell: Shell {
                org: None,
                person: None,
                csrf: token(),
            },
        },
    );
    book.add(
        "signed-out",
        &SignedOutPage {
            shell: maker.outside(),
        },
    );
}

fn card(maker: &Maker, number: u8, connector: &str, account: &str, status: GrantStatus) -> GrantCard {
    let agents: Vec<AgentMay> = if status == GrantStatus::Active {
        vec![
            maker.may("Mail helper", &[Category::Read, Category::Write], false),
            maker.may("Weekly report", &[Category::Read], true),
        ]
    } else {
        Vec::new()
    };
    GrantCard {
        id: grant(number),
        connector: maker.say(connector),
        account: maker.say(account),
        label: (number == 1).then(|| maker.say("Work")),
        status,
        connected: ago(1_601),
        last_used: (number != 3).then(|| LastUse {
            at: ago(2),
            agent: Some(maker.say("Mail helper")),
            tool: Some(maker.say("Send a message")),
        }),
        permissions: maker.permissions(),
        agents,
    }
}

fn available(maker: &Maker) -> Vec<AvailableConnector> {
    [
        ("acme-mail", "Acme Mail", "Read, search and send mail.", true),
        ("slack", "Slack", "Read channels and post messages.", true),
        ("gmail", "Gmail", "Read, search and send mail.", false),
        (
            "github",
            "GitHub",
            "Read code, work on issues and pull requests.",
            false,
        ),
    ]
    .into_iter()
    .map(|(id, name, about, ready)| AvailableConnector {
        id: id.parse().unwrap(),
        name: maker.say(name),
        about: Some(maker.say(about)),
        ready,
    })
    .collect()
}

pub(super) fn connections(maker: &Maker, book: &mut Book) {
    let revoked = GrantStatus::Revoked {
        at: ago(1_440),
        upstream: UpstreamResult::Unsupported,
    };
    let reconnect = statuses()[1].1;
    book.add(
        "connections",
        &ConnectionsPage {
            shell: maker.shell(true),
            notice: Some(Notice::good("Acme Mail is connected.")),
            grants: vec![
                card(maker, 1, "Acme Mail", "ada@acme.example", GrantStatus::Active),
                card(maker, 2, "Slack", "acme.slack.com · ada", reconnect),
                card(maker, 3, "GitHub", "ada-lovelace", revoked),
            ],
            available: available(maker),
        },
    );
    book.add(
        "connections-empty",
        &ConnectionsPage {
            shell: maker.shell(false),
            notice: None,
            grants: Vec::new(),
            available: available(maker),
        },
    );
    book.add(
        "connections-none-set-up",
        &ConnectionsPage {
            shell: maker.shell(false),
            notice: None,
            grants: Vec::new(),
            available: Vec::new(),
        },
    );
    for (name, status) in statuses() {
        book.add(
            &format!("grant-{name}"),
            &GrantPage {
                shell: maker.shell(true),
                notice: (name == "active").then_some(Notice::good("Saved.")),
                grant: card(maker, 1, "Acme Mail", "ada@acme.example", status),
                key: maker.say("Acme’s key, kept in a local key file"),
                agents: maker.boxes(true),
                recent: maker.lines().into_iter().take(4).collect(),
            },
        );
    }
    book.add(
        "grant-bare",
        &GrantPage {
            shell: maker.shell(false),
            notice: Some(Notice::warn("Nothing was changed.")),
            grant: GrantCard {
                permissions: Permissions(Vec::new()),
                ..card(maker, 3, "Slack", "ada", GrantStatus::Active)
            },
            key: maker.say("Acme’s key, kept in a local key file"),
            agents: Vec::new(),
            recent: Vec::new(),
        },
    );
    for (name, upstream) in [
        ("disconnect", UpstreamReach::ThisAccess),
        ("disconnect-all", UpstreamReach::EveryAccessOfThePerson),
        ("disconnect-none", UpstreamReach::None),
    ] {
        let (connector, account) = (maker.say("Acme Mail"), maker.say("ada@acme.example"));
        book.add(
            name,
            &DisconnectPage {
                shell: maker.shell(false),
                id: grant(1),
                connector,
                account,
                upstream,
            },
        );
    }
    for (name, upstream) in [
        ("disconnected", UpstreamResult::Revoked),
        ("disconnected-pending", UpstreamResult::Pending),
        ("disconnected-unsupported", UpstreamResult::Unsupported),
        ("disconnected-unconfirmed", UpstreamResult::Unconfirmed),
    ] {
        book.add(
            name,
            &DisconnectedPage {
                shell: maker.shell(false),
                id: grant(1),
                connector: maker.say("Acme Mail"),
                account: maker.say("ada@acme.example"),
                at: ago(0),
                upstream,
                revocation: revocation(),
            },
        );
    }
}

fn landing(maker: &Maker, shell: Shell, asked_by: AskedBy, reconnect: Option<Shown>) -> ConnectPage {
    ConnectPage {
        shell,
        token: token(),
        asked_by,
        name: maker.say("Ada Lovelace"),
        email: Some(maker.say("ada@acme.example")),
        org: maker.say("Acme"),
        connector: maker.say("Acme Mail"),
        account_type: maker.say("Your own account, not a shared one"),
        permissions: maker.permissions(),
        key: maker.say("Acme’s key, kept in a local key file"),
        expires: ago(-9),
        reconnect,
    }
}

pub(super) fn connect(maker: &Maker, book: &mut Book) {
    book.add(
        "connect",
        &landing(maker, maker.shell(false), AskedBy::Person, None),
    );
    let agent = AskedBy::Agent(maker.say("Mail helper"));
    book.add("connect-agent", &landing(maker, maker.shell(false), agent, None));
    let host = AskedBy::Host(maker.say("Acme Intranet"));
    book.add("connect-host", &landing(maker, maker.outside(), host, None));
    let account = Some(maker.say("ada@acme.example"));
    book.add(
        "connect-again",
        &landing(maker, maker.shell(false), AskedBy::Person, account),
    );
    let url = "http://127.0.0.1:7701/authorize?response_type=code&client_id=postern&state=a\"b'c<d";
    let url = OutwardUrl::parse(url).unwrap();
    book.add(
        "continue",
        &ContinuePage {
            shell: maker.shell(false),
            connector: maker.say("Acme Mail"),
            url: url.clone(),
        },
    );
    let (connector, host) = (maker.say("Acme Mail"), maker.say("Acme Intranet"));
    book.add(
        "hand-back",
        &HandBackPage {
            shell: maker.outside(),
            connector,
            host,
            url,
        },
    );
    let confirm = |missing: Permissions, known: bool, reconnect: bool| ConfirmPage {
        shell: maker.shell(false),
        token: token(),
        connector: maker.say("Acme Mail"),
        account: known.then(|| maker.say("ada@acme.example")),
        tenant: known.then(|| maker.say("Acme workspace")),
        name: maker.say("Ada Lovelace"),
        org: maker.say("Acme"),
        granted: if known && !reconnect {
            maker.permissions()
        } else if known {
            maker.few()
        } else {
            Permissions(Vec::new())
        },
        missing,
        agents: if known { maker.boxes(false) } else { Vec::new() },
        expires: ago(-8),
        reconnect,
    };
    book.add("confirm", &confirm(Permissions(Vec::new()), true, false));
    book.add("confirm-fewer", &confirm(maker.act_only(), true, true));
    book.add("confirm-unknown", &confirm(Permissions(Vec::new()), false, false));
    for (name, agent) in [
        ("connected", None),
        ("connected-agent", Some(maker.say("Mail helper"))),
    ] {
        let account = Some(maker.say("ada@acme.example"));
        book.add(
            name,
            &ConnectedPage {
                shell: maker.shell(false),
                connector: maker.say("Acme Mail"),
                account,
                agent,
            },
        );
    }
}

pub(super) fn failures(maker: &Maker, book: &mut Book) {
    let again = || NextStep::ConnectAgain("acme-mail".parse().unwrap());
    let extra = Permissions(vec![maker.permission(
        PermissionKind::Sensitive,
        "Delete messages for good",
        "mail.write",
    )]);
    let (expected, got) = (maker.say("ada@acme.example"), maker.say("other@else.example"));
    let account = Some(maker.say("other@else.example"));
    let failures = [
        ("denied", ConnectFailure::Denied, again()),
        ("cancelled", ConnectFailure::Cancelled, again()),
        (
            "link-expired",
            ConnectFailure::LinkExpired,
            NextStep::BackTo(maker.say("Mail helper")),
        ),
        ("revoked", ConnectFailure::Revoked, again()),
        ("link-used", ConnectFailure::LinkUsed, NextStep::Connections),
        ("another-browser", ConnectFailure::AnotherBrowser, again()),
        ("another-person", ConnectFailure::AnotherPerson, NextStep::SignOut),
        (
            "security",
            ConnectFailure::SecurityCheck {
                support: maker.say("con_01h2xcejqtf2nbrexx3vqjhp41"),
            },
            again(),
        ),
        ("down", ConnectFailure::ProviderUnavailable, again()),
        (
            "provider-error",
            ConnectFailure::ProviderError {
                code: maker.say("server_error"),
            },
            again(),
        ),
        ("provider-admin", ConnectFailure::ProviderAdminNeeded, again()),
        (
            "wider",
            ConnectFailure::WiderScopes {
                extra,
                until: ago(-7 * 1_440),
            },
            NextStep::ReconnectAgain(grant(1)),
        ),
        (
            "wrong-account",
            ConnectFailure::WrongAccount { expected, got },
            NextStep::ReconnectAgain(grant(1)),
        ),
        (
            "not-allowed",
            ConnectFailure::AccountNotAllowed { account },
            again(),
        ),
        ("too-late", ConnectFailure::CompletionExpired, again()),
        ("sign-in-first", ConnectFailure::NotSignedIn, NextStep::Nothing),
        (
            "not-permitted",
            ConnectFailure::NotPermitted,
            NextStep::Connections,
        ),
    ];
    for (name, failure, next) in failures {
        let signed_in = !matches!(failure, ConnectFailure::NotSignedIn);
        let shell = if signed_in {
            maker.shell(false)
        } else {
            maker.outside()
        };
        let connector = signed_in.then(|| maker.say("Acme Mail"));
        book.add(
            &format!("failure-{name}"),
            &ConnectFailurePage {
                shell,
                connector,
                failure,
                next,
            },
        );
    }
}
