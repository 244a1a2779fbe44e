//! The one form of an entry, under hostile text.

use super::*;
use crate::domain::{
    AgentId, ApprovalId, GrantId, Mode, UserId,
    decision::{ApprovalRef, Outcome, PolicyRef},
    entry::EntryDecision,
};

fn stamp(writer: &str) -> Stamp<'_> {
    Stamp {
        id: EntryId::from_bytes([1; 16]),
        org: OrgId::from_bytes([2; 16]),
        epoch: Epoch {
            incarnation: 7,
            counter: 3,
        },
        ts: Time::from_unix_micros(1_795_000_000_123_456),
        writer,
        writer_seq: 1,
        prev: FIRST_PREV,
    }
}

fn draft(text: &str) -> EntryDraft {
    let text = || text.to_owned();
    EntryDraft {
        user: Some(UserId::from_bytes([3; 16])),
        agent: Some(AgentId::from_bytes([4; 16])),
        on_behalf: vec![text(), text()],
        grant: Some(GrantId::from_bytes([5; 16])),
        generation: Some(MAX_INTEGER),
        connector: Some("acme-mail".parse().unwrap()),
        account_hash: Some(digest::base64url(&[6; 32])),
        tool: Some(text()),
        action_hash: Some(digest::base64url(&[7; 32])),
        decision: Some(EntryDecision {
            jti: text(),
            iss: text(),
            sha256: digest::hex(&[8; 32]),
            outcome: Outcome::Allow,
        }),
        context_digest: Some(text()),
        policy: Some(PolicyRef {
            id: text(),
            version: text(),
            digest: text(),
        }),
        approvals: vec![ApprovalRef {
            id: ApprovalId::from_bytes([9; 16]),
        }],
        mode: Some(Mode::Execute),
        outcome: Some(text()),
        reason: Some(text()),
        correlation: Some(text()),
    }
}

const HOSTILE: [&str; 9] = [
    "",
    "a\0b",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{202e}gpj.exe\u{2066}",
    "line\r\nbreak\u{2028}\u{85}",
    "\"},{\"index\":0,\"entry\":{\"",
    "\\ud800 \\u0000 \\xff \u{fffd}",
    "—\n\n— key AAAA\n",
    "\u{e0041}\u{feff}\u{200d}",
];

#[test]
fn hostile_text_in_every_field_becomes_one_line_that_parses_back() {
    let mut texts: Vec<String> = HOSTILE.iter().map(|&text| text.to_owned()).collect();
    texts.extend(["x", "\0", "\u{202e}", "\"", "é"].map(|text| text.repeat(1_048_576 / text.len())));
    for text in texts {
        let encoded = finish(EntryType::Release, draft(&text), stamp("r1/hot")).unwrap();
        let line = String::from_utf8(encoded.bytes.clone()).unwrap();
        assert!(is_capped(&line, MAX_ENTRY_BYTES), "{line}");
        let entry = parse(&encoded.bytes).unwrap();
        assert_eq!(encode(&entry).unwrap(), encoded);
    }
}

#[test]
fn the_encoding_equals_two_independent_canonicalisers() {
    for text in ["plain", "q\"b\\s/ é 日本 \u{10ffff}", HOSTILE[2], HOSTILE[6]] {
        for draft in [draft(text), EntryDraft::default()] {
            let encoded = finish(EntryType::Decision, draft, stamp("r1/cold")).unwrap();
            let entry = parse(&encoded.bytes).unwrap();
            assert_eq!(serde_json_canonicalizer::to_vec(&entry).unwrap(), encoded.bytes);
            assert_eq!(serde_jcs::to_vec(&entry).unwrap(), encoded.bytes);
        }
    }
}

