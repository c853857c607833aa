//! Writing a batch of clicks, however often that takes. Only what can never be written is given up, and nothing beside it.

use std::time::Duration;

use shortener_crds::causes::Causes;

use super::ClickMetrics;
use crate::cache::redis_cluster::RedisFailure;
use crate::kv::KvError;
use crate::store::StoreError;
use crate::store::clicks::ClickId;

/// The first pause before a batch is tried again; each further one is twice as long.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a store that is back is noticed within it.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a batch is handed to: the store or a queue, or in tests the store behind a fault.
pub trait WriteClicks<C>: Send {
    /// Writes and counts those of the batch that are not written yet. Answers how many clicks are in the store for it.
    fn write(&mut self, batch: &[(ClickId, C)]) -> impl Future<Output = Result<usize, ClickWriteError>> + Send;
}

/// Why clicks were not written.
#[derive(Debug, thiserror::Error)]
pub enum ClickWriteError {
    /// The store did not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue that nodes share did not take them.
    #[error("the click queue in Redis failed")]
    Queue(#[from] RedisFailure),
    /// It has no room.
    #[error("the click queue in Redis is full")]
    QueueFull,
}

impl From<KvError> for ClickWriteError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// What is to be done about clicks that were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// The same again, later.
    Wait,
    /// Fewer at once: something among them cannot be written, or cannot be counted, and must cost no other click.
    Divide,
    /// None.
    Drop,
}

impl ClickWriteError {
    fn remedy(&self, clicks: usize) -> Remedy {
        match self {
            Self::Store(StoreError::Kv(KvError::Conflict | KvError::Unavailable { .. } | KvError::Undetermined))
            | Self::Queue(_)
            | Self::QueueFull => Remedy::Wait,
            Self::Store(StoreError::Kv(KvError::TooLarge { .. }) | StoreError::Decode { .. }) if clicks > 1 => {
                Remedy::Divide
            }
            Self::Store(_) => Remedy::Drop,
        }
    }
}

/// Writes `batch`, and takes out of it what is written or can never be.
pub(super) async fn write_all<C, W: WriteClicks<C>>(
    batch: &mut Vec<(ClickId, C)>,
    writer: &mut W,
    metrics: &ClickMetrics,
) {
    let (mut pause, mut part) = (RETRY_PAUSE_MIN, batch.len());
    while !batch.is_empty() {
        part = part.min(batch.len());
        let timer = metrics.batch_seconds.start_timer();
        let written = writer.write(&batch[..part]).await;
        timer.observe_duration();
        let error = match written {
            Ok(stored) => {
                batch.drain(..part);
                metrics.written.inc_by(stored as u64);
                continue;
            }
            Err(error) => error,
        };
        match error.remedy(part) {
            Remedy::Wait => {
                tracing::warn!(error = %Causes(&error), clicks = part, "could not write clicks yet");
                tokio::time::sleep(pause).await;
                pause = RETRY_PAUSE_MAX.min(pause * 2);
            }
            Remedy::Divide => part = part.div_ceil(2),
            Remedy::Drop => {
                tracing::error!(error = %Causes(&error), clicks = part, "dropped clicks that cannot be written");
                batch.drain(..part);
                metrics.dropped.inc_by(part as u64);
                part = batch.len();
            }
        }
    }
}
