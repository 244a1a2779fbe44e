//! Going through a line of things to do page by page: what cannot be done stays in it, and keeps nobody from the ones behind.

use crate::domain::Randomness;

use super::Refusal;

/// Lets a line begin anywhere: whom one look does not come to for want of time or turns, another one does.
///
/// # Errors
/// When the generator fails.
pub fn begin_anywhere<T>(line: &mut [T], random: &dyn Randomness) -> Result<(), Refusal> {
    let mut dice = [0; 8];
    random.fill(&mut dice)?;
    let count = u64::try_from(line.len()).unwrap_or(u64::MAX).max(1);
    line.rotate_left(usize::try_from(u64::from_be_bytes(dice) % count).unwrap_or(0));
    Ok(())
}

/// How far a line was gone through, in the order of its keys.
#[derive(Debug)]
pub struct Walk<K>(Option<K>);

impl<K: Copy> Walk<K> {
    /// Behind whom the next page begins; `None`: with the first in the line.
    #[must_use]
    pub fn after(&self) -> Option<K> {
        self.0
    }

    /// Goes on behind a page, or back to the beginning after the last one: then `true`. A page that is not full is the last.
    pub fn passed(&mut self, page: &[K], full: u64) -> bool {
        let is_last = page.len() < usize::try_from(full).unwrap_or(usize::MAX);
        self.0 = if is_last { None } else { page.last().copied() };
        is_last
    }
}

impl<K> Default for Walk<K> {
    fn default() -> Self {
        Self(None)
    }
}
