//! Everything that can be done to an export, done: all of it must be found, at its place.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    export::LineReader,
    finding::{Finding, FindingKind},
    sample,
    verify::{Report, Verifier, verify},
    *,
};

fn check(export: &[u8]) -> Report {
    verify(export, &sample::signer(1).1, None).unwrap()
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

fn lines(export: &[u8]) -> Vec<&[u8]> {
    export.split_inclusive(|&byte| byte == b'\n').collect()
}

fn names_line(findings: &[Finding], line: usize) -> bool {
    findings
        .iter()
        .any(|finding| finding.at.line == Some(line as u64))
}

/// The state of a verifier before each line, and where the line begins. It reads in one direction: the state before a line is
/// the same for whatever is wrong in it or behind it.
fn states<'k>(export: &[u8], key: &'k VerifierKey) -> Vec<(usize, Verifier<'k>)> {
    let mut states = Vec::new();
    let mut offset = 0;
    let mut verifier = Verifier::new(key, None);
    for line in lines(export) {
        states.push((offset, verifier.clone()));
        offset += line.len();
        verifier.read(&mut LineReader::new(line), |_| true).unwrap();
    }
    states
}

/// How many entries are damaged bit by bit, and pair by pair.
fn size() -> u8 {
    if std::env::var_os("POSTERN_LONG").is_some() {
        200
    } else {
        60
    }
}

#[test]
fn an_untouched_export_verifies() {
    for count in [0, 1, 2, 60] {
        let report = check(&sample::export(count));
        assert!(
            report.verified && report.findings.is_empty(),
            "{:?}",
            report.findings
        );
        assert_eq!(report.entries, u64::from(count));
    }
}

#[test]
fn every_flipped_bit_is_found_and_its_line_named() {
    let (_, key) = sample::signer(1);
    let export = sample::export(size());
    let lines = lines(&export);
    let states = states(&export, &key);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((start, state)) = states.get(at) else {
                        break;
                    };
                    flip_line(&export, *start, lines[at].len(), at + 1, state);
                }
            });
        }
    });
}

fn flip_line(export: &[u8], start: usize, len: usize, line: usize, state: &Verifier<'_>) {
    let mut rest = export[start..].to_vec();
    for byte in 0..len {
        for bit in 0..8 {
            rest[byte] ^= 1 << bit;
            let mut verifier = state.clone();
            let found = |verifier: &Verifier<'_>| names_line(verifier.findings(), line);
            verifier
                .read(&mut LineReader::new(rest.as_slice()), found)
                .unwrap();
            assert!(
                found(&verifier),
                "line {line} byte {byte} bit {bit}: {:?}",
                verifier.findings()
            );
            rest[byte] ^= 1 << bit;
        }
    }
}

#[test]
fn every_deleted_line_is_found_and_its_place_named() {
    let export = sample::export(200);
    let lines = lines(&export);
    for gone in 0..lines.len() {
        let cut = [&lines[..gone], &lines[gone + 1..]].concat().concat();
        let report = check(&cut);
        // The line that moved into its place; for the last one, the end of the file.
        assert!(
            names_line(&report.findings, gone + 1),
            "{gone}: {:?}",
            report.findings
        );
    }
}

#[test]
fn every_swap_of_neighbours_is_found_and_its_place_named() {
    let export = sample::export(200);
    for first in 0..lines(&export).len() - 1 {
        let mut lines = lines(&export);
        lines.swap(first, first + 1);
        let report = check(&lines.concat());
        assert!(
            names_line(&report.findings, first + 1),
            "{first}: {:?}",
            report.findings
        );
    }
}

#[test]
fn every_doubled_line_is_found_and_its_place_named() {
    let export = sample::export(200);
    for at in 0..lines(&export).len() {
        let mut lines = lines(&export);
        lines.insert(at, lines[at]);
        let report = check(&lines.concat());
        assert!(
            names_line(&report.findings, at + 2),
            "{at}: {:?}",
            report.findings
        );
    }
}

