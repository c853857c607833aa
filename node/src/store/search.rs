//! The index that an owner's links are searched by: segments, what no segment covers yet, and how far the index goes.
//!
//! A link is *unindexed* from the moment that its text changes until a segment covers the new text. The row that says so is
//! written with the link, in one transaction, and deleted with the one that writes the segment. Whoever loses the race
//! for it begins again, and reads what the other wrote. No order of IDs and no clock has a part in this.
//!
//! The index stands while its head says that it is whole. It is made of the links, and is in no backup.

use serde::{Deserialize, Serialize};

use super::accounts::UserId;
use super::links::LinkRow;
use super::{Key, Kind, StoreError, decode, decode_own, encode, key_after};
use crate::kv::{Row, Snapshot, Transaction, prefix_range};

/// Version byte of the rows that say that a link is unindexed.
const UNINDEXED_V1: u8 = 1;
/// Version byte of heads and segments. A change of what a filter's items are, or of how text is folded, is a new version.
const INDEX_V1: u8 = 1;

/// The head's place among the segments: before all of them.
const HEAD: u64 = 0;

/// Segments read at once: 4 MiB of the largest.
const PAGE_SEGMENTS: usize = 256;
/// Rows of unindexed links read at once.
const PAGE_UNINDEXED: usize = 1_000;

/// A link that no segment covers as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unindexed {
    /// Its ID.
    pub link: u64,
    /// Whether a segment may still list it, as it was before.
    pub was_indexed: bool,
}

#[derive(Serialize, Deserialize)]
struct UnindexedRow {
    was_indexed: bool,
}

/// How much of an owner's links the index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// All but those with lower IDs than this one.
    DownTo(u64),
    /// All but those that are unindexed.
    Whole,
}

/// Some links, and what they held when they were indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Their IDs, ascending.
    pub links: Vec<u64>,
    /// What they held, and perhaps more: as many bytes as a power of two.
    pub filter: Vec<u8>,
}

/// A [`Segment`] as it is kept: IDs that were minted in a row are near each other.
#[derive(Serialize, Deserialize)]
struct SegmentRow {
    /// How much higher each ID is than the one before; the first than 0.
    steps: Vec<u64>,
    #[serde(with = "bytes_whole")]
    filter: Vec<u8>,
}

fn unindexed_key(owner: UserId, link: u64) -> Vec<u8> {
    Key::of(Kind::Unindexed).spread(owner.0.into()).descending(link).build()
}

fn index_key(owner: UserId, number: u64) -> Vec<u8> {
    Key::of(Kind::SearchIndex).spread(owner.0.into()).number(number).build()
}

/// The number at the end of a key.
fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Whether a search could tell the two apart.
fn differ(before: &LinkRow, after: &LinkRow) -> bool {
    before.target != after.target || before.title != after.title || before.tags != after.tags
}

/// Within the transaction that makes a link: says that it is unindexed.
pub(super) fn link_was_made(txn: &mut Transaction, row: &LinkRow) {
    if let Some(owner) = row.owner {
        put_unindexed(txn, owner, Unindexed { link: row.id, was_indexed: false });
    }
}

/// Within the transaction that changes or deletes a link: says that it is unindexed, if a search could tell.
pub(super) fn link_was_changed(txn: &mut Transaction, before: &LinkRow, after: &LinkRow) {
    if let Some(owner) = after.owner.filter(|_| differ(before, after) || after.is_deleted) {
        put_unindexed(txn, owner, Unindexed { link: after.id, was_indexed: true });
    }
}

/// Says that a link is unindexed.
pub fn put_unindexed(txn: &mut Transaction, owner: UserId, unindexed: Unindexed) {
    let row = UnindexedRow { was_indexed: unindexed.was_indexed };
    txn.put(unindexed_key(owner, unindexed.link), encode(UNINDEXED_V1, &row));
}

/// Says that a link is not unindexed any more: within the transaction that writes its segment, or finds that it is gone.
pub fn delete_unindexed(txn: &mut Transaction, owner: UserId, link: u64) {
    txn.delete(unindexed_key(owner, link));
}

fn read_unindexed((key, value): &Row) -> Result<Unindexed, StoreError> {
    let UnindexedRow { was_indexed } = decode(Kind::Unindexed, UNINDEXED_V1, value)?;
    let link = last_number(key).ok_or(StoreError::Decode { kind: Kind::Unindexed, version: None })?;
    Ok(Unindexed { link: !link, was_indexed })
}

/// Up to `limit` of `owner`'s unindexed links, those with the highest IDs first.
pub async fn unindexed(snapshot: &Snapshot, owner: UserId, limit: usize) -> Result<Vec<Unindexed>, StoreError> {
    let range = prefix_range(Key::of(Kind::Unindexed).spread(owner.0.into()).build());
    snapshot.scan(range, limit).await?.iter().map(read_unindexed).collect()
}

