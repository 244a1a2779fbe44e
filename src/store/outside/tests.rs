use std::{
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use super::*;
use crate::domain::{EntryId, entry::Epoch};

mod full_disk;
mod hung;
mod moved_away;
mod proofs;

fn org(number: u8) -> OrgId {
    OrgId::from_bytes([number; 16])
}

fn line(number: u8, counter: i64, fact: Fact) -> Line {
    let epoch = Epoch {
        incarnation: 7,
        counter,
    };
    Line {
        org: org(number),
        epoch,
        entry: None,
        fact,
    }
}

/// As this version writes it: with an entry of its own, in the incarnation of that number.
fn shown(incarnation: u32, counter: i64, entry: u8, fact: Fact) -> Line {
    Line {
        epoch: Epoch { incarnation, counter },
        entry: Some(EntryId::from_bytes([entry; 16])),
        ..line(1, counter, fact)
    }
}

fn folded(lines: impl IntoIterator<Item = Line>) -> Kept {
    let mut kept = BTreeMap::new();
    for line in lines {
        hear(&mut kept, line);
    }
    kept.remove(&org(1)).unwrap()
}

fn checkpoint(size: u64) -> Fact {
    Fact::Checkpoint {
        size,
        note: format!("note of {size}"),
    }
}

fn moved(kind: &str, id: &str) -> Fact {
    Fact::Moved {
        kind: kind.to_owned(),
        id: id.to_owned(),
    }
}

fn write(outside: &Outside, lines: Vec<Line>) {
    outside.add(lines);
    outside.flush_now().unwrap();
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("checkpoints.jsonl")
}

/// Released, it is there for whoever opens it next, with what it said of the first org.
async fn released(outside: &Arc<Outside>, dir: &tempfile::TempDir) {
    outside.release().await;
    let kept = Outside::open(dir.path()).unwrap().kept().unwrap();
    assert!(kept.contains_key(&org(1)));
}

#[tokio::test]
async fn orgs_are_adopted_all_or_none_and_never_over_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    write(&outside, vec![line(3, 7, checkpoint(5))]);
    // As on a full disk: nothing new can be put in the file's place.
    let blocked = dir.path().join("checkpoints.new");
    std::fs::create_dir(&blocked).unwrap();
    let known = || {
        vec![
            line(1, 4, checkpoint(9)),
            line(2, 1, Fact::Began),
            line(3, 6, checkpoint(4)),
        ]
    };
    outside.adopt(known()).await.unwrap_err();
    assert_eq!(outside.kept().unwrap().len(), 1);
    assert_eq!(
        (outside.knows(org(1)), outside.knows(org(3)).unwrap().size),
        (None, 5)
    );
    std::fs::remove_dir(blocked).unwrap();
    outside.adopt(known()).await.unwrap();
    write(&outside, vec![line(2, 2, checkpoint(3))]);
    let kept = outside.kept().unwrap();
    let said = [1, 2, 3].map(|number| {
        let kept = &kept[&org(number)];
        assert_eq!(outside.knows(org(number)), Some(kept.heard()));
        (kept.size, kept.epoch.counter)
    });
    assert_eq!(said, [(9, 4), (3, 2), (5, 7)]);
}

#[test]
fn what_was_flushed_is_there_after_opening_again_and_only_its_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(&outside, vec![line(1, 1, Fact::Began), line(1, 1, checkpoint(3))]);
    write(
        &outside,
        vec![
            line(1, 2, moved("grant", "g")),
            line(1, 2, checkpoint(5)),
            line(2, 1, Fact::Began),
        ],
    );
    drop(outside);
    let kept = Outside::open(dir.path()).unwrap().kept().unwrap();
    let one = &kept[&org(1)];
    assert_eq!(
        (one.checkpoint.as_deref(), one.epoch.counter),
        (Some("note of 5"), 2)
    );
    assert_eq!(one.moved, [(("grant".to_owned(), "g".to_owned()), 2)].into());
    assert_eq!(kept[&org(2)].checkpoint, None);
    let mode = std::fs::metadata(file(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn nobody_else_opens_it_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    let refused = Outside::open(dir.path());
    assert!(matches!(refused, Err(OutsideError::InUse { .. })), "{refused:?}");
    // It is still this one's file that the name leads to.
    write(&outside, vec![line(1, 1, checkpoint(3))]);
    assert_eq!(std::fs::read_to_string(file(&dir)).unwrap().lines().count(), 1);
    released(&outside, &dir).await;
}

#[test]
fn half_a_last_line_is_forgotten_and_never_spoils_the_next() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &Outside::open(dir.path()).unwrap(),
        vec![line(1, 1, checkpoint(3))],
    );
    let whole = std::fs::read(file(&dir)).unwrap();
    for cut in 1..whole.len() {
        std::fs::write(file(&dir), [&whole[..], &whole[..cut]].concat()).unwrap();
        let outside = Outside::open(dir.path()).unwrap();
        write(&outside, vec![line(1, 2, checkpoint(4))]);
        assert_eq!(
            outside.kept().unwrap()[&org(1)].checkpoint.as_deref(),
            Some("note of 4"),
            "{cut}"
        );
    }
}

