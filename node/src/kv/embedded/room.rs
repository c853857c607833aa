//! Whether the disk has room for another commit.
//!
//! The engine cannot go on after a write that failed, so that writes are refused before the disk is full. What stays free is for
//! the commits that are on their way, and for sorting what was written lately into tables.

use std::path::Path;

use super::engine::MEMTABLE_BYTES;

/// Most bytes that have to be free for a commit: enough to write out both halves of what is in memory, and to merge tables.
const FREE_BYTES_MAX: u64 = 128 << 20;
/// Of a small disk this part has to be free.
const FREE_PART: u64 = 16;
/// Least bytes that have to be free: groups of commits that make links are smaller.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// Of a small disk this part has to be free for the engine to be opened again.
const REOPEN_PART: u64 = 4;
/// What writing out what is in memory takes at most.
const FLUSH_BYTES: u64 = 2 * MEMTABLE_BYTES;

/// The space of the disk that a directory lies on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    free: u64,
    total: u64,
}

impl Space {
    /// As it is now; none if the system does not say.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// Whether a commit may be written.
    pub(super) fn is_enough_for_commits(self) -> bool {
        self.free >= (self.total / FREE_PART).clamp(FREE_BYTES_MIN, FREE_BYTES_MAX)
    }

    /// Whether an engine that failed for want of space may be opened again: it reads its journal, and writes it out.
    pub(super) fn is_enough_to_open(self) -> bool {
        self.is_enough_for_commits() && self.free >= FLUSH_BYTES.min(self.total / REOPEN_PART)
    }

    /// Whether writing in the background may have failed for want of space. What it had written until then is free again.
    pub(super) fn may_have_been_short(self) -> bool {
        self.free < FLUSH_BYTES + FREE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_large_disk_keeps_a_reserve_and_a_small_one_a_part_of_itself() {
        for (total_mib, free_mib, commits, opens) in [
            (1 << 20, 129, true, true),
            (1 << 20, 127, false, false),
            (512, 64, true, true),
            (512, 32, true, false),
            (512, 31, false, false),
            (24, 6, true, true),
            (24, 2, true, false),
            (24, 1, false, false),
            (4, 1, true, true),
            (4, 0, false, false),
            (0, 0, false, false),
        ] {
            let space = Space { free: free_mib * MIB, total: total_mib * MIB };
            assert_eq!((space.is_enough_for_commits(), space.is_enough_to_open()), (commits, opens), "{space:?}");
        }
    }

    #[test]
    fn the_space_of_a_directory_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path()).unwrap();
        assert!(space.total >= space.free && space.total > 0, "{space:?}");
        assert_eq!(Space::of(Path::new("/nowhere/at/all")), None);
    }
}
