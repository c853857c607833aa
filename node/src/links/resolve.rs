//! From a code to where it leads: the path of every redirect.
//!
//! The process's cache first, then one point get of the store. Concurrent misses on one code become one read; the number
//! of reads in flight is bounded, and past it the answer is a fast refusal; a read has a deadline. Nothing is written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::link::{Destination, Hop, RedirectStatus};
use crate::ambient::{Clock, UnixMs};
use crate::cache::local::LocalCache;
use crate::kv::Kv;
use crate::public_url::Domain;
use crate::store::StoreError;
use crate::store::links::{decode_link, link_key};

/// Reads of the store in flight at once. More would only queue behind each other, past the deadline.
const STORE_READS_MAX: usize = 256;
/// Redirects that wait for those reads at once, many for the same one. It leaves half of the node's places to redirects that
/// the cache answers.
const WAITING_MAX: usize = 2_048;
/// How long a redirect waits for the store, or for another that asks it for the same code.
const STORE_DEADLINE: Duration = Duration::from_secs(1);

/// What became of a code.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// It redirects.
    Hop(Arc<Destination>),
    /// It did until its time was over.
    Expired,
    /// No such code, or not active.
    Unknown,
}

impl Resolved {
    fn of(destination: Arc<Destination>, now: UnixMs) -> Self {
        match &*destination {
            Destination::Nowhere => Self::Unknown,
            Destination::Hop(Hop { expires_at: Some(end), .. }) if *end <= now => Self::Expired,
            Destination::Hop(_) => Self::Hop(destination),
        }
    }
}

/// Why nothing can be said about a code now. Never a reason for a 404.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// [`STORE_READS_MAX`] reads are in flight, or [`WAITING_MAX`] redirects wait for them.
    #[error("too many reads of the store are in flight")]
    Overloaded,
    /// The store did not answer within its deadline.
    #[error("the store did not answer within {STORE_DEADLINE:?}")]
    Deadline,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Arc<StoreError>),
}

/// Resolves codes.
#[derive(Clone, Debug)]
pub struct Resolve {
    kv: Kv,
    clock: Clock,
    cache: Arc<LocalCache<Destination>>,
    reads: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    cache_max_age: Duration,
}

impl Resolve {
    /// Resolves from `kv` through `cache`; `cache_max_age` is what a CDN may keep of temporary redirects.
    pub fn new(kv: Kv, clock: Clock, cache: Arc<LocalCache<Destination>>, cache_max_age: Duration) -> Self {
        let [reads, waiting] = [STORE_READS_MAX, WAITING_MAX].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { kv, clock, cache, reads, waiting, cache_max_age }
    }

    /// What this process knows of a code without asking anybody.
    pub fn known(&self, domain: &Domain, code: &str) -> Option<Resolved> {
        let destination = self.cache.get(domain.index(), code, self.clock.monotonic())?;
        Some(Resolved::of(destination, self.clock.now()))
    }

    /// Where `code` leads. One deadline holds for the read and for waiting for another's: when a read fails, those who waited
    /// for it take turns, and the last one must not wait for all of them.
    pub async fn resolve(&self, domain: &Domain, code: &str) -> Result<Resolved, ResolveError> {
        let _place = self.waiting.try_acquire().map_err(|_| ResolveError::Overloaded)?;
        let read = self.cache.get_or_read(domain.index(), code, self.clock.monotonic(), self.read(domain, code));
        let destination = tokio::time::timeout(STORE_DEADLINE, read).await.map_err(|_| ResolveError::Deadline)??;
        Ok(Resolved::of(destination, self.clock.now()))
    }

    async fn read(&self, domain: &Domain, code: &str) -> Result<Destination, ResolveError> {
        let _permit = self.reads.try_acquire().map_err(|_| ResolveError::Overloaded)?;
        let key = link_key(domain.as_str(), code);
        let bytes = self.kv.get(&key).await.map_err(|error| failed(error.into()))?;
        let row = bytes.as_deref().map(decode_link).transpose().map_err(failed)?;
        Ok(Destination::of(domain.as_str(), code, row.as_ref(), self.cache_max_age))
    }

    /// `Cache-Control` of a hop that is sent with `status` now.
    pub fn cache_control(&self, hop: &Hop, status: RedirectStatus) -> http::HeaderValue {
        hop.cache_control_at(self.clock.now(), status, self.cache_max_age)
    }
}

fn failed(error: StoreError) -> ResolveError {
    ResolveError::Store(Arc::new(error))
}
