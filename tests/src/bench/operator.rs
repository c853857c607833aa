//! The operator with many clusters: how long a reconcile takes while all of them are made and while all of them change, and what it
//! needs of the machine while nothing changes. It runs as a process of its own on a real API server with the controllers; nodes are Pods
//! and Leases, which real ones too write only when they have something to say. The API server's needs in the same span are the yardstick.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;
use shortener_node::ambient::Clock;

use super::machine::{cpu_time, described, resident_mib};
use crate::fleet::Metrics;
use crate::kubernetes::{Kubernetes, Part};
use crate::operator::{SimulatedNode, install, kind, operator_token, sample};
use crate::programs::operator_program;
use crate::server_process::{ServerFolder, ServerProcess, lasting_ports, wait_until};

const NAMESPACE: &str = "bench";
/// All of it is there within a minute on two idle cores.
const PATIENCE: Duration = Duration::from_mins(5);
const DURATIONS: &str = "shortener_operator_reconcile_duration_seconds";

/// How many, and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// ShortenerClusters
    #[arg(long, default_value_t = 50)]
    clusters: usize,
    /// Nodes of each
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How often every cluster's settings are changed
    #[arg(long, default_value_t = 5)]
    changes: usize,
    /// Seconds without a change
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

/// Measures and prints the tables.
pub async fn run(load: Load) -> Result<()> {
    let kubernetes = Kubernetes::builder().with_controllers().start().await?.context("no Kubernetes, see above")?;
    let client = kubernetes.client().await?;
    install(&client).await?;
    kubernetes.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let operator = Operator::start(&kubernetes).await?;
    let clock = Clock::system();

    let clusters: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind());
    let mut nodes = Vec::new();
    for number in 0..load.clusters {
        let ours = json!({
            "metadata": {"name": name(number), "namespace": NAMESPACE},
            "spec": {"autoscaling": null, "replicas": load.nodes},
        });
        clusters.create(&PostParams::default(), &serde_json::from_value(sample(&ours)?)?).await?;
        for node in 0..load.nodes {
            let mut node =
                SimulatedNode::start(&client, NAMESPACE, &name(number), &format!("{}-{node}", name(number))).await?;
            node.want(1).await?;
            nodes.push(node);
        }
    }
    wait_until("every node was granted what it asks for", PATIENCE, async || {
        Ok(try_join_all(nodes.iter().map(SimulatedNode::is_served)).await?.into_iter().all(|served| served))
    })
    .await?;
    let made_in = clock.monotonic();
    let made = operator.metrics().await?;

    for change in 0..load.changes {
        change_all(&client, load.clusters, change).await?;
        wait_until("every change has come to its Deployment", PATIENCE, async || {
            changed(&kubernetes, change).await.map(|changed| changed == load.clusters)
        })
        .await?;
    }
    let after = operator.metrics().await?;

    let api_server = kubernetes.pid(Part::ApiServer)?;
    let before = (cpu_time(operator.pid()?)?, cpu_time(api_server)?, clock.monotonic());
    let quiet = operator.metrics().await?;
    tokio::time::sleep(Duration::from_secs(load.idle)).await; // the span that is measured
    let span = clock.monotonic().saturating_sub(before.2).as_secs_f64();
    let idle = Idle {
        visits: operator.metrics().await?.sum(&format!("{DURATIONS}_count")) - quiet.sum(&format!("{DURATIONS}_count")),
        span,
        operator: Needs {
            cpu_percent: cpu_time(operator.pid()?)?.saturating_sub(before.0).as_secs_f64() / span * 100.0,
            resident_mib: resident_mib(operator.pid()?)?,
        },
        api_server: Needs {
            cpu_percent: cpu_time(api_server)?.saturating_sub(before.1).as_secs_f64() / span * 100.0,
            resident_mib: resident_mib(api_server)?,
        },
    };
    print(load, made_in, [Visits::of(&made, None)?, Visits::of(&after, Some(&made))?], &idle)
}

fn name(number: usize) -> String {
    format!("cluster-{number}")
}

/// Gives every cluster another setting, all at once.
async fn change_all(client: &Client, clusters: usize, change: usize) -> Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind());
    let patch = Patch::Merge(json!({"spec": {"config": {"analyticsRetentionDays": 30 + change}}}));
    let params = PatchParams::default();
    try_join_all((0..clusters).map(async |number| api.patch(&name(number), &params, &patch).await)).await?;
    Ok(())
}

/// How many clusters' settings have come to their nodes.
async fn changed(kubernetes: &Kubernetes, change: usize) -> Result<usize> {
    let settings = ["get", "configmaps", "--namespace", NAMESPACE, "-o"];
    let path = "jsonpath={range .items[*]}{.data.ANALYTICS_RETENTION_DAYS}{\"\\n\"}{end}";
    let found = kubernetes.kubectl(&[&settings[..], &[path]].concat()).await?;
    let wanted = (30 + change).to_string();
    Ok(found.lines().filter(|days| **days == wanted).count())
}

