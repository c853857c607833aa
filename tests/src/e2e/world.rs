//! What all scenarios run in: a cluster with TiKV, Redis Cluster and Prometheus from `tests/manifests`, the chart, and one `ShortenerCluster`, in
//! namespaces that take nothing but what the strictest Pod Security profile allows.
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::{Client as KubeClient, ResourceExt};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;

use super::forward::Forward;
use super::kind::{IMAGE, Kind};
use super::logs::Logs;
use crate::client::Client;
use crate::fleet::Metrics;
use crate::kubernetes::Kubernetes;
use crate::server_process::wait_until;
use crate::sizes::workspace_root;

/// Where the operator is.
pub const OPERATOR_NAMESPACE: &str = "shortener-system";
/// Where the resource, its nodes, TiKV and Redis are.
pub const NAMESPACE: &str = "links";
/// Where Prometheus is.
pub const MONITORING: &str = "monitoring";
/// What selects the pods of nodes and operators.
pub const OF_PRODUCT: &str = "app.kubernetes.io/name in (shortener, shortener-operator)";
/// The namespaces that are made, and removed at the end.
const NAMESPACES: [&str; 3] = [NAMESPACE, OPERATOR_NAMESPACE, MONITORING];
/// What is made and removed beside them.
const CLUSTER_WIDE: [(&str, &str); 3] = [
    ("crd", "shortenerclusters.shortener.dev"),
    ("clusterrole", "prometheus-finds-pods"),
    ("clusterrolebinding", "prometheus-finds-pods"),
];
/// Pods start within seconds; the rest is a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// Requests that are counted out for the clients of all scenarios, which come from few addresses.
pub const NO_LIMITS: i64 = 1_000_000;

/// All of it.
pub struct World {
    /// The cluster.
    pub kind: Kind,
    /// To its API server.
    pub client: KubeClient,
    /// What nodes and operators log.
    pub logs: Logs,
    /// Whether all is to be as large as the table of `docs/e2e.md` has it, or short enough for every change.
    pub long: bool,
}

impl World {
    /// The cluster as it is.
    pub async fn new(kind: Kind, long: bool) -> Result<Self> {
        let client = kind.kubernetes.client().await?;
        let logs = Logs::follow(client.clone())?;
        Ok(Self { kind, client, logs, long })
    }

    /// An error if anything of the cluster has a name of what is made here: it would be altered, and removed at the end.
    pub async fn must_be_empty(&self) -> Result<()> {
        let made = NAMESPACES.map(|namespace| ("namespace", namespace)).into_iter().chain(CLUSTER_WIDE);
        for (kind, name) in made {
            let found = self.kubernetes().kubectl(&["get", kind, name, "--ignore-not-found", "-o", "name"]).await?;
            ensure!(
                found.is_empty(),
                "the cluster has a {kind} {name} already: take another cluster, or delete it if nobody needs it"
            );
        }
        Ok(())
    }

    /// Starts the servers; the chart is left to the scenarios.
    pub async fn start_servers(&self) -> Result<()> {
        for namespace in [NAMESPACE, OPERATOR_NAMESPACE] {
            self.kubernetes().kubectl(&["create", "namespace", namespace]).await?;
            let restricted = "pod-security.kubernetes.io/enforce=restricted";
            self.kubernetes().kubectl(&["label", "namespace", namespace, restricted]).await?;
        }
        for manifest in ["tikv", "redis", "prometheus"] {
            self.apply_manifest(manifest).await?;
        }
        for workload in ["statefulset/pd", "statefulset/tikv", "statefulset/redis"] {
            self.kubectl(&["rollout", "status", workload, "--timeout=180s"]).await?;
        }
        self.kubectl(&["wait", "--for=condition=Complete", "job/redis-cluster-create", "--timeout=180s"]).await?;
        self.until_prometheus_is_up().await
    }

    /// Takes away what was made since [`World::must_be_empty`], so that a cluster that is not ours is as it was.
    pub async fn clean_up(&self) -> Result<()> {
        if self.kind.is_ours() {
            return Ok(());
        }
        // While the operator is there to let it go.
        let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
        let deleted = self.kubectl(&["delete", "shc", "--all", "--timeout=120s"]).await;
        // What a failed scenario did not install cannot be removed.
        let _ = self.kubernetes().helm(&["uninstall", "shortener", &in_system, "--wait", "--ignore-not-found"]).await;
        let mut arguments = vec!["delete", "namespace", "--ignore-not-found", "--timeout=240s"];
        arguments.extend(NAMESPACES);
        self.kubernetes().kubectl(&arguments).await?;
        for (kind, name) in CLUSTER_WIDE {
            self.kubernetes().kubectl(&["delete", kind, name, "--ignore-not-found"]).await?;
        }
        deleted.map(drop)
    }

