//! An owner's links, newest first, a page at a time.
//!
//! With a filter, a page ends empty only where the list ends: the search goes on until it finds a link. By the index it reads
//! what may match; without one, all links.

use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64;

use super::search::candidates::candidates;
use super::search::filter::Item;
use super::search::indexer::Indexer;
use super::search::text::Needle;
use super::{LinkError, Links};
use crate::invalid::Invalid;
use crate::kv::{Kv, Snapshot};
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::format::Formats;
use crate::store::links::{LinkAddress, LinkRow, links_by_id, links_of_owner};

/// Links in a page at most.
pub const PAGE_MAX: usize = 100;
/// Links looked at for one page, once it holds one. A filter that matches little gives a page that is not full, with a cursor to go
/// on from, instead of a long request.
const SCANNED_MAX: usize = 2_000;
/// Links read from the store at once, and how many in the first step of a search by the index: most find enough there.
const SCAN_STEP: usize = 500;
const SCAN_STEP_FIRST: usize = 200;
/// Searches at once. Each holds about 10 MiB at most, when all links are as long as they can be.
const SEARCHES_MAX: usize = 8;
/// Groups of owners of which one searches at a time: nobody has all the places.
const OWNER_GROUPS: usize = 64;
/// Unindexed links that a search reads, and has indexed.
const UNINDEXED_MANY: usize = 512;

/// Which links to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Links in the page at most, 1 to [`PAGE_MAX`].
    pub limit: usize,
    /// Begin after this link.
    pub after: Option<u64>,
    /// Only links with this in their code, URL or title: see [`text`](super::search::text).
    pub contains: Option<String>,
    /// Only links with this tag.
    pub tag: Option<String>,
}

/// A page of links.
#[derive(Clone, Debug)]
pub struct Page {
    /// The links, newest first.
    pub items: Vec<(LinkAddress, LinkRow)>,
    /// The link after which the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// A cursor as callers see it: opaque and URL-safe.
pub fn encode_cursor(after: u64) -> String {
    URL_SAFE_NO_PAD.encode(after.to_be_bytes())
}

/// The cursor that [`encode_cursor`] gave.
pub fn decode_cursor(cursor: &str) -> Result<u64, Invalid> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| Invalid::field("cursor", "must be a next_cursor of an earlier answer"))
}

impl Links {
    /// A page of `owner`'s links.
    pub async fn list(&self, owner: UserId, query: &ListQuery) -> Result<Page, LinkError> {
        Ok(self.lists.page(owner, query).await?.0)
    }
}

/// The lists of owners' links; clones share their limits.
#[derive(Clone, Debug)]
pub struct Lists {
    kv: Kv,
    indexer: Indexer,
    searches: Arc<Semaphore>,
    owners: Arc<[Semaphore; OWNER_GROUPS]>,
}

/// How many links were read for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinksRead(pub usize);

impl Lists {
    /// Of the owners in `kv`.
    pub fn new(kv: Kv, formats: Formats) -> Self {
        let owners = Arc::new(std::array::from_fn(|_| Semaphore::new(1)));
        Self {
            indexer: Indexer::new(kv.clone(), formats),
            kv,
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            owners,
        }
    }

    /// What brings the search index up to date.
    pub fn indexer(&self) -> &Indexer {
        &self.indexer
    }

    /// After a write of a link.
    pub fn was_written(&self, row: &LinkRow) {
        if let Some(owner) = row.owner {
            self.indexer.was_written(owner);
        }
    }

    /// A page of `owner`'s links, and what it took.
    pub async fn page(&self, owner: UserId, query: &ListQuery) -> Result<(Page, LinksRead), StoreError> {
        let Some(needle) = Needle::new(query.contains.as_deref(), query.tag.as_deref()) else {
            return walk(&self.kv.snapshot().await?, owner, query, |_, _| true).await;
        };
        // Nobody closes them. The groups come first: whoever waits there holds no place of all.
        let group =
            usize::try_from(xxh3_64(&u64::from(owner.0).to_be_bytes()) % OWNER_GROUPS as u64).unwrap_or_default();
        let _turn = match self.owners.get(group) {
            Some(group) => group.acquire().await.ok(),
            None => None,
        };
        let _place = self.searches.acquire().await.ok();
        let snapshot = self.kv.snapshot().await?;
        if let Some(found) = self.search(&snapshot, owner, query, &needle).await? {
            return Ok(found);
        }
        self.indexer.is_behind(owner);
        walk(&snapshot, owner, query, |at, row| needle.matches(at, row)).await
    }

