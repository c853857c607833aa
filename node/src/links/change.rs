//! Changing and deleting a link: one transaction, after which whoever remembers the link forgets it.

use super::link::RedirectStatus;
use super::request::{LinkChange, LinkChangeRequest};
use super::{LinkError, Links, Manager};
use crate::ambient::UnixMs;
use crate::kv::{Kv, Transaction};
use crate::store::invalidations::put_invalidation;
use crate::store::links::{self as rows, LinkAddress, LinkRow};

impl Links {
    /// Changes a link that `manager` manages.
    pub async fn update(
        &self,
        manager: Manager,
        id: u64,
        request: LinkChangeRequest,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        let served = self.domains.now()?;
        let change = request.check(self.rules(&served), self.clock.now())?;
        let _forgotten = self.forgotten_when_done(manager, id).await?;
        let changed = self.kv.transact(async |mut txn| {
            let (at, before) = self.managed(&txn, manager, id).await?;
            let row = changed(before.clone(), &change, self.clock.now());
            rows::replace_link(&mut txn, self.formats.written(), &at, &before, &row);
            self.leave_word(&mut txn, &at, &row);
            Ok::<_, LinkError>((txn, (at, row)))
        });
        let (at, row) = changed.await?;
        self.tell_of_changed(&at, &row);
        Ok((at, row))
    }

    /// Deletes a link that `manager` manages; its code is never given out again.
    pub async fn delete(&self, manager: Manager, id: u64) -> Result<(), LinkError> {
        let _forgotten = self.forgotten_when_done(manager, id).await?;
        let deleted = self.kv.transact(async |mut txn| {
            let (at, before) = self.managed(&txn, manager, id).await?;
            let row = tombstone(&before, self.clock.now());
            rows::bury_link(&mut txn, self.formats.written(), &at, &before, &row);
            self.leave_word(&mut txn, &at, &row);
            Ok::<_, LinkError>((txn, (at, row)))
        });
        let (at, row) = deleted.await?;
        self.tell_of_changed(&at, &row);
        Ok(())
    }

    /// What makes the cache forget a link once it is dropped: the change was made, or nobody knows whether, or the caller went
    /// away while it was being made.
    async fn forgotten_when_done(&self, manager: Manager, id: u64) -> Result<ForgottenWhenDone<'_>, LinkError> {
        let (at, row) = self.managed(&self.kv.begin().await?, manager, id).await?;
        Ok(ForgottenWhenDone { links: self, at, next_version: row.version.saturating_add(1) })
    }

    /// Within the transaction of a change: leaves word of it for the caches that nodes share. Where nodes share a store they may
    /// share a cache, be it that this node does not use it.
    fn leave_word(&self, txn: &mut Transaction, at: &LinkAddress, row: &LinkRow) {
        if self.shared.is_some() || matches!(self.kv, Kv::Tikv(_)) {
            put_invalidation(txn, at, row.version);
        }
    }

    /// After the commit of a change: tells the cache that nodes share, and by it the other nodes, and the search index.
    fn tell_of_changed(&self, at: &LinkAddress, row: &LinkRow) {
        self.lists.was_written(row);
        if let Some(shared) = &self.shared {
            shared.changed(at.clone(), self.shared_link(row));
        }
    }
}

/// See [`Links::forgotten_when_done`].
#[derive(Debug)]
struct ForgottenWhenDone<'a> {
    links: &'a Links,
    at: LinkAddress,
    /// The version that the change makes.
    next_version: u32,
}

impl Drop for ForgottenWhenDone<'_> {
    fn drop(&mut self) {
        if let Some(shared) = &self.links.shared {
            // Before it is forgotten: a read that begins after that must not find the old one in the shared cache. If the
            // change was not made after all, this link is read from the store until it is.
            shared.heard(&self.at, self.next_version);
        }
        let Ok(served) = self.links.domains.now() else { return };
        if let Some(domain) = served.by_id(&self.at.domain) {
            self.links.cache.forget(domain.index(), &self.at.code);
        }
    }
}

fn changed(row: LinkRow, change: &LinkChange, now: UnixMs) -> LinkRow {
    let LinkChange { target, is_active, expires_at, status, title, tags } = change.clone();
    LinkRow {
        target: target.map_or(row.target, |target| target.as_str().to_owned()),
        is_active: is_active.unwrap_or(row.is_active),
        expires_at: expires_at.unwrap_or(row.expires_at),
        status: status.map_or(row.status, RedirectStatus::as_u16),
        title: title.unwrap_or(row.title),
        tags: tags.unwrap_or(row.tags),
        updated_at: now,
        version: row.version.saturating_add(1),
        ..row
    }
}

/// What is left of a deleted link: that its code was used, and nothing of what its owner wrote.
fn tombstone(row: &LinkRow, now: UnixMs) -> LinkRow {
    LinkRow {
        target: String::new(),
        title: None,
        tags: Vec::new(),
        is_active: false,
        is_deleted: true,
        updated_at: now,
        version: row.version.saturating_add(1),
        ..row.clone()
    }
}