    /// `short` in the short form, else `long`.
    pub fn sized<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    /// The cluster's commands.
    pub fn kubernetes(&self) -> &Kubernetes {
        &self.kind.kubernetes
    }

    /// Applies a file of `tests/manifests`.
    pub async fn apply_manifest(&self, name: &str) -> Result<()> {
        let file = workspace_root()?.join(format!("tests/manifests/{name}.yaml"));
        let file = file.to_str().context("a path is text")?;
        // Those that name a namespace of their own are not moved.
        let manifest = std::fs::read_to_string(file).context("reading a manifest")?;
        let in_links: &[&str] = if manifest.contains("namespace: ") { &[] } else { &["--namespace", NAMESPACE] };
        self.kubernetes().kubectl(&[&["apply", "-f", file], in_links].concat()).await?;
        Ok(())
    }

    /// Waits until Prometheus is there again.
    pub async fn until_prometheus_is_up(&self) -> Result<()> {
        let arguments = ["rollout", "status", "deployment/prometheus", "--namespace", MONITORING, "--timeout=120s"];
        self.kubernetes().kubectl(&arguments).await?;
        Ok(())
    }

    /// Installs the chart as the README says, unless it is installed.
    pub async fn install(&self) -> Result<()> {
        let releases = self.kubernetes().helm(&["list", "--namespace", OPERATOR_NAMESPACE, "--short"]).await?;
        if releases.lines().all(|release| release != "shortener") {
            self.helm("install", IMAGE, &[]).await?;
        }
        Ok(())
    }

    /// Runs `helm install` or `upgrade` with an image and more values, and waits until the operator is there.
    pub async fn helm(&self, what: &str, image: &str, values: &[&str]) -> Result<()> {
        let chart = charts()?.join("shortener-operator");
        let chart = chart.to_str().context("a path is text")?;
        let (repository, tag) = image.split_once(':').context("an image has a tag")?;
        let image = format!("--set=image.repository={repository},image.tag={tag}");
        let namespace = format!("--namespace={OPERATOR_NAMESPACE}");
        let mut arguments = vec![what, "shortener", chart, &namespace, &image, "--wait", "--timeout=2m"];
        arguments.extend(values);
        self.kubernetes().helm(&arguments).await?;
        Ok(())
    }

    /// Applies the smallest example with what `patch` changes in it, and waits until it is ready. It names the servers of `tests/manifests`.
    pub async fn apply(&self, patch: &Value) -> Result<()> {
        self.apply_example("smallest", patch).await?;
        self.until_ready().await
    }

    /// Applies an example with what `patch` changes in it.
    pub async fn apply_example(&self, example: &str, patch: &Value) -> Result<()> {
        let file = charts()?.join(format!("examples/{example}.yaml"));
        let example = std::fs::read_to_string(file).context("reading the example")?;
        let mut resource: Value = serde_saphyr::from_str(&example).context("the example is YAML")?;
        // All clients come from few addresses.
        let limits = json!({"spec": {"config": {"rateLimitAnonymous": NO_LIMITS, "rateLimitRequests": NO_LIMITS}}});
        json_patch::merge(&mut resource, &limits);
        json_patch::merge(&mut resource, patch);
        self.kubectl_with_input(&["apply", "-f", "-"], &resource.to_string()).await?;
        // Conditions of before say nothing of what was just asked for.
        let clusters = self.clusters();
        wait_until("the operator has seen the resource", PATIENCE, async || {
            let cluster = clusters.get("main").await.context("asking for the resource")?;
            let observed = cluster.status.and_then(|status| status.observed_generation);
            Ok(observed.is_some() && observed == cluster.metadata.generation)
        })
        .await
    }