    /// A page by the index; none where that is not whole.
    async fn search(
        &self,
        snapshot: &Snapshot,
        owner: UserId,
        query: &ListQuery,
        needle: &Needle,
    ) -> Result<Option<(Page, LinksRead)>, StoreError> {
        let items = Item::all_of(needle);
        let (mut filling, mut below) = (Filling::new(query), query.after);
        loop {
            let Some(found) = candidates(snapshot, owner, &items, below).await? else { return Ok(None) };
            if found.unindexed > UNINDEXED_MANY {
                self.indexer.is_behind(owner);
            }
            let mut ids = found.links.as_slice();
            while !ids.is_empty() {
                let step = if filling.looked_at == 0 { SCAN_STEP_FIRST } else { SCAN_STEP };
                let (now, later) = ids.split_at(step.min(ids.len()));
                ids = later;
                below = now.last().copied();
                for (id, link) in now.iter().zip(links_by_id(snapshot, now).await?) {
                    // One that was deleted is gone, and none is anybody else's.
                    let link = link.filter(|(at, row)| row.owner == Some(owner) && needle.matches(at, row));
                    if filling.look_at(*id, link).is_break() {
                        return Ok(Some(filling.page(true)));
                    }
                }
                if filling.is_enough() && (found.has_more || !ids.is_empty()) {
                    return Ok(Some(filling.page(true)));
                }
            }
            if !found.has_more {
                return Ok(Some(filling.page(false)));
            }
        }
    }
}

/// A page out of all of `owner`'s links.
async fn walk(
    snapshot: &Snapshot,
    owner: UserId,
    query: &ListQuery,
    matches: impl Fn(&LinkAddress, &LinkRow) -> bool,
) -> Result<(Page, LinksRead), StoreError> {
    let mut filling = Filling::new(query);
    loop {
        let step = links_of_owner(snapshot, owner, filling.after, SCAN_STEP_FIRST).await?;
        let is_last = step.len() < SCAN_STEP_FIRST;
        for (at, row) in step {
            let id = row.id;
            let link = matches(&at, &row).then_some((at, row));
            if filling.look_at(id, link).is_break() {
                return Ok(filling.page(true));
            }
        }
        if is_last {
            return Ok(filling.page(false));
        }
        if filling.is_enough() {
            return Ok(filling.page(true));
        }
    }
}

/// A page that is being filled.
#[derive(Debug)]
struct Filling {
    limit: usize,
    items: Vec<(LinkAddress, LinkRow)>,
    /// The link that was looked at last.
    after: Option<u64>,
    looked_at: usize,
}

impl Filling {
    fn new(query: &ListQuery) -> Self {
        Self { limit: query.limit, items: Vec::new(), after: query.after, looked_at: 0 }
    }

    /// Looks at the next link, which is given if it matches. Breaks when there is no place for it: the page ends before it.
    fn look_at(&mut self, id: u64, link: Option<(LinkAddress, LinkRow)>) -> ControlFlow<()> {
        self.looked_at += 1;
        if link.is_some() && self.items.len() == self.limit {
            return ControlFlow::Break(());
        }
        self.after = Some(id);
        self.items.extend(link);
        ControlFlow::Continue(())
    }

    /// Whether the page may end here: many were looked at, and it is not empty.
    fn is_enough(&self) -> bool {
        self.looked_at >= SCANNED_MAX && !self.items.is_empty()
    }

    fn page(self, has_more: bool) -> (Page, LinksRead) {
        let next = self.after.filter(|_| has_more);
        (Page { items: self.items, next }, LinksRead(self.looked_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_url_safe_and_come_back() {
        for id in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let cursor = encode_cursor(id);
            assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(decode_cursor(&cursor), Ok(id));
        }
        for wrong in ["", "x", "AAAAAAAAAAAAAAAAAAAA", "ä"] {
            assert!(decode_cursor(wrong).is_err());
        }
    }
}
