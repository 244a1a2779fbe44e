//! The org's entries, as the database has them.

use std::collections::HashMap;

use postern::{
    domain::{
        EntryId, GrantId,
        clock::Time,
        entry::{Entry, EntryType},
    },
    flows::audit,
    store::EntryFilter,
};

use super::World;

impl World {
    /// The newest entries, newest first.
    pub async fn entries(&self) -> Vec<Entry> {
        let entries = audit::entries(&self.deps, self.org, &page()).await.unwrap();
        entries.into_iter().map(|(entry, _)| entry).collect()
    }

    /// The grant's releases that are durable, and under which epoch each was judged; all since then. They are read without what
    /// is sealed beside them: to open that takes longer than a whole race.
    pub async fn releases(&self, grant: GrantId, since: Time) -> HashMap<EntryId, i64> {
        let (mut page, mut releases) = (page(), HashMap::new());
        let mut tx = self.deps.store.read(self.org).await.unwrap();
        loop {
            let rows = tx.entries(self.org, &page).await.unwrap();
            let entries: Vec<Entry> = rows
                .iter()
                .map(|row| serde_json::from_str(&row.bytes).unwrap())
                .collect();
            let ours = entries
                .iter()
                .filter(|entry| entry.kind == EntryType::Release && entry.draft.grant == Some(grant));
            releases.extend(ours.map(|entry| (entry.id, entry.epoch.counter)));
            match entries.last() {
                Some(last) if last.ts >= since => page.after = Some(last.id),
                _ => return releases,
            }
        }
    }
}

fn page() -> EntryFilter {
    EntryFilter {
        limit: 500,
        ..EntryFilter::default()
    }
}
