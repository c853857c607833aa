//! What `/metrics` shows of the allocation.

use prometheus::{IntCounter, IntGauge, Registry};

/// Figures of the allocation.
#[derive(Clone, Debug)]
pub struct MinterMetrics {
    /// Blocks that were to be ours and were somebody else's.
    pub(super) claims_burnt: IntCounter,
    remaining: IntGauge,
    is_waiting: IntGauge,
}

impl MinterMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let claims_burnt =
            IntCounter::new("shortener_claims_burnt_total", "Granted blocks that were claimed already.")?;
        let remaining =
            IntGauge::new("shortener_code_ids_remaining", "Codes that can be minted without asking for more.")?;
        let help = "Whether the operator has yet to grant code IDs or a worker ID that were asked for: 1 or 0.";
        let is_waiting = IntGauge::new("shortener_allocation_waiting", help)?;
        registry.register(Box::new(claims_burnt.clone()))?;
        registry.register(Box::new(remaining.clone()))?;
        registry.register(Box::new(is_waiting.clone()))?;
        Ok(Self { claims_burnt, remaining, is_waiting })
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, remaining: u64, is_waiting: bool) {
        self.remaining.set(i64::try_from(remaining).unwrap_or(i64::MAX));
        self.is_waiting.set(is_waiting.into());
    }
}
