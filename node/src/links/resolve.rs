//! From a code to where it leads: the path of every redirect.
//!
//! The process's cache first, then the shared one, then one point get of the store. Concurrent misses on one code become one
//! read; the number of reads in flight is bounded, and past it the answer is a fast refusal; a read has a deadline. What the
//! store said is left for the shared cache to be kept, which nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::field;

use super::link::{Destination, Hop, RedirectStatus};
use crate::ambient::{Clock, UnixMs};
use crate::cache::local::LocalCache;
use crate::cache::redis_cluster::DEADLINE;
use crate::cache::redis_cluster::links::{SharedLink, SharedLinks};
use crate::domains::{Domain, Domains, Unsettled};
use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::links::{LinkAddress, LinkRow, decode_link, link_key};
use crate::traces::STEP;

/// Reads of the store in flight at once. More would only queue behind each other, past the deadline.
const STORE_READS_MAX: usize = 256;
/// Redirects that wait for those reads at once, many for the same one. It leaves half of the node's places to redirects that
/// the cache answers.
const WAITING_MAX: usize = 2_048;
/// How long a redirect waits for the store.
const STORE_DEADLINE: Duration = Duration::from_secs(1);
/// How long it waits in all, for the shared cache and the store, or for another that asks them for the same code.
const RESOLVE_DEADLINE: Duration = Duration::from_millis(1_250);
const _: () = assert!(STORE_DEADLINE.as_millis() + DEADLINE.as_millis() == RESOLVE_DEADLINE.as_millis());

/// What became of a code.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// It redirects.
    Hop(Arc<Destination>),
    /// It did, with this status, until its time was over.
    Expired(RedirectStatus),
    /// It leads back to this service, with this status.
    Loop(RedirectStatus),
    /// No such code, or not active.
    Unknown,
}

impl Resolved {
    fn of(destination: Arc<Destination>, now: UnixMs) -> Self {
        match &*destination {
            Destination::Nowhere => Self::Unknown,
            Destination::Loop(status) => Self::Loop(*status),
            Destination::Hop(Hop { expires_at: Some(end), status, .. }) if *end <= now => Self::Expired(*status),
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
    #[error("the store did not answer in time")]
    Deadline,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Arc<StoreError>),
    /// What hosts mean is not known yet.
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
}

/// What of a redirect's time was spent waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// For the shared cache.
    pub cache: Duration,
    /// For the store, or for another redirect that asked for the same code.
    pub store: Duration,
}

impl Waited {
    /// For either.
    pub fn total(self) -> Duration {
        self.cache.saturating_add(self.store)
    }
}

/// Resolves codes.
#[derive(Clone, Debug)]
pub struct Resolve {
    kv: Kv,
    clock: Clock,
    cache: Arc<LocalCache<Destination>>,
    shared: Option<SharedLinks>,
    domains: Domains,
    reads: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    cache_max_age: Duration,
}

impl Resolve {
    /// Resolves from `kv` through `cache` and, where nodes share one, `shared`; a link to a host of `domains` leads nowhere; `cache_max_age` is what a CDN may keep of
    /// temporary redirects.
    pub fn new(
        kv: Kv,
        clock: Clock,
        cache: Arc<LocalCache<Destination>>,
        shared: Option<SharedLinks>,
        domains: Domains,
        cache_max_age: Duration,
    ) -> Self {
        let [reads, waiting] = [STORE_READS_MAX, WAITING_MAX].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { kv, clock, cache, shared, domains, reads, waiting, cache_max_age }
    }

    /// What this process knows of a code without asking anybody.
    pub fn known(&self, domain: &Domain, code: &str) -> Option<Resolved> {
        let span = tracing::info_span!(target: STEP, "local cache", shortener.cache.hit = field::Empty);
        let destination = self.cache.get(domain.index(), code, self.clock.monotonic());
        span.record("shortener.cache.hit", destination.is_some());
        let destination = destination?;
        Some(Resolved::of(destination, self.clock.now()))
    }

