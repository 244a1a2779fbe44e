//! `postern copy-database`: a whole database into another one, of either kind.

use std::sync::Arc;

use super::{AppError, clock::SystemClock, serve::location};
use crate::{
    config::Database,
    crypto::OsRandomness,
    store::{Copying, Report, TableCount, TimeSource, Told},
};

/// What there is to copy; changes nothing.
///
/// # Errors
/// When a database cannot be opened or is in use, or copying would be refused.
pub async fn survey(from: &Database, to: &Database) -> Result<Vec<TableCount>, AppError> {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandomness::new()));
    Ok(Copying::survey(
        &location(from)?,
        &location(to)?,
        clock,
        TimeSource::Database,
        random,
    )
    .await?)
}

/// Copies, compares and hands over. One that was stopped goes on where it was when it is run again.
///
/// # Errors
/// When a database cannot be opened or is in use, copying is refused, or the copy is not the same in the end.
pub async fn run(from: &Database, to: &Database, told: Told<'_>) -> Result<Report, AppError> {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandomness::new()));
    let copying = Copying::open(
        &location(from)?,
        &location(to)?,
        clock,
        TimeSource::Database,
        random,
    )
    .await?;
    Ok(copying.run(told).await?)
}
