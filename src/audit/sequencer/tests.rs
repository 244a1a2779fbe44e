//! The order of a log, and what stops it.

use super::*;
use crate::{
    audit::{encoding::FIRST_PREV, encoding::Stamp, encoding::finish, sample},
    domain::{Time, entry::EntryDraft},
};

struct Entries(BTreeMap<&'static str, ChainHead>);

impl Entries {
    fn next(&mut self, writer: &'static str, counter: i64, kind: EntryType) -> Pending {
        let head = self.0.entry(writer).or_insert(ChainHead {
            seq: 0,
            hash: FIRST_PREV,
        });
        let stamp = Stamp {
            id: EntryId::from_bytes([u8::try_from(head.seq).unwrap(); 16]),
            org: sample::org(),
            epoch: Epoch {
                incarnation: 1,
                counter,
            },
            ts: Time::from_unix_seconds(1),
            writer,
            writer_seq: head.seq + 1,
            prev: head.hash,
        };
        let encoded = finish(kind, EntryDraft::default(), stamp).unwrap();
        *head = ChainHead {
            seq: head.seq + 1,
            hash: encoded.hash,
        };
        Pending::read(&encoded.bytes).unwrap()
    }
}

fn entries() -> Entries {
    Entries(BTreeMap::new())
}

fn order(pending: Vec<Pending>) -> Vec<(i64, String, u64)> {
    in_log_order(pending)
        .into_iter()
        .map(|entry| (entry.epoch.counter, entry.writer, entry.seq))
        .collect()
}

#[test]
fn entries_are_ordered_by_epoch_then_writer_then_number_with_the_revocation_first_in_its_epoch() {
    let mut entries = entries();
    let mut pending = vec![
        entries.next("b", 1, EntryType::Release),
        entries.next("a", 1, EntryType::Release),
        entries.next("b", 2, EntryType::Revoke),
        entries.next("b", 2, EntryType::Release),
        entries.next("a", 2, EntryType::Release),
    ];
    pending.reverse();
    let expected = [(1, "a", 1), (1, "b", 1), (2, "b", 2), (2, "a", 2), (2, "b", 3)];
    assert_eq!(
        order(pending),
        expected.map(|(epoch, writer, seq)| (epoch, writer.to_owned(), seq))
    );
}

#[test]
fn a_revocation_that_is_not_its_writers_first_of_the_epoch_never_overtakes_it() {
    let mut entries = entries();
    let pending = vec![
        entries.next("a", 1, EntryType::Release),
        entries.next("b", 1, EntryType::Release),
        entries.next("b", 1, EntryType::Revoke),
    ];
    let head = LogHead::new(sample::org());
    assert_eq!(head.sequence(pending).unwrap().head.size(), 3);
}

#[test]
fn every_cut_into_batches_gives_a_whole_log_and_its_state_survives_storage() {
    let mut entries = entries();
    let all: Vec<_> = (0..40)
        .map(|i| entries.next(["a", "b"][i % 2], 1, EntryType::Release))
        .collect();
    let mut roots = std::collections::BTreeSet::new();
    for cut in [1, 2, 3, 40] {
        let mut head = LogHead::new(sample::org());
        let mut nodes = 0;
        for chunk in all.chunks(cut) {
            let batch = head.sequence(chunk.to_vec()).unwrap();
            assert_eq!(batch.leaves.first().unwrap().index, head.size());
            nodes += batch.nodes.len();
            head = serde_json::from_str(&serde_json::to_string(&batch.head).unwrap()).unwrap();
            assert_eq!(head, batch.head);
        }
        assert_eq!(nodes, 40 + 20 + 10 + 5 + 2 + 1);
        assert_eq!(head.writer("a").unwrap().seq, 20);
        roots.insert(head.checkpoint("o").root);
    }
    // One cut of 40 sorts by writer; cuts of 1 and 2 keep the order of arrival; 3 differs from both.
    assert_eq!(roots.len(), 3);
}

#[test]
fn a_missing_number_stops_the_log() {
    let mut entries = entries();
    let first = entries.next("a", 1, EntryType::Release);
    let _lost = entries.next("a", 1, EntryType::Release);
    let third = entries.next("a", 1, EntryType::Release);
    let gap = SequenceError::Gap {
        writer: "a".to_owned(),
        expected: 2,
        found: 3,
    };
    assert_eq!(LogHead::new(sample::org()).sequence(vec![first, third]), Err(gap));
}

#[test]
fn a_second_entry_of_the_same_number_stops_the_log() {
    let fork = SequenceError::Fork {
        writer: "a".to_owned(),
        seq: 1,
    };
    let head = LogHead::new(sample::org());
    let head = head
        .sequence(vec![entries().next("a", 1, EntryType::Release)])
        .unwrap()
        .head;
    assert_eq!(
        head.sequence(vec![entries().next("a", 1, EntryType::Outcome)]),
        Err(fork)
    );
}

#[test]
fn an_entry_that_builds_on_another_history_stops_the_log() {
    let mut ours = entries();
    let mut theirs = entries();
    let head = LogHead::new(sample::org());
    let head = head
        .sequence(vec![ours.next("a", 1, EntryType::Release)])
        .unwrap()
        .head;
    theirs.next("a", 1, EntryType::Outcome);
    let fork = SequenceError::Fork {
        writer: "a".to_owned(),
        seq: 2,
    };
    assert_eq!(
        head.sequence(vec![theirs.next("a", 1, EntryType::Release)]),
        Err(fork)
    );
}

#[test]
fn an_epoch_that_goes_back_or_another_orgs_entry_stops_the_log() {
    let mut entries = entries();
    let head = LogHead::new(sample::org());
    let head = head
        .sequence(vec![entries.next("a", 5, EntryType::Release)])
        .unwrap()
        .head;
    let back = head.sequence(vec![entries.next("b", 4, EntryType::Release)]);
    assert!(matches!(back, Err(SequenceError::EpochBackward { .. })));
    let other = LogHead::new(OrgId::from_bytes([0; 16]));
    let foreign = other.sequence(vec![entries.next("c", 5, EntryType::Release)]);
    assert!(matches!(foreign, Err(SequenceError::WrongOrg { .. })));
}

#[test]
fn bytes_that_are_no_entry_never_become_pending() {
    assert!(Pending::read(b"{}").is_err());
}

#[test]
fn a_writer_read_only_in_part_holds_back_later_epochs_of_the_others() {
    let taken = |more| -> Vec<(String, u64)> {
        let mut entries = Entries(BTreeMap::new());
        let mut chain = |writer, epochs: &[i64], more| {
            let read = epochs
                .iter()
                .map(|counter| entries.next(writer, *counter, EntryType::Release));
            waiting(writer, read.collect(), u64::from(more))
        };
        let chains = vec![chain("r1/hot", &[1, 1, 3], false), chain("r2/hot", &[1, 2], more)];
        in_reach(chains)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.writer, entry.seq))
            .collect()
    };
    assert_eq!(taken(false).len(), 5);
    let place = |writer: &str, seq| (writer.to_owned(), seq);
    let (one, two) = ("r1/hot", "r2/hot");
    assert_eq!(
        taken(true),
        [place(one, 1), place(one, 2), place(two, 1), place(two, 2)]
    );
    assert!(in_reach(Vec::new()).unwrap().is_empty());
}

