//! Who hands out blocks and worker IDs, and what is to be done next on its word. No I/O: the keeper does what is due, and tells
//! what became of it.

use shortener_crds::ids::allocate::Entry;
use shortener_crds::ids::granted::Granted;
use shortener_crds::ids::mint::Holding;
use shortener_crds::ids::{Block, BootId, CodeLength, IdRange, KeyspaceId, WorkerId};

/// Who hands out blocks and worker IDs.
#[derive(Clone, Debug)]
pub enum Authority {
    /// The node itself: it takes what comes next in the store, and any worker ID that is free there.
    Own,
    /// The operator, through the node's Lease.
    Lease(Grants),
}

/// What is known of the operator's grants.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// What the Lease said last that was addressed to this boot.
    newest: Option<Entry>,
    granted: Granted,
    /// The store's high-water mark as it was seen last.
    mark: u64,
    /// The worker ID that the store did not let us take, or that we have lost.
    refused_worker: Option<WorkerId>,
}

/// What a node asks of the operator: the part of its report that minting decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// How many blocks it wants to have been granted in all.
    pub wanted: u64,
    /// The store's high-water mark as it was seen last.
    pub mark: u64,
    /// Which keyspace the store holds, once it was reached.
    pub keyspace: Option<KeyspaceId>,
    /// The granted worker ID that it cannot use.
    pub refused_worker: Option<WorkerId>,
}

/// Blocks that are to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlocksDue {
    /// So many of those that come next in the store.
    Next(u32),
    /// These of a granted run.
    Granted {
        /// The run.
        run: IdRange,
        /// Those of its blocks that are worth claiming.
        blocks: Vec<Block>,
    },
}

/// A worker ID that is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerDue {
    /// Any that is free in the store.
    Any,
    /// The one that was granted.
    Granted(WorkerId),
}

/// A grant that nothing can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "blocks were granted for codes of {granted} characters, but this node mints {ours}: its SHORT_CODE_LENGTH must be the cluster's"
)]
pub struct OtherCodeLength {
    granted: CodeLength,
    ours: CodeLength,
}

impl Authority {
    /// Takes what the Lease says, and tells whether that is news. What is addressed to another boot is not.
    pub fn deliver(&mut self, entry: Entry, ours: BootId, code_length: CodeLength) -> Result<bool, OtherCodeLength> {
        let Self::Lease(grants) = self else { return Ok(false) };
        if entry.boot_id != ours || grants.newest.as_ref() == Some(&entry) {
            return Ok(false);
        }
        // To ask for more in their place would only get more of them.
        if let Some(run) = entry.run.filter(|run| run.code_length() != code_length) {
            return Err(OtherCodeLength { granted: run.code_length(), ours: code_length });
        }
        grants.newest = Some(entry);
        Ok(true)
    }

    /// The blocks to claim now, if any.
    pub fn blocks_due(&mut self, holding: &Holding, ours: BootId) -> Option<BlocksDue> {
        match self {
            Self::Own => holding.ask().map(BlocksDue::Next),
            Self::Lease(grants) => {
                if let Some(newest) = &grants.newest {
                    grants.granted.receive(newest, ours);
                }
                let run = grants.granted.unclaimed()?;
                Some(BlocksDue::Granted { run, blocks: holding.worth_claiming(run).collect() })
            }
        }
    }

    /// What was due has been claimed or is burnt; `mark` is what the store's high-water mark is now.
    pub fn settled(&mut self, due: &BlocksDue, mark: u64) {
        if let (Self::Lease(grants), BlocksDue::Granted { run, .. }) = (self, due) {
            grants.granted.settle(run.last());
            grants.mark = mark;
        }
    }

    /// The store's high-water mark is this.
    pub fn see_mark(&mut self, mark: u64) {
        if let Self::Lease(grants) = self {
            grants.mark = mark;
        }
    }

    /// The worker ID to take when none is held; none while there is nothing but to wait for a grant.
    pub fn worker_due(&self) -> Option<WorkerDue> {
        match self {
            Self::Own => Some(WorkerDue::Any),
            Self::Lease(grants) => {
                let granted = grants.newest.as_ref().map(|newest| newest.worker);
                granted.filter(|worker| grants.refused_worker != Some(*worker)).map(WorkerDue::Granted)
            }
        }
    }

    /// The store does not let us have this worker ID, or not any more.
    pub fn refuse(&mut self, worker: WorkerId) {
        if let Self::Lease(grants) = self {
            grants.refused_worker = Some(worker);
        }
    }

    /// What to ask of the operator; none where it is not asked.
    pub fn asks(&self, holding: &Holding, keyspace: Option<KeyspaceId>) -> Option<Asks> {
        let Self::Lease(Grants { newest, granted, mark, refused_worker }) = self else { return None };
        let granted_worker = newest.as_ref().map(|newest| newest.worker);
        Some(Asks {
            wanted: if keyspace.is_some() { granted.wanted(holding) } else { granted.blocks() },
            mark: *mark,
            keyspace,
            // Another one is granted already: nothing is left to be asked.
            refused_worker: refused_worker.filter(|refused| granted_worker == Some(*refused)),
        })
    }

