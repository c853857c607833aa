//! The chart, installed as the README says on a cluster with a kubelet, beside a TiKV and a Redis Cluster that pods reach.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::{Client as KubeClient, ResourceExt};
use serde_json::{Value, json};

use crate::client::Client;
use crate::fleet::Metrics;
use crate::kubernetes::Kubernetes;
use crate::programs::{node_program, operator_program};
use crate::redis_cluster::RedisCluster;
use crate::server_process::wait_until;
use crate::sizes::workspace_root;
use crate::tikv::Tikv;

/// Where the operator is.
pub const OPERATOR_NAMESPACE: &str = "shortener-system";
/// Where the resource and its nodes are.
pub const NAMESPACE: &str = "links";
/// What the example names where a reader puts addresses of their own.
const TIKV_PLACEHOLDER: &str = r#"["pd-0.pd:2379", "pd-1.pd:2379"]"#;
const REDIS_PLACEHOLDER: &str = r#"["redis-0.redis:6379", "redis-1.redis:6379"]"#;
/// Pods of both programs start within seconds; the rest is a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// All of it.
pub struct Installed {
    /// The cluster.
    pub kubernetes: Kubernetes,
    /// To its API server.
    pub client: KubeClient,
    tikv: Tikv,
    redis: RedisCluster,
}

impl Installed {
    /// Starts the servers and installs the chart. None where something cannot be had.
    pub async fn start() -> Result<Option<Self>> {
        let Some(kubernetes) = Kubernetes::builder().with_kubelet().start().await? else { return Ok(None) };
        let host = kubernetes.host();
        let (Some(tikv), Some(redis)) =
            (Tikv::builder().host(host).start().await?, RedisCluster::builder().host(host).start().await?)
        else {
            return Ok(None);
        };
        kubernetes.load_image("localhost/shortener:test", &[&node_program()?, &operator_program()?]).await?;
        // Nothing of it may need more than the strictest profile allows.
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        for namespace in [OPERATOR_NAMESPACE, NAMESPACE] {
            kubernetes.kubectl(&["create", "namespace", namespace]).await?;
            kubernetes.kubectl(&["label", "namespace", namespace, restricted]).await?;
        }
        let client = kubernetes.client().await?;
        let installed = Self { kubernetes, client, tikv, redis };
        installed.helm("install", &[]).await?;
        Ok(Some(installed))
    }

    /// Runs `helm install` or `upgrade` with more values, and waits until the operator is there.
    pub async fn helm(&self, what: &str, values: &[&str]) -> Result<()> {
        let chart =
            charts()?.join("shortener-operator").into_os_string().into_string().ok().context("a path is text")?;
        let namespace = format!("--namespace={OPERATOR_NAMESPACE}");
        let image = "--set=image.repository=localhost/shortener,image.tag=test";
        let mut arguments = vec![what, "shortener", &chart, &namespace, image, "--wait", "--timeout=2m"];
        arguments.extend(values);
        self.kubernetes.helm(&arguments).await?;
        Ok(())
    }

    /// Applies the smallest example with the servers' addresses and with what `patch` changes in it, and waits until it is ready.
    pub async fn apply(&self, patch: &Value) -> Result<()> {
        let example =
            std::fs::read_to_string(charts()?.join("examples/smallest.yaml")).context("reading the example")?;
        ensure!(example.contains(TIKV_PLACEHOLDER) && example.contains(REDIS_PLACEHOLDER), "{example}");
        let example = example
            .replace(TIKV_PLACEHOLDER, &json!(self.tikv.pd_endpoints()).to_string())
            .replace(REDIS_PLACEHOLDER, &json!(self.redis.seeds()).to_string());
        let mut resource: Value = serde_saphyr::from_str(&example).context("the example is YAML")?;
        json_patch::merge(&mut resource, patch);
        self.kubectl_with_input(&["apply", "-f", "-"], &resource.to_string()).await?;
        self.until_ready().await
    }

    /// Waits until the resource says that all is as it should be; an error tells what there is instead.
    pub async fn until_ready(&self) -> Result<()> {
        let ready = self.kubectl(&["wait", "--for=condition=Ready", "shc/main", "--timeout=120s"]).await;
        let Err(error) = ready else { return Ok(()) };
        Err(error.context(self.kubectl(&["get", "shc,pods,events", "-o", "wide"]).await?))
    }

    /// Waits until every node is of the newest template, and no other is left.
    pub async fn until_rolled_out(&self) -> Result<()> {
        self.kubectl(&["rollout", "status", "deployment/main", "--timeout=180s"]).await?;
        let all_stay = async || Ok(self.nodes().await?.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()));
        wait_until("the old pods are gone", PATIENCE, all_stay).await
    }

    /// Waits until an operator of the newest release leads and has visited clusters twice.
    pub async fn until_new_operator_has_visited(&self) -> Result<()> {
        let of_operator = ListParams::default().labels("app.kubernetes.io/name=shortener-operator");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        wait_until("a new operator has visited", PATIENCE, async || {
            for pod in pods.list(&of_operator).await? {
                let is_new = pod.annotations().get("release").is_some_and(|release| release == "next");
                let address = pod.status.and_then(|status| status.pod_ip);
                let (true, Some(address)) = (is_new, address) else { continue };
                let Ok(metrics) = Metrics::at(&format!("http://{address}:9090")).await else { continue };
                if metrics.sum("shortener_operator_leader") > 0.0
                    && metrics.sum("shortener_operator_reconciles_total") >= 2.0
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// kubectl in the namespace of the nodes.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubernetes.kubectl(&[arguments, &["--namespace", NAMESPACE]].concat()).await
    }

    async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubernetes.kubectl_with_input(&[arguments, &["--namespace", NAMESPACE]].concat(), input).await
    }

    /// The pods of the nodes.
    pub async fn nodes(&self) -> Result<Vec<Pod>> {
        let of_nodes = ListParams::default().labels("app.kubernetes.io/name=shortener,app.kubernetes.io/instance=main");
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE).list(&of_nodes).await;
        Ok(pods.context("listing the nodes")?.items)
    }

    /// The URL of the Service of the nodes, once it answers.
    pub async fn service_url(&self) -> Result<String> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let address = services.get("main").await?.spec.and_then(|spec| spec.cluster_ip);
        let url = format!("http://{}", address.context("a Service has an address")?);
        Client::new(&url)?.until_health_is("ok").await?;
        Ok(url)
    }
}

fn charts() -> Result<PathBuf> {
    Ok(workspace_root()?.join("charts"))
}
