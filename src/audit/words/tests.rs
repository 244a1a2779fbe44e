use serde_json::json;

use super::*;
use crate::audit::{encoding::parse, sample};

const NAMES: Names<'_> = Names {
    user: Some("Ada"),
    agent: Some("Mail Assistant"),
    actor: None,
    connector: Some("Acme Mail"),
    account: Some("ada@acme.example"),
    tool_title: Some("Read messages"),
};

fn entry(number: usize) -> Entry {
    parse(&sample::log(6).0[number]).unwrap()
}

fn told(entry: &Entry) -> String {
    describe(entry, &NAMES, None).to_string()
}

#[test]
fn a_release_reads_as_what_was_done() {
    assert_eq!(
        told(&entry(1)),
        "Mail Assistant read messages in Acme Mail as Ada: allowed"
    );
}

#[test]
fn a_token_release_says_what_the_agent_holds() {
    let mut entry = entry(1);
    entry.draft.mode = Some(Mode::Raw);
    let expected =
        "Mail Assistant was given the full access token to read messages in Acme Mail as Ada: allowed";
    assert_eq!(told(&entry), expected);
}

#[test]
fn a_denial_says_why() {
    let names = Names {
        tool_title: Some("Send a message"),
        ..NAMES
    };
    let sentence = describe(&entry(3), &names, None);
    let expected =
        "Mail Assistant asked to send a message in Acme Mail as Ada: denied, recipient outside the company";
    assert_eq!(sentence.to_string(), expected);
    assert_eq!(sentence.tone, Tone::Bad);
}

#[test]
fn names_of_that_time_win_over_names_of_now_and_args_are_listed() {
    let details = json!({"args": {"limit": 5, "q": "from:ben"}, "names": {"user": "Ada Byron"}});
    let sentence = describe(&entry(1), &NAMES, Some(&details));
    assert!(sentence.to_string().ends_with("as Ada Byron: allowed"));
    let expected = [("limit", "5"), ("q", "from:ben")];
    assert_eq!(
        sentence.details,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn without_names_ids_are_shown() {
    let sentence = describe(&entry(1), &Names::default(), None).to_string();
    assert!(
        sentence.contains("agt_") && sentence.contains("usr_") && sentence.contains("used messages.list")
    );
}

#[test]
fn every_type_has_words_of_its_own() {
    let kinds = [
        (EntryType::Decision, "asked to read messages"),
        (EntryType::Release, "read messages in Acme Mail as Ada"),
        (
            EntryType::Outcome,
            "Postern sent the request to read messages in Acme Mail for Mail Assistant",
        ),
        (EntryType::Dropped, "before anything left"),
        (
            EntryType::Refresh,
            "Postern renewed the access to Ada’s Acme Mail account (ada@acme.example)",
        ),
        (EntryType::Connect, "Ada connected Acme Mail (ada@acme.example)"),
        (
            EntryType::Delegation,
            "Ada changed what Mail Assistant may do in Acme Mail",
        ),
        (EntryType::Revoke, "Ada revoked the Acme Mail grant of Ada"),
        (
            EntryType::UpstreamRevoke,
            "Postern asked Acme Mail to revoke Ada’s tokens",
        ),
        (EntryType::Session, "Ada logged in"),
        (EntryType::Admin, "Ada changed the organisation"),
        (EntryType::Writer, "Postern’s log writer r2/hot started"),
    ];
    for (kind, words) in kinds {
        let mut entry = entry(1);
        entry.kind = kind;
        entry.draft.outcome = match kind {
            EntryType::Session => Some("logged_in".to_owned()),
            EntryType::Writer => Some("started".to_owned()),
            _ => None,
        };
        let sentence = told(&entry);
        assert!(sentence.contains(words), "{sentence}");
    }
}

#[test]
fn a_revocation_names_its_selection() {
    let mut entry = entry(1);
    entry.kind = EntryType::Revoke;
    entry.draft.outcome = None;
    entry.draft.decision = None;
    entry.draft.on_behalf = vec!["key_00000000000000000000000000".to_owned()];
    entry.draft.grant = None;
    assert!(told(&entry).ends_with("revoked the agent Mail Assistant"));
    entry.draft.agent = None;
    assert!(told(&entry).ends_with("revoked every Acme Mail grant of Ada"));
    entry.draft.connector = None;
    let names = Names {
        connector: None,
        ..NAMES
    };
    assert!(
        describe(&entry, &names, None)
            .to_string()
            .ends_with("revoked everything of Ada")
    );
    entry.draft.user = None;
    let sentence = describe(&entry, &names, None).to_string();
    assert!(sentence.starts_with("An administrator (key_"), "{sentence}");
    assert!(
        sentence.ends_with("revoked every grant of the organisation"),
        "{sentence}"
    );
}

#[test]
fn hostile_names_and_details_stay_one_visible_line() {
    let hostile = "\u{202e}evil\u{1b}[2J\n\0".repeat(100);
    let names = Names {
        user: Some(&hostile),
        agent: Some(&hostile),
        actor: Some(&hostile),
        connector: Some(&hostile),
        account: Some(&hostile),
        tool_title: Some(&hostile),
    };
    let details = json!({"args": {&hostile: &hostile}, "names": {"user": &hostile}});
    let sentence = describe(&entry(1), &names, Some(&details));
    let texts = [
        sentence.to_string(),
        sentence.details[0].0.clone(),
        sentence.details[0].1.clone(),
    ];
    assert!(
        texts
            .iter()
            .all(|text| super::super::encoding::is_capped(text, 2_000)),
        "{texts:?}"
    );
}
