//! No request is lost, whatever is changed: on a cluster with a kubelet, under a load that counts every answer, with connections that are
//! kept and with one for each request.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use shortener_tests::client::Client;
use shortener_tests::installed::Installed;
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::sized;
use shortener_tests::witness::{Ask, Witness};

const PATIENCE: Duration = Duration::from_mins(2);

/// The names of the pods that are to stay.
async fn names(installed: &Installed) -> Result<Vec<String>> {
    let pods = installed.nodes().await?;
    Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect())
}

async fn scale_to(installed: &Installed, nodes: usize) -> Result<()> {
    installed.kubectl(&["scale", "shc", "main", &format!("--replicas={nodes}")]).await?;
    wait_until("the fleet has its size", PATIENCE, async || Ok(names(installed).await?.len() == nodes)).await?;
    installed.until_rolled_out().await
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
fn expect_only(what: &str, wanted: &str, seen: &BTreeMap<String, u64>) -> Result<()> {
    println!("{what}: {seen:?}");
    ensure!(seen.keys().all(|outcome| outcome == wanted), "{what}: {seen:?}");
    ensure!(seen.values().sum::<u64>() > 100, "{what}: only {seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_changes_upgrades_and_other_sizes_lose_no_request() -> Result<()> {
    let Some(installed) = Installed::start().await? else { return Ok(()) };
    // All clients come from one address.
    let config = json!({"rateLimitAnonymous": 1_000_000, "rateLimitRequests": 1_000_000});
    installed.apply(&json!({"spec": {"replicas": 3, "config": config}})).await?;
    let url = installed.service_url().await?;
    let link = Client::new(&url)?.create("https://www.example.com/").await?;
    let followed = format!("{url}/{}", link["short_code"].as_str().context("a link has a code")?);
    let rate = sized(1, 2);
    let kept = Witness::start(Ask::Kept(followed.clone()), 100 * rate)?;
    let fresh = Witness::start(Ask::Fresh(followed), 50 * rate)?;
    let created = Witness::start(Ask::Create(format!("{url}/api/v1/urls")), 10)?;

    // A rolling restart.
    let before = names(&installed).await?;
    installed.kubectl(&["rollout", "restart", "deployment/main"]).await?;
    installed.until_rolled_out().await?;
    let after = names(&installed).await?;
    ensure!(after.len() == 3 && before.iter().all(|pod| !after.contains(pod)), "{before:?}, then {after:?}");

    // Another configuration.
    let patch = json!({"spec": {"config": {"analyticsRetentionDays": 30}}}).to_string();
    installed.kubectl(&["patch", "shc", "main", "--type=merge", "-p", &patch]).await?;
    wait_until("pods are replaced", PATIENCE, async || {
        Ok(names(&installed).await?.iter().any(|pod| !after.contains(pod)))
    })
    .await?;
    installed.until_rolled_out().await?;

    // Another operator: no node is replaced.
    let before = names(&installed).await?;
    installed.helm("upgrade", &["--set=podAnnotations.release=next"]).await?;
    installed.until_new_operator_has_visited().await?;
    ensure!(names(&installed).await? == before, "an upgrade of the operator replaced nodes");

    // More nodes and fewer.
    scale_to(&installed, sized(5, 8)).await?;
    scale_to(&installed, 3).await?;

    expect_only("kept connections", "302", &kept.stop().await?)?;
    expect_only("a connection for each request", "302", &fresh.stop().await?)?;
    expect_only("creates", "201", &created.stop().await?)?;
    installed.until_ready().await
}
