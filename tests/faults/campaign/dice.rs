//! Chance that can be had again: everything a run decides follows from one number.

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// From `POSTERN_FAULTS_SEED`, or from the clock.
    pub(crate) fn cast() -> (Self, u64) {
        #[expect(
            clippy::disallowed_methods,
            reason = "no two runs without a seed are to be the same"
        )]
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .subsec_nanos();
        let given = std::env::var("POSTERN_FAULTS_SEED").ok();
        let seed = given.map_or(now.into(), |text| {
            text.parse().expect("POSTERN_FAULTS_SEED is no number")
        });
        (Self(seed), seed)
    }

    /// Dice of its own for somebody.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// From 0 to `end`, without it.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    /// Puts a list into another order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.index(last + 1));
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