/// The operator as a process.
struct Operator {
    process: ServerProcess,
    metrics_url: String,
    _folder: ServerFolder,
}

impl Operator {
    async fn start(kubernetes: &Kubernetes) -> Result<Self> {
        let folder = ServerFolder::new()?;
        let kubeconfig = kubernetes.kubeconfig_with_token(&operator_token(kubernetes, NAMESPACE).await?)?;
        let port = lasting_ports(1)?[0];
        // `env` becomes the operator, which takes its credentials from the environment alone.
        let arguments = vec![
            format!("KUBECONFIG={}", kubeconfig.display()).into(),
            operator_program()?.into_os_string(),
            "run".into(),
            format!("--watch-namespace={NAMESPACE}").into(),
            format!("--operator-namespace={NAMESPACE}").into(),
            format!("--metrics-addr=127.0.0.1:{port}").into(),
        ];
        let process = ServerProcess::start(Path::new("/usr/bin/env"), arguments, folder.path().join("operator.log"))?;
        let operator = Self { process, metrics_url: format!("http://127.0.0.1:{port}"), _folder: folder };
        wait_until("the operator works", PATIENCE, async || {
            operator.process.expect_running()?;
            Ok(operator.metrics().await.is_ok_and(|metrics| metrics.sum("shortener_operator_leader") > 0.0))
        })
        .await?;
        Ok(operator)
    }

    fn pid(&self) -> Result<u32> {
        self.process.pid().context("the operator runs")
    }

    async fn metrics(&self) -> Result<Metrics> {
        Metrics::at(&self.metrics_url).await
    }
}

/// Reconciles, and how long they took.
struct Visits {
    count: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Visits {
    /// Those up to a scrape, since an earlier one.
    fn of(now: &Metrics, before: Option<&Metrics>) -> Result<Self> {
        let mut buckets = now.buckets(DURATIONS);
        for (bucket, earlier) in
            buckets.iter_mut().zip(before.map(|before| before.buckets(DURATIONS)).into_iter().flatten())
        {
            bucket.1 -= earlier.1;
        }
        let count = buckets.last().context("the histogram has buckets")?.1;
        Ok(Self { count, p50_ms: quantile(&buckets, 0.5) * 1_000.0, p99_ms: quantile(&buckets, 0.99) * 1_000.0 })
    }
}

/// The value below which this share lies, as Prometheus' `histogram_quantile` reckons it; buckets are upper bounds and counts up to them.
fn quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let wanted = buckets.last().map_or(0.0, |last| last.1) * share;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            let part = if *count > below.1 { (wanted - below.1) / (count - below.1) } else { 1.0 };
            return if bound.is_finite() { below.0 + (bound - below.0) * part } else { below.0 };
        }
        below = (*bound, *count);
    }
    below.0
}

struct Needs {
    cpu_percent: f64,
    resident_mib: f64,
}

struct Idle {
    visits: f64,
    span: f64,
    operator: Needs,
    api_server: Needs,
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn print(load: Load, made_in: Duration, [made, changed]: [Visits; 2], idle: &Idle) -> Result<()> {
    let Load { clusters, nodes, changes, .. } = load;
    println!("{}; {clusters} clusters of {nodes} nodes\n", described()?);
    println!("| reconciles | number | p50 ms | p99 ms |\n|---|---:|---:|---:|");
    for (what, Visits { count, p50_ms, p99_ms }) in [
        (format!("all clusters made and granted, in {:.1} s", made_in.as_secs_f64()), made),
        (format!("settings of all clusters changed, {changes} times"), changed),
    ] {
        println!("| {what} | {count} | {p50_ms:.0} | {p99_ms:.0} |");
    }
    let Idle { visits, span, operator, api_server } = idle;
    println!(
        "\n| {span:.0} s without a change, {visits} reconciles | operator | API server | ratio |\n|---|---:|---:|---:|"
    );
    for (what, ours, theirs) in [
        ("CPU, % of one core", operator.cpu_percent, api_server.cpu_percent),
        ("resident MiB", operator.resident_mib, api_server.resident_mib),
    ] {
        println!("| {what} | {ours:.1} | {theirs:.1} | {:.2} |", ours / theirs);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [(1.0, 0.0), (2.0, 50.0), (4.0, 100.0), (f64::INFINITY, 100.0)];
        let close = |share: f64, expected: f64| assert!((quantile(&buckets, share) - expected).abs() < 1e-9, "{share}");
        close(0.5, 2.0);
        close(0.25, 1.5);
        close(0.99, 3.96);
        assert!((quantile(&[(1.0, 1.0), (f64::INFINITY, 9.0)], 0.99) - 1.0).abs() < 1e-9, "no bound is above the last");
    }
}
