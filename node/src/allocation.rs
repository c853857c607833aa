//! Claiming: how a node makes blocks and a worker ID its own in the store, whoever hands them out ([`authority`]).
//!
//! Each function is one transaction around a pure decision of `shortener_crds::ids`; nothing here decides. With `ALLOCATION=self`
//! the node takes what comes next, with `ALLOCATION=lease` what it was granted: the fences are the same.

pub mod authority;

use shortener_crds::ids::allocate::{restored_mark, take_run};
use shortener_crds::ids::claim::{
    BlockClaim, ClaimedBlock, PendingClaim, WindowLost, WorkerTaken, claim, extend_window, raise_mark, take_window,
};
use shortener_crds::ids::{Block, BootId, CodeLength, IdRange, Window, WorkerId};

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
    /// Somebody else's already, although they lay above the mark or were granted: the store or the ledger was rolled back.
    pub burnt: u64,
    /// The store's high-water mark afterwards.
    pub mark: u64,
}

/// What one transaction found and is going to write.
#[derive(Debug, Default)]
struct Claiming {
    ours: Vec<ClaimedBlock>,
    pending: Vec<PendingClaim>,
    burnt: u64,
}

impl Claiming {
    /// Decides on one block, and inserts its claim where it is nobody's.
    async fn claim(&mut self, txn: &mut Transaction, block: Block, boot: BootId) -> Result<(), StoreError> {
        match claim(block, rows::claim_of(txn, block).await?, boot) {
            BlockClaim::Won(pending) => {
                rows::insert_claim(txn, block, boot);
                self.pending.push(pending);
            }
            BlockClaim::AlreadyOurs(claimed) => self.ours.push(claimed),
            BlockClaim::Burnt => self.burnt += 1,
        }
        Ok(())
    }

    fn committed(self, mark: u64) -> Claimed {
        let blocks = self.ours.into_iter().chain(self.pending.into_iter().map(PendingClaim::committed));
        Claimed { blocks: blocks.collect(), burnt: self.burnt, mark }
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
            Ok((claiming, mark)) => return Ok(claiming.committed(mark)),
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
) -> Result<(Transaction, (Claiming, u64)), AllocationError> {
    let mark = rows::high_water_mark(&txn, code_length).await?;
    let run = take_run(code_length, mark, wanted.into()).ok_or(AllocationError::SpaceUsedUp)?;
    let mut claiming = Claiming::default();
    for block in run.blocks() {
        claiming.claim(&mut txn, block, boot).await?;
    }
    let raised = raise_mark(mark, run.last());
    rows::put_high_water_mark(&mut txn, code_length, raised);
    Ok((txn, (claiming, raised)))
}

/// Claims these blocks of a granted run, and then raises the store's high-water mark past the run.
///
/// Those are two transactions, so that nodes which claim at the same time wait for each other only at the mark. Whatever fails in between
/// or is not known may be begun again: what was claimed is found to be ours.
pub async fn claim_granted(kv: &Kv, boot: BootId, run: IdRange, blocks: &[Block]) -> Result<Claimed, AllocationError> {
    let mut races = 0;
    let claiming = loop {
        let claimed = kv.transact(async |mut txn| {
            let mut claiming = Claiming::default();
            for block in blocks {
                claiming.claim(&mut txn, *block, boot).await?;
            }
            Ok::<_, StoreError>((txn, claiming))
        });
        races += 1;
        match claimed.await {
            Ok(claiming) => break claiming,
            // Somebody claimed one of them first, or the answer is lost: reading back tells whose they are.
            Err(StoreError::Kv(KvError::AlreadyExists { .. } | KvError::Undetermined)) if races < RACES_MAX => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mark = raise_high_water_mark(kv, run).await?;
    Ok(claiming.committed(mark))
}

/// Raises the high-water mark past a run whose blocks are claimed, by whomever, and answers what it is now.
async fn raise_high_water_mark(kv: &Kv, run: IdRange) -> Result<u64, StoreError> {
    kv.transact(async |mut txn| {
        let mark = rows::high_water_mark(&txn, run.code_length()).await?;
        let raised = raise_mark(mark, run.last());
        if raised > mark {
            rows::put_high_water_mark(&mut txn, run.code_length(), raised);
        }
        Ok((txn, raised))
    })
    .await
}

/// What the store's high-water mark is.
pub async fn high_water_mark(kv: &Kv, code_length: CodeLength) -> Result<u64, StoreError> {
    kv.transact(async |txn| {
        let mark = rows::high_water_mark(&txn, code_length).await?;
        Ok((txn, mark))
    })
    .await
}

/// Takes a worker ID that is nobody's, looking from `first` on, and the store's time at which that was.
pub async fn take_any_worker(kv: &Kv, boot: BootId, first: WorkerId) -> Result<(Window, UnixMs), AllocationError> {
    for worker in first.round() {
        // Else it is somebody's until its window runs out.
        if let Ok(taken) = take_worker(kv, boot, worker).await? {
            return Ok(taken);
        }
    }
    Err(AllocationError::NoWorker)
}

/// Takes this worker ID if it is nobody's, and the store's time at which that was.
pub async fn take_worker(
    kv: &Kv,
    boot: BootId,
    worker: WorkerId,
) -> Result<Result<(Window, UnixMs), WorkerTaken>, AllocationError> {
    kv.transact(async |mut txn| {
        let now = txn.now();
        let window = take_window(worker, rows::worker_row(&txn, worker).await?, now.0);
        if let Ok(window) = window {
            rows::put_worker_row(&mut txn, worker, window.row(boot));
        }
        Ok((txn, window.map(|window| (window, now))))
    })
    .await
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