    /// Whether the operator has yet to grant what was asked for: blocks, or a worker ID.
    pub fn is_awaited(&self, holding: &Holding, holds_worker: bool) -> bool {
        match self {
            Self::Own => false,
            Self::Lease(Grants { granted, .. }) => {
                granted.wanted(holding) > granted.blocks() || (!holds_worker && self.worker_due().is_none())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shortener_crds::ids::claim::{BlockClaim, ClaimedBlock, claim};

    use super::*;

    const OURS: BootId = BootId(1);
    const KEYSPACE: Option<KeyspaceId> = Some(KeyspaceId(9));
    const LENGTH: CodeLength = CodeLength::DEFAULT;

    fn entry(worker: u16, first_block: u64, granted: u64) -> Entry {
        let worker = WorkerId::try_from(worker).unwrap();
        Entry { boot_id: OURS, worker, run: IdRange::new(LENGTH, first_block, 1).ok(), granted }
    }

    fn lease() -> (Authority, Holding) {
        (Authority::Lease(Grants::default()), Holding::new(LENGTH))
    }

    fn asks(authority: &Authority, holding: &Holding) -> Asks {
        authority.asks(holding, KEYSPACE).unwrap()
    }

    fn claimed(blocks: &[Block]) -> Vec<ClaimedBlock> {
        let won = blocks.iter().map(|block| match claim(*block, None, OURS) {
            BlockClaim::Won(pending) => pending.committed(),
            other => panic!("an empty store has no claim: {other:?}"),
        });
        won.collect()
    }

    #[test]
    fn alone_it_takes_what_its_holding_asks_for_and_any_worker_and_asks_nobody() {
        let (mut authority, mut holding) = (Authority::Own, Holding::new(LENGTH));
        assert_eq!(authority.blocks_due(&holding, OURS), Some(BlocksDue::Next(1)));
        holding.take_in(claimed(&[Block::new(LENGTH, 0).unwrap()]), 0);
        assert_eq!(authority.blocks_due(&holding, OURS), None);
        assert_eq!(authority.deliver(entry(7, 3, 1), OURS, LENGTH), Ok(false));
        assert_eq!((authority.worker_due(), authority.asks(&holding, KEYSPACE)), (Some(WorkerDue::Any), None));
        assert!(!authority.is_awaited(&holding, false));
    }

    #[test]
    fn a_grant_is_claimed_and_no_more_is_asked_until_a_tenth_is_used() {
        let (mut authority, mut holding) = lease();
        assert_eq!(asks(&authority, &holding).wanted, 1);
        assert!(authority.is_awaited(&holding, false));
        assert_eq!((authority.blocks_due(&holding, OURS), authority.worker_due()), (None, None));
        assert_eq!(authority.deliver(entry(7, 3, 1), OURS, LENGTH), Ok(true));
        assert_eq!(authority.deliver(entry(7, 3, 1), OURS, LENGTH), Ok(false), "it is known");
        let due = authority.blocks_due(&holding, OURS).unwrap();
        let BlocksDue::Granted { blocks, .. } = &due else { panic!("{due:?}") };
        holding.take_in(claimed(blocks), 0);
        authority.settled(&due, 4);
        assert_eq!(authority.blocks_due(&holding, OURS), None);
        assert_eq!(asks(&authority, &holding), Asks { wanted: 1, mark: 4, keyspace: KEYSPACE, refused_worker: None });
        assert!(!authority.is_awaited(&holding, true));
        while holding.ask().is_none() {
            holding.next(0).unwrap();
        }
        assert_eq!(asks(&authority, &holding).wanted, 2);
        assert!(authority.is_awaited(&holding, true));
    }

    #[test]
    fn a_burnt_grant_is_asked_for_again_with_the_mark_that_was_seen() {
        let (mut authority, holding) = lease();
        authority.deliver(entry(7, 3, 1), OURS, LENGTH).unwrap();
        let due = authority.blocks_due(&holding, OURS).unwrap();
        authority.settled(&due, 500);
        assert_eq!((asks(&authority, &holding).wanted, asks(&authority, &holding).mark), (2, 500));
    }

    #[test]
    fn a_refused_worker_is_reported_until_another_is_granted() {
        let (mut authority, holding) = lease();
        authority.deliver(entry(7, 3, 1), OURS, LENGTH).unwrap();
        let worker = |number| WorkerId::try_from(number).unwrap();
        assert_eq!(authority.worker_due(), Some(WorkerDue::Granted(worker(7))));
        authority.refuse(worker(7));
        assert_eq!((authority.worker_due(), asks(&authority, &holding).refused_worker), (None, Some(worker(7))));
        authority.deliver(entry(8, 3, 1), OURS, LENGTH).unwrap();
        assert_eq!(authority.worker_due(), Some(WorkerDue::Granted(worker(8))));
        assert_eq!(asks(&authority, &holding).refused_worker, None);
    }

    #[test]
    fn what_is_addressed_to_another_boot_or_for_other_codes_is_not_taken() {
        let (mut authority, holding) = lease();
        assert_eq!(authority.deliver(Entry { boot_id: BootId(2), ..entry(7, 3, 1) }, OURS, LENGTH), Ok(false));
        let run = IdRange::new(CodeLength::try_from(8).unwrap(), 3, 1).ok();
        let refused = authority.deliver(Entry { run, ..entry(7, 3, 1) }, OURS, LENGTH).unwrap_err();
        assert!(refused.to_string().contains("8 characters, but this node mints 7"), "{refused}");
        assert_eq!((authority.blocks_due(&holding, OURS), asks(&authority, &holding).wanted), (None, 1));
    }

    #[test]
    fn nothing_is_wanted_before_the_store_was_reached() {
        let (authority, holding) = lease();
        assert_eq!(authority.asks(&holding, None), Some(Asks::default()));
    }
}
