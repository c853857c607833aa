//! What the operator tells Prometheus of itself, and of the allocation of each cluster.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, process_collector::ProcessCollector,
};
use shortener_crds::ShortenerClusterStatus;
use shortener_crds::conditions::ConditionType;

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was done, or there was nothing to do.
    Done,
    /// Somebody else was quicker.
    Conflict,
    /// Something failed.
    Error,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Error => "error",
        }
    }
}

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: IntCounterVec,
    duration: Histogram,
    leads: IntGauge,
    status_writes: IntCounterVec,
    next_block: IntGaugeVec,
    blocks_remaining: IntGaugeVec,
    grants: IntGaugeVec,
    allocation_healthy: IntGaugeVec,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_cluster = ["namespace", "name"];
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &of_cluster)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let duration = HistogramOpts::new(
            "shortener_operator_reconcile_duration_seconds",
            "Time of one reconcile, without the time that requests for IDs are gathered.",
        )
        .buckets(prometheus::exponential_buckets(0.001, 2.0, 14)?);
        let duration = Histogram::with_opts(duration)?;
        registry.register(Box::new(duration.clone()))?;
        let leads = IntGauge::new("shortener_operator_leader", "1 on the operator that works.")?;
        registry.register(Box::new(leads.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            reconciles: counter("shortener_operator_reconciles_total", "Reconciles by outcome.", &["outcome"])?,
            duration,
            leads,
            status_writes: counter("shortener_operator_status_writes_total", "Writes of a status.", &of_cluster)?,
            next_block: gauge("shortener_operator_next_block", "The lowest block that was never granted.")?,
            blocks_remaining: gauge("shortener_operator_blocks_remaining", "Blocks of 65,536 codes that are left.")?,
            grants: gauge("shortener_operator_grants", "Pods that hold a grant.")?,
            allocation_healthy: gauge(
                "shortener_operator_allocation_healthy",
                "1 while every node that asks for IDs gets them.",
            )?,
        })
    }

    /// Counts a visit.
    pub fn visited(&self, outcome: Outcome, took: Duration) {
        self.reconciles.with_label_values(&[outcome.as_str()]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Whether this operator works.
    pub fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// Counts a write of a status, and shows the allocation that it says.
    pub fn wrote(&self, namespace: &str, name: &str, status: &ShortenerClusterStatus) {
        self.status_writes.with_label_values(&[namespace, name]).inc();
        self.show(namespace, name, status);
    }

    /// Shows the allocation of a cluster.
    pub fn show(&self, namespace: &str, name: &str, status: &ShortenerClusterStatus) {
        let labels = [namespace, name];
        if let Some(allocation) = &status.allocation {
            self.next_block.with_label_values(&labels).set(allocation.next_block);
            self.blocks_remaining.with_label_values(&labels).set(allocation.blocks_remaining);
            self.grants.with_label_values(&labels).set(i64::try_from(allocation.grants.len()).unwrap_or(i64::MAX));
        }
        let healthy = ConditionType::AllocationHealthy.as_str();
        let is_healthy =
            status.conditions.iter().any(|condition| condition.type_ == healthy && condition.status == "True");
        self.allocation_healthy.with_label_values(&labels).set(is_healthy.into());
    }

    /// Shows nothing of a cluster that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        for gauge in [&self.next_block, &self.blocks_remaining, &self.grants, &self.allocation_healthy] {
            // There was none.
            let _ = gauge.remove_label_values(&[namespace, name]);
        }
        let _ = self.status_writes.remove_label_values(&[namespace, name]);
    }
}
