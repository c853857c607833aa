//! The click pipeline: from the redirect, which must not wait, to the rows that summaries read.
//!
//! [`Clicks::record`] puts a [`ClickEvent`] in a bounded queue, or drops it and counts that. One [`ClickConsumer`] takes
//! batches out, reads what the requests said ([`event`], [`user_agent`], [`referrer`], [`country`], [`visitor`]), and
//! writes each batch in one transaction ([`rollup`]); a batch that could not be written is tried again, which changes
//! nothing if it was written after all. Where nodes share a Redis Cluster a batch goes through a queue there ([`queue`]), out
//! of which any node writes it. [`summary()`] reads the rows.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::kv::{Kv, SCAN_ROWS_MAX, TRANSACTION_ROWS_MAX};
use crate::store::StoreError;
use crate::store::clicks::{Click, ClickId, Day};

pub mod country;
pub mod event;
pub mod metrics;
pub mod queue;
pub mod referrer;
pub mod rollup;
pub mod summary;
pub mod user_agent;
pub mod visitor;
pub mod writing;

pub use self::country::{Countries, CountriesNow};
pub use self::event::{ClickEvent, ClickedLink};
pub use self::metrics::ClickMetrics;
pub use self::summary::{Summary, summary};
use self::user_agent::Agents;
use self::visitor::Salts;
pub use self::writing::{ClickWriteError, WriteClicks};
pub use crate::store::clicks::{click_count, click_counts};

/// Most clicks in one batch, whatever the settings say: all their rows fit one transaction and one read.
pub const BATCH_EVENTS_MAX: usize = 2_000;
const _: () = assert!(BATCH_EVENTS_MAX * rollup::ROWS_PER_CLICK_MAX <= TRANSACTION_ROWS_MAX);
const _: () = assert!(BATCH_EVENTS_MAX * rollup::ROWS_PER_CLICK_MAX <= SCAN_ROWS_MAX);

/// How clicks are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickSettings {
    /// Clicks that make a batch (`ANALYTICS_BATCH_SIZE`), at most [`BATCH_EVENTS_MAX`].
    pub batch_size: usize,
    /// How long a click waits for its batch to fill (`ANALYTICS_FLUSH_INTERVAL`).
    pub flush_interval: Duration,
    /// Days that clicks and their hours are kept (`ANALYTICS_RETENTION_DAYS`).
    pub retention_days: u32,
    /// Clicks that wait at most; further ones are dropped.
    pub queue_events_max: usize,
}

/// Where redirects leave their clicks; cheap to clone.
#[derive(Clone)]
pub struct Clicks {
    queue: mpsc::Sender<ClickEvent>,
    metrics: ClickMetrics,
}

impl Clicks {
    /// Takes a click in, or drops and counts it when the queue is full. Never waits.
    pub fn record(&self, event: ClickEvent) {
        match self.queue.try_send(event) {
            Ok(()) => self.metrics.recorded.inc(),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.metrics.dropped.inc(),
        }
    }
}

/// Reads what the requests said.
pub struct ClickReader {
    kv: Kv,
    countries: CountriesNow,
    agents: Agents,
    salts: Salts,
}

impl ClickReader {
    /// Tells visitors apart by the salts in `kv`.
    pub fn new(kv: Kv, countries: CountriesNow) -> Self {
        Self { kv, countries, agents: Agents::default(), salts: Salts::default() }
    }

    /// The clicks of these events.
    async fn read(&mut self, batch: &[(ClickId, ClickEvent)]) -> Result<Vec<(ClickId, Click)>, StoreError> {
        let mut clicks = Vec::with_capacity(batch.len());
        let countries = self.countries.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (id, event) in batch {
            let salt = self.salts.of(&self.kv, Day::of(event.at())).await?;
            clicks.push((*id, event.read(&countries, &mut self.agents, &salt)));
        }
        Ok(clicks)
    }
}

/// Writes clicks to the store; cheap to clone.
#[derive(Clone)]
pub struct ClickRows {
    kv: Kv,
    shard: Arc<dyn Fn() -> u16 + Send + Sync>,
}

impl ClickRows {
    /// Writes to `kv`, counting in the shard that `shard` names at the time: a number that no other node has, or contends.
    pub fn new(kv: Kv, shard: impl Fn() -> u16 + Send + Sync + 'static) -> Self {
        Self { kv, shard: Arc::new(shard) }
    }
}

