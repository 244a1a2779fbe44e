//! How fast an export is verified, on one thread, against the least there is to do: hashing every line twice. Fails below
//! 100,000 entries a second.

mod measure;

use std::{hint::black_box, process::ExitCode, time::Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use postern::{
    audit::{
        ExportWriter, LogHead, Pending, Stamp, VerifierKey,
        encoding::{FIRST_PREV, leaf_hash},
        finish, origin, verify,
    },
    crypto::digest,
    domain::{
        AgentId, EntryId, GrantId, Mode, OrgId, Time, UserId,
        decision::{Outcome, PolicyRef},
        entry::{EntryDecision, EntryDraft, EntryType, Epoch},
    },
};
use serde_json::json;

use measure::{Done, Machine, PAIRS, Spread, failed, line, short};

fn main() -> Done<ExitCode> {
    let entries: u32 = if short() { 20_000 } else { 200_000 };
    let org = OrgId::from_bytes([1; 16]);
    let signer = SigningKey::from_bytes(&[7; 32]);
    let key = VerifierKey::new(
        &origin("https://postern.example", org),
        signer.verifying_key().to_bytes(),
    )?;
    let export = export(org, u64::from(entries), &key, &signer)?;
    let dir = tempfile::tempdir()?;
    let mut machine = Machine::new();
    machine.look(dir.path())?;
    let (mut verifying, mut hashing) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let begun = Instant::now();
        let report = black_box(verify(export.as_slice(), &key, None)?);
        verifying.push(begun.elapsed().as_secs_f64());
        if !report.verified || report.entries != u64::from(entries) {
            return Err(failed(report.findings));
        }
        let begun = Instant::now();
        for line in export.split(|byte| *byte == b'\n') {
            black_box((leaf_hash(line), digest::sha256(line)));
        }
        hashing.push(begun.elapsed().as_secs_f64());
    }
    machine.look(dir.path())?;
    let rate = Spread::of(
        verifying
            .iter()
            .map(|seconds| f64::from(entries) / seconds)
            .collect(),
    );
    let ratio = Spread::ratio(&verifying, &hashing);
    line("verify, entries a second on one thread", rate);
    line("verify / hashing every line twice alone", ratio);
    let (seen, _) = machine.report()?;
    println!(
        "{}",
        json!({"bench": "audit", "short": short(), "machine": seen, "entries": entries, "bytes": export.len(),
               "entries_per_second": rate.json(), "to_hashing": ratio.json()})
    );
    if rate.median < LEAST {
        println!("FAILED: {LEAST} entries a second are to be verified on one thread");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Entries a second, on one thread.
const LEAST: f64 = 100_000.0;

/// A log of releases and their outcomes, as a busy org has it: two writers, everything filled in.
fn export(org: OrgId, entries: u64, key: &VerifierKey, signer: &SigningKey) -> Done<Vec<u8>> {
    let writers = ["r1/hot", "r1/cold"];
    let mut chains = [(0_u64, FIRST_PREV); 2];
    let mut pending = Vec::new();
    let mut writer = ExportWriter::begin(Vec::new(), key.name())?;
    for number in 0..entries {
        let which = usize::from(number % 16 == 0);
        let (Some((seq, prev)), Some(name)) = (chains.get_mut(which), writers.get(which)) else {
            return Err(failed("no such writer"));
        };
        let (kind, draft) = drafted(number);
        let mut id = [1_u8; 16];
        id.split_at_mut(8).1.copy_from_slice(&number.to_be_bytes());
        let stamp = Stamp {
            id: EntryId::from_bytes(id),
            org,
            epoch: Epoch {
                incarnation: 7,
                counter: 1,
            },
            ts: Time::from_unix_seconds(1_795_000_000),
            writer: name,
            writer_seq: *seq + 1,
            prev: *prev,
        };
        let encoded = finish(kind, draft, stamp)?;
        (*seq, *prev) = (*seq + 1, encoded.hash);
        writer.entry(&encoded.bytes)?;
        pending.push(encoded.bytes);
    }
    // One at a time: the order of the file is the order of the log.
    let mut head = LogHead::new(org);
    for bytes in &pending {
        head = head.sequence(vec![Pending::read(bytes)?])?.head;
    }
    let note = head
        .checkpoint(key.name())
        .sign(key, |text| signer.sign(text).to_bytes())?;
    Ok(writer.finish(&note)?)
}

fn drafted(number: u64) -> (EntryType, EntryDraft) {
    let base = EntryDraft {
        user: Some(UserId::from_bytes([2; 16])),
        agent: Some(AgentId::from_bytes([3; 16])),
        grant: Some(GrantId::from_bytes([4; 16])),
        connector: "acme-mail".parse().ok(),
        tool: Some("messages.list".to_owned()),
        mode: Some(Mode::Execute),
        outcome: Some("allow".to_owned()),
        ..EntryDraft::default()
    };
    if number % 2 == 1 {
        let correlation = Some(format!("ent_{number:026}"));
        return (EntryType::Outcome, EntryDraft { correlation, ..base });
    }
    let release = EntryDraft {
        generation: Some(3),
        action_hash: Some(digest::base64url(&digest::sha256(&number.to_be_bytes()))),
        account_hash: Some(digest::base64url(&digest::sha256(b"account"))),
        decision: Some(EntryDecision {
            jti: format!("dec_{number:026}"),
            iss: "https://postern.example".to_owned(),
            sha256: digest::hex(&digest::sha256(&number.to_le_bytes())),
            outcome: Outcome::Allow,
        }),
        policy: Some(PolicyRef {
            id: "org".to_owned(),
            version: "3".to_owned(),
            digest: format!("sha256:{}", digest::hex(&[3; 32])),
        }),
        ..base
    };
    (EntryType::Release, release)
}