#[test]
fn a_damaged_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &Outside::open(dir.path()).unwrap(),
        vec![line(1, 1, checkpoint(3)), line(1, 1, checkpoint(4))],
    );
    let text = std::fs::read_to_string(file(&dir)).unwrap();
    std::fs::write(file(&dir), format!("{text}{{}}\n{text}")).unwrap();
    let error = Outside::open(dir.path()).unwrap_err();
    assert!(matches!(error, OutsideError::Damaged { line: 3, .. }), "{error}");
}

#[test]
fn a_file_that_is_written_for_ever_stays_small_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(&outside, vec![line(1, 1, moved("user", "u"))]);
    for round in 0..30 {
        let lines = (0..1_000).map(|size| line(1, 1, checkpoint(round * 1_000 + size)));
        write(&outside, lines.collect());
    }
    let lines = std::fs::read_to_string(file(&dir)).unwrap().lines().count();
    assert!(lines < 2 * COMPACT_AFTER, "{lines}");
    let kept = &outside.kept().unwrap()[&org(1)];
    assert_eq!(kept.checkpoint.as_deref(), Some("note of 29999"));
    assert_eq!(kept.moved.len(), 1);
}

#[test]
fn too_many_moves_are_folded_into_one_that_counts_against_everything() {
    let mut kept = Kept::new(line(1, 0, Fact::Began).epoch);
    for counter in 1..=5_000 {
        kept.hear(line(1, counter, moved("grant", &counter.to_string())));
        assert!(kept.moved.len() <= MOST_MOVES + 1);
    }
    let all = kept.moved[&("all".to_owned(), String::new())];
    for counter in 1..=5_000 {
        let known = kept.moved.get(&("grant".to_owned(), counter.to_string()));
        assert!(
            all >= counter || known == Some(&counter),
            "{counter} is forgotten"
        );
    }
}

#[test]
fn a_recovery_ends_the_old_history_and_keeps_what_was_ended() {
    let mut kept = Kept::new(line(1, 1, Fact::Began).epoch);
    for one in [
        line(1, 3, moved("grant", "g")),
        line(1, 3, checkpoint(9)),
        line(1, 4, Fact::Recovered),
    ] {
        kept.hear(one);
    }
    assert_eq!(
        (kept.checkpoint.clone(), kept.epoch.counter, kept.moved.len()),
        (None, 4, 1)
    );
    kept.hear(line(1, 4, checkpoint(2)));
    assert_eq!(kept.checkpoint.as_deref(), Some("note of 2"));
}

#[test]
fn what_a_full_disk_took_a_part_of_is_written_anew_without_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(&outside, vec![line(1, 1, moved("user", "usr_1"))]);
    // As it is left where not even cutting it off succeeded.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut whole = std::mem::replace(&mut held(&outside.file).file, full);
    whole.seek(SeekFrom::End(0)).unwrap();
    whole.write_all(&[b'{'; 500]).unwrap();
    outside.add([line(1, 2, moved("user", "usr_2"))]);
    outside.flush_now().unwrap_err();
    held(&outside.file).file = whole;
    write(&outside, vec![line(1, 3, moved("user", "usr_3"))]);
    let text = std::fs::read(file(&dir)).unwrap();
    assert!(!text.contains(&0), "a hole");
    assert_eq!(outside.kept().unwrap()[&org(1)].moved.len(), 3);
}

#[test]
fn a_checkpoint_that_is_written_late_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(
        &outside,
        vec![line(1, 1, checkpoint(120)), line(1, 1, checkpoint(110))],
    );
    assert_eq!(outside.kept().unwrap()[&org(1)].size, 120);
    drop(outside);
    let again = Outside::open(dir.path()).unwrap();
    assert_eq!(again.knows(org(1)).unwrap().size, 120);
    // A recovery begins another history.
    write(
        &again,
        vec![line(1, 2, Fact::Recovered), line(1, 2, checkpoint(7))],
    );
    assert_eq!(again.kept().unwrap()[&org(1)].size, 7);
}

