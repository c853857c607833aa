//! What the click pipeline says of itself in `/metrics`.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

/// Upper bounds of the buckets, in seconds: from a commit on a local disk to one at its deadline.
const BATCH_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0];

/// The counters of the click pipeline; cheap to clone.
#[derive(Clone, Debug)]
pub struct ClickMetrics {
    /// Clicks that were taken in.
    pub recorded: IntCounter,
    /// Clicks that are counted nowhere: the queue was full, or the time to write them had run out.
    pub dropped: IntCounter,
    /// Clicks that are in the queue that nodes share, or were: they outlive this process.
    pub queued: IntCounter,
    /// Clicks that are in the store.
    pub written: IntCounter,
    /// How long one attempt to write a batch takes.
    pub batch_seconds: Histogram,
}

impl ClickMetrics {
    /// Makes the counters and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let batch =
            HistogramOpts::new("shortener_click_batch_duration_seconds", "One attempt to write a batch of clicks.");
        let batch_seconds = Histogram::with_opts(batch.buckets(BATCH_SECONDS.to_vec()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        Ok(Self {
            recorded: counter("shortener_clicks_recorded_total", "Clicks that were taken in.")?,
            dropped: counter("shortener_clicks_dropped_total", "Clicks that were lost to overload or at shutdown.")?,
            queued: counter("shortener_clicks_queued_total", "Clicks that were put into the queue in Redis.")?,
            written: counter("shortener_clicks_written_total", "Clicks that were written to the store.")?,
            batch_seconds,
        })
    }
}