#[test]
fn every_truncation_is_found_and_the_line_it_ends_in_named() {
    let (_, key) = sample::signer(1);
    let export = sample::export(200);
    let states = states(&export, &key);
    for (index, (start, state)) in states.iter().enumerate() {
        let end = states.get(index + 1).map_or(export.len(), |(next, _)| *next);
        let line = index as u64 + 1;
        for len in *start..end {
            let mut verifier = state.clone();
            verifier
                .read(&mut LineReader::new(&export[*start..len]), |_| false)
                .unwrap();
            let named =
                |finding: &Finding| finding.kind == FindingKind::Truncated && finding.at.line == Some(line);
            assert!(
                verifier.findings().iter().any(named),
                "{len}: {:?}",
                verifier.findings()
            );
        }
    }
}

#[test]
fn swapped_and_renumbered_entries_are_found() {
    let (entries, head) = sample::log(60);
    for first in 0..59 {
        let mut entries = entries.clone();
        entries.swap(first, first + 1);
        let report = check(&sample::export_of(&entries, &sample::note(&head, 1)));
        assert!(
            kinds(&report).contains(&FindingKind::WrongRoot),
            "{first}: {:?}",
            report.findings
        );
    }
}

#[test]
fn a_deleted_and_renumbered_entry_is_found_and_its_writer_and_number_named() {
    let (entries, head) = sample::log(60);
    for gone in 0..60 {
        let entry = encoding::parse(&entries[gone]).unwrap();
        let mut entries = entries.clone();
        entries.remove(gone);
        let report = check(&sample::export_of(&entries, &sample::note(&head, 1)));
        let seq = entry.writer_seq.to_string();
        let named = report.findings.iter().any(|finding| {
            matches!(finding.kind, FindingKind::WriterGap | FindingKind::WriterHead)
                && finding.at.writer.as_deref() == Some(&entry.writer)
                && finding.explain.contains(&seq)
        });
        assert!(named, "{gone}: {:?}", report.findings);
    }
}

#[test]
fn a_dropped_tail_of_a_writer_is_found_and_the_writer_named() {
    let (entries, head) = sample::log(60);
    for writer in sample::WRITERS {
        for keep in [0, 1, 5] {
            let kept: Vec<_> = entries
                .iter()
                .filter(|bytes| {
                    let entry = encoding::parse(bytes).unwrap();
                    entry.writer != writer || entry.writer_seq <= keep
                })
                .cloned()
                .collect();
            let report = check(&sample::export_of(&kept, &sample::note(&head, 1)));
            let named = report.findings.iter().any(|finding| {
                finding.kind == FindingKind::WriterHead && finding.at.writer.as_deref() == Some(writer)
            });
            assert!(named, "{writer} {keep}: {:?}", report.findings);
        }
    }
}

#[test]
fn a_log_signed_again_by_another_key_is_found() {
    let (entries, head) = sample::log(60);
    let report = check(&sample::export_of(&entries, &sample::note(&head, 2)));
    assert_eq!(kinds(&report), [FindingKind::Unsigned]);
    assert!(names_line(&report.findings, 62));
}

#[test]
fn history_rewritten_by_the_keys_holder_is_found_with_a_kept_checkpoint() {
    let (signer, key) = sample::signer(1);
    let (_, old) = sample::log(30);
    let kept = old.checkpoint(key.name());
    let honest = sample::export(60);
    assert!(
        verify(honest.as_slice(), &key, Some(kept.clone()))
            .unwrap()
            .verified
    );
    // The same operator signs a log that drops an entry nobody had seen but the keeper of the checkpoint.
    let (entries, _) = sample::log(60);
    let mut writers = std::collections::BTreeMap::new();
    let mut forged = Vec::new();
    let mut head = LogHead::new(sample::org());
    for bytes in entries.iter().skip(1) {
        let mut entry = encoding::parse(bytes).unwrap();
        let (seq, prev) = writers
            .get(&entry.writer)
            .copied()
            .unwrap_or((0, encoding::FIRST_PREV));
        entry.writer_seq = seq + 1;
        entry.prev = crate::crypto::digest::hex(&prev);
        let encoded = encoding::encode(&entry).unwrap();
        writers.insert(entry.writer, (seq + 1, encoded.hash));
        head = head
            .sequence(vec![Pending::read(&encoded.bytes).unwrap()])
            .unwrap()
            .head;
        forged.push(encoded.bytes);
    }
    let note = head
        .checkpoint(key.name())
        .sign(&key, |bytes| signer.sign(bytes))
        .unwrap();
    let forged = sample::export_of(&forged, &note);
    assert!(verify(forged.as_slice(), &key, None).unwrap().verified);
    let report = verify(forged.as_slice(), &key, Some(kept)).unwrap();
    assert_eq!(kinds(&report), [FindingKind::Rewritten]);
}

