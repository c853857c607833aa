//! The use-cases of links: shorten, resolve, list, update, delete.
//!
//! Takes checked requests and gives rows; knows nothing of HTTP but the redirect's ready-made headers. A create is one
//! transaction, insert-if-absent, and is acknowledged only when that has been committed.

pub mod alias;
pub mod blocked_hosts;
pub mod coherence;
pub mod hot;
pub mod link;
pub mod list;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod target_url;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use std::time::Duration;

pub use link::RedirectStatus;
pub use resolve::{Resolve, ResolveError, Resolved, Waited};

use crate::ambient::{Clock, UnixMs};
use crate::cache::local::LocalCache;
use crate::cache::redis_cluster::links::{SharedLink, SharedLinks};
use crate::invalid::Invalid;
use crate::kv::{Kv, KvError, Transaction};
use crate::minter::{MintError, Minter};
use crate::public_url::PublicUrls;
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::idempotency::{IdempotencyRow, first_answer, idempotency_key, remember_answer};
use crate::store::invalidations::put_invalidation;
use crate::store::links::{self as rows, LinkAddress, LinkRow};
use blocked_hosts::BlockedHosts;
use link::Destination;
use request::{LinkChange, LinkChangeRequest, LinkRequest, NewLink, Rules};
use target_url::{OwnDomainError, OwnDomains};

/// How often a create mints again when its code or ID is taken. A clash with an alias is rare (62^7 codes), two in a row
/// rarer still; more than this many mean that the store was rolled back and the node must not go on guessing.
const MINTS_MAX: usize = 16;
/// How long an idempotency key is remembered.
const IDEMPOTENCY_TTL: Duration = Duration::from_hours(24);

