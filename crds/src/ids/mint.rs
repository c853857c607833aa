//! What a boot holds of the code space, and the next code ID from it. RAM only: nothing here waits.

use std::collections::VecDeque;

use crate::ids::allocate::GRANT_BLOCKS_MAX;
use crate::ids::claim::ClaimedBlock;
use crate::ids::{Block, CodeLength, IdRange};

/// A grant that was used up sooner than this, in milliseconds, was too small: the next one is twice as large.
pub const GRANT_SHORT_MS: u64 = 15 * 60 * 1000;

/// A grant that lasted longer than this, in milliseconds, was too large: the next one is half as large.
pub const GRANT_LONG_MS: u64 = 30 * 60 * 1000;

const _: () = assert!(GRANT_SHORT_MS < GRANT_LONG_MS && GRANT_BLOCKS_MAX.is_power_of_two());

/// Both grants are used up: no code can be minted until another arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no code IDs are left; another grant has been asked for")]
pub struct Exhausted;

/// The claimed blocks of one boot: a current grant that it mints from, and a spare.
///
/// `SEQUENCES` is how many code IDs of each block are minted: all of them, except in the exhaustive model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holding<const SEQUENCES: u32 = 65_536> {
    code_length: CodeLength,
    current: Grant,
    spare: Grant,
    /// How many blocks to ask for next.
    grant_blocks: u32,
    /// When the current grant was begun, in milliseconds of the caller's monotonic clock.
    begun_ms: u64,
    /// The highest block ever taken in. None at or below it is taken in again.
    highest_block: Option<u64>,
}

/// The unused rest of a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Grant {
    /// Ascending; the first is being minted from.
    blocks: VecDeque<Block>,
    /// The next sequence of the first block.
    sequence: u32,
    /// How many blocks there were at the beginning.
    blocks_all: usize,
}

impl<const SEQUENCES: u32> Holding<SEQUENCES> {
    const SEQUENCES_FIT: () = assert!(SEQUENCES > 0 && SEQUENCES <= 1 << 16);

    /// Holds nothing yet, and will ask for one block.
    pub fn new(code_length: CodeLength) -> Self {
        let () = Self::SEQUENCES_FIT;
        let (current, spare) = (Grant::default(), Grant::default());
        Self { code_length, current, spare, grant_blocks: 1, begun_ms: 0, highest_block: None }
    }

    /// The next code ID. Each is above every earlier one of this boot.
    ///
    /// `now_ms` is the caller's monotonic clock; it only decides how large the next grant should be.
    pub fn next(&mut self, now_ms: u64) -> Result<u64, Exhausted> {
        let block = *self.current.blocks.front().ok_or(Exhausted)?;
        let code_id = block.code_id(u16::try_from(self.current.sequence).map_err(|_| Exhausted)?);
        self.current.sequence += 1;
        if self.current.sequence == SEQUENCES {
            self.current.blocks.pop_front();
            self.current.sequence = 0;
            if self.current.blocks.is_empty() {
                self.turn_to_spare(now_ms);
            }
        }
        Ok(code_id)
    }

    /// How many blocks to ask for now, if any: there is room for a grant, and the current one is 10 % used or gone.
    pub fn ask(&self) -> Option<u32> {
        let all = to_u64(self.current.blocks_all) * u64::from(SEQUENCES);
        let used = all - self.current.len_code_ids(SEQUENCES);
        (self.spare.blocks.is_empty() && used * 10 >= all).then_some(self.grant_blocks)
    }

    /// Those blocks of a granted run that are worth claiming: of our code length, and above all that were taken in.
    pub fn worth_claiming(&self, run: IdRange) -> impl Iterator<Item = Block> {
        let (code_length, highest_block) = (self.code_length, self.highest_block);
        run.blocks().filter(move |block| {
            block.code_length() == code_length && highest_block.is_none_or(|highest| block.number() > highest)
        })
    }

    /// Takes in a claimed grant. Blocks at or below one that was ever taken in, or of another code length, are dropped: they may
    /// have been minted from. Returns how many blocks were taken in.
    pub fn take_in(&mut self, claimed: impl IntoIterator<Item = ClaimedBlock>, now_ms: u64) -> usize {
        let mut taken = VecDeque::new();
        for block in claimed.into_iter().map(ClaimedBlock::block) {
            if block.code_length() == self.code_length
                && self.highest_block.is_none_or(|highest| block.number() > highest)
            {
                self.highest_block = Some(block.number());
                taken.push_back(block);
            }
        }
        let taken_blocks = taken.len();
        if self.current.blocks.is_empty() {
            self.current = Grant { blocks_all: taken_blocks, blocks: taken, sequence: 0 };
            self.begun_ms = now_ms;
        } else {
            self.spare.blocks_all += taken_blocks;
            self.spare.blocks.append(&mut taken);
        }
        taken_blocks
    }

