//! Links in Redis: by (domain, code) the link's version and its row as it is in the store.
//!
//! A value is only ever replaced by that of a higher version, in one script, so that a fill that comes late cannot bring back
//! what was changed meanwhile. A deleted link stays as its tombstone; a code without a link is remembered as version 0, which
//! any link is higher than. What is written goes through a bounded queue: no request waits for it.
//!
//! Redis may lose a write, in a failover or a wipe, or be away when it is made. So each node also remembers the versions that it
//! has heard of, and takes a lower one for a miss; and every change is written again, see `links::replay`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quick_cache::sync::Cache;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::invalidations::{self, Invalidation};
use super::{RedisCluster, RedisFailure, Script, Server};
use crate::ambient::{Clock, random};
use crate::store::links::LinkAddress;

/// How long a link stays that was asked for.
const FILLED_TTL: Duration = Duration::from_hours(1);
/// How long a link stays while it is hot.
pub const HOT_TTL: Duration = Duration::from_hours(2);
/// How long a link stays that was just made.
const CREATED_TTL: Duration = Duration::from_mins(5);
/// How long it is remembered that a code has no link: many try many codes.
const UNKNOWN_TTL: Duration = Duration::from_secs(30);
/// Times to live are shortened at random by up to this part, so that what was filled together does not run out together.
const JITTER_ONE_IN: u32 = 10;
/// Writes that may wait; further ones are dropped, which costs a read of the store later. A few MB.
const QUEUE_MAX: usize = 4_096;
/// Writes under way at once, pipelined to a shard each.
const WRITES_MAX: usize = 64;
/// A write that waited longer than this is dropped: what it says may have changed, and the change been forgotten by Redis.
const WRITE_AGE_MAX: Duration = Duration::from_secs(5);
/// Links whose versions are remembered. One that was forgotten costs nothing unless Redis lost its change just then.
const VERSIONS_MAX: usize = 65_536;
/// Bytes of the version before the row.
const VERSION_BYTES: usize = size_of::<u32>();

/// Sets the value if there is none or one of a lower version, and answers whether it did.
static PUT_IF_NEWER: Script = Script::new(
    "local kept = redis.call('GETRANGE', KEYS[1], 0, 3) \
     if #kept == 4 and struct.unpack('>I4', kept) >= struct.unpack('>I4', ARGV[1]) then return 0 end \
     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
     return 1",
);

/// What is known of a code: its link's version and row, or version 0 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLink {
    /// The link's version.
    pub version: u32,
    /// Its row as it is in the store.
    pub row: Option<Bytes>,
}

impl SharedLink {
    /// A code without a link.
    pub const UNKNOWN: Self = Self { version: 0, row: None };

    fn encode(&self) -> Vec<u8> {
        [self.version.to_be_bytes().as_slice(), self.row.as_deref().unwrap_or_default()].concat()
    }

    fn decode(value: Vec<u8>) -> Option<Self> {
        let value = Bytes::from(value);
        let version = u32::from_be_bytes(*value.first_chunk()?);
        let row = value.slice(VERSION_BYTES..);
        Some(Self { version, row: (version > 0).then_some(row) })
    }
}

/// Why a value is written, which says for how long and who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Filled,
    Created,
    CreatedByAlias,
    Changed,
}

impl Reason {
    fn ttl(self, link: &SharedLink) -> Duration {
        match self {
            _ if link.version == 0 => UNKNOWN_TTL,
            Self::Created | Self::CreatedByAlias => CREATED_TTL,
            Self::Filled | Self::Changed => FILLED_TTL,
        }
    }

    /// Whether other nodes have to forget what they know: an alias may have been tried before it was there, a code hardly.
    fn is_published(self) -> bool {
        matches!(self, Self::Changed | Self::CreatedByAlias)
    }
}

#[derive(Debug)]
struct Write {
    at: LinkAddress,
    link: SharedLink,
    reason: Reason,
    queued: Duration,
}

/// Links in Redis; cheap to clone.
#[derive(Clone)]
pub struct SharedLinks {
    redis: RedisCluster,
    clock: Clock,
    queue: mpsc::Sender<Write>,
    versions: Arc<Cache<LinkAddress, u32>>,
}

/// What [`SharedLinks::write`] takes from the queue.
#[derive(Debug)]
pub struct QueuedWrites(mpsc::Receiver<Write>);

impl SharedLinks {
    /// Links in `redis`, and the writes that [`SharedLinks::write`] has to make.
    pub fn new(redis: RedisCluster, clock: Clock) -> (Self, QueuedWrites) {
        let (queue, writes) = mpsc::channel(QUEUE_MAX);
        let versions = Arc::new(Cache::new(VERSIONS_MAX));
        (Self { redis, clock, queue, versions }, QueuedWrites(writes))
    }

    /// What Redis knows of a code; none also if it does not answer, or is behind what this node has heard of.
    pub async fn get(&self, at: &LinkAddress) -> Option<SharedLink> {
        let key = self.redis.keys().ok()?.url(&at.domain, &at.code);
        let mut get = redis::cmd("GET");
        get.arg(key.as_str());
        let value: Option<Vec<u8>> = self.redis.query(Server::Primary, &key, &get).await.ok()?;
        let link = SharedLink::decode(value?)?;
        (self.versions.get(at).is_none_or(|heard| heard <= link.version)).then_some(link)
    }

