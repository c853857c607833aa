//! The servers that other tests need: they come up, fail as they are told to, come back, and leave nothing behind.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use shortener_tests::client::Client;
use shortener_tests::cluster::Cluster;
use shortener_tests::kubernetes::{Kubernetes, Part};
use shortener_tests::node::Node;
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::sizes::environment;
use shortener_tests::tikv::{Layout, Tikv};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Marks a process that is to be abandoned, and all that it starts.
const ABANDONED_VARIABLE: &str = "SHORTENER_ABANDONED_TEST";
/// What such a process prints once its servers are up.
const ABANDONED_IS_UP: &str = "abandoned is up";
/// The kernel kills what an abandoned process started at once; a busy machine takes a while to let it go.
const GONE_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_layout_of_stores_comes_up_and_a_killed_store_comes_back() -> Result<()> {
    for layout in [Layout::Single, Layout::Replicas, Layout::Shards([b"k".to_vec(), b"\x80".to_vec()])] {
        let Some(tikv) = Tikv::builder().layout(layout.clone()).start().await? else { return Ok(()) };
        let regions = tikv.status().await?.regions.len();
        assert_eq!(regions, if matches!(layout, Layout::Shards(_)) { 3 } else { 1 });
        tikv.split(b"some\0key").await?;
        tikv.kill_store(0)?;
        tikv.restart_store(0).await?;
        assert_eq!(tikv.status().await?.regions.len(), regions + 1, "{layout:?} has forgotten the split");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() -> Result<()> {
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let killed = redis.kill_primary_of("a key").await?;
    redis.wait_until_serving().await?;
    assert_ne!(redis.primary_of("a key").await?, killed);
    redis.restart(killed).await
}

#[tokio::test]
async fn three_members_of_pd_outlive_the_loss_of_their_leader() -> Result<()> {
    let Some(tikv) = Tikv::builder().pd_members(3).start().await? else { return Ok(()) };
    let leader = tikv.pd_leader().await?;
    tikv.kill_pd(leader)?;
    tikv.wait_until_serving().await?;
    assert_ne!(tikv.pd_leader().await?, leader);
    tikv.restart_pd(leader).await
}

#[tokio::test]
async fn redis_with_tls_and_a_user_forms_a_cluster_and_can_be_wiped_and_stopped() -> Result<()> {
    let builder = RedisCluster::builder().tls().user("node", "a-password").require_full_coverage();
    let Some(redis) = builder.start().await? else { return Ok(()) };
    assert!(redis.url().starts_with("rediss-cluster://node:a-password@127.0.0.1:"), "{}", redis.url());
    assert_eq!(redis.keys().await?, 0);
    redis.wipe().await?;
    redis.stop_all()?;
    redis.start_all().await
}

#[tokio::test]
async fn three_nodes_behind_one_port_are_one_service() -> Result<()> {
    let Some(cluster) = Cluster::start(0).await? else { return Ok(()) };
    for number in 0..6 {
        let target = format!("https://example.com/{number}");
        // A client of its own is a connection of its own, which goes to the next node.
        let link = Client::new(&cluster.url())?.create(&target).await?;
        let code = link["short_code"].as_str().context("a link has a code")?;
        for node in cluster.nodes() {
            let answer = node.client()?.get(&format!("/{code}")).await?.expect_status(302)?;
            assert_eq!(answer.header("location"), Some(target.as_str()));
        }
    }
    for node in cluster.nodes() {
        let metrics = Client::new(node.admin_url())?.get("/metrics").await?.expect_status(200)?.text();
        let created = metrics.lines().any(|line| line.contains("/api/v1/urls") && line.contains("201"));
        assert!(created, "a node has created nothing:\n{metrics}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn nothing_outlives_an_abandoned_test_process() -> Result<()> {
    if environment(ABANDONED_VARIABLE).is_some() {
        return start_all_and_wait().await;
    }
    let mark = fresh_name("abandoned");
    let folder = tempfile::tempdir()?;
    let mut abandoned = Command::new(std::env::current_exe()?)
        .args(["--exact", "nothing_outlives_an_abandoned_test_process", "--nocapture"])
        .env(ABANDONED_VARIABLE, &mark)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(abandoned.stdout.take().context("its output is piped")?).lines();
    while said.next_line().await?.context("it ended before its servers were up")? != ABANDONED_IS_UP {}
    let started = marked(&mark)?;
    assert!(started.len() > 1, "it has started nothing: {started:?}");
    abandoned.kill().await?;
    wait_until("nothing is left of an abandoned process", GONE_DEADLINE, async || Ok(marked(&mark)?.is_empty()))
        .await?;
    // The folder of a node's data is the test's own and small; those of servers hold hundreds of megabytes.
    let left = std::fs::read_dir(folder.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let left = left.filter(|path| path.join("pd.toml").exists() || path.join("ca.pem").exists());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    Ok(())
}

/// What is abandoned: a server of each kind that can be had here, one of them hanging.
#[expect(clippy::print_stdout, reason = "whoever abandons it waits for this")]
async fn start_all_and_wait() -> Result<()> {
    let _node = Node::start().await?;
    let tikv = Tikv::builder().start().await?;
    if let Some(tikv) = &tikv {
        tikv.pause_store(0)?;
    }
    let _redis = RedisCluster::builder().tls().start().await?;
    let kubernetes = Kubernetes::builder().start().await?;
    if let Some(kubernetes) = &kubernetes {
        kubernetes.pause(Part::Etcd)?;
    }
    println!("\n{ABANDONED_IS_UP}");
    std::future::pending().await
}

/// The programs of the processes that carry `mark` in their environment.
fn marked(mark: &str) -> Result<Vec<PathBuf>> {
    let mark = format!("{ABANDONED_VARIABLE}={mark}");
    let carries_it = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let processes = std::fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let processes = processes.filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(is_number));
    Ok(processes.filter(|path| carries_it(path)).map(|path| path.join("exe").read_link().unwrap_or(path)).collect())
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
