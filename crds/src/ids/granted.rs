//! What a boot was granted and has not claimed yet, and how much more it wants: a node's side of its Lease, without the Lease.
//!
//! A grant is a level and not an event: it says how many blocks its boot was granted in all, and which came last. A boot follows it
//! wherever it goes, also down, as it does when the ledger was rolled back: what it asks for is counted from there, and what it has
//! claimed already is not claimed again ([`Holding::worth_claiming`]).

use crate::ids::allocate::Entry;
use crate::ids::mint::Holding;
use crate::ids::{Block, BootId, IdRange};

/// The grants of one boot, as it knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Granted {
    /// What the newest grant said: how many blocks in all, and the newest run of them.
    newest: Option<(u64, Option<IdRange>)>,
    /// What of that run is still to be claimed.
    unclaimed: Option<IdRange>,
}

impl Granted {
    /// How many blocks this boot was granted in all.
    pub fn blocks(&self) -> u64 {
        self.newest.map_or(0, |(blocks, _)| blocks)
    }

    /// Takes note of what the ledger has for a pod, and tells whether that was news. It is none when it is another boot's, or is known,
    /// or while the blocks of the last one are still to be claimed: then it will be there afterwards.
    pub fn receive(&mut self, entry: &Entry, ours: BootId) -> bool {
        let Entry { boot_id, worker: _, run, granted } = entry;
        let newest = Some((*granted, *run));
        if *boot_id != ours || self.unclaimed.is_some() || self.newest == newest {
            return false;
        }
        *self = Self { newest, unclaimed: *run };
        true
    }

    /// How many blocks it wants to have been granted in all. What it was granted and has not claimed yet comes before any more.
    pub fn wanted<const SEQUENCES: u32>(&self, holding: &Holding<SEQUENCES>) -> u64 {
        let more = holding.ask().filter(|_| self.unclaimed.is_none()).unwrap_or(0);
        self.blocks().saturating_add(more.into())
    }

    /// The run that is still to be claimed.
    pub fn unclaimed(&self) -> Option<IdRange> {
        self.unclaimed
    }

    /// Every block of the run up to this one is dealt with: claimed and taken in, burnt, or not worth claiming.
    pub fn settle(&mut self, block: Block) {
        self.unclaimed = self.unclaimed.and_then(|run| run.after(block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::claim::{BlockClaim, claim};
    use crate::ids::{CodeLength, WorkerId};

    const OURS: BootId = BootId(1);

    fn run(first_block: u64, blocks: u32) -> Option<IdRange> {
        IdRange::new(CodeLength::DEFAULT, first_block, blocks).ok()
    }

    fn entry(run: Option<IdRange>, granted: u64) -> Entry {
        Entry { boot_id: OURS, worker: WorkerId::default(), run, granted }
    }

    fn block(number: u64) -> Block {
        Block::new(CodeLength::DEFAULT, number).expect("a block")
    }

    /// Claims what was granted, in an empty store.
    fn claim_all(granted: &mut Granted, holding: &mut Holding) {
        while let Some(run) = granted.unclaimed() {
            let won = holding.worth_claiming(run).map(|block| match claim(block, None, OURS) {
                BlockClaim::Won(pending) => pending.committed(),
                other => panic!("an empty store has no claim: {other:?}"),
            });
            holding.take_in(won.collect::<Vec<_>>(), 0);
            granted.settle(run.last());
        }
    }

    #[test]
    fn it_wants_what_it_was_granted_and_what_its_holding_asks_for() {
        let (mut granted, mut holding) = (Granted::default(), Holding::new(CodeLength::DEFAULT));
        assert_eq!(granted.wanted(&holding), 1, "nothing is held");
        assert!(granted.receive(&entry(run(7, 1), 1), OURS));
        assert_eq!(granted.wanted(&holding), 1, "no more before that is claimed");
        claim_all(&mut granted, &mut holding);
        assert_eq!((granted.wanted(&holding), holding.remaining()), (1, 65_536));
        for _ in 0..6_554 {
            holding.next(0).expect("held");
        }
        assert_eq!(granted.wanted(&holding), 2, "a tenth is used");
    }

    #[test]
    fn a_grant_to_another_boot_is_none_of_ours() {
        let mut granted = Granted::default();
        assert!(!granted.receive(&Entry { boot_id: BootId(2), ..entry(run(7, 1), 1) }, OURS));
        assert_eq!(granted, Granted::default());
    }

    #[test]
    fn what_was_granted_is_settled_block_by_block_before_the_next_is_received() {
        let mut granted = Granted::default();
        assert!(granted.receive(&entry(run(7, 3), 3), OURS));
        granted.settle(block(8));
        assert_eq!(granted.unclaimed(), run(9, 1));
        assert!(!granted.receive(&entry(run(20, 1), 4), OURS), "block 9 is still to be claimed");
        granted.settle(block(9));
        assert!(!granted.receive(&entry(run(7, 3), 3), OURS), "known");
        assert!(granted.receive(&entry(run(20, 1), 4), OURS));
    }

    #[test]
    fn a_ledger_that_was_rolled_back_is_followed_and_its_old_blocks_are_not_claimed_again() {
        let (mut granted, mut holding) = (Granted::default(), Holding::new(CodeLength::DEFAULT));
        for (first_block, all) in [(7, 1), (8, 2), (9, 3)] {
            assert!(granted.receive(&entry(run(first_block, 1), all), OURS));
            claim_all(&mut granted, &mut holding);
        }
        let held = holding.remaining();
        assert!(granted.receive(&entry(run(8, 1), 2), OURS));
        claim_all(&mut granted, &mut holding);
        assert_eq!((granted.blocks(), holding.remaining()), (2, held));
    }
}