#[test]
fn a_log_shorter_than_a_kept_checkpoint_is_found() {
    let (_, key) = sample::signer(1);
    let kept = sample::log(60).1.checkpoint(key.name());
    let report = verify(sample::export(59).as_slice(), &key, Some(kept)).unwrap();
    assert_eq!(kinds(&report), [FindingKind::Rewritten]);
}

#[test]
fn another_orgs_entries_and_epochs_out_of_order_are_found() {
    let (entries, head) = sample::log(60);
    let change = |at: usize, change: &dyn Fn(&mut crate::domain::entry::Entry)| {
        let mut entries = entries.clone();
        let mut entry = encoding::parse(&entries[at]).unwrap();
        change(&mut entry);
        entries[at] = encoding::encode(&entry).unwrap().bytes;
        check(&sample::export_of(&entries, &sample::note(&head, 1)))
    };
    let report = change(10, &|entry| entry.org = crate::domain::OrgId::from_bytes([0; 16]));
    assert!(kinds(&report).contains(&FindingKind::WrongLog) && names_line(&report.findings, 12));
    let report = change(30, &|entry| entry.epoch.counter = 1);
    assert!(kinds(&report).contains(&FindingKind::EpochBackward) && names_line(&report.findings, 32));
    let report = change(30, &|entry| entry.epoch.incarnation = 1);
    assert!(kinds(&report).contains(&FindingKind::EpochBackward) && names_line(&report.findings, 32));
}

#[test]
fn a_flood_of_one_kind_of_finding_does_not_hide_another() {
    let export = sample::export(200);
    let mut lines = lines(&export);
    lines[1..201].reverse();
    let report = check(&lines.concat());
    assert!(report.more_findings > 0 && kinds(&report).contains(&FindingKind::WrongRoot));
    assert!(kinds(&report).contains(&FindingKind::WriterHead));
}

#[test]
fn garbage_is_findings_and_never_an_error() {
    for bytes in [&b"\0\xff\n"[..], b"", b"\n\n\n", b"{}\n", &[b'['; 3_000_000]] {
        assert!(!check(bytes).verified);
    }
}

#[test]
fn any_two_lines_that_changed_places_are_found_and_the_first_is_named() {
    let export = sample::export(if size() == 200 { 200 } else { 20 });
    let count = lines(&export).len();
    for first in 0..count {
        for second in first + 1..count {
            let mut lines = lines(&export);
            lines.swap(first, second);
            let report = check(&lines.concat());
            assert!(
                names_line(&report.findings, first + 1),
                "{first} {second}: {:?}",
                report.findings
            );
        }
    }
}

#[test]
fn any_run_of_lines_that_is_missing_is_found_and_its_place_named() {
    let export = sample::export(30);
    let lines = lines(&export);
    for first in 1..lines.len() {
        for behind in first + 1..=lines.len() {
            let report = check(&[&lines[..first], &lines[behind..]].concat().concat());
            assert!(
                names_line(&report.findings, first + 1),
                "{first} to {behind}: {:?}",
                report.findings
            );
        }
    }
}

/// The log up to an entry, then another continuation of it by the same writers, signed by the same key.
#[test]
fn a_fork_at_any_entry_is_found_by_whoever_kept_a_checkpoint_behind_it() {
    let (signer, key) = sample::signer(1);
    let (entries, honest) = sample::log(40);
    let kept = honest.checkpoint(key.name());
    for at in 0..40 {
        let mut head = LogHead::new(sample::org());
        let mut last = std::collections::BTreeMap::new();
        let mut forked = Vec::new();
        for (number, bytes) in entries.iter().enumerate() {
            let mut entry = encoding::parse(bytes).unwrap();
            if number == at {
                entry.draft.reason = Some("another story".to_owned());
            }
            let (_, prev) = last
                .get(&entry.writer)
                .copied()
                .unwrap_or((0, encoding::FIRST_PREV));
            entry.prev = crate::crypto::digest::hex(&prev);
            let encoded = encoding::encode(&entry).unwrap();
            last.insert(entry.writer.clone(), (entry.writer_seq, encoded.hash));
            let pending = Pending::read(&encoded.bytes).unwrap();
            head = head.sequence(vec![pending]).unwrap().head;
            forked.push(encoded.bytes);
        }
        let note = head
            .checkpoint(key.name())
            .sign(&key, |bytes| signer.sign(bytes))
            .unwrap();
        let export = sample::export_of(&forked, &note);
        // By itself it is a log like any other; the kept checkpoint tells.
        assert!(verify(export.as_slice(), &key, None).unwrap().verified, "{at}");
        let report = verify(export.as_slice(), &key, Some(kept.clone())).unwrap();
        assert_eq!(kinds(&report), [FindingKind::Rewritten], "{at}");
        // And spliced into the honest export, the place of the fork is named.
        let mut spliced = entries.clone();
        spliced[at] = forked[at].clone();
        let report = check(&sample::export_of(&spliced, &sample::note(&honest, 1)));
        assert!(
            names_line(&report.findings, at + 2),
            "{at}: {:?}",
            report.findings
        );
    }
}