    /// How many code IDs are left in both grants.
    pub fn remaining(&self) -> u64 {
        self.current.len_code_ids(SEQUENCES) + self.spare.len_code_ids(SEQUENCES)
    }

    /// The current grant is used up: the spare takes its place, and the next one is sized by how long it lasted.
    fn turn_to_spare(&mut self, now_ms: u64) {
        let lasted_ms = now_ms.saturating_sub(self.begun_ms);
        if lasted_ms < GRANT_SHORT_MS {
            self.grant_blocks = (self.grant_blocks * 2).min(GRANT_BLOCKS_MAX);
        } else if lasted_ms > GRANT_LONG_MS {
            self.grant_blocks = (self.grant_blocks / 2).max(1);
        }
        self.current = std::mem::take(&mut self.spare);
        self.begun_ms = now_ms;
    }
}

impl Grant {
    fn len_code_ids(&self, sequences: u32) -> u64 {
        to_u64(self.blocks.len()) * u64::from(sequences) - u64::from(self.sequence)
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;
    use crate::ids::claim::{BlockClaim, claim};

    const MINUTE_MS: u64 = 60 * 1000;

    /// A run of blocks claimed in an empty store.
    fn claimed(first_block: u64, blocks: u32) -> Vec<ClaimedBlock> {
        let run = IdRange::new(CodeLength::DEFAULT, first_block, blocks).expect("a run");
        run.blocks()
            .map(|block| match claim(block, None, BootId(1)) {
                BlockClaim::Won(pending) => pending.committed(),
                other => panic!("an empty store has no claim: {other:?}"),
            })
            .collect()
    }

    fn holding() -> Holding<10> {
        Holding::new(CodeLength::DEFAULT)
    }

    #[test]
    fn it_mints_each_code_id_once_in_sequence_and_then_no_more() {
        let mut holding: Holding = Holding::new(CodeLength::DEFAULT);
        holding.take_in(claimed(3, 2), 0);
        assert_eq!(holding.remaining(), 2 * 65_536);
        assert!(std::iter::from_fn(|| holding.next(0).ok()).eq(3 * 65_536..5 * 65_536));
        assert_eq!((holding.next(0), holding.remaining()), (Err(Exhausted), 0));
    }

    #[test]
    fn it_asks_when_a_tenth_is_used_and_not_again_while_it_has_a_spare() {
        let mut holding = holding();
        assert_eq!(holding.ask(), Some(1), "nothing held");
        holding.take_in(claimed(0, 1), 0);
        assert_eq!(holding.ask(), None, "a whole grant held");
        holding.next(0).expect("held");
        assert_eq!(holding.ask(), Some(1), "a tenth used");
        holding.take_in(claimed(1, 1), 0);
        assert_eq!(holding.ask(), None, "a spare held");
        for _ in 0..10 {
            holding.next(0).expect("held");
        }
        assert!(holding.ask().is_some(), "the spare is the current one now, a tenth used");
    }

    #[test]
    fn what_was_taken_in_once_is_never_taken_in_again() {
        let mut holding = holding();
        assert_eq!(holding.take_in(claimed(4, 2), 0), 2);
        assert_eq!(holding.take_in(claimed(4, 2), 0), 0);
        assert_eq!(holding.take_in(claimed(0, 7), 0), 1, "only block 6 is above the highest");
        let run = IdRange::new(CodeLength::DEFAULT, 5, 4).expect("a run");
        assert!(holding.worth_claiming(run).map(Block::number).eq([7, 8]));
        let minted: Vec<_> = std::iter::from_fn(|| holding.next(0).ok()).map(|id| id / 65_536).collect();
        assert!(minted.is_sorted() && minted.len() == 30, "{minted:?}");
    }

    #[test]
    fn blocks_of_another_length_are_not_ours() {
        let mut holding: Holding = Holding::new(CodeLength::try_from(8).expect("a length"));
        assert_eq!(holding.take_in(claimed(0, 1), 0), 0);
    }

    #[test]
    fn the_grant_grows_when_it_is_short_and_shrinks_when_it_is_long() {
        let mut holding = holding();
        let (mut now_ms, mut first_block) = (0, 0);
        let mut asked_after = |lasted_ms| {
            let blocks = holding.ask().expect("nothing is held");
            holding.take_in(claimed(first_block, blocks), now_ms);
            first_block += u64::from(blocks);
            now_ms += lasted_ms;
            while holding.next(now_ms).is_ok() {}
            holding.ask()
        };
        for blocks in [2, 4, 8, 16, 16] {
            assert_eq!(asked_after(15 * MINUTE_MS - 1), Some(blocks));
        }
        assert_eq!((asked_after(15 * MINUTE_MS), asked_after(30 * MINUTE_MS)), (Some(16), Some(16)));
        for blocks in [8, 4, 2, 1, 1] {
            assert_eq!(asked_after(30 * MINUTE_MS + 1), Some(blocks));
        }
    }
}
