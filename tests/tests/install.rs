//! The README's way, as somebody new goes it: Helm installs the operator on a cluster with a kubelet, its test passes, the smallest
//! example is applied with the addresses of a TiKV and a Redis Cluster, and the pods that come of it shorten and redirect.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_tests::client::Client;
use shortener_tests::kubernetes::Kubernetes;
use shortener_tests::programs::{node_program, operator_program};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::workspace_root;
use shortener_tests::tikv::Tikv;

/// What the example names where a reader puts addresses of their own.
const TIKV_PLACEHOLDER: &str = r#"["pd-0.pd:2379", "pd-1.pd:2379"]"#;
const REDIS_PLACEHOLDER: &str = r#"["redis-0.redis:6379", "redis-1.redis:6379"]"#;
/// Pods of both programs start within seconds; the rest is a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn helm_and_the_smallest_example_make_a_cluster_that_serves() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().with_kubelet().start().await? else { return Ok(()) };
    let host = kubernetes.host();
    let (Some(tikv), Some(redis)) =
        (Tikv::builder().host(host).start().await?, RedisCluster::builder().host(host).start().await?)
    else {
        return Ok(());
    };
    kubernetes.load_image("localhost/shortener:test", &[&node_program()?, &operator_program()?]).await?;
    let charts = workspace_root()?.join("charts");
    let chart = charts.join("shortener-operator").into_os_string().into_string().ok().context("a path is text")?;
    // Nothing of it may need more than the strictest profile allows.
    for namespace in ["shortener-system", "links"] {
        kubernetes.kubectl(&["create", "namespace", namespace]).await?;
        kubernetes.kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"]).await?;
    }
    kubernetes
        .helm(&[
            "install",
            "shortener",
            &chart,
            "--namespace=shortener-system",
            "--set=image.repository=localhost/shortener,image.tag=test",
            "--wait",
            "--timeout=2m",
        ])
        .await?;
    println!("{}", kubernetes.helm(&["test", "shortener", "--namespace=shortener-system"]).await?);

    let example = std::fs::read_to_string(charts.join("examples/smallest.yaml")).context("reading the example")?;
    ensure!(example.contains(TIKV_PLACEHOLDER) && example.contains(REDIS_PLACEHOLDER), "{example}");
    let example = example
        .replace(TIKV_PLACEHOLDER, &json!(tikv.pd_endpoints()).to_string())
        .replace(REDIS_PLACEHOLDER, &json!(redis.seeds()).to_string());
    kubernetes.kubectl_with_input(&["apply", "--namespace=links", "-f", "-"], &example).await?;
    let ready =
        kubernetes.kubectl(&["wait", "--for=condition=Ready", "shc/main", "--namespace=links", "--timeout=120s"]);
    if let Err(error) = ready.await {
        let shown = kubernetes.kubectl(&["get", "shc,pods,events", "--namespace=links", "-o", "wide"]).await?;
        return Err(error.context(shown));
    }

    let client = kubernetes.client().await?;
    let clusters: Api<ShortenerCluster> = Api::namespaced(client.clone(), "links");
    let nodes = async || {
        let of_nodes = ListParams::default().labels("app.kubernetes.io/name=shortener,app.kubernetes.io/instance=main");
        Api::<Pod>::namespaced(client.clone(), "links").list(&of_nodes).await.context("listing the nodes")
    };
    let pods = nodes().await?.items;
    ensure!(pods.len() == 2, "{} nodes", pods.len());
    let status = clusters.get("main").await?.status.context("it has a status")?;
    let allocation = status.allocation.context("grants are in the status")?;
    ensure!(allocation.grants.len() == pods.len(), "{allocation:?}");

    // A link made through the Service is followed through each pod.
    let services: Api<Service> = Api::namespaced(client.clone(), "links");
    let address =
        services.get("main").await?.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;
    let service = Client::new(&format!("http://{address}"))?;
    wait_until("the Service answers", PATIENCE, async || {
        Ok(service.health().await.is_ok_and(|health| health["status"] == "ok"))
    })
    .await?;
    let link: Value = service.create("https://www.example.com/a/long/page").await?;
    let code = link["short_code"].as_str().context("a link has a code")?;
    ensure!(link["short_url"] == format!("https://sho.rt/{code}"), "{link}");
    for pod in pods {
        let address = pod.status.and_then(|status| status.pod_ip).context("a ready pod has an address")?;
        let followed = Client::new(&format!("http://{address}:8000"))?.get(&format!("/{code}")).await?;
        ensure!(followed.header("location") == Some("https://www.example.com/a/long/page"), "{}", followed.status);
    }
    println!("{}", kubernetes.kubectl(&["get", "shc", "--namespace=links"]).await?);
    println!("{}", kubernetes.kubectl(&["get", "shc", "main", "--namespace=links", "-o", "yaml"]).await?);

    // And takes it away again: of the resource nothing stays but the key that the nodes sign with.
    kubernetes.kubectl(&["delete", "shc", "main", "--namespace=links", "--timeout=60s"]).await?;
    wait_until("the nodes are gone", PATIENCE, async || Ok(nodes().await?.items.is_empty())).await?;
    let secrets = kubernetes.kubectl(&["get", "secrets", "--namespace=links", "-o", "name"]).await?;
    ensure!(secrets.lines().count() == 1, "{secrets}");
    kubernetes.helm(&["uninstall", "shortener", "--namespace=shortener-system", "--wait"]).await?;
    Ok(())
}