#[test]
fn hostile_text_in_every_field_is_one_visible_line_and_the_log_holds() {
    let megabyte = "x".repeat(1 << 20);
    let invalid = cap_bytes(b"a\xff\xfe\x00\x80b", 128).into_owned();
    let hostile = [
        "\0",
        "a\0b",
        "\u{1b}[2J\u{1b}[31mred",
        "\u{202e}txt.exe\u{2066}",
        "\u{200b}\u{feff}",
        "line\nbreak\r\n",
        "\u{85}\u{9b}31m",
        "\u{e0041}",
        "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180f}\u{3164}\u{fe0f}\u{ffa0}\u{fff9}",
        "\",\"outcome\":\"allow",
        "\\u0000",
        "é\u{301}",
        &megabyte,
        &invalid,
        "",
    ];
    type Set = fn(&mut crate::domain::entry::EntryDraft, String);
    let fields: [(&str, Set); 9] = [
        ("tool", |draft, text| draft.tool = Some(text)),
        ("outcome", |draft, text| draft.outcome = Some(text)),
        ("reason", |draft, text| draft.reason = Some(text)),
        ("correlation", |draft, text| draft.correlation = Some(text)),
        ("context_digest", |draft, text| draft.context_digest = Some(text)),
        ("on_behalf", |draft, text| draft.on_behalf = vec![text; 16]),
        ("policy", |draft, text| {
            draft.policy = Some(crate::domain::decision::PolicyRef {
                id: text.clone(),
                version: text.clone(),
                digest: text,
            });
        }),
        ("decision.jti", |draft, text| {
            if let Some(decision) = &mut draft.decision {
                decision.jti = text;
            }
        }),
        ("decision.iss", |draft, text| {
            if let Some(decision) = &mut draft.decision {
                decision.iss = text;
            }
        }),
    ];
    let mut head = LogHead::new(sample::org());
    let mut entries = Vec::new();
    let mut prev = encoding::FIRST_PREV;
    for (name, set) in fields {
        for text in hostile {
            let (kind, mut draft) = sample::draft(1, "");
            set(&mut draft, text.to_owned());
            let number = entries.len() as u64 + 1;
            let mut id = [0x11; 16];
            id[8..].copy_from_slice(&number.to_be_bytes());
            let stamp = Stamp {
                id: crate::domain::EntryId::from_bytes(id),
                org: sample::org(),
                epoch: crate::domain::entry::Epoch {
                    incarnation: 1,
                    counter: 1,
                },
                ts: crate::domain::Time::from_unix_seconds(1),
                writer: "r1/hot",
                writer_seq: number,
                prev,
            };
            let encoded = finish(kind, draft, stamp).unwrap();
            prev = encoded.hash;
            let shown = std::str::from_utf8(&encoded.bytes).unwrap();
            let hidden = |c: char| {
                c.is_control()
                    || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                        | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                        | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
            };
            assert!(!shown.chars().any(hidden), "{name}");
            assert!(encoded.bytes.len() <= encoding::MAX_ENTRY_BYTES, "{name}");
            head = head
                .sequence(vec![Pending::read(&encoded.bytes).unwrap()])
                .unwrap()
                .head;
            entries.push(encoded.bytes);
        }
    }
    let report = check(&sample::export_of(&entries, &sample::note(&head, 1)));
    assert!(report.verified, "{:?}", report.findings);
}