    /// Where `code` leads, and how long that took to find out. One deadline holds for the read and for waiting for another's:
    /// when a read fails, those who waited for it take turns, and the last one must not wait for all of them.
    pub async fn resolve(&self, domain: &Domain, code: &str) -> (Result<Resolved, ResolveError>, Waited) {
        let begun = self.clock.monotonic();
        let Ok(_place) = self.waiting.try_acquire() else { return (Err(ResolveError::Overloaded), Waited::default()) };
        let mut waited = Waited::default();
        let read = self.read(domain, code, &mut waited);
        let read = self.cache.get_or_read(domain.index(), code, begun, read);
        let destination = tokio::time::timeout(RESOLVE_DEADLINE, read).await;
        let destination = destination.unwrap_or(Err(ResolveError::Deadline));
        if waited.total().is_zero() || matches!(destination, Err(ResolveError::Deadline)) {
            // It was another that read, or the read was not over.
            waited.store = self.clock.monotonic().saturating_sub(begun).saturating_sub(waited.cache);
        }
        (destination.map(|destination| Resolved::of(destination, self.clock.now())), waited)
    }

    /// Reads again what this process knows of a code, if that is known for less than `before` from now on.
    pub async fn renew(&self, domain: &Domain, code: &str, before: Duration) {
        let now = self.clock.monotonic();
        let known = self.cache.known_until(domain.index(), code, now);
        let Some((seen, _)) = known.filter(|(_, ends)| ends.saturating_sub(now) < before) else { return };
        let mut waited = Waited::default();
        let read = self.read(domain, code, &mut waited);
        if let Ok(Ok(value)) = tokio::time::timeout(RESOLVE_DEADLINE, read).await {
            self.cache.renew(domain.index(), code, &seen, value, self.clock.monotonic());
        }
    }

    /// What the shared cache or else the store says, and how long each took.
    async fn read(&self, domain: &Domain, code: &str, waited: &mut Waited) -> Result<Destination, ResolveError> {
        let asked_cache = self.clock.monotonic();
        let kept = self.kept(domain, code).await;
        let asked_store = self.clock.monotonic();
        if self.shared.is_some() {
            waited.cache = asked_store.saturating_sub(asked_cache);
        }
        let row = match kept {
            Some(row) => row,
            None => {
                let row = self.stored(domain, code).await;
                waited.store = self.clock.monotonic().saturating_sub(asked_store);
                row?
            }
        };
        let served = self.domains.now()?;
        Ok(Destination::of(domain.id(), code, row.as_ref(), served.answered(), self.cache_max_age))
    }

    /// What the shared cache says. A row that a newer release has written is a miss.
    async fn kept(&self, domain: &Domain, code: &str) -> Option<Option<LinkRow>> {
        let shared = self.shared.as_ref()?;
        let kept = shared.get(&address(domain, code)).await?;
        kept.row.as_deref().map(decode_link).transpose().ok()
    }

    /// What the store says, which the shared cache then keeps.
    async fn stored(&self, domain: &Domain, code: &str) -> Result<Option<LinkRow>, ResolveError> {
        let _permit = self.reads.try_acquire().map_err(|_| ResolveError::Overloaded)?;
        let key = link_key(domain.id(), code);
        let get = tokio::time::timeout(STORE_DEADLINE, self.kv.get(&key));
        let bytes = get.await.map_err(|_| ResolveError::Deadline)?.map_err(|error| failed(error.into()))?;
        let row = bytes.as_deref().map(decode_link).transpose().map_err(failed)?;
        if let Some(shared) = &self.shared {
            let link = match (&row, bytes) {
                (Some(row), Some(bytes)) => SharedLink { version: row.version, row: Some(bytes.into()) },
                _ => SharedLink::UNKNOWN,
            };
            shared.fill(address(domain, code), link);
        }
        Ok(row)
    }

    /// `Cache-Control` of a hop that is sent now.
    pub fn cache_control(&self, hop: &Hop) -> http::HeaderValue {
        hop.cache_control_at(self.clock.now(), self.cache_max_age)
    }
}

fn address(domain: &Domain, code: &str) -> LinkAddress {
    LinkAddress { domain: domain.id().to_owned(), code: code.to_owned() }
}

fn failed(error: StoreError) -> ResolveError {
    ResolveError::Store(Arc::new(error))
}
