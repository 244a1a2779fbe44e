//! What a revocation ended, once that is written down.

use std::time::Duration;

use postern::{domain::RevocationId, store::SelectorCounts};

use super::World;

impl World {
    /// What a revocation of the demo organisation ended. On a busy machine it is counted after the answer; `None`: nobody
    /// counts.
    pub async fn counted(&self, id: RevocationId) -> Option<SelectorCounts> {
        for _ in 0..1000 {
            let mut tx = self.deps.store.read(self.org).await.unwrap();
            let row = tx.revocation(self.org, id).await.unwrap().unwrap();
            drop(tx);
            if row.counts.is_some() {
                return row.counts;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }
}

/// What comes of a revocation in a world of its own, `None` if nobody counts what it ended. That is so where a machine is too
/// busy to show a revocation soon enough what it is about to end, and not in one world after the other.
pub async fn until_counted<T>(mut revoked: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3 {
        if let Some(counted) = revoked().await {
            return counted;
        }
    }
    panic!("nobody counts");
}