/// Why a link could not be made, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Fields of the request are wrong.
    #[error("the request is not valid: {0}")]
    Invalid(#[from] Invalid),
    /// Somebody has the alias.
    #[error("the alias is taken")]
    AliasTaken,
    /// No such link, or somebody else's.
    #[error("no such link")]
    NotFound,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// There is nothing to mint from at the moment.
    #[error("no code can be minted at the moment")]
    Mint(#[from] MintError),
    /// Every code minted was taken: see [`MINTS_MAX`].
    #[error("{MINTS_MAX} minted codes in a row were taken")]
    MintClashes,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<KvError> for LinkError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// Counts what should stay zero.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    /// `shortener_mint_clashes_total`: a minted code was there already, and is no alias.
    pub mint_clashes: prometheus::IntCounter,
}

/// An `Idempotency-Key` and who sent it with what.
#[derive(Clone, Debug)]
pub struct Idempotency {
    key: Vec<u8>,
    request: [u8; 32],
}

impl Idempotency {
    /// `caller` tells users and addresses apart; `body` is the request as it was sent.
    pub fn new(caller: &str, key: &str, body: &[u8]) -> Self {
        Self { key: idempotency_key(caller, key), request: Sha256::digest(body).into() }
    }
}

/// The use-cases of links.
#[derive(Clone, Debug)]
pub struct Links {
    kv: Kv,
    clock: Clock,
    minter: Minter,
    cache: Arc<LocalCache<Destination>>,
    shared: Option<SharedLinks>,
    public_urls: PublicUrls,
    own_domains: OwnDomains,
    blocked_hosts: BlockedHostsNow,
    redirect_status: RedirectStatus,
    metrics: LinkMetrics,
}

/// The list of blocked hosts as it is now; replaced whole when its file changes.
pub type BlockedHostsNow = Arc<std::sync::RwLock<Arc<BlockedHosts>>>;

/// What [`Links::new`] is made of.
#[derive(Clone, Debug)]
pub struct LinksParts {
    /// The store.
    pub kv: Kv,
    /// The clock.
    pub clock: Clock,
    /// Where codes and IDs come from.
    pub minter: Minter,
    /// The cache that redirects are answered from, told of every change.
    pub cache: Arc<LocalCache<Destination>>,
    /// Links in the cache that nodes share, if they do.
    pub shared: Option<SharedLinks>,
    /// Our own hosts.
    pub public_urls: PublicUrls,
    /// Hosts that may not be shortened.
    pub blocked_hosts: BlockedHostsNow,
    /// The status of links that name none.
    pub redirect_status: RedirectStatus,
    /// What is counted.
    pub metrics: LinkMetrics,
}

impl Links {
    /// The use-cases on these parts; fails when a host of ours is no host.
    pub fn new(parts: LinksParts) -> Result<Self, OwnDomainError> {
        let LinksParts { kv, clock, minter, cache, shared, public_urls, blocked_hosts, redirect_status, metrics } =
            parts;
        let own_domains = OwnDomains::new(public_urls.hosts().iter().map(String::as_str))?;
        Ok(Self { kv, clock, minter, cache, shared, public_urls, own_domains, blocked_hosts, redirect_status, metrics })
    }

    /// Makes a link for `owner`. With an idempotency key that was used before, gives the link as it was made then.
    pub async fn shorten(
        &self,
        owner: Option<UserId>,
        request: LinkRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        // Before anything is checked: what was fine then may be refused by now, as an expiry that has passed.
        if let Some(first) = self.answered(idempotency.as_ref()).await? {
            return Ok(first);
        }
        let blocked = self.blocked_hosts();
        let new = request.check(self.rules(&blocked), self.clock.now())?;
        for _ in 0..MINTS_MAX {
            let (at, row) = self.draft(owner, &new)?;
            let made = self.kv.transact(async |txn| insert(txn, &at, &row, idempotency.as_ref()).await).await;
            match made {
                Ok((at, row)) => {
                    // The code may have been asked for before it was there, and is then remembered as unknown.
                    self.cache.forget(new.domain.index(), &at.code);
                    self.tell_of_created(&at, &row);
                    return Ok((at, row));
                }
                Err(LinkError::Store(StoreError::Kv(KvError::AlreadyExists { key }))) => {
                    // The same request, sent again before its first answer, may have come first.
                    if let Some(first) = self.answered(idempotency.as_ref()).await? {
                        return Ok(first);
                    }
                    let there = rows::read_link(&self.kv.snapshot().await?, &at.domain, &at.code).await?;
                    if there.as_ref().is_some_and(|there| there.id == row.id) {
                        // Our own, by an attempt whose answer was lost.
                        self.cache.forget(new.domain.index(), &at.code);
                        self.tell_of_created(&at, &row);
                        return Ok((at, row));
                    }
                    self.explain_clash(&new, &at, &key, there)?;
                }
                Err(LinkError::Store(StoreError::Kv(KvError::Undetermined))) => {
                    return self.read_back(&new, at, row).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LinkError::MintClashes)
    }

    /// After a commit whose fate is not known: the link if it is there. If it is not, it may yet come; then nobody can say.
    async fn read_back(
        &self,
        new: &NewLink,
        at: LinkAddress,
        row: LinkRow,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        self.cache.forget(new.domain.index(), &at.code);
        let there = rows::read_link(&self.kv.snapshot().await?, &at.domain, &at.code).await?;
        match there.is_some_and(|there| there.id == row.id) {
            true => {
                self.tell_of_created(&at, &row);
                Ok((at, row))
            }
            false => Err(KvError::Undetermined.into()),
        }
    }

    /// Leaves a link that was just made in the cache that nodes share: whoever makes one looks at it next.
    fn tell_of_created(&self, at: &LinkAddress, row: &LinkRow) {
        if let Some(shared) = &self.shared {
            shared.created(at.clone(), shared_link(row), row.is_alias);
        }
    }

    /// Within the transaction of a change: leaves word of it for the caches that nodes share. Where nodes share a store they may
    /// share a cache, be it that this node does not use it.
    fn leave_word(&self, txn: &mut Transaction, at: &LinkAddress, row: &LinkRow) {
        if self.shared.is_some() || matches!(self.kv, Kv::Tikv(_)) {
            put_invalidation(txn, at, row.version);
        }
    }

    /// After the commit of a change: tells the cache that nodes share, and by it the other nodes.
    fn tell_of_changed(&self, at: &LinkAddress, row: &LinkRow) {
        if let Some(shared) = &self.shared {
            shared.changed(at.clone(), shared_link(row));
        }
    }

    /// What the idempotency key was answered before, if it was.
    async fn answered(&self, idempotency: Option<&Idempotency>) -> Result<Option<(LinkAddress, LinkRow)>, LinkError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let txn = self.kv.begin().await?;
        repeated(&txn, idempotency, self.clock.now()).await
    }

    fn draft(&self, owner: Option<UserId>, new: &NewLink) -> Result<(LinkAddress, LinkRow), LinkError> {
        let code = match &new.alias {
            Some(alias) => alias.as_str().to_owned(),
            None => self.unreserved_code()?,
        };
        let now = self.clock.now();
        let at = LinkAddress { domain: new.domain.as_str().to_owned(), code };
        let row = LinkRow {
            id: self.minter.next_id()?.into(),
            owner,
            target: new.target.as_str().to_owned(),
            status: new.status.as_u16(),
            title: new.title.clone(),
            tags: new.tags.clone(),
            is_active: true,
            expires_at: new.expires_at,
            created_at: now,
            updated_at: now,
            version: 1,
            is_alias: new.alias.is_some(),
            is_deleted: false,
        };
        Ok((at, row))
    }

    /// The next code that does not happen to spell a word that the service keeps for itself.
    fn unreserved_code(&self) -> Result<String, MintError> {
        loop {
            let code = self.minter.next_code()?.to_string();
            if !alias::is_reserved(&code) {
                return Ok(code);
            }
        }
    }

    /// An insert found its key taken: an alias is somebody's; a minted code may have been taken by an alias, and minting
    /// moves on. Anything else must never happen and is counted before it is hidden by moving on.
    fn explain_clash(
        &self,
        new: &NewLink,
        at: &LinkAddress,
        key: &[u8],
        there: Option<LinkRow>,
    ) -> Result<(), LinkError> {
        let taken_code = *key == *rows::link_key(&at.domain, &at.code);
        if taken_code && new.alias.is_some() {
            return Err(LinkError::AliasTaken);
        }
        if !(taken_code && there.is_some_and(|row| row.is_alias)) {
            tracing::error!("a minted ID was taken already: was the store rolled back?");
            self.metrics.mint_clashes.inc();
        }
        Ok(())
    }

    /// The link with this ID, if `caller` may see it: its owner, or anyone where it has none.
    pub async fn get(&self, caller: Option<UserId>, id: u64) -> Result<(LinkAddress, LinkRow), LinkError> {
        let found = rows::link_by_id(&self.kv.begin().await?, id).await?;
        let visible = found.filter(|(_, row)| row.owner.is_none() || row.owner == caller);
        visible.ok_or(LinkError::NotFound)
    }

    /// The link at an address that `owner` must own.
    pub async fn owned_at(&self, owner: UserId, domain: &str, code: &str) -> Result<LinkRow, LinkError> {
        let row = self.at(domain, code).await?;
        row.filter(|row| row.owner == Some(owner)).ok_or(LinkError::NotFound)
    }

    /// The link at an address, unless it was deleted.
    pub async fn at(&self, domain: &str, code: &str) -> Result<Option<LinkRow>, LinkError> {
        let row = rows::read_link(&self.kv.snapshot().await?, domain, code).await?;
        Ok(row.filter(|row| !row.is_deleted))
    }

    /// Changes a link of `owner`'s.
    pub async fn update(
        &self,
        owner: UserId,
        id: u64,
        request: LinkChangeRequest,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        let blocked = self.blocked_hosts();
        let change = request.check(self.rules(&blocked), self.clock.now())?;
        let _forgotten = self.forgotten_when_done(owner, id).await?;
        let changed = self.kv.transact(async |mut txn| {
            let (at, row) = owned(&txn, owner, id).await?;
            let row = changed(row, &change, self.clock.now());
            rows::put_link(&mut txn, &at, &row);
            self.leave_word(&mut txn, &at, &row);
            Ok::<_, LinkError>((txn, (at, row)))
        });
        let (at, row) = changed.await?;
        self.tell_of_changed(&at, &row);
        Ok((at, row))
    }

    /// Deletes a link of `owner`'s; its code is never given out again.
    pub async fn delete(&self, owner: UserId, id: u64) -> Result<(), LinkError> {
        let _forgotten = self.forgotten_when_done(owner, id).await?;
        let deleted = self.kv.transact(async |mut txn| {
            let (at, row) = owned(&txn, owner, id).await?;
            let row = tombstone(&row, self.clock.now());
            rows::bury_link(&mut txn, &at, &row);
            self.leave_word(&mut txn, &at, &row);
            Ok::<_, LinkError>((txn, (at, row)))
        });
        let (at, row) = deleted.await?;
        self.tell_of_changed(&at, &row);
        Ok(())
    }

    /// What makes the cache forget a link once it is dropped: the change was made, or nobody knows whether, or the caller went
    /// away while it was being made.
    async fn forgotten_when_done(&self, owner: UserId, id: u64) -> Result<ForgottenWhenDone<'_>, LinkError> {
        let (at, row) = owned(&self.kv.begin().await?, owner, id).await?;
        Ok(ForgottenWhenDone { links: self, at, next_version: row.version.saturating_add(1) })
    }

    fn blocked_hosts(&self) -> Arc<BlockedHosts> {
        self.blocked_hosts.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn rules<'a>(&'a self, blocked_hosts: &'a BlockedHosts) -> Rules<'a> {
        let Self { public_urls, own_domains, redirect_status, .. } = self;
        Rules { public_urls, own_domains, blocked_hosts, redirect_status: *redirect_status }
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
        if let Some(domain) = self.links.public_urls.by_name(&self.at.domain) {
            self.links.cache.forget(domain.index(), &self.at.code);
        }
    }
}

/// The first answer to an idempotency key, which must have come with the same request.
async fn repeated(
    txn: &Transaction,
    Idempotency { key, request }: &Idempotency,
    now: UnixMs,
) -> Result<Option<(LinkAddress, LinkRow)>, LinkError> {
    match first_answer(txn, key, now).await? {
        Some(first) if first.request != *request => Err(LinkError::KeyReused),
        first => Ok(first.map(|first| (first.at, first.link))),
    }
}

/// Within one transaction: the first answer if the key has one, else the new link and the key's answer.
async fn insert(
    mut txn: Transaction,
    at: &LinkAddress,
    row: &LinkRow,
    idempotency: Option<&Idempotency>,
) -> Result<(Transaction, (LinkAddress, LinkRow)), LinkError> {
    if let Some(idempotency) = idempotency {
        if let Some(first) = repeated(&txn, idempotency, row.created_at).await? {
            return Ok((txn, first));
        }
        let Idempotency { key, request } = idempotency;
        let expires_at = row.created_at.plus(IDEMPOTENCY_TTL);
        let answer = IdempotencyRow { request: *request, at: at.clone(), link: row.clone(), expires_at };
        remember_answer(&mut txn, key.clone(), &answer);
    }
    rows::insert_link(&mut txn, at, row);
    Ok((txn, (at.clone(), row.clone())))
}

fn shared_link(row: &LinkRow) -> SharedLink {
    SharedLink { version: row.version, row: Some(rows::encode_link(row).into()) }
}

async fn owned(txn: &Transaction, owner: UserId, id: u64) -> Result<(LinkAddress, LinkRow), LinkError> {
    let found = rows::link_by_id(txn, id).await?;
    found.filter(|(_, row)| row.owner == Some(owner)).ok_or(LinkError::NotFound)
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
