//! What stays in memory, and in the file, while the disk takes nothing.

use super::*;

fn wrote(counter: i64, entry: u8) -> Line {
    shown(7, counter, entry, Fact::Wrote)
}

#[test]
fn what_a_full_disk_does_not_take_stays_small_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    let began = line(1, 1, Fact::Began);
    write(&outside, vec![began.clone()]);
    let mut lines = Vec::new();
    for counter in 2_i64..30 {
        lines.push(shown(7, counter, 1, moved("grant", &counter.to_string())));
        for size in 0..1_000 {
            let size = counter.unsigned_abs() * 1_000 + size;
            lines.push(wrote(counter, 2));
            lines.push(shown(7, counter, 3, checkpoint(size)));
        }
    }
    // One that another replica signed before, and is heard of late.
    lines.extend([shown(7, 29, 4, checkpoint(5)), wrote(29, 5)]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let whole = std::mem::replace(&mut held(&outside.file).file, full);
    for some in lines.chunks(4_000) {
        outside.add(some.to_vec());
        outside.flush_now().unwrap_err();
        let waiting = held(&outside.waiting).len();
        assert!(waiting <= COMPACT_AFTER, "{waiting}");
    }
    held(&outside.file).file = whole;
    outside.flush_now().unwrap();
    let said = folded(std::iter::once(began).chain(lines));
    assert_eq!(outside.kept().unwrap()[&org(1)], said);
    assert_eq!(outside.knows(org(1)), Some(said.heard()));
}

#[test]
fn no_line_that_waits_is_put_behind_one_that_changes_what_it_says() {
    let sealed = Fact::Sealed {
        why: "older_database".to_owned(),
    };
    let mut lines = vec![line(1, 1, Fact::Began)];
    lines.extend((0..COMPACT_AFTER).map(|_| wrote(1, 2)));
    lines.push(line(1, 1, sealed));
    lines.extend((0..COMPACT_AFTER).map(|_| wrote(1, 3)));
    let mut waiting = Waiting::default();
    waiting.add(lines.clone());
    let few = waiting.take();
    assert_eq!(few.len(), 4);
    assert_eq!(folded(few), folded(lines));
}

/// What is in the file is in the file.
#[test]
fn lines_are_written_though_the_file_cannot_be_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    let blocked = dir.path().join("checkpoints.new");
    std::fs::create_dir(&blocked).unwrap();
    let mut size = 0;
    let mut write_some = || {
        let lines = (0..6_000).map(|at| line(1, 1, checkpoint(size + at))).collect();
        size += 6_000;
        write(&outside, lines);
        std::fs::read_to_string(file(&dir)).unwrap().lines().count()
    };
    assert_eq!(write_some(), 6_000);
    // It would be compacted now; nor does it try again with every line.
    assert_eq!(write_some(), 12_000);
    std::fs::remove_dir(blocked).unwrap();
    assert_eq!(write_some(), 18_000);
    assert!(write_some() < 10, "as soon as it is long enough again");
    assert_eq!(outside.kept().unwrap()[&org(1)].size, 23_999);
}
