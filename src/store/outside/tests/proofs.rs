//! What an entry shows of a database that may have gone back, and what it does not.

use super::*;

fn entry(number: u8) -> EntryId {
    EntryId::from_bytes([number; 16])
}

fn sealed(why: &str) -> Line {
    let why = why.to_owned();
    line(1, 4, Fact::Sealed { why })
}

fn traces(kept: &Kept) -> Vec<(i64, EntryId)> {
    kept.traces().collect()
}

/// The database that it is sealed over has all of that, and counts as far as the one that is missing.
#[test]
fn what_is_written_while_an_org_is_sealed_shows_nothing_of_what_is_missing() {
    let before = [
        line(1, 9, Fact::Began),
        shown(7, 10, 1, moved("user", "u")),
        // Behind a move of another replica.
        shown(7, 12, 2, moved("user", "w")),
        sealed("older_database"),
    ];
    let meanwhile = [
        shown(7, 11, 3, moved("grant", "g")),
        shown(7, 12, 4, Fact::Wrote),
        shown(7, 13, 5, checkpoint(90)),
        // Others moved it there. Their own files know of it.
        shown(7, 15, 6, Fact::Wrote),
    ];
    let kept = folded(before.into_iter().chain(meanwhile));
    let again = folded(kept.lines(org(1)));
    for kept in [&kept, &again] {
        assert_eq!(traces(kept), [(10, entry(1)), (12, entry(2))]);
        assert_eq!(kept.last_entries().next(), Some(entry(2)));
        assert_eq!(kept.moved[&anything()], 11);
        assert_eq!(kept.checkpoint, None);
        // What it ended is ended again, and a recovery begins behind all of it.
        assert_eq!(kept.moved[&("grant".to_owned(), "g".to_owned())], 11);
        assert_eq!(kept.epoch.counter, 15);
    }
}

/// Nothing is missing in what nobody knew. Whoever vouches for it ends nothing that it has.
#[test]
fn a_stranger_is_known_by_what_is_written_since() {
    let kept = folded([sealed(NO_OUTSIDE_CHECKPOINT), shown(7, 5, 5, moved("grant", "g"))]);
    assert_eq!(traces(&kept), [(5, entry(5))]);
}

/// A line without an entry brings the epoch on. The last entry that is known is of the one before.
#[test]
fn an_entry_is_of_its_own_epoch_also_once_the_file_was_compacted() {
    for later in [moved("all", ""), checkpoint(9)] {
        let kept = folded([
            line(1, 1, Fact::Began),
            shown(7, 2, 2, moved("user", "u")),
            shown(7, 2, 3, Fact::Wrote),
            line(1, 3, later),
        ]);
        let again = folded(kept.lines(org(1)));
        assert_eq!(traces(&again), [(2, entry(2))]);
        assert_eq!(again.last_entries().next(), Some(entry(3)));
        assert_eq!(again, kept);
    }
}

/// Else numbers alone would say of a database that has gone back whether it has that move.
#[test]
fn what_shows_the_state_before_a_move_outlives_compaction() {
    let kept = folded([
        line(1, 9, Fact::Began),
        shown(7, 9, 1, Fact::Wrote),
        line(1, 10, Fact::Began),
        shown(7, 10, 2, Fact::Wrote),
        shown(7, 12, 3, moved("user", "w")),
    ]);
    assert_eq!(kept.moved[&anything()], 11);
    let again = folded(kept.lines(org(1)));
    assert_eq!(traces(&again), [(10, entry(2)), (12, entry(3))]);
}
