//! Whether the database still has what this process knows to have been in it, asked also when nobody asks for anything. What
//! is found is what other replicas hear.

use std::sync::PoisonError;

use super::{Journal, Newest};
use crate::{
    domain::{EntryId, OrgId, entry::Epoch},
    store::{Store, StoreError, Word, sql::params},
};

impl Store {
    /// What this process has found out about its database itself.
    pub(in crate::store) fn found(&self) -> Word {
        if self.has_lost_entries() {
            return Word::Bad;
        }
        let sealed = self.vigil.sealed();
        // Who releases nothing vouches for nothing, though it is for others to say why; nor does who has yet to compare.
        let told = self.vigil.is_told().then_some(Word::Torn);
        let unsettled = (!sealed.unsettled.is_empty()).then_some(Word::Unsaid);
        let of_orgs = sealed.orgs.values().copied();
        let said: Vec<Word> = of_orgs.chain(told).chain(unsettled).collect();
        Word::worst(&said).unwrap_or(Word::Good)
    }

    /// From here on, an org that is known outside is not looked for: the database did not have it at the start. One that is
    /// gone later is.
    pub fn found_absent(&self, org: OrgId) {
        let mut absent = self.vigil.absent.write().unwrap_or_else(PoisonError::into_inner);
        absent.insert(org);
    }

    /// Looks whether the database has the last entry that each of its writers wrote, under its number, and the newest one of
    /// which this process has heard, so that an idle replica notices too.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if one is missing, now or at an earlier look; when the database is unavailable; or, after all else
    /// was looked for, when a row cannot be read.
    pub async fn look_for_lost_entries(&self) -> Result<(), StoreError> {
        if self.has_lost_entries() {
            return Err(StoreError::Lost);
        }
        let mut all_read = Ok(());
        for (writer, newest) in self.vigil.newest() {
            match self.look_for_what_was_written(&writer, newest).await {
                // It hides nothing of the others.
                Err(error) if error.is_damage() => all_read = Err(error),
                looked => looked?,
            }
        }
        self.look_for_what_was_heard().await.and(all_read)
    }

    async fn look_for_what_was_written(&self, writer: &str, newest: Newest) -> Result<(), StoreError> {
        let journal = Journal::new(&self.vigil, writer, &[newest.org]);
        // Among the workers: the lease hangs on it, and may not wait in an org's share.
        let mut tx = self.read_orgs(&[newest.org]).await?;
        tx.journal = Some(journal);
        let row = tx
            .row(
                "SELECT seq, (SELECT id FROM entries WHERE org_id = $1 AND writer = $2 AND writer_seq = $3)
                 FROM writers WHERE org_id = $1 AND writer = $2",
                params![newest.org, writer, newest.seq],
            )
            .await?;
        let (number, entry) = match row {
            Some(row) => {
                let mut fields = row.fields("writers");
                (fields.count()?, fields.opt_parse::<EntryId>()?)
            }
            None => (0, None),
        };
        tx.expect_number(newest.org, number)?;
        tx.expect(|_| entry == Some(newest.entry))
    }

    /// What others wrote is there or not as well. An older database that lacks anything of which this process has heard lacks
    /// the newest of it, but for what was committed at about that moment: ids are of the clock of whoever made them, before
    /// the commit. Of that, what moved an epoch or was signed is found within half a minute (`seal::keep_up`); the rest is
    /// missed by whoever wrote it.
    async fn look_for_what_was_heard(&self) -> Result<(), StoreError> {
        let Some((org, epoch, entry)) = self.newest_heard() else {
            return Ok(());
        };
        let mut tx = self.read_orgs(&[org]).await?;
        if tx.has_entry(org, entry).await? {
            return Ok(());
        }
        let found = tx.epoch(org).await?;
        if found.is_some_and(|found| found.incarnation != epoch.incarnation) {
            // It may be missing because a recovery has given it up. Whoever compares finds out.
            self.vigil.sealed_now().unsettled.insert(org);
            return Ok(());
        }
        Err(self.found_older(org, &"an entry is missing that was known to be there"))
    }

    /// But for orgs that are held back, which are known to differ or are yet to be compared, and for those that were absent at
    /// the start.
    fn newest_heard(&self) -> Option<(OrgId, Epoch, EntryId)> {
        // Until it has compared, every org is yet to be.
        if !self.has_compared() {
            return None;
        }
        let sealed = self.vigil.sealed();
        let absent = self.vigil.absent.read().unwrap_or_else(PoisonError::into_inner);
        let is_left_out = |org: OrgId| sealed.holds_back(org) || absent.contains(&org);
        self.vigil.outside()?.newest(is_left_out)
    }
}
