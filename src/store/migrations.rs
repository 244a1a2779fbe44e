//! The schema's history, the same numbers in both dialects. A migration that was shipped is never edited.

use sqlx::migrate::{Migration, MigrationType, Migrator};

macro_rules! history {
    ($dialect:literal) => {
        [
            (
                "house",
                include_str!(concat!("../../migrations/", $dialect, "/0001_house.sql")),
            ),
            (
                "planner",
                include_str!(concat!("../../migrations/", $dialect, "/0002_planner.sql")),
            ),
            (
                "log",
                include_str!(concat!("../../migrations/", $dialect, "/0003_log.sql")),
            ),
            (
                "open",
                include_str!(concat!("../../migrations/", $dialect, "/0004_open.sql")),
            ),
            (
                "refresh",
                include_str!(concat!("../../migrations/", $dialect, "/0005_refresh.sql")),
            ),
            (
                "rules",
                include_str!(concat!("../../migrations/", $dialect, "/0006_rules.sql")),
            ),
            (
                "fan_out",
                include_str!(concat!("../../migrations/", $dialect, "/0007_fan_out.sql")),
            ),
            (
                "entries",
                include_str!(concat!("../../migrations/", $dialect, "/0008_entries.sql")),
            ),
            (
                "word",
                include_str!(concat!("../../migrations/", $dialect, "/0009_word.sql")),
            ),
            (
                "unfinished",
                include_str!(concat!("../../migrations/", $dialect, "/0010_unfinished.sql")),
            ),
            (
                "running",
                include_str!(concat!("../../migrations/", $dialect, "/0011_running.sql")),
            ),
            (
                "beside",
                include_str!(concat!("../../migrations/", $dialect, "/0012_beside.sql")),
            ),
            (
                "notices",
                include_str!(concat!("../../migrations/", $dialect, "/0013_notices.sql")),
            ),
            (
                "ahead",
                include_str!(concat!("../../migrations/", $dialect, "/0014_ahead.sql")),
            ),
            (
                "due",
                include_str!(concat!("../../migrations/", $dialect, "/0015_due.sql")),
            ),
            (
                "recovered",
                include_str!(concat!("../../migrations/", $dialect, "/0016_recovered.sql")),
            ),
            (
                "cosigned",
                include_str!(concat!("../../migrations/", $dialect, "/0017_cosigned.sql")),
            ),
            (
                "turns",
                include_str!(concat!("../../migrations/", $dialect, "/0018_turns.sql")),
            ),
            (
                "quarantined",
                include_str!(concat!("../../migrations/", $dialect, "/0019_quarantined.sql")),
            ),
            (
                "unset",
                include_str!(concat!("../../migrations/", $dialect, "/0020_unset.sql")),
            ),
        ]
    };
}

const SQLITE: [(&str, &str); 20] = history!("sqlite");
const POSTGRES: [(&str, &str); 20] = history!("postgres");

/// The number of the newest migration.
pub(super) const LATEST: i64 = 20;

pub(super) fn sqlite() -> Migrator {
    numbered(SQLITE)
}

pub(super) fn postgres() -> Migrator {
    numbered(POSTGRES)
}

fn numbered<const N: usize>(history: [(&'static str, &'static str); N]) -> Migrator {
    let migrations = history.into_iter().zip(1..).map(|((name, text), number)| {
        let text = sqlx::SqlStr::from_static(text);
        Migration::new(number, name.into(), MigrationType::Simple, text, false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_number_is_that_of_the_newest_migration() {
        assert_eq!(sqlite().iter().last().map(|newest| newest.version), Some(LATEST));
        assert_eq!(
            postgres().iter().last().map(|newest| newest.version),
            Some(LATEST)
        );
    }
}
