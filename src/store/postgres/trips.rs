//! The round trips of one connection, none of which is waited for without end. The server ends its own statements, as long
//! as there is one: a host that is gone says nothing, and TCP waits for it for a quarter of an hour, or for ever.

use std::{future::Future, io, time::Duration};

use super::super::StoreError;

/// How long the server may say nothing on a connection.
#[derive(Debug)]
pub(super) struct Trips {
    /// For a statement; `None`: as long as it takes, the commit included.
    limit: Option<Duration>,
    /// INVARIANT: after a round trip that was given up nobody knows what the server did and what it says next. Nothing
    /// more is sent on this connection, a commit least of all, and it goes back to no pool.
    given_up: bool,
}

impl Default for Trips {
    fn default() -> Self {
        Self {
            limit: Some(STATEMENT + MARGIN),
            given_up: false,
        }
    }
}

impl Trips {
    /// Waits for an answer.
    pub(super) async fn wait<T>(
        &mut self,
        trip: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        self.within(self.limit, trip).await.map_err(StoreError::from)
    }

    /// Waits for the answer to a commit. One that is given up may be done, or be done later, unless it was not even sent.
    pub(super) async fn wait_for_commit<T>(
        &mut self,
        trip: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let is_sent = !self.given_up;
        let answered = self.within(self.limit.map(|_| COMMIT), trip).await;
        answered.map_err(|error| {
            if is_sent {
                StoreError::of_commit(error)
            } else {
                error.into()
            }
        })
    }

    async fn within<T>(
        &mut self,
        limit: Option<Duration>,
        trip: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        if self.given_up {
            return Err(silent());
        }
        let Some(limit) = limit else {
            return trip.await;
        };
        match tokio::time::timeout(limit, trip).await {
            Ok(answered) => answered,
            Err(_) => {
                self.given_up = true;
                Err(silent())
            }
        }
    }

    /// The server has other limits from now on.
    pub(super) fn allow(&mut self, each: Duration) {
        self.limit = Some(each + MARGIN);
    }

    /// The server has no limits any more.
    pub(super) fn allow_any(&mut self) {
        self.limit = None;
    }

    /// Whether one was given up.
    pub(super) fn are_given_up(&self) -> bool {
        self.given_up
    }
}

/// As if the connection had broken.
fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        "the database says nothing",
    ))
}

/// The server's own limit for a statement.
pub(super) const STATEMENT: Duration = Duration::from_secs(10);
/// A server that is there says so itself before this has passed as well.
const MARGIN: Duration = Duration::from_secs(2);
/// For a commit: its replicas may take their time. The server goes on with it, whoever waits.
const COMMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn only_a_commit_that_was_sent_is_undecided() {
        let lost = || future::ready(Err::<(), _>(silent()));
        let mut trips = Trips::default();
        let told = trips.wait(lost()).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
        let told = trips.wait_for_commit(lost()).await;
        assert!(matches!(told, Err(StoreError::Undecided(_))), "{told:?}");

        trips.limit = Some(Duration::ZERO);
        let told = trips.wait(future::pending::<Result<(), _>>()).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
        assert!(trips.are_given_up());
        let told = trips.wait_for_commit(future::ready(Ok(()))).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    }
}
