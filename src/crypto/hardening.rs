//! What the process does to keep secrets out of core dumps, debuggers and swap.

use std::fmt;

use postern_kms::{KeyMemory, PlainKey};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use secrecy::ExposeSecret;

use super::CryptoError;

/// Whether keys may stay in memory that could be swapped out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Locking must work (`serve`).
    Required,
    /// Locking is tried (`dev`, or `keys.allow_unlocked`).
    Preferred,
}

/// What the start of the process found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardening {
    /// The core file size limit is zero.
    pub no_core_files: bool,
    /// The process cannot be dumped or attached to by its own user.
    pub not_dumpable: bool,
    /// Key memory can be locked.
    pub lockable: bool,
}

/// Turns off core dumps and attaching, and tries out locked memory. Call it before any key is opened.
#[must_use]
pub fn harden_process() -> Hardening {
    let zero = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Hardening {
        no_core_files: setrlimit(Resource::Core, zero).is_ok(),
        not_dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok(),
        lockable: memory_is_lockable(),
    }
}

fn memory_is_lockable() -> bool {
    Locked::new([0_u8; 32], Locking::Required).is_ok()
}

/// Keeps a KEK of a local adapter in locked memory; `None` when that fails.
#[must_use]
pub fn keep_locked(key: PlainKey) -> Option<Box<dyn KeyMemory>> {
    keep(&key, Locking::Required)
}

/// Keeps a KEK of a local adapter in locked memory if possible.
#[must_use]
pub fn keep_preferably_locked(key: PlainKey) -> Option<Box<dyn KeyMemory>> {
    keep(&key, Locking::Preferred)
}

fn keep(key: &PlainKey, locking: Locking) -> Option<Box<dyn KeyMemory>> {
    let mut kept = Locked::new([0_u8; 32], locking).ok()?;
    kept.expose_secret_mut().copy_from_slice(key.expose_secret());
    Some(Box::new(kept))
}

/// A value alone on pages of its own: locked into memory, left out of dumps, wiped when dropped.
///
/// Each takes at least one page of `RLIMIT_MEMLOCK` (8 MiB by default: 2,048 keys).
pub struct Locked<T: Send + Sync>(pages::Pages<T>);

impl<T: Send + Sync> Locked<T> {
    /// Moves `value` onto pages of its own. A key is put there as zeros and then filled in place.
    ///
    /// # Errors
    /// When there is no memory, or `locking` demands locked memory and the system refuses.
    pub fn new(value: T, locking: Locking) -> Result<Self, CryptoError> {
        let pages = pages::Pages::new(value).ok_or(CryptoError::Unlockable)?;
        if locking == Locking::Required && !pages.is_locked() {
            return Err(CryptoError::Unlockable);
        }
        Ok(Self(pages))
    }

    /// The value. SECURITY: copies made of it are the caller's to wipe.
    #[must_use]
    pub fn expose_secret(&self) -> &T {
        &self.0
    }

    /// The value, to be filled in place.
    pub fn expose_secret_mut(&mut self) -> &mut T {
        &mut self.0
    }

    /// Whether the pages are locked.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

impl<T: Send + Sync> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked([REDACTED])")
    }
}

impl KeyMemory for Locked<[u8; 32]> {
    fn expose_key(&self) -> &[u8; 32] {
        self.expose_secret()
    }
}

#[expect(
    unsafe_code,
    reason = "the one reviewed exception: memory of our own from mmap, which no safe interface can lock page by page"
)]
mod pages {
    //! One value on one private mapping.
    //!
    //! Why this is sound: `place` is the start of a fresh, private, writable mapping of at least `size_of::<T>()` bytes,
    //! aligned to a page, that nobody else knows; it holds a valid `T` from `new` to `drop`; it is unmapped once.

    use std::{
        mem::MaybeUninit,
        ops::{Deref, DerefMut},
        ptr::{self, NonNull},
        slice,
    };

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
    use zeroize::Zeroize;

    pub(super) struct Pages<T> {
        place: NonNull<T>,
        locked: bool,
    }

    impl<T> Pages<T> {
        const LENGTH: usize = {
            assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0);
            size_of::<T>()
        };

        pub(super) fn new(value: T) -> Option<Self> {
            // SAFETY: asks for a new mapping at an address of the system's choice; touches no memory of ours.
            let start = unsafe {
                mmap_anonymous(
                    ptr::null_mut(),
                    Self::LENGTH,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            };
            let place = NonNull::new(start.ok()?)?;
            // SAFETY: the range is the mapping made above; both calls leave its bytes as they are.
            let locked = unsafe {
                let undumped = madvise(place.as_ptr(), Self::LENGTH, Advice::LinuxDontDump);
                let resident = mlock(place.as_ptr(), Self::LENGTH);
                undumped.is_ok() && resident.is_ok()
            };
            let place = place.cast::<T>();
            // SAFETY: the mapping is writable, long enough, and aligned for `T` (checked in LENGTH).
            unsafe { place.write(value) };
            Some(Self { place, locked })
        }

        pub(super) fn is_locked(&self) -> bool {
            self.locked
        }
    }

    impl<T> Deref for Pages<T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: holds a valid `T`; borrowed for as long as `self` is.
            unsafe { self.place.as_ref() }
        }
    }

    impl<T> DerefMut for Pages<T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and `self` is borrowed alone.
            unsafe { self.place.as_mut() }
        }
    }

    impl<T> Drop for Pages<T> {
        fn drop(&mut self) {
            // SAFETY: the value is dropped once, never used again, and its bytes, whatever they are now, are overwritten
            // before the mapping is given back. Unmapping unlocks. A failing munmap leaks wiped pages.
            unsafe {
                ptr::drop_in_place(self.place.as_ptr());
                slice::from_raw_parts_mut(self.place.as_ptr().cast::<MaybeUninit<u8>>(), Self::LENGTH)
                    .zeroize();
                let _ = munmap(self.place.as_ptr().cast(), Self::LENGTH);
            }
        }
    }

    // SAFETY: `Pages` owns its value alone, as a `Box` does.
    unsafe impl<T: Send> Send for Pages<T> {}
    // SAFETY: as above; shared access gives `&T` only.
    unsafe impl<T: Sync> Sync for Pages<T> {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn locked_memory_is_counted_by_the_kernel() {
        let before = locked_kib();
        let held: Vec<_> = (0..64)
            .map(|_| Locked::new([7_u8; 32], Locking::Required).unwrap())
            .collect();
        let during = locked_kib();
        assert!(held.iter().all(Locked::is_locked));
        // Other tests lock and unlock beside this one; 64 pages stand out of their noise.
        assert!(during >= before.saturating_sub(64) + 128, "{before} → {during}");
    }

    #[test]
    fn a_locked_value_is_kept_filled_and_dropped() {
        let shared = Arc::new(());
        let mut locked = Locked::new((Arc::clone(&shared), [0_u8; 32]), Locking::Preferred).unwrap();
        locked.expose_secret_mut().1.fill(9);
        assert_eq!(locked.expose_secret().1, [9; 32]);
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(locked);
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn debug_output_shows_nothing() {
        let locked = Locked::new(*b"0123456789abcdef0123456789abcdef", Locking::Preferred).unwrap();
        assert_eq!(format!("{locked:?}"), "Locked([REDACTED])");
    }

    #[test]
    fn a_hardened_process_leaves_no_core_and_cannot_be_dumped() {
        let hardening = harden_process();
        assert!(hardening.no_core_files && hardening.not_dumpable);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            DumpableBehavior::NotDumpable
        );
    }

    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
