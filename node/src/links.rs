//! The use-cases of links: shorten, resolve, list, update, delete.
//!
//! Takes checked requests and gives rows; knows nothing of HTTP but the redirect's ready-made headers. A create is one
//! transaction, insert-if-absent, and is acknowledged only when that has been committed.

pub mod alias;
pub mod blocked_hosts;
mod change;
pub mod coherence;
pub mod hot;
pub mod invisible;
pub mod link;
pub mod link_keys;
pub mod list;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod search;
mod shorten;
pub mod takedowns;
pub mod target_url;

use std::sync::{Arc, OnceLock};

pub use link::RedirectStatus;
pub use resolve::{Resolve, ResolveError, Resolved, Waited};
pub use shorten::Idempotency;

use crate::ambient::Clock;
use crate::cache::local::LocalCache;
use crate::cache::redis_cluster::links::{SharedLink, SharedLinks};
use crate::domains::{Domains, Served, Unsettled};
use crate::invalid::Invalid;
use crate::kv::{Kv, KvError, Transaction};
use crate::minter::{MintError, Minter};
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::format::Formats;
use crate::store::links::{self as rows, LinkAddress, LinkRow};
use blocked_hosts::BlockedHosts;
use link::Destination;
use link_keys::LinkKeys;
use list::Lists;
use request::Rules;
use shorten::MINTS_MAX;
use takedowns::Takedowns;

/// Why a link could not be made, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Fields of the request are wrong.
    #[error("the request is not valid: {0}")]
    Invalid(#[from] Invalid),
    /// Somebody has the alias.
    #[error("the alias is taken")]
    AliasTaken,
    /// A link had the alias that was deleted since.
    #[error("the alias was used before")]
    AliasUsed,
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
    /// What hosts mean is not known yet.
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
}

impl From<KvError> for LinkError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// Whoever reads, changes or deletes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// A user: manages the links that are the user's own.
    Owner(UserId),
    /// A client that has shown the link's management token: manages that link while it has no owner.
    TokenHolder,
}

impl Manager {
    fn manages(self, row: &LinkRow) -> bool {
        match self {
            Self::Owner(user) => row.owner == Some(user),
            Self::TokenHolder => row.owner.is_none(),
        }
    }
}

/// Counts what should stay zero.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    /// `shortener_mint_clashes_total`: a minted code was there already, and is no alias.
    pub mint_clashes: prometheus::IntCounter,
}

/// The use-cases of links.
#[derive(Clone, Debug)]
pub struct Links {
    kv: Kv,
    clock: Clock,
    minter: Minter,
    keys: Arc<OnceLock<LinkKeys>>,
    lists: Lists,
    cache: Arc<LocalCache<Destination>>,
    shared: Option<SharedLinks>,
    domains: Domains,
    takedowns: Takedowns,
    redirect_status: RedirectStatus,
    formats: Formats,
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
    pub domains: Domains,
    /// Hosts that no link may lead to.
    pub takedowns: Takedowns,
    /// The status of links that name none.
    pub redirect_status: RedirectStatus,
    /// What rows are written as.
    pub formats: Formats,
    /// What is counted.
    pub metrics: LinkMetrics,
}

impl Links {
    /// The use-cases on these parts.
    pub fn new(parts: LinksParts) -> Self {
        let LinksParts { kv, clock, minter, cache, shared, domains, takedowns, redirect_status, formats, metrics } =
            parts;
        let keys = Arc::new(OnceLock::new());
        let lists = Lists::new(kv.clone(), formats.clone());
        Self { kv, clock, minter, keys, lists, cache, shared, domains, takedowns, redirect_status, formats, metrics }
    }

    /// What public IDs and management tokens are made with; fails until the store was reached.
    pub fn keys(&self) -> Result<&LinkKeys, LinkError> {
        match self.keys.get() {
            Some(keys) => Ok(keys),
            None => {
                let keys = LinkKeys::of(&self.minter)?;
                Ok(self.keys.get_or_init(|| keys))
            }
        }
    }

    /// The link with this ID, if `manager` may manage it.
    pub async fn get(&self, manager: Manager, id: u64) -> Result<(LinkAddress, LinkRow), LinkError> {
        let found = rows::link_by_id(&self.kv.begin().await?, id).await?;
        managed_by(manager, found)
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

    /// The link with this ID, within a transaction that is going to change it, if `manager` may manage it.
    async fn managed(&self, txn: &Transaction, manager: Manager, id: u64) -> Result<(LinkAddress, LinkRow), LinkError> {
        managed_by(manager, rows::link_to_change(txn, id, &self.formats).await?)
    }

    fn shared_link(&self, row: &LinkRow) -> SharedLink {
        SharedLink { version: row.version, row: Some(rows::encode_link(self.formats.written(), row).into()) }
    }

    /// The lists of owners' links.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    fn rules<'a>(&'a self, served: &'a Served) -> Rules<'a> {
        Rules { served, takedowns: &self.takedowns, redirect_status: self.redirect_status }
    }
}

/// Somebody else's link is not there.
fn managed_by(manager: Manager, found: Option<(LinkAddress, LinkRow)>) -> Result<(LinkAddress, LinkRow), LinkError> {
    found.filter(|(_, row)| manager.manages(row)).ok_or(LinkError::NotFound)
}