impl WriteClicks<Click> for ClickRows {
    async fn write(&mut self, batch: &[(ClickId, Click)]) -> Result<usize, ClickWriteError> {
        Ok(rollup::write(&self.kv, (self.shard)(), batch).await?)
    }
}

/// Writes what the requests said to the store.
pub struct ClickStore {
    reader: ClickReader,
    rows: ClickRows,
}

impl ClickStore {
    /// Reads with `reader` and writes to `rows`.
    pub fn new(reader: ClickReader, rows: ClickRows) -> Self {
        Self { reader, rows }
    }
}

impl WriteClicks<ClickEvent> for ClickStore {
    async fn write(&mut self, batch: &[(ClickId, ClickEvent)]) -> Result<usize, ClickWriteError> {
        let clicks = self.reader.read(batch).await?;
        self.rows.write(&clicks).await?;
        // Those of an attempt whose answer was lost are in the store as well.
        Ok(clicks.len())
    }
}

/// A queue of clicks and the task that empties it into `store`. `boot_id` names this process among all, ever.
pub fn pipeline<W: WriteClicks<ClickEvent>>(
    settings: &ClickSettings,
    boot_id: u128,
    store: W,
    metrics: &ClickMetrics,
) -> (Clicks, ClickConsumer<W>) {
    let ClickSettings { batch_size, flush_interval, retention_days: _, queue_events_max } = *settings;
    let (sender, queue) = mpsc::channel(queue_events_max.max(1));
    let consumer = ClickConsumer {
        queue,
        next_id: ClickId { boot_id, counter: 0 },
        batch: Vec::new(),
        batch_size: batch_size.clamp(1, BATCH_EVENTS_MAX),
        flush_interval,
        store,
        metrics: metrics.clone(),
    };
    (Clicks { queue: sender, metrics: metrics.clone() }, consumer)
}

/// Takes clicks out of the queue and writes them, a batch at a time.
pub struct ClickConsumer<W> {
    queue: mpsc::Receiver<ClickEvent>,
    next_id: ClickId,
    /// The clicks that were taken out and are not written yet. What does not fit stays in the queue, which is bounded.
    batch: Vec<(ClickId, ClickEvent)>,
    batch_size: usize,
    flush_interval: Duration,
    store: W,
    metrics: ClickMetrics,
}

impl<W: WriteClicks<ClickEvent>> ClickConsumer<W> {
    /// Runs until `shutdown`, then takes no more clicks, writes those it has, and ends: within `flush_deadline`, after which
    /// the rest is dropped and counted (a batch whose commit was under way may have been written nevertheless).
    pub async fn run(mut self, shutdown: CancellationToken, flush_deadline: Duration) {
        let too_late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(flush_deadline).await;
        };
        tokio::select! {
            () = self.consume(&shutdown) => {}
            () = too_late => {}
        }
        let lost = self.batch.len() + self.queue.len();
        if lost > 0 {
            self.metrics.dropped.inc_by(lost as u64);
            tracing::warn!(clicks = lost, "dropped the clicks that could not be written before the shutdown");
        }
    }

    async fn consume(&mut self, shutdown: &CancellationToken) {
        while self.gather(shutdown).await {
            writing::write_all(&mut self.batch, &mut self.store, &self.metrics).await;
        }
    }

    /// Fills the batch, for as long as the flush interval from its first click on; false when there will be no more.
    async fn gather(&mut self, shutdown: &CancellationToken) -> bool {
        let Some(first) = self.receive(shutdown).await else { return false };
        self.push(first);
        let flush = tokio::time::sleep(self.flush_interval);
        tokio::pin!(flush);
        while self.batch.len() < self.batch_size {
            tokio::select! {
                biased;
                next = self.receive(shutdown) => match next {
                    Some(event) => self.push(event),
                    None => break,
                },
                () = &mut flush => break,
            }
        }
        true
    }

    /// The next click; on shutdown those that are in the queue, then none. Loses nothing when it is dropped.
    async fn receive(&mut self, shutdown: &CancellationToken) -> Option<ClickEvent> {
        tokio::select! {
            biased;
            event = self.queue.recv() => return event,
            () = shutdown.cancelled() => self.queue.close(),
        }
        self.queue.recv().await
    }

    fn push(&mut self, event: ClickEvent) {
        self.batch.push((self.next_id, event));
        self.next_id.counter += 1;
    }
}

#[cfg(test)]
mod tests;