/// Those of these links that are unindexed.
pub async fn are_unindexed(snapshot: &Snapshot, owner: UserId, links: &[u64]) -> Result<Vec<u64>, StoreError> {
    let keys: Vec<Vec<u8>> = links.iter().map(|link| unindexed_key(owner, *link)).collect();
    let found = snapshot.batch_get(&keys).await?;
    Ok(links.iter().zip(found).filter_map(|(link, row)| row.map(|_| *link)).collect())
}

/// Hands each of `owner`'s unindexed links with a lower ID than `below` to `each`, and answers how many there are.
pub async fn each_unindexed_below(
    snapshot: &Snapshot,
    owner: UserId,
    below: Option<u64>,
    mut each: impl FnMut(u64),
) -> Result<usize, StoreError> {
    let mut range = prefix_range(Key::of(Kind::Unindexed).spread(owner.0.into()).build());
    if let Some(below) = below {
        range.start = key_after(&unindexed_key(owner, below));
    }
    let mut found = 0;
    loop {
        let page = snapshot.scan(range.clone(), PAGE_UNINDEXED).await?;
        for row in &page {
            each(read_unindexed(row)?.link);
        }
        found += page.len();
        match page.last() {
            Some((last, _)) if page.len() == PAGE_UNINDEXED => range.start = key_after(last),
            _ => return Ok(found),
        }
    }
}

/// How far `owner`'s index goes; none when there is none.
pub async fn head(snapshot: &Snapshot, owner: UserId) -> Result<Option<Head>, StoreError> {
    let bytes = snapshot.get(&index_key(owner, HEAD)).await?;
    bytes.as_deref().map(|bytes| decode_own(Kind::SearchIndex, INDEX_V1, bytes)).transpose()
}

/// Sets how far `owner`'s index goes.
pub fn put_head(txn: &mut Transaction, owner: UserId, head: Head) {
    txn.put(index_key(owner, HEAD), encode(INDEX_V1, &head));
}

/// Adds a segment under a random number; the commit fails with `AlreadyExists` if there is one under it.
pub fn insert_segment(txn: &mut Transaction, owner: UserId, random: u64, segment: &Segment) {
    txn.insert(index_key(owner, random.max(HEAD + 1)), encode_segment(segment));
}

/// Replaces a segment.
pub fn put_segment(txn: &mut Transaction, owner: UserId, number: u64, segment: &Segment) {
    txn.put(index_key(owner, number), encode_segment(segment));
}

/// Deletes a segment.
pub fn delete_segment(txn: &mut Transaction, owner: UserId, number: u64) {
    txn.delete(index_key(owner, number));
}

/// Hands each of `owner`'s segments and its number to `each`, as of a snapshot; answers false, at once, when the index is not whole.
pub async fn each_segment_of_whole(
    snapshot: &Snapshot,
    owner: UserId,
    mut each: impl FnMut(u64, Segment),
) -> Result<bool, StoreError> {
    let mut range = prefix_range(Key::of(Kind::SearchIndex).spread(owner.0.into()).build());
    let mut is_whole = false;
    loop {
        let page = snapshot.scan(range.clone(), PAGE_SEGMENTS).await?;
        for (key, value) in &page {
            match last_number(key) {
                Some(HEAD) => is_whole = decode_own::<Head>(Kind::SearchIndex, INDEX_V1, value)? == Head::Whole,
                Some(number) if is_whole => each(number, decode_segment(value)?),
                _ => return Ok(false),
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE_SEGMENTS => range.start = key_after(last),
            _ => return Ok(is_whole),
        }
    }
}

fn encode_segment(Segment { links, filter }: &Segment) -> Vec<u8> {
    let before = [0].into_iter().chain(links.iter().copied());
    let steps = links.iter().zip(before).map(|(link, before)| link.wrapping_sub(before)).collect();
    encode(INDEX_V1, &SegmentRow { steps, filter: filter.clone() })
}

fn decode_segment(bytes: &[u8]) -> Result<Segment, StoreError> {
    let SegmentRow { steps, filter } = decode_own(Kind::SearchIndex, INDEX_V1, bytes)?;
    let mut last = 0_u64;
    let links = steps.into_iter().map(|step| {
        last = last.wrapping_add(step);
        last
    });
    Ok(Segment { links: links.collect(), filter })
}

/// Bytes as one piece: postcard writes the same as for a list of them, and copies instead of counting.
mod bytes_whole {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes, as many as a power of two")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len().is_power_of_two() { Ok(bytes.to_vec()) } else { Err(E::custom("not a power of two")) }
            }
        }
        deserializer.deserialize_bytes(Whole)
    }
}
