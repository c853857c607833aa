//! Clicks on their way between nodes: streams in Redis, into which every node puts its batches, and out of which any node
//! writes them to the store. A store that is away delays them there, outside the processes that took them.
//!
//! An entry is one batch, written in one transaction and only then acknowledged and deleted. One whose node died is claimed by
//! another after [`CLAIM_AFTER`]. An entry may so be written twice, which changes nothing: the clicks' own rows tell. The streams
//! are bounded; past that, and while Redis is away, clicks stay in the node that took them, whose queue is bounded as well.
//! No entry holds an address: what is queued are [`Click`]s.

use std::time::Duration;

use futures::future::join_all;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use tokio_util::sync::CancellationToken;

use super::writing::write_all;
use super::{ClickEvent, ClickMetrics, ClickReader, ClickRows, ClickWriteError, WriteClicks};
use crate::ambient::Clock;
use crate::cache::redis_cluster::keys::{CLICK_STREAMS, RedisKey};
use crate::cache::redis_cluster::{RedisCluster, RedisFailure, Script, Server};
use crate::store::clicks::{Click, ClickId};

/// Entries that wait in a stream at most: with a hundred clicks each about 13 MB a stream, and 800,000 clicks in all.
pub const STREAM_ENTRIES_MAX: usize = 1_024;
/// The consumer group: all nodes.
const GROUP: &str = "nodes";
/// How often a node looks for entries when there were none.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Entries that a node takes from each stream at once.
const TAKEN_MAX: usize = 4;
/// How long an entry is left to the node that took it.
pub const CLAIM_AFTER: Duration = Duration::from_secs(30);
/// How often a node looks for such entries.
const CLAIM_INTERVAL: Duration = Duration::from_secs(5);
/// How long a node that was not heard of stays a member of the group.
const MEMBER_AGE_MAX: Duration = Duration::from_hours(24);
/// Version byte of an entry.
const ENTRY_V1: u8 = 1;

/// Appends a batch (`ARGV[2]` clicks) if there are fewer entries than `ARGV[1]`, and answers whether it did.
static APPEND: Script = Script::new(
    "if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end \
     redis.call('XADD', KEYS[1], '*', 'n', ARGV[2], 'b', ARGV[3]) \
     return 1",
);
/// Acknowledges entry `ARGV[2]` to group `ARGV[1]` and deletes it.
static FINISH: Script = Script::new(
    "redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) \
     return redis.call('XDEL', KEYS[1], ARGV[2])",
);
/// Forgets the members of group `ARGV[1]` that have nothing and were not heard of for `ARGV[2]` ms.
static FORGET_MEMBERS: Script = Script::new(
    "for _, member in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do \
       if member[4] == 0 and member[6] > tonumber(ARGV[2]) then \
         redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], member[2]) \
       end \
     end \
     return 1",
);

type Batch = Vec<(ClickId, Click)>;

fn encode(batch: &Batch) -> Vec<u8> {
    let clicks: Vec<_> = batch.iter().map(|(ClickId { boot_id, counter }, click)| (boot_id, counter, click)).collect();
    // Plain data: postcard fails only on maps and sequences of unknown length.
    postcard::to_extend(&clicks, vec![ENTRY_V1]).unwrap_or_default()
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Batch(Batch),
    /// From a newer release, whose nodes will claim it.
    Newer,
    /// Nobody can ever read it.
    Damaged,
}

fn decode(bytes: &[u8]) -> Entry {
    match bytes.split_first() {
        Some((&ENTRY_V1, body)) => match postcard::from_bytes::<Vec<(u128, u64, Click)>>(body) {
            Ok(clicks) => {
                let id = |boot_id, counter| ClickId { boot_id, counter };
                Entry::Batch(clicks.into_iter().map(|(boot, counter, click)| (id(boot, counter), click)).collect())
            }
            Err(_) => Entry::Damaged,
        },
        Some((version, _)) if *version > ENTRY_V1 => Entry::Newer,
        _ => Entry::Damaged,
    }
}

/// Puts batches into the streams.
pub struct ClickQueue {
    redis: RedisCluster,
    reader: ClickReader,
    next_stream: u8,
    metrics: ClickMetrics,
}

impl ClickQueue {
    /// Reads with `reader` what it puts into `redis`.
    pub fn new(redis: RedisCluster, reader: ClickReader, boot_id: u128, metrics: &ClickMetrics) -> Self {
        let [.., last] = boot_id.to_be_bytes();
        Self { redis, reader, next_stream: last % CLICK_STREAMS, metrics: metrics.clone() }
    }

    /// Puts clicks into the streams, one after the other.
    pub async fn put(&mut self, batch: &Vec<(ClickId, Click)>) -> Result<(), ClickWriteError> {
        let key = self.redis.keys()?.clicks(self.next_stream);
        // The next one may be of a server that works, if this one's does not.
        self.next_stream = (self.next_stream + 1) % CLICK_STREAMS;
        let entry = encode(batch);
        let arguments = |script: &mut redis::Cmd| {
            script.arg(STREAM_ENTRIES_MAX).arg(batch.len()).arg(entry.as_slice());
        };
        let is_taken: bool = self.redis.run(&APPEND, &key, arguments).await?;
        if !is_taken {
            return Err(ClickWriteError::QueueFull);
        }
        self.metrics.queued.inc_by(batch.len() as u64);
        Ok(())
    }
}

impl WriteClicks<ClickEvent> for ClickQueue {
    async fn write(&mut self, batch: &[(ClickId, ClickEvent)]) -> Result<usize, ClickWriteError> {
        let clicks = self.reader.read(batch).await?;
        self.put(&clicks).await?;
        Ok(0)
    }
}