/// Of a move that another replica made only its number is heard: in a signed head, in an entry of that epoch, or as a number
/// that is left out.
#[test]
fn a_move_that_nobody_told_of_counts_as_having_ended_anything() {
    let first = shown(7, 3, 3, moved("grant", "g"));
    for (later, up_to) in [(checkpoint(9), 5), (Fact::Wrote, 5), (moved("grant", "h"), 4)] {
        let kept = folded([line(1, 2, Fact::Began), first.clone(), shown(7, 5, 5, later)]);
        assert_eq!(kept.moved.get(&anything()), Some(&up_to), "{kept:?}");
    }
    // Nothing is left out between what this process moved itself.
    let kept = folded([
        line(1, 2, Fact::Began),
        first,
        shown(7, 3, 4, checkpoint(9)),
        shown(7, 4, 5, moved("grant", "h")),
    ]);
    assert_eq!(kept.moved.get(&anything()), None, "{kept:?}");
    // Nor is anything known of what was before the first line.
    let kept = folded([shown(7, 5, 5, checkpoint(9))]);
    assert_eq!(kept.moved.get(&anything()), Some(&5), "{kept:?}");
}

#[test]
fn a_file_that_was_compacted_says_what_it_said_before() {
    let entry = |number| EntryId::from_bytes([number; 16]);
    let kept = folded([
        line(1, 1, Fact::Began),
        shown(7, 2, 2, moved("user", "u")),
        shown(7, 3, 3, moved("agent", "a")),
        shown(7, 3, 4, Fact::Wrote),
        shown(7, 4, 5, moved("user", "u")),
        shown(7, 4, 6, checkpoint(9)),
        shown(7, 6, 7, moved("grant", "g")),
        shown(7, 6, 8, Fact::Wrote),
        line(
            1,
            6,
            Fact::Sealed {
                why: "older_database".to_owned(),
            },
        ),
    ]);
    let again = folded(kept.lines(org(1)));
    assert_eq!(again.lines(org(1)), kept.lines(org(1)));
    assert_eq!((&again.moved, &again.sealed), (&kept.moved, &kept.sealed));
    assert_eq!(again.heard(), kept.heard());
    assert_eq!(again.checkpoint, kept.checkpoint);
    assert_eq!(again.last_entries().next(), Some(entry(8)), "the newest");
    let traces: Vec<_> = again.traces().collect();
    assert_eq!(
        traces,
        [(2, entry(2)), (3, entry(3)), (4, entry(5)), (6, entry(7))]
    );
}

#[test]
fn an_org_is_sealed_until_a_recovery_whatever_is_written_meanwhile() {
    let sealed = |why: &str| {
        let why = why.to_owned();
        line(1, 0, Fact::Sealed { why })
    };
    let mut kept = folded([
        line(1, 1, Fact::Began),
        shown(7, 2, 2, moved("grant", "g")),
        sealed("lost_entries"),
        sealed("older_database"),
        shown(7, 3, 3, moved("grant", "h")),
        shown(7, 3, 4, checkpoint(9)),
    ]);
    assert_eq!(kept.sealed.as_deref(), Some("lost_entries"), "the first reason");
    assert_eq!(kept.epoch.counter, 3);
    kept.hear(shown(8, 5, 5, Fact::Recovered));
    assert_eq!((kept.sealed.clone(), kept.checkpoint.clone()), (None, None));
    // What was ended again then is there where the recovery is.
    assert_eq!(
        kept.traces().collect::<Vec<_>>(),
        [(5, EntryId::from_bytes([5; 16]))]
    );
}

/// Its numbers are those of another history, however large: nobody has compared them yet.
#[test]
fn what_another_incarnation_says_is_not_taken_for_what_is_known() {
    let before = [line(1, 1, Fact::Began), shown(7, 2, 2, moved("grant", "g"))];
    let foreign = [
        shown(8, 9, 9, checkpoint(90)),
        shown(8, 9, 9, Fact::Wrote),
        shown(8, 10, 10, moved("grant", "h")),
    ];
    let mut kept = folded(before.clone().into_iter().chain(foreign));
    assert_eq!(kept.heard(), folded(before).heard());
    assert_eq!(kept.checkpoint, None);
    assert_eq!(kept.moved[&("grant".to_owned(), "h".to_owned())], 10);
    assert_eq!(kept.traces().count(), 1);
    // A recovery elsewhere may go on behind fewer epochs than are known here.
    kept.hear(shown(8, 2, 12, Fact::Recovered));
    assert!(kept.moved.values().all(|counter| *counter == 2), "{kept:?}");
    kept.hear(shown(8, 2, 13, checkpoint(5)));
    assert_eq!(kept.heard().reached(), Reached { counter: 2, size: 5 });
}