    /// Installs the chart and applies the smallest example with so many nodes.
    pub async fn nodes_ready(&self, nodes: usize, patch: &Value) -> Result<()> {
        self.install().await?;
        let mut all = json!({"spec": {"replicas": nodes}});
        json_patch::merge(&mut all, patch);
        self.apply(&all).await?;
        self.until_rolled_out().await?;
        wait_until("all nodes are there", PATIENCE, async || Ok(self.node_names().await?.len() == nodes)).await
    }

    /// Waits until the resource says that all is as it should be; an error tells what there is instead.
    pub async fn until_ready(&self) -> Result<()> {
        let ready = self.kubectl(&["wait", "--for=condition=Ready", "shc/main", "--timeout=180s"]).await;
        let Err(error) = ready else { return Ok(()) };
        Err(error.context(self.kubectl(&["get", "shc,pods", "-o", "wide"]).await?))
    }

    /// Waits until every node is of the newest template, and no other is left.
    pub async fn until_rolled_out(&self) -> Result<()> {
        self.kubectl(&["rollout", "status", "deployment/main", "--timeout=180s"]).await?;
        let all_stay = async || Ok(self.nodes().await?.iter().all(stays));
        wait_until("the old pods are gone", PATIENCE, all_stay).await
    }

    /// Waits until an operator with this annotation `release` leads and has visited clusters twice.
    pub async fn until_operator_has_visited(&self, release: &str) -> Result<()> {
        let of_operator = ListParams::default().labels("app.kubernetes.io/name=shortener-operator");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        wait_until("a new operator has visited", PATIENCE, async || {
            for pod in pods.list(&of_operator).await? {
                if pod.annotations().get("release").is_none_or(|other| other != release) {
                    continue;
                }
                let target = format!("pod/{}", pod.name_any());
                let Ok(forward) = Forward::to(self.kubernetes(), OPERATOR_NAMESPACE, &target, 9090).await else {
                    continue;
                };
                let Ok(metrics) = Metrics::at(forward.url()).await else { continue };
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

    /// Waits until a condition of the resource has a status; an error tells what it is instead.
    pub async fn until_condition(&self, condition: &str, status: &str, within: Duration) -> Result<()> {
        let clusters = self.clusters();
        let mut last = None;
        let waited = wait_until(&format!("{condition} is {status}"), within, async || {
            last = self::condition(&clusters.get("main").await.context("asking for the resource")?, condition);
            Ok(last.as_ref().is_some_and(|(is, _)| is == status))
        })
        .await;
        waited.with_context(|| format!("{condition} is {last:?}"))
    }

    /// kubectl in the namespace of the nodes.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubernetes().kubectl(&in_links(arguments)).await
    }

    /// The same with something to read.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubernetes().kubectl_with_input(&in_links(arguments), input).await
    }

    /// Kills the process of a container (SIGKILL), and deletes the pod, which is made anew elsewhere. On a cluster that is not ours it gets the
    /// two seconds that a deletion gives it at least.
    pub async fn kill(&self, pod: &str, container: &str) -> Result<()> {
        if self.kind.is_ours() {
            let process = format!(
                "jsonpath={{.spec.nodeName}} {{.status.containerStatuses[?(@.name==\"{container}\")].containerID}}"
            );
            let process = self.kubectl(&["get", "pod", pod, "-o", &process]).await?;
            let (machine, id) = process.split_once(" containerd://").with_context(|| format!("{pod} runs nowhere"))?;
            let kill = ["ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", id];
            self.kind.on_machine(machine, &kill).await?;
        }
        self.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]).await?;
        Ok(())
    }

    /// Starts a pod anew, with what belongs to it, and waits until it is ready.
    pub async fn start_pod(&self, namespace: &str, pod: &str, items: &[Value]) -> Result<()> {
        let (pod, namespace) = (format!("pod/{pod}"), format!("--namespace={namespace}"));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        self.kubernetes().kubectl(&["delete", &pod, &namespace, "--ignore-not-found"]).await?;
        self.kubernetes().kubectl_with_input(&["apply", "-f", "-"], &list).await?;
        self.kubernetes().kubectl(&["wait", "--for=condition=Ready", &pod, &namespace, "--timeout=60s"]).await?;
        Ok(())
    }

    /// The resources.
    pub fn clusters(&self) -> Api<ShortenerCluster> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The resource's status.
    pub async fn status(&self) -> Result<shortener_crds::cluster::ShortenerClusterStatus> {
        let cluster = self.clusters().get("main").await.context("asking for the resource")?;
        cluster.status.context("it has a status")
    }

