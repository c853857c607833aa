//! Blocks of code IDs, and runs of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::CodeLength;

/// How many code IDs a block has: 2^16.
pub const BLOCK_SIZE: u64 = 1 << 16;

impl CodeLength {
    /// How many whole blocks lie in `[0, 62^n)`. The partial block behind them is never granted.
    pub fn blocks(self) -> u64 {
        self.codes() / BLOCK_SIZE
    }
}

/// A whole block of code IDs of one code length, inside the length's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    code_length: CodeLength,
    number: u64,
}

impl Block {
    /// The block with this number; none where it is not wholly inside the domain.
    pub fn new(code_length: CodeLength, number: u64) -> Option<Self> {
        (number < code_length.blocks()).then_some(Self { code_length, number })
    }

    /// The length of the codes that it mints.
    pub fn code_length(self) -> CodeLength {
        self.code_length
    }

    /// Its number: the first block is 0.
    pub fn number(self) -> u64 {
        self.number
    }

    /// The code ID at `sequence`.
    pub fn code_id(self, sequence: u16) -> u64 {
        self.number * BLOCK_SIZE + u64::from(sequence)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.code_length, self.number)
    }
}

/// A run of at least one block, wholly inside its code length's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawRange", into = "RawRange")]
pub struct IdRange {
    code_length: CodeLength,
    first_block: u64,
    blocks: u32,
}

/// A run of blocks that is empty or leaves its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{blocks} blocks from {first_block} on are not 1 or more blocks for codes of {code_length} characters")]
pub struct IdRangeError {
    code_length: CodeLength,
    first_block: u64,
    blocks: u32,
}

/// The range as it is written: nothing checked yet.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRange {
    code_length: CodeLength,
    first_block: u64,
    blocks: u32,
}

impl IdRange {
    /// `blocks` blocks from `first_block` on.
    pub fn new(code_length: CodeLength, first_block: u64, blocks: u32) -> Result<Self, IdRangeError> {
        let end = first_block.checked_add(u64::from(blocks));
        if blocks > 0 && end.is_some_and(|end| end <= code_length.blocks()) {
            Ok(Self { code_length, first_block, blocks })
        } else {
            Err(IdRangeError { code_length, first_block, blocks })
        }
    }

    /// The length of the codes that it mints.
    pub fn code_length(self) -> CodeLength {
        self.code_length
    }

    /// The number of its first block.
    pub fn first_block(self) -> u64 {
        self.first_block
    }

    /// The number of the block after its last one.
    pub fn end_block(self) -> u64 {
        self.first_block + u64::from(self.blocks)
    }

    /// How many blocks it has.
    pub fn len_blocks(self) -> u32 {
        self.blocks
    }

    /// How many code IDs it has.
    pub fn len_code_ids(self) -> u64 {
        u64::from(self.blocks) * BLOCK_SIZE
    }

    /// Its blocks in ascending order.
    pub fn blocks(self) -> impl DoubleEndedIterator<Item = Block> {
        (self.first_block..self.end_block()).map(move |number| Block { code_length: self.code_length, number })
    }

    /// What of it comes after `block`; none where that is nothing.
    pub fn after(self, block: Block) -> Option<Self> {
        if block.code_length != self.code_length {
            return Some(self);
        }
        let first_block = self.first_block.max(block.number + 1);
        let blocks = u32::try_from(self.end_block().saturating_sub(first_block)).ok()?;
        Self::new(self.code_length, first_block, blocks).ok()
    }

    /// Its last block.
    pub fn last(self) -> Block {
        Block { code_length: self.code_length, number: self.end_block() - 1 }
    }

    /// Its code IDs in ascending order.
    pub fn code_ids(self) -> impl Iterator<Item = u64> {
        self.blocks().flat_map(|block| (0..=u16::MAX).map(move |sequence| block.code_id(sequence)))
    }
}

impl TryFrom<RawRange> for IdRange {
    type Error = IdRangeError;

    fn try_from(raw: RawRange) -> Result<Self, IdRangeError> {
        let RawRange { code_length, first_block, blocks } = raw;
        Self::new(code_length, first_block, blocks)
    }
}

impl From<IdRange> for RawRange {
    fn from(range: IdRange) -> Self {
        let IdRange { code_length, first_block, blocks } = range;
        Self { code_length, first_block, blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ids_are_consecutive_and_each_met_once() {
        let range = IdRange::new(CodeLength::DEFAULT, 3, 2).expect("in the domain");
        assert!(range.code_ids().eq(3 * 65_536..5 * 65_536));
        assert_eq!((range.end_block(), range.len_code_ids()), (5, 131_072));
    }

    #[test]
    fn what_comes_after_a_block_is_the_rest_of_the_run() {
        let run = IdRange::new(CodeLength::DEFAULT, 3, 2).expect("in the domain");
        let block = |number| Block::new(CodeLength::DEFAULT, number).expect("a block");
        assert_eq!(
            (run.after(block(2)), run.after(block(3))),
            (Some(run), IdRange::new(CodeLength::DEFAULT, 4, 1).ok())
        );
        assert_eq!((run.after(block(4)), run.after(block(9)), run.last()), (None, None, block(4)));
    }

    #[test]
    fn the_partial_last_block_of_each_domain_is_no_block() {
        for length in CodeLength::all() {
            let whole = length.blocks();
            assert!(whole * BLOCK_SIZE <= length.codes() && length.codes() < (whole + 1) * BLOCK_SIZE);
            assert_eq!(Block::new(length, whole), None);
            let last = Block::new(length, whole - 1).expect("the last whole block");
            assert!(last.code_id(u16::MAX) < length.codes());
            assert!(IdRange::new(length, whole - 1, 1).is_ok());
            assert!(IdRange::new(length, whole - 1, 2).is_err());
        }
    }

    #[test]
    fn an_empty_or_endless_run_is_refused() {
        assert!(IdRange::new(CodeLength::DEFAULT, 0, 0).is_err());
        assert!(IdRange::new(CodeLength::DEFAULT, u64::MAX, 1).is_err());
    }
}