/// Takes batches out of the streams and writes them.
pub struct ClickQueueReader {
    redis: RedisCluster,
    rows: ClickRows,
    member: String,
    clock: Clock,
    claimed_at: Duration,
    metrics: ClickMetrics,
}

impl ClickQueueReader {
    /// Writes to `rows`, as the member of the group that `boot_id` names.
    pub fn new(redis: RedisCluster, rows: ClickRows, boot_id: u128, clock: Clock, metrics: &ClickMetrics) -> Self {
        let claimed_at = clock.monotonic();
        Self { redis, rows, member: format!("{boot_id:032x}"), clock, claimed_at, metrics: metrics.clone() }
    }

    /// Until `shutdown`. A batch that is being written then stays in its stream, for another node or the next start.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let reading = async {
            loop {
                let entries = self.take().await;
                if entries.is_empty() {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                for (key, entry) in entries {
                    self.write(&key, &entry).await;
                }
            }
        };
        shutdown.run_until_cancelled(reading).await;
    }

    /// New entries of all streams, and every now and then those of nodes that died.
    async fn take(&mut self) -> Vec<(RedisKey, StreamId)> {
        let Ok(keys) = self.redis.keys() else { return Vec::new() };
        let now = self.clock.monotonic();
        let is_claiming = now.saturating_sub(self.claimed_at) >= CLAIM_INTERVAL;
        if is_claiming {
            self.claimed_at = now;
        }
        let taken = (0..CLICK_STREAMS).map(|stream| self.take_from(keys.clicks(stream), is_claiming));
        let taken: Vec<_> = taken.collect();
        join_all(taken).await.into_iter().flatten().collect()
    }

    async fn take_from(&self, key: RedisKey, is_claiming: bool) -> Vec<(RedisKey, StreamId)> {
        let taken = match is_claiming {
            true => self.claim(&key).await,
            false => self.read(&key).await,
        };
        let entries = match taken {
            Ok(entries) => entries,
            Err(RedisFailure::Failed(error)) if error.code() == Some("NOGROUP") => {
                self.make_group(&key).await;
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(%error, "could not look for clicks in Redis");
                Vec::new()
            }
        };
        entries.into_iter().map(|entry| (key.clone(), entry)).collect()
    }

    async fn read(&self, key: &RedisKey) -> Result<Vec<StreamId>, RedisFailure> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(self.member.as_str()).arg("COUNT").arg(TAKEN_MAX);
        read.arg("STREAMS").arg(key.as_str()).arg(">");
        let found: Option<StreamReadReply> = self.redis.query(Server::Primary, key, &read).await?;
        Ok(found.unwrap_or_default().keys.into_iter().flat_map(|stream| stream.ids).collect())
    }

    async fn claim(&self, key: &RedisKey) -> Result<Vec<StreamId>, RedisFailure> {
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(key.as_str()).arg(GROUP).arg(self.member.as_str()).arg(millis(CLAIM_AFTER)).arg("0-0");
        claim.arg("COUNT").arg(TAKEN_MAX);
        let found: StreamAutoClaimReply = self.redis.query(Server::Primary, key, &claim).await?;
        let arguments = |script: &mut redis::Cmd| {
            script.arg(GROUP).arg(millis(MEMBER_AGE_MAX));
        };
        self.redis.run::<()>(&FORGET_MEMBERS, key, arguments).await?;
        Ok(found.claimed)
    }

    /// Makes the stream's group, as at the first start or after Redis lost it.
    async fn make_group(&self, key: &RedisKey) {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(key.as_str()).arg(GROUP).arg("0").arg("MKSTREAM");
        match self.redis.query::<()>(Server::Primary, key, &create).await {
            Ok(()) => {}
            Err(RedisFailure::Failed(error)) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => tracing::debug!(%error, "could not make a consumer group in Redis"),
        }
    }

    /// Writes an entry's clicks, however often that takes, and then removes it.
    async fn write(&mut self, key: &RedisKey, entry: &StreamId) {
        let bytes: Vec<u8> = entry.get("b").unwrap_or_default();
        match decode(&bytes) {
            Entry::Batch(mut batch) => write_all(&mut batch, &mut self.rows, &self.metrics).await,
            Entry::Newer => return,
            Entry::Damaged => {
                let clicks: u64 = entry.get("n").unwrap_or(1);
                tracing::error!(stream = %key, entry = entry.id, clicks, "dropped clicks that cannot be read");
                self.metrics.dropped.inc_by(clicks);
            }
        }
        let arguments = |script: &mut redis::Cmd| {
            script.arg(GROUP).arg(entry.id.as_str());
        };
        if let Err(error) = self.redis.run::<()>(&FINISH, key, arguments).await {
            // It will be claimed, and written again, which changes nothing.
            tracing::debug!(%error, "could not acknowledge clicks in Redis");
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;

    fn batch() -> Batch {
        let text = |text: &str| text.to_owned();
        let click = Click {
            at: UnixMs(7),
            domain: text(""),
            code: text("abc"),
            referrer: text("direct"),
            browser: text("Firefox"),
            operating_system: text("Linux"),
            device: text("desktop"),
            country: text("IS"),
            bot: false,
            visitor: 5,
        };
        vec![(ClickId { boot_id: u128::MAX, counter: 3 }, click)]
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_what_is_newer_is_told_from_what_is_damaged() {
        let bytes = encode(&batch());
        assert_eq!(decode(&bytes), Entry::Batch(batch()));
        assert_eq!(decode(&[&[ENTRY_V1 + 1], &bytes[1..]].concat()), Entry::Newer);
        for damaged in [&bytes[..bytes.len() - 1], &[], &[0], &[ENTRY_V1]] {
            assert_eq!(decode(damaged), Entry::Damaged, "{damaged:?}");
        }
    }
}
