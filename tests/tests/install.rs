//! The README's way, as somebody new goes it: Helm installs the operator on a cluster with a kubelet, its test passes, the smallest
//! example is applied with the addresses of a TiKV and a Redis Cluster, and the pods that come of it shorten and redirect.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::Api;
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_tests::client::Client;
use shortener_tests::installed::{Installed, NAMESPACE, OPERATOR_NAMESPACE};
use shortener_tests::server_process::wait_until;

/// What takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn helm_and_the_smallest_example_make_a_cluster_that_serves() -> Result<()> {
    let Some(installed) = Installed::start().await? else { return Ok(()) };
    let kubernetes = &installed.kubernetes;
    let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
    println!("{}", kubernetes.helm(&["test", "shortener", &in_system]).await?);
    installed.apply(&json!({})).await?;

    let clusters: Api<ShortenerCluster> = Api::namespaced(installed.client.clone(), NAMESPACE);
    let pods = installed.nodes().await?;
    ensure!(pods.len() == 2, "{} nodes", pods.len());
    let status = clusters.get("main").await?.status.context("it has a status")?;
    let allocation = status.allocation.context("grants are in the status")?;
    ensure!(allocation.grants.len() == pods.len(), "{allocation:?}");

    // A link made through the Service is followed through each pod.
    let service = Client::new(&installed.service_url().await?)?;
    let link: Value = service.create("https://www.example.com/a/long/page").await?;
    let code = link["short_code"].as_str().context("a link has a code")?;
    ensure!(link["short_url"] == format!("https://sho.rt/{code}"), "{link}");
    for pod in pods {
        let address = pod.status.and_then(|status| status.pod_ip).context("a ready pod has an address")?;
        let followed = Client::new(&format!("http://{address}:8000"))?.get(&format!("/{code}")).await?;
        ensure!(followed.header("location") == Some("https://www.example.com/a/long/page"), "{}", followed.status);
    }
    println!("{}", installed.kubectl(&["get", "shc"]).await?);
    println!("{}", installed.kubectl(&["get", "shc", "main", "-o", "yaml"]).await?);

    // And takes it away again: of the resource nothing stays but the key that the nodes sign with.
    installed.kubectl(&["delete", "shc", "main", "--timeout=60s"]).await?;
    wait_until("the nodes are gone", PATIENCE, async || Ok(installed.nodes().await?.is_empty())).await?;
    let secrets = installed.kubectl(&["get", "secrets", "-o", "name"]).await?;
    ensure!(secrets.lines().count() == 1, "{secrets}");
    kubernetes.helm(&["uninstall", "shortener", &in_system, "--wait"]).await?;
    Ok(())
}