/// What was read of a writer that has so many more.
fn waiting(writer: &str, entries: Vec<Pending>, more: u64) -> Waiting {
    let last = entries.last().unwrap();
    let end = ChainHead {
        seq: last.seq + more,
        hash: last.hash,
    };
    Waiting {
        writer: writer.to_owned(),
        entries,
        end,
    }
}

#[test]
fn a_last_entry_that_is_missing_or_another_one_stops_the_log() {
    let mut entries = Entries(BTreeMap::new());
    let read: Vec<Pending> = (0..3)
        .map(|_| entries.next("r1/cold", 1, EntryType::Revoke))
        .collect();
    assert_eq!(
        in_reach(vec![waiting("r1/cold", read.clone(), 0)]).unwrap().len(),
        3
    );

    let stopped = |change: &dyn Fn(&mut Waiting)| {
        let mut chain = waiting("r1/cold", read.clone(), 0);
        change(&mut chain);
        matches!(in_reach(vec![chain]), Err(SequenceError::End { writer, .. }) if writer == "r1/cold")
    };
    assert!(stopped(&|chain| chain.end.hash[0] ^= 1), "another one");
    assert!(stopped(&|chain| chain.end.seq -= 1), "one that nobody committed");
    assert!(stopped(&|chain| chain.entries.clear()), "nothing is left");
}