#[test]
fn every_other_form_of_an_entry_is_refused() {
    let encoded = finish(EntryType::Release, draft("a/b"), stamp("r1/hot")).unwrap();
    let text = String::from_utf8(encoded.bytes).unwrap();
    assert!(parse(text.as_bytes()).is_ok());
    for (from, to) in [
        ("{", "{ "),
        ("}", "}\n"),
        ("\"a/b\"", "\"a\\/b\""),
        ("\"a/b\"", "\"\\u0061/b\""),
        ("\"a/b\"", "\"a\u{202e}b\""),
        ("\"a/b\"", "\"a\u{7f}b\""),
        ("\"a/b\"", "\"a\\u0000b\""),
        ("\"schema\":1", "\"schema\":1.0"),
        ("\"schema\":1", "\"schema\":2"),
        ("\"schema\":1", "\"schema\":1,\"schema\":1"),
        ("\"schema\":1", "\"schema\":1,\"extra\":null"),
        ("\"schema\":1,", ""),
        ("\"writer_seq\":1", "\"writer_seq\":0"),
        ("\"writer_seq\":1", "\"writer_seq\":9007199254740992"),
        ("\"writer\":\"r1/hot\"", "\"writer\":\"r1 hot\""),
        ("\"writer\":\"r1/hot\"", "\"writer\":\"\""),
        (".123Z", ".123456Z"),
        (".123Z", ".123+00:00"),
        ("00000007:3", "7:3"),
        ("00000007:3", "00000007:-3"),
        ("\"prev\":\"0", "\"prev\":\"A"),
        ("\"type\":\"release\"", "\"type\":\"Release\""),
        ("\"mode\":\"execute\",", ""),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{from} not found");
        assert!(parse(other.as_bytes()).is_err(), "accepted {to}");
    }
    assert!(parse(b"").is_err() && parse(b"null").is_err() && parse(b"\xff").is_err());
}

#[test]
fn members_only_we_write_are_checked_when_finishing() {
    type Break = fn(&mut EntryDraft);
    let breaks: [(&str, Break); 6] = [
        ("account_hash", |draft| draft.account_hash = Some("x".to_owned())),
        ("action_hash", |draft| draft.action_hash = Some("B".repeat(43))),
        ("generation", |draft| draft.generation = Some(1 << 53)),
        ("on_behalf", |draft| draft.on_behalf = vec![String::new(); 17]),
        ("approvals", |draft| {
            draft.approvals = vec![
                ApprovalRef {
                    id: ApprovalId::from_bytes([0; 16])
                };
                17
            ]
        }),
        ("decision.sha256", |draft| {
            draft.decision.as_mut().unwrap().sha256 = "F".repeat(64)
        }),
    ];
    for (field, break_it) in breaks {
        let mut draft = draft("a");
        break_it(&mut draft);
        assert_eq!(
            finish(EntryType::Release, draft, stamp("r1/hot")),
            Err(EntryError::Form { field })
        );
    }
    assert_eq!(
        finish(EntryType::Release, draft("a"), stamp("a b")),
        Err(EntryError::Form { field: "writer" })
    );
}

#[test]
fn hex_reads_back_and_nothing_else_does() {
    assert_eq!(parse_hex32(&digest::hex(&[0xab; 32])), Some([0xab; 32]));
    for text in [
        "",
        &"a".repeat(63),
        &"a".repeat(65),
        &"A".repeat(64),
        &"g".repeat(64),
    ] {
        assert_eq!(parse_hex32(text), None);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_gives_canonical_bytes(text in "\\PC*|.*", seq in 1..=MAX_INTEGER, micros in 0..4_000_000_000_000_000_i64) {
        let stamp = Stamp { writer_seq: seq, ts: Time::from_unix_micros(micros), ..stamp("r1/hot") };
        let encoded = finish(EntryType::Release, draft(&text), stamp).unwrap();
        let entry = parse(&encoded.bytes).unwrap();
        proptest::prop_assert_eq!(serde_json_canonicalizer::to_vec(&entry).unwrap(), encoded.bytes);
    }
}
