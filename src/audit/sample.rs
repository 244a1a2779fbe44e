//! Logs for tests: deterministic, several writers, epochs and types, ordinary and hostile text.

use super::{
    chain::ChainHead,
    encoding::{FIRST_PREV, Stamp, finish},
    export::ExportWriter,
    note::VerifierKey,
    origin,
    sequencer::{LogHead, Pending},
};
use crate::{
    crypto::{digest, ed25519::Ed25519Signer},
    domain::{
        AgentId, ApprovalId, EntryId, GrantId, Mode, OrgId, Time, UserId,
        decision::{ApprovalRef, Outcome, PolicyRef},
        entry::{EntryDecision, EntryDraft, EntryType, Epoch},
    },
};

pub(crate) const WRITERS: [&str; 3] = ["r1/cold", "r1/hot", "r2/hot"];

pub(crate) fn org() -> OrgId {
    OrgId::from_bytes(0x0190_0000_0000_7000_8000_0000_0000_0001_u128.to_be_bytes())
}

pub(crate) fn signer(seed: u8) -> (Ed25519Signer, VerifierKey) {
    let signer = Ed25519Signer::from_seed(&[seed; 32]);
    let key = VerifierKey::new(&origin("https://postern.example", org()), signer.public()).unwrap();
    (signer, key)
}

fn id(kind: u8, number: u8) -> [u8; 16] {
    [1, 0x90, 0, 0, 0, kind, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number]
}

pub(crate) fn draft(number: u8, text: &str) -> (EntryType, EntryDraft) {
    let base = EntryDraft {
        user: Some(UserId::from_bytes(id(2, 1))),
        agent: Some(AgentId::from_bytes(id(3, 1))),
        grant: Some(GrantId::from_bytes(id(4, 1))),
        connector: Some("acme-mail".parse().unwrap()),
        tool: Some("messages.list".to_owned()),
        policy: Some(PolicyRef {
            id: "org".to_owned(),
            version: "3".to_owned(),
            digest: format!("sha256:{}", digest::hex(&[3; 32])),
        }),
        ..EntryDraft::default()
    };
    match number % 6 {
        0 => (
            EntryType::Writer,
            EntryDraft {
                outcome: Some("started".to_owned()),
                ..EntryDraft::default()
            },
        ),
        1 => (
            EntryType::Release,
            EntryDraft {
                generation: Some(1),
                action_hash: Some(digest::base64url(&[number; 32])),
                account_hash: Some(digest::base64url(&[9; 32])),
                decision: Some(EntryDecision {
                    jti: format!("dec_{number}"),
                    iss: "https://postern.example".to_owned(),
                    sha256: digest::hex(&[number; 32]),
                    outcome: Outcome::Allow,
                }),
                approvals: vec![ApprovalRef {
                    id: ApprovalId::from_bytes(id(5, number)),
                }],
                mode: Some(Mode::Execute),
                outcome: Some("allow".to_owned()),
                ..base
            },
        ),
        2 => (
            EntryType::Outcome,
            EntryDraft {
                outcome: Some("ok".to_owned()),
                correlation: Some(text.to_owned()),
                ..base
            },
        ),
        3 => (
            EntryType::Decision,
            EntryDraft {
                tool: Some("messages.send".to_owned()),
                outcome: Some("deny".to_owned()),
                reason: Some("recipient_outside_company".to_owned()),
                ..base
            },
        ),
        4 => (
            EntryType::Session,
            EntryDraft {
                on_behalf: vec![text.to_owned()],
                outcome: Some("logged_in".to_owned()),
                ..EntryDraft::default()
            },
        ),
        _ => (
            EntryType::Admin,
            EntryDraft {
                on_behalf: vec!["key_1".to_owned()],
                reason: Some(text.to_owned()),
                ..EntryDraft::default()
            },
        ),
    }
}

const TEXTS: [&str; 4] = ["ent_1", "q\"uote \\ é 日本", "\u{1b}[31m\u{202e}\0", "a\nb"];

/// The entries of a log in log order, with its head.
pub(crate) fn log(count: u8) -> (Vec<Vec<u8>>, LogHead) {
    let mut heads = [ChainHead {
        seq: 0,
        hash: FIRST_PREV,
    }; 3];
    let mut head = LogHead::new(org());
    let mut entries = Vec::new();
    for number in 0..count {
        let which = usize::from(number.wrapping_mul(7) / 3 % 3);
        let chain = &mut heads[which];
        let (kind, draft) = draft(number, TEXTS[usize::from(number / 6 % 4)]);
        let encoded = finish(
            kind,
            draft,
            Stamp {
                id: EntryId::from_bytes(id(1, number)),
                org: org(),
                epoch: Epoch {
                    incarnation: 0xa11c_e000,
                    counter: 1 + i64::from(number / 20),
                },
                ts: Time::from_unix_micros(1_795_000_000_000_000 + i64::from(number) * 250_000),
                writer: WRITERS[which],
                writer_seq: chain.seq + 1,
                prev: chain.hash,
            },
        )
        .unwrap();
        *chain = ChainHead {
            seq: chain.seq + 1,
            hash: encoded.hash,
        };
        head = head
            .sequence(vec![Pending::read(&encoded.bytes).unwrap()])
            .unwrap()
            .head;
        entries.push(encoded.bytes);
    }
    (entries, head)
}

pub(crate) fn note(head: &LogHead, seed: u8) -> String {
    let (signer, key) = signer(seed);
    head.checkpoint(key.name())
        .sign(&key, |bytes| signer.sign(bytes))
        .unwrap()
}

pub(crate) fn export_of(entries: &[Vec<u8>], note: &str) -> Vec<u8> {
    let mut writer = ExportWriter::begin(Vec::new(), signer(1).1.name()).unwrap();
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.finish(note).unwrap()
}

/// An export of `count` entries, signed by key 1.
pub(crate) fn export(count: u8) -> Vec<u8> {
    let (entries, head) = log(count);
    export_of(&entries, &note(&head, 1))
}
