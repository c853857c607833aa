//! Claiming: how a node comes by blocks and a worker ID when it is its own authority (`ALLOCATION=self`).
//!
//! Each function is one transaction around a pure decision of `shortener_crds::ids`; nothing here decides. The same
//! fences stand in the store as when an operator hands out the grants.

use shortener_crds::ids::allocate::{restored_mark, take_run};
use shortener_crds::ids::claim::{
    BlockClaim, ClaimedBlock, PendingClaim, WindowLost, claim, extend_window, raise_mark, take_window,
};
use shortener_crds::ids::{BootId, CodeLength, Window, WorkerId};

use crate::ambient::UnixMs;
use crate::kv::{Kv, KvError, Transaction};
use crate::store::StoreError;
use crate::store::{allocation as rows, keyspace};

/// Why nothing was allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    /// The code space of this length is used up.
    #[error("no block is left for codes of this length; configure a longer one")]
    SpaceUsedUp,
    /// Every worker ID is somebody's at the moment.
    #[error("all worker IDs are taken")]
    NoWorker,
    /// Our worker ID is somebody else's now.
    #[error(transparent)]
    WindowLost(#[from] WindowLost),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<KvError> for AllocationError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// Blocks that are ours, and how many of the run were not.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// Ours: to be minted from.
    pub blocks: Vec<ClaimedBlock>,
    /// Somebody else's already, although they lay above the mark: the store was rolled back.
    pub burnt: u64,
}

/// What one transaction found and is going to write.
#[derive(Debug, Default)]
struct Claiming {
    ours: Vec<ClaimedBlock>,
    pending: Vec<PendingClaim>,
    burnt: u64,
}

impl Claiming {
    fn committed(self) -> Claimed {
        let blocks = self.ours.into_iter().chain(self.pending.into_iter().map(PendingClaim::committed));
        Claimed { blocks: blocks.collect(), burnt: self.burnt }
    }
}

/// How often a race for the same blocks is begun again.
const RACES_MAX: u32 = 64;

/// Takes a store whose files are not where they were for one that was restored from an old copy, and answers whether it is.
///
/// What was claimed after the copy was made is not in it. So it gets `identity` as its new one, and every high-water mark is raised
/// past those blocks. A directory that was merely copied elsewhere looks the same; it loses a few blocks of millions.
pub async fn raise_marks_if_copied(kv: &Kv, identity: u128) -> Result<bool, StoreError> {
    let Some(place) = kv.place() else { return Ok(false) };
    kv.transact(async |mut txn| {
        let last = keyspace::place(&txn).await?;
        let is_copy = last.is_some_and(|last| last != place);
        if last != Some(place) {
            keyspace::put_place(&mut txn, place);
        }
        if is_copy {
            keyspace::renew_identity(&mut txn, identity).await?;
            for length in CodeLength::all() {
                let mark = rows::high_water_mark(&txn, length).await?;
                rows::put_high_water_mark(&mut txn, length, restored_mark(length, mark));
            }
        }
        Ok((txn, is_copy))
    })
    .await
}

/// Takes the next `wanted` blocks after the store's high-water mark.
pub async fn take_blocks(
    kv: &Kv,
    boot: BootId,
    code_length: CodeLength,
    wanted: u32,
) -> Result<Claimed, AllocationError> {
    let mut races = 0;
    loop {
        let taken = kv.transact(async |txn| claim_next(txn, boot, code_length, wanted).await).await;
        races += 1;
        match taken {
            Ok(claiming) => return Ok(claiming.committed()),
            // Somebody claimed one of the blocks first: beginning again sees the claim, and the mark above it.
            Err(AllocationError::Store(StoreError::Kv(KvError::AlreadyExists { .. }))) if races < RACES_MAX => {}
            // A transaction whose fate is not known either left no claims, or claims whose blocks nobody mints from: a
            // hole of a few blocks in the code space, which is harmless. The next one begins above it.
            Err(error) => return Err(error),
        }
    }
}

async fn claim_next(
    mut txn: Transaction,
    boot: BootId,
    code_length: CodeLength,
    wanted: u32,
) -> Result<(Transaction, Claiming), AllocationError> {
    let mark = rows::high_water_mark(&txn, code_length).await?;
    let run = take_run(code_length, mark, wanted.into()).ok_or(AllocationError::SpaceUsedUp)?;
    let mut claiming = Claiming::default();
    let mut raised = mark;
    for block in run.blocks() {
        match claim(block, rows::claim_of(&txn, block).await?, boot) {
            BlockClaim::Won(pending) => {
                rows::insert_claim(&mut txn, block, boot);
                claiming.pending.push(pending);
            }
            BlockClaim::AlreadyOurs(claimed) => claiming.ours.push(claimed),
            BlockClaim::Burnt => claiming.burnt += 1,
        }
        raised = raise_mark(raised, block);
    }
    rows::put_high_water_mark(&mut txn, code_length, raised);
    Ok((txn, claiming))
}

/// Takes a worker ID that is nobody's, looking from `first` on, and the store's time at which that was.
pub async fn take_worker(kv: &Kv, boot: BootId, first: WorkerId) -> Result<(Window, UnixMs), AllocationError> {
    for worker in first.round() {
        let taken = kv.transact(async |mut txn| {
            let now = txn.now();
            let window = take_window(worker, rows::worker_row(&txn, worker).await?, now.0);
            if let Ok(window) = window {
                rows::put_worker_row(&mut txn, worker, window.row(boot));
            }
            Ok::<_, AllocationError>((txn, window.map(|window| (window, now))))
        });
        // Else it is somebody's until its window runs out.
        if let Ok(taken) = taken.await? {
            return Ok(taken);
        }
    }
    Err(AllocationError::NoWorker)
}

/// Extends a window that is ours, and the store's time at which that was.
pub async fn extend_worker(kv: &Kv, boot: BootId, held: Window) -> Result<(Window, UnixMs), AllocationError> {
    kv.transact(async |mut txn| {
        let now = txn.now();
        let window = extend_window(held, rows::worker_row(&txn, held.worker).await?, boot, now.0)?;
        rows::put_worker_row(&mut txn, held.worker, window.row(boot));
        Ok((txn, (window, now)))
    })
    .await
}
