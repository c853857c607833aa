//! Who may mint what, so that no two processes ever mint the same code or the same Snowflake ID.
//!
//! This module is the argument for that, in prose, and the pure functions that carry it. The operator calls
//! [`allocate`]; a node calls [`granted`], [`claim`], [`mint`], [`permutation`] and [`snowflake`]; the exhaustive model in
//! `tests/tests/allocation_model.rs` calls the same functions, so that it checks this code and not a copy of it.
//!
//! # Words
//!
//! A *boot* is one process of a node, named by the 128 random bits of its [`BootId`], drawn at start and never stored: a
//! container that restarts in place is another boot. A *block* is 65,536 consecutive code IDs. A *grant* is a run of
//! blocks that an authority (the operator, or with `ALLOCATION=self` the node itself) has set aside for one boot. A *claim*
//! is the row in the store that makes a granted block that boot's own. The *high-water mark* is the highest block ever
//! claimed, plus one. A *window* is the span of timestamps that one boot may mint under one worker ID.
//!
//! # Codes
//!
//! A code ID is a number of `[0, 62^n)`, where n is the [`CodeLength`]; the code is `base62(permute(key, code_id))`. The
//! permutation is a bijection and Base62 of n digits is one, so two codes are equal only if their code IDs are. It is left to
//! show that no code ID is used twice:
//!
//! 1. `code_id = block · 65,536 + sequence` with `sequence < 65,536`: two code IDs are equal only if their blocks and their
//!    sequences are. A block that would reach past 62^n is no [`Block`], so no code ID leaves the domain.
//! 2. *A block is used by one boot.* [`Holding`](mint::Holding) takes only [`ClaimedBlock`](claim::ClaimedBlock)s, and
//!    [`claim`](claim::claim) makes one only where the store's row names this boot. The store inserts the row if it is absent,
//!    in a transaction: of two boots that race for one block, one finds the other's row, and the block is *burnt* for it.
//! 3. *That boot uses it once.* A holding takes in blocks in strictly ascending order, and refuses what is not above the last:
//!    a grant that is delivered twice, or handed out again after the ledger was rolled back, is not minted from twice.
//!    Within a block the sequence only goes up; after 65,535 the block is gone. Nothing is returned and nothing wraps.
//!
//! The grants keep boots from racing at all; the claims keep them apart where the grants fail. Either authority may lose its
//! memory, one at a time:
//!
//! - *The ledger is rolled back or edited* (etcd restored): it grants old blocks again. Their claims are in the store, so they are
//!   burnt for everyone else; the node reports the store's mark, and the ledger is raised to it.
//! - *The store is rolled back* (TiKV restored): claims are missing, but the ledger is not, and it grants only blocks above
//!   all that it has ever granted.
//! - *Both at once* cannot be seen from inside: then `spec.ids.floorBlock` is raised by hand. With `ALLOCATION=self` the store is
//!   the only ledger, so restoring a backup raises the mark by [`RESTORE_RAISE_BLOCKS`](allocate::RESTORE_RAISE_BLOCKS).
//! - *A process is cloned with its memory* (a virtual machine is snapshotted and runs twice): both have the same boot ID and
//!   mint the same codes. Nothing in memory can tell. That is why a create is acknowledged only after insert-if-absent of its
//!   link: one of the two finds the other's link and moves on to its next sequence.
//!
//! # Snowflake IDs
//!
//! `id = timestamp · 2^22 + worker · 2^10 + sequence`. [`Snowflake`] never repeats (timestamp, sequence)
//! within one boot: it goes up in that order only, whatever the clock does. It is left to show that two boots with one worker ID
//! never share a timestamp. Worker IDs are used again, so they are fenced by time, in the store's row `worker/<w>` = (boot, end):
//!
//! 1. *Now* is the store's own clock, which never goes back, not even when the store's rows are rolled back. It is read in the same
//!    transaction that writes the row, so no machine's clock can put a window where it does not belong.
//! 2. A window ends at most [`WINDOW_MS`](claim::WINDOW_MS) (W) after the *now* at which its end was written.
//! 3. Another boot takes the worker ID only when the row's end has passed, and its window starts W after the *now* of that moment.
//!    By 2 every earlier window of that ID ended by then, *whether or not its row is still there*. So windows of one worker ID are
//!    disjoint even after a rollback that lost the row.
//! 4. The row is extended by compare-and-swap on (boot, end), and only before the end has passed. A boot that comes later or finds
//!    anything else has lost its window: it stops minting under it and takes another worker ID. Without the first of the two, a rollback
//!    could bring back the row of a boot whose worker ID another had taken meanwhile, and let it go on into the other's window.
//!
//! A fresh window therefore starts W ahead of time and is empty until it is extended for the first time, a few milliseconds later: for
//! its first minute a boot mints timestamps up to W in the future. They are unique and increase; they are no record of when.
//!
//! A cloned process is again the one case that memory cannot see; what is stored under a Snowflake ID is inserted if absent.

pub mod allocate;
pub mod claim;
pub mod granted;
pub mod id_range;
pub mod mint;
pub mod permutation;
pub mod random_id;
pub mod short_code;
pub mod snowflake;
pub mod worker_id;

pub use id_range::{BLOCK_SIZE, Block, IdRange};
pub use permutation::{CodePermutation, IdPermutation, PermutationKey};
pub use random_id::{BootId, KeyspaceId};
pub use short_code::{CodeLength, ShortCode};
pub use snowflake::{Snowflake, SnowflakeId, Window};
pub use worker_id::WorkerId;
