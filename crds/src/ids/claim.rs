//! What a node decides when it claims a block or a worker's window in the store.
//!
//! Each function takes what the store said inside a transaction, and answers what that transaction may write. The fences are the
//! rows: they hold only if the read and the write are one optimistic transaction. Why they suffice is told in [`ids`](crate::ids).

use serde::{Deserialize, Serialize};

use crate::ids::{Block, BootId, Window, WorkerId};

/// W: how far ahead of the store's clock a window may end, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;

/// A block whose claim in the store names this boot: it may be minted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimedBlock(Block);

impl ClaimedBlock {
    /// The block.
    pub fn block(self) -> Block {
        self.0
    }
}

/// A claim that is being inserted: not minted from before its transaction has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a claim counts only once it is committed"]
pub struct PendingClaim(Block);

impl PendingClaim {
    /// The block that is claimed.
    pub fn block(self) -> Block {
        self.0
    }

    /// To be called when the transaction that inserted the row has committed, and never otherwise.
    pub fn committed(self) -> ClaimedBlock {
        ClaimedBlock(self.0)
    }
}

/// What the row at `claim/<length>/<block>` makes of a granted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockClaim {
    /// Nobody has it: insert the row, if it is still absent.
    Won(PendingClaim),
    /// Our own row is there: an insert whose answer was lost did succeed.
    AlreadyOurs(ClaimedBlock),
    /// Another boot has it. It is lost to us; the grant should not have been made, so report the mark.
    Burnt,
}

/// Decides on a granted block from the boot that its row names, if it has one.
pub fn claim(block: Block, row: Option<BootId>, ours: BootId) -> BlockClaim {
    match row {
        None => BlockClaim::Won(PendingClaim(block)),
        Some(boot) if boot == ours => BlockClaim::AlreadyOurs(ClaimedBlock(block)),
        Some(_) => BlockClaim::Burnt,
    }
}

/// The high-water mark once `block` is known to be claimed, by whomever. It never goes down.
pub fn raise_mark(mark: u64, block: Block) -> u64 {
    mark.max(block.number() + 1)
}

/// The row at `worker/<w>`: who may mint under the worker ID, and until which timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Whose it is.
    pub boot: BootId,
    /// The timestamp after the last of its window, in milliseconds since 1970.
    pub end_ms: u64,
}

/// Another boot's window has not run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker ID {worker} is taken until {end_ms}")]
pub struct WorkerTaken {
    /// The worker ID.
    pub worker: WorkerId,
    /// When it may be taken, by the store's clock, in milliseconds since 1970.
    pub end_ms: u64,
}

/// The window has run out, or the row is no longer the one that the holder wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the window of worker ID {worker} has run out, was taken, or was rolled back")]
pub struct WindowLost {
    /// The worker ID.
    pub worker: WorkerId,
}

impl Window {
    /// The row to write for this window.
    pub fn row(self, ours: BootId) -> WorkerRow {
        WorkerRow { boot: ours, end_ms: self.end_ms }
    }
}

/// Takes a worker ID whose row has run out, or that has none, at the store's `now_ms`.
///
/// The window starts W later, where every earlier window of this ID has ended even if a rollback lost its row. It also ends there:
/// no window ends later than W from now. [`extend_window`] gives it its first milliseconds as soon as the store's clock has moved.
pub fn take_window(worker: WorkerId, row: Option<WorkerRow>, now_ms: u64) -> Result<Window, WorkerTaken> {
    match row {
        Some(WorkerRow { end_ms, .. }) if end_ms > now_ms => Err(WorkerTaken { worker, end_ms }),
        _ => {
            let later_ms = now_ms.saturating_add(WINDOW_MS);
            Ok(Window { worker, start_ms: later_ms, end_ms: later_ms })
        }
    }
}

/// Extends a window that is held to W from the store's `now_ms`, if it has not run out and the row still is what its holder wrote last.
///
/// Once it has run out, another boot may have taken the worker ID, and a rollback may have brought our row back since: then
/// the row alone would let two windows overlap.
pub fn extend_window(held: Window, row: Option<WorkerRow>, ours: BootId, now_ms: u64) -> Result<Window, WindowLost> {
    if held.end_ms <= now_ms || row != Some(held.row(ours)) {
        return Err(WindowLost { worker: held.worker });
    }
    Ok(Window { end_ms: held.end_ms.max(now_ms.saturating_add(WINDOW_MS)), ..held })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CodeLength;

    const OURS: BootId = BootId(1);
    const OTHER: BootId = BootId(2);
    const NOW: u64 = 1_000_000;

    fn worker() -> WorkerId {
        WorkerId::try_from(9).expect("a worker ID")
    }

    fn row(boot: BootId, end_ms: u64) -> WorkerRow {
        WorkerRow { boot, end_ms }
    }

    #[test]
    fn a_block_is_ours_only_if_no_other_boot_has_it() {
        let block = Block::new(CodeLength::DEFAULT, 5).expect("a block");
        assert_eq!(claim(block, None, OURS), BlockClaim::Won(PendingClaim(block)));
        assert_eq!(claim(block, Some(OURS), OURS), BlockClaim::AlreadyOurs(ClaimedBlock(block)));
        assert_eq!(claim(block, Some(OTHER), OURS), BlockClaim::Burnt);
        assert_eq!((raise_mark(0, block), raise_mark(9, block)), (6, 9));
    }

    #[test]
    fn a_worker_is_taken_once_its_window_has_run_out_and_starts_w_later() {
        let fresh = Window { worker: worker(), start_ms: NOW + WINDOW_MS, end_ms: NOW + WINDOW_MS };
        assert_eq!(take_window(worker(), None, NOW), Ok(fresh));
        assert_eq!(take_window(worker(), Some(row(OTHER, NOW)), NOW), Ok(fresh));
        let taken = WorkerTaken { worker: worker(), end_ms: NOW + 1 };
        assert_eq!(take_window(worker(), Some(row(OTHER, NOW + 1)), NOW), Err(taken));
        // Even our own: whoever wrote it, its window may have been minted from.
        assert_eq!(take_window(worker(), Some(row(OURS, NOW + 1)), NOW), Err(taken));
    }

    #[test]
    fn a_window_is_extended_by_its_holder_alone_and_never_shortened() {
        let held = take_window(worker(), None, NOW).expect("free");
        let lost = Err(WindowLost { worker: worker() });
        let later = NOW + 20;
        let extended = extend_window(held, Some(row(OURS, held.end_ms)), OURS, later).expect("still ours");
        assert_eq!(extended, Window { end_ms: later + WINDOW_MS, ..held });
        assert_eq!(
            extend_window(held, Some(row(OURS, held.end_ms)), OURS, NOW - 500),
            Ok(held),
            "a clock that went back"
        );
        assert_eq!(extend_window(held, Some(row(OTHER, held.end_ms)), OURS, later), lost);
        assert_eq!(
            extend_window(held, Some(row(OURS, held.end_ms + 1)), OURS, later),
            lost,
            "a clone of us extended it"
        );
        assert_eq!(extend_window(held, None, OURS, later), lost, "the store was rolled back");
        let too_late = held.end_ms;
        assert_eq!(extend_window(held, Some(row(OURS, held.end_ms)), OURS, too_late), lost, "it has run out");
    }
}
