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

/// Which cluster a figure is of. `namespace` is what Prometheus calls that of the operator's own pod.
const OF_CLUSTER: [&str; 2] = ["cluster_namespace", "cluster"];

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
    nodes: IntGaugeVec,
    condition: IntGaugeVec,
    unreadable: IntGaugeVec,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge_by = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauge = |name: &str, help: &str| gauge_by(name, help, &OF_CLUSTER);
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
            status_writes: counter("shortener_operator_status_writes_total", "Writes of a status.", &OF_CLUSTER)?,
            next_block: gauge("shortener_operator_next_block", "The lowest block that was never granted.")?,
            blocks_remaining: gauge("shortener_operator_blocks_remaining", "Blocks of 65,536 codes that are left.")?,
            grants: gauge("shortener_operator_grants", "Pods that hold a grant.")?,
            nodes: gauge_by(
                "shortener_operator_nodes",
                "Nodes, wanted and ready.",
                &[OF_CLUSTER[0], OF_CLUSTER[1], "state"],
            )?,
            condition: gauge_by(
                "shortener_operator_condition",
                "1 while a condition of the cluster is True.",
                &[OF_CLUSTER[0], OF_CLUSTER[1], "condition"],
            )?,
            unreadable: gauge(
                "shortener_operator_unreadable",
                "1 while this release of the operator does not understand the resource.",
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

    /// Counts a write of a status, and shows what it says.
    pub fn wrote(&self, namespace: &str, name: &str, status: &ShortenerClusterStatus) {
        self.status_writes.with_label_values(&[namespace, name]).inc();
        self.show(namespace, name, status);
    }

    /// Shows what the status of a cluster says.
    pub fn show(&self, namespace: &str, name: &str, status: &ShortenerClusterStatus) {
        let labels = [namespace, name];
        if let Some(allocation) = &status.allocation {
            self.next_block.with_label_values(&labels).set(allocation.next_block);
            self.blocks_remaining.with_label_values(&labels).set(allocation.blocks_remaining);
            self.grants.with_label_values(&labels).set(i64::try_from(allocation.grants.len()).unwrap_or(i64::MAX));
        }
        for (state, nodes) in [("wanted", status.replicas), ("ready", status.ready_replicas)] {
            self.nodes.with_label_values(&[namespace, name, state]).set(nodes.unwrap_or_default().into());
        }
        for condition in &status.conditions {
            let is_true = condition.status == "True";
            self.condition.with_label_values(&[namespace, name, &condition.type_]).set(is_true.into());
        }
    }

    /// Whether the resource of a cluster is not understood: what else is shown of it is what was known last.
    pub fn unreadable(&self, namespace: &str, name: &str, unreadable: bool) {
        self.unreadable.with_label_values(&[namespace, name]).set(unreadable.into());
        if unreadable {
            self.condition.with_label_values(&[namespace, name, ConditionType::Ready.as_str()]).set(0);
        }
    }

    /// Shows nothing of any cluster: somebody else works, and what was true is not.
    pub fn forget_all(&self) {
        let all =
            [&self.next_block, &self.blocks_remaining, &self.grants, &self.nodes, &self.condition, &self.unreadable];
        for gauge in all {
            gauge.reset();
        }
    }

    /// Shows nothing of a cluster that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        // What is not there cannot be removed, and need not be.
        for gauge in [&self.next_block, &self.blocks_remaining, &self.grants, &self.unreadable] {
            let _ = gauge.remove_label_values(&[namespace, name]);
        }
        for state in ["wanted", "ready"] {
            let _ = self.nodes.remove_label_values(&[namespace, name, state]);
        }
        for condition in ConditionType::ALL {
            let _ = self.condition.remove_label_values(&[namespace, name, condition.as_str()]);
        }
        let _ = self.status_writes.remove_label_values(&[namespace, name]);
    }
}