    /// Keeps what the store was found to hold.
    pub fn fill(&self, at: LinkAddress, link: SharedLink) {
        self.queue(at, link, Reason::Filled);
    }

    /// Keeps a link that was just made.
    pub fn created(&self, at: LinkAddress, link: SharedLink, is_alias: bool) {
        self.heard(&at, link.version);
        self.queue(at, link, if is_alias { Reason::CreatedByAlias } else { Reason::Created });
    }

    /// Keeps a link that was changed or deleted, and tells all nodes.
    pub fn changed(&self, at: LinkAddress, link: SharedLink) {
        self.heard(&at, link.version);
        self.queue(at, link, Reason::Changed);
    }

    /// Takes note that the link has this version, or may have it: from now on a lower one is a miss.
    pub fn heard(&self, at: &LinkAddress, version: u32) {
        let known = self.versions.get(at).unwrap_or_default();
        self.versions.insert(at.clone(), version.max(known));
    }

    /// Writes a change at once; answers whether Redis did not know it yet.
    pub async fn put_change(&self, at: &LinkAddress, link: &SharedLink) -> Result<bool, RedisFailure> {
        self.put(at, link, Reason::Changed.ttl(link)).await
    }

    /// Tells all nodes of a change.
    pub async fn publish(&self, at: &LinkAddress, version: u32) -> Result<(), RedisFailure> {
        invalidations::publish(&self.redis, &Invalidation { at: at.clone(), version }).await
    }

    /// Keeps a link for longer, if it is there.
    pub async fn keep_hot(&self, at: &LinkAddress) -> Result<(), RedisFailure> {
        let key = self.redis.keys()?.url(&at.domain, &at.code);
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(key.as_str()).arg(millis(HOT_TTL)).arg("GT");
        self.redis.query(Server::Primary, &key, &expire).await
    }

    fn queue(&self, at: LinkAddress, link: SharedLink, reason: Reason) {
        // Full: a fill costs a read of the store later, and a change is replayed.
        let _ = self.queue.try_send(Write { at, link, reason, queued: self.clock.monotonic() });
    }

    async fn put(&self, at: &LinkAddress, link: &SharedLink, ttl: Duration) -> Result<bool, RedisFailure> {
        let key = self.redis.keys()?.url(&at.domain, &at.code);
        let (value, ttl_ms) = (link.encode(), millis(shortened(ttl, random())));
        let arguments = |script: &mut redis::Cmd| {
            script.arg(value.as_slice()).arg(ttl_ms);
        };
        self.redis.run(&PUT_IF_NEWER, &key, arguments).await
    }

    /// Makes the writes of the queue until `shutdown`.
    pub async fn write(self, writes: QueuedWrites, shutdown: CancellationToken) {
        let QueuedWrites(queue) = writes;
        let queue =
            futures::stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|write| (write, queue)) });
        let writing = queue.for_each_concurrent(WRITES_MAX, |write| {
            let links = self.clone();
            async move { links.write_one(write).await }
        });
        shutdown.run_until_cancelled(writing).await;
    }

    async fn write_one(&self, Write { at, link, reason, queued }: Write) {
        if self.clock.monotonic().saturating_sub(queued) > WRITE_AGE_MAX {
            return;
        }
        let put = self.put(&at, &link, reason.ttl(&link)).await;
        let published = match reason.is_published() {
            true => self.publish(&at, link.version).await,
            false => Ok(()),
        };
        if let Err(error) = put.map(drop).and(published) {
            tracing::debug!(%error, ?reason, "could not keep a link in Redis");
        }
    }
}

impl fmt::Debug for SharedLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLinks").finish_non_exhaustive()
    }
}

/// `ttl`, less a random part of at most one in [`JITTER_ONE_IN`].
fn shortened(ttl: Duration, random: [u8; 2]) -> Duration {
    let part = u32::from(u16::from_be_bytes(random));
    ttl.saturating_sub(ttl / JITTER_ONE_IN * part / u32::from(u16::MAX))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_version_and_the_row_and_version_0_has_none() {
        for link in [
            SharedLink::UNKNOWN,
            SharedLink { version: 1, row: Some(Bytes::new()) },
            SharedLink { version: 0x0102_0304, row: Some(Bytes::from_static(b"row")) },
        ] {
            assert_eq!(SharedLink::decode(link.encode()), Some(link));
        }
        assert_eq!(SharedLink::decode(vec![0, 0, 1]), None);
    }

    #[test]
    fn times_to_live_differ_by_a_tenth_at_most() {
        assert_eq!(shortened(FILLED_TTL, [0, 0]), FILLED_TTL);
        assert_eq!(shortened(FILLED_TTL, [0xff, 0xff]), Duration::from_mins(54));
        assert!(shortened(UNKNOWN_TTL, [0x80, 0]) < UNKNOWN_TTL);
    }

    #[test]
    fn only_what_others_may_know_is_published() {
        let published =
            [Reason::Filled, Reason::Created, Reason::CreatedByAlias, Reason::Changed].map(Reason::is_published);
        assert_eq!(published, [false, false, true, true]);
    }
}