#[test]
fn a_process_that_lost_its_database_seals_every_org_it_knows_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    write(&outside, vec![line(1, 3, checkpoint(5)), line(2, 1, Fact::Began)]);
    outside.seal_all("lost_entries");
    // It died in that moment.
    drop(outside);
    let kept = Outside::open(dir.path()).unwrap().kept().unwrap();
    assert_eq!(kept.len(), 2);
    for kept in kept.values() {
        assert_eq!(kept.sealed.as_deref(), Some("lost_entries"));
        assert!(!kept.is_stranger());
    }
}

#[tokio::test]
async fn an_org_that_is_sealed_for_want_of_a_record_is_adopted_on_others_word_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    let sealed = |number, why: &str| {
        let why = why.to_owned();
        line(number, 4, Fact::Sealed { why })
    };
    write(
        &outside,
        vec![sealed(1, "no_outside_checkpoint"), sealed(2, "older_database")],
    );
    let others = vec![line(1, 6, checkpoint(9)), line(2, 6, checkpoint(9))];
    outside.adopt(others).await.unwrap();
    let kept = outside.kept().unwrap();
    assert_eq!((&kept[&org(1)].sealed, kept[&org(1)].size), (&None, 9));
    assert!(kept[&org(2)].sealed.is_some() && kept[&org(2)].size == 0);
}

/// What the process adds while it adopts an org comes behind that in the file, and is not forgotten before.
#[tokio::test]
async fn what_is_known_of_an_org_that_is_adopted_never_falls_behind_what_was_added() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    outside.add([line(1, 7, moved("grant", "g"))]);
    outside.adopt(vec![line(1, 6, checkpoint(9))]).await.unwrap();
    let reached = Reached { counter: 7, size: 9 };
    assert_eq!(outside.knows(org(1)).map(Heard::reached), Some(reached));
    outside.flush().await.unwrap();
    assert_eq!(outside.kept().unwrap()[&org(1)].heard().reached(), reached);
}

/// Also where both are of one epoch.
#[tokio::test]
async fn the_newest_entry_of_an_org_that_is_adopted_is_the_newest_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    outside.add([shown(7, 5, 9, Fact::Wrote)]);
    outside.adopt(vec![shown(7, 5, 4, checkpoint(9))]).await.unwrap();
    let newest = outside.newest(|_| false).map(|(_, _, entry)| entry);
    assert_eq!(newest, Some(EntryId::from_bytes([9; 16])));
}

#[test]
fn a_file_of_the_program_before_is_read_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = Epoch {
        incarnation: 7,
        counter: 4,
    };
    let org = org(1);
    // In the order in which that program compacted it.
    let text = format!(
        "{{\"org\":\"{org}\",\"epoch\":\"00000007:2\",\"fact\":{{\"moved\":{{\"kind\":\"grant\",\"id\":\"g\"}}}}}}\n\
         {{\"org\":\"{org}\",\"epoch\":\"{epoch}\",\"fact\":{{\"moved\":{{\"kind\":\"user\",\"id\":\"u\"}}}}}}\n\
         {{\"org\":\"{org}\",\"epoch\":\"{epoch}\",\"fact\":{{\"checkpoint\":{{\"size\":9,\"note\":\"note of 9\"}}}}}}\n"
    );
    std::fs::write(file(&dir), text).unwrap();
    let kept = Outside::open(dir.path()).unwrap().kept().unwrap();
    let kept = &kept[&org];
    assert_eq!(kept.moved.len(), 2, "nothing was unheard");
    assert_eq!((kept.epoch, kept.size), (epoch, 9));
    assert_eq!((kept.traces().count(), kept.last_entries().count()), (0, 0));
}

/// Clocks are not quite the same: an entry of a later epoch may have an earlier id.
#[test]
fn the_newest_entry_is_of_the_highest_epoch_and_of_no_other_history() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(&outside, vec![line(1, 1, Fact::Began)]);
    assert_eq!(outside.newest(|_| false), None);
    for (heard, newest) in [
        (shown(7, 2, 8, Fact::Wrote), 8),
        (shown(7, 2, 9, Fact::Wrote), 9),
        (shown(7, 2, 7, Fact::Wrote), 9),
        (shown(7, 3, 4, moved("grant", "g")), 4),
        (shown(8, 5, 12, Fact::Wrote), 4),
        (shown(8, 4, 3, Fact::Recovered), 3),
    ] {
        write(&outside, vec![heard]);
        let found = outside.newest(|_| false).map(|(_, _, entry)| entry);
        assert_eq!(found, Some(EntryId::from_bytes([newest; 16])));
    }
    let before = outside.newest(|_| false);
    assert_eq!(outside.newest(|left_out| left_out == org(1)), None);
    drop(outside);
    let again = Outside::open(dir.path()).unwrap();
    assert_eq!(again.newest(|_| false), before);
}