    /// The pods of the nodes.
    pub async fn nodes(&self) -> Result<Vec<Pod>> {
        let of_nodes = ListParams::default().labels("app.kubernetes.io/name=shortener,app.kubernetes.io/instance=main");
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE).list(&of_nodes).await;
        Ok(pods.context("listing the nodes")?.items)
    }

    /// The names of those that serve.
    pub async fn ready_node_names(&self) -> Result<BTreeSet<String>> {
        let is_ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        Ok(self.nodes().await?.iter().filter(|pod| stays(pod) && is_ready(pod)).map(ResourceExt::name_any).collect())
    }

    /// The names of those that are to stay.
    pub async fn node_names(&self) -> Result<BTreeSet<String>> {
        Ok(self.nodes().await?.iter().filter(|pod| stays(pod)).map(ResourceExt::name_any).collect())
    }

    /// The nodes' Service, as pods reach it.
    pub async fn service_url(&self) -> Result<String> {
        self.url_of_service("main").await
    }

    /// A Service, as pods reach it.
    pub async fn url_of_service(&self, name: &str) -> Result<String> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let address = services.get(name).await?.spec.and_then(|spec| spec.cluster_ip);
        // No name: a connection for each request would look it up each time.
        Ok(format!("http://{}", address.context("a Service has an address")?))
    }

    /// One of the nodes, or another program, as this machine reaches it.
    pub async fn forward(&self, target: &str, port: u16) -> Result<Forward> {
        Forward::to(self.kubernetes(), NAMESPACE, target, port).await
    }

    /// One of the nodes, by their Service.
    pub async fn any_node(&self) -> Result<Forward> {
        let forward = self.forward("service/main", 80).await?;
        forward.client()?.until_health_is("ok").await?;
        Ok(forward)
    }

    /// Makes a link and returns where pods follow it.
    pub async fn link(&self) -> Result<String> {
        let node = self.any_node().await?;
        let link = node.client()?.create("https://www.example.com/").await?;
        let code = link["short_code"].as_str().context("a link has a code")?;
        Ok(format!("{}/{code}", self.service_url().await?))
    }

    /// Looks for each code on some node, and returns those that do not lead anywhere.
    pub async fn lost<'a>(&self, codes: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
        let node = self.any_node().await?;
        let client = node.client()?;
        let codes: BTreeSet<String> = codes.map(str::to_owned).collect();
        let (mut lost, mut asked) = (Vec::new(), tokio::task::JoinSet::new());
        for code in codes {
            let client: Client = client.clone();
            asked.spawn(async move {
                let answer = client.get(&format!("/{code}")).await;
                answer.map(|answer| (answer.status != 302).then(|| format!("{code}: {}", answer.status)))
            });
            if asked.len() >= AT_ONCE {
                lost.extend(asked.join_next().await.transpose()?.transpose()?.flatten());
            }
        }
        for answer in asked.join_all().await {
            lost.extend(answer?);
        }
        Ok(lost)
    }

    /// The value of an expression that has one, in Prometheus.
    pub async fn query(&self, expression: &str) -> Result<Option<f64>> {
        let forward = Forward::to(self.kubernetes(), MONITORING, "service/prometheus", 9090).await?;
        crate::prometheus::query(&forward.client()?, expression).await
    }
}

/// How many codes are asked for at once.
const AT_ONCE: usize = 16;

/// What the profile "restricted" asks of a pod.
pub fn restricted_pod() -> Value {
    json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// What it asks of a container.
pub fn restricted_container() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

fn stays(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
}

fn in_links<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    // Before what follows `--`, which is another program's.
    let (ours, theirs) = arguments.split_at(arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len()));
    [ours, &["--namespace", NAMESPACE], theirs].concat()
}

/// The status and the message of a condition.
pub fn condition(cluster: &ShortenerCluster, name: &str) -> Option<(String, String)> {
    let conditions = &cluster.status.as_ref()?.conditions;
    let condition = conditions.iter().find(|condition| condition.type_ == name)?;
    Some((condition.status.clone(), format!("{}: {}", condition.reason, condition.message)))
}

fn charts() -> Result<PathBuf> {
    let charts = workspace_root()?.join("charts");
    if !charts.is_dir() {
        bail!("there is no {}", charts.display());
    }
    Ok(charts)
}
