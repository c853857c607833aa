//! Real nodes on TiKV and real operators on a real API server, under a load of creates: whatever is killed, stopped, restored or edited,
//! no code and no ID is given out twice, nothing is lost, and grants go on.

#[path = "granted_nodes/formats.rs"]
mod formats;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use shortener_crds::ShortenerCluster;
use shortener_crds::cluster::AllocationStatus;
use shortener_node::ambient::{Clock, random};
use shortener_tests::fleet::history::History;
use shortener_tests::fleet::load::Load;
use shortener_tests::fleet::{Fleet, Metrics};
use shortener_tests::kubernetes::{Kubernetes, Part};
use shortener_tests::operator::{Operator, install, kind, leased_nodes, operator_client, sample};
use shortener_tests::preload::WallClocks;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::sizes::sized;
use shortener_tests::tikv::Tikv;

/// Clients that create at once.
const CREATORS: usize = 24;
/// Seconds in an hour.
const HOUR: i64 = 3_600;
/// Within this grants go on, whatever happened.
const GRANTS_GO_ON_WITHIN: Duration = Duration::from_mins(1);

/// A cluster of its own, which is harmed; nodes on a keyspace of their own; and a load that creates.
struct Scene {
    kubernetes: Kubernetes,
    client: Client,
    operator_client: Client,
    namespace: String,
    keyspace: String,
    fleet: Arc<Fleet>,
    history: Arc<History>,
    /// Metrics of nodes that were killed, as they were at their end.
    ended: Metrics,
}

impl Scene {
    /// Starts all of it, with so many operators; none where something cannot be had.
    async fn start(test: &str, nodes: usize, operators: usize) -> Result<Option<(Self, Vec<Operator>)>> {
        Self::start_with(test, nodes, operators, |_| Vec::new()).await
    }

    /// The same with more in the environment of each node.
    async fn start_with(
        test: &str,
        nodes: usize,
        operators: usize,
        environment: impl Fn(usize) -> Vec<(&'static str, String)>,
    ) -> Result<Option<(Self, Vec<Operator>)>> {
        let (Some(kubernetes), Some(tikv)) = (Kubernetes::builder().start().await?, Tikv::shared().await?) else {
            return Ok(None);
        };
        let client = kubernetes.client().await?;
        install(&client).await?;
        let namespace = kubernetes.namespace(test).await?;
        let operator_client = operator_client(&kubernetes, &namespace).await?;
        let mut working = Vec::new();
        for _ in 0..operators {
            working.push(Operator::start(operator_client.clone(), &namespace).await?);
        }
        let ours = json!({
            "metadata": {"namespace": namespace},
            "spec": {"autoscaling": null, "replicas": 0, "cache": null},
        });
        let clusters: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind());
        clusters.create(&PostParams::default(), &serde_json::from_value(sample(&ours)?)?).await?;
        let keyspace = fresh_name(test);
        let database_url = tikv.database_url(&keyspace);
        let fleet = leased_nodes(&kubernetes, &namespace, "main", &database_url, nodes, environment).await?;
        let history = Arc::new(History::default());
        let ended = Metrics::default();
        let scene = Self { kubernetes, client, operator_client, namespace, keyspace, fleet, history, ended };
        scene.until_all_create().await?;
        Ok(Some((scene, working)))
    }

    async fn operator(&self) -> Result<Operator> {
        Operator::start(self.operator_client.clone(), &self.namespace).await
    }

    /// Waits until every node has something to mint from.
    async fn until_all_create(&self) -> Result<()> {
        for node in 0..self.fleet.len() {
            let client = self.fleet.client(node).await;
            wait_until(&format!("node {node} creates"), GRANTS_GO_ON_WITHIN, async || {
                let target = json!({"original_url": "https://www.example.com/ready"});
                Ok(client.post("/api/v1/urls", &target).await.is_ok_and(|answer| answer.status == 201))
            })
            .await?;
        }
        Ok(())
    }

    /// Kills a node, and starts another process in its pod.
    async fn restart(&mut self, node: usize) -> Result<()> {
        self.ended.add(&self.fleet.kill(node).await?);
        self.fleet.replace(node).await
    }

    /// By how many seconds the wall clock of a node is ahead of this machine's, by what it says of a link that it makes now.
    async fn clock_is_ahead(&self, node: usize) -> Result<i64> {
        let link = self.fleet.client(node).await.create("https://www.example.com/now").await?;
        let created_at: Timestamp = link["created_at"].as_str().context("a link says when")?.parse()?;
        Ok(created_at.as_second() - Timestamp::now().as_second())
    }

    async fn ledger(&self) -> Result<AllocationStatus> {
        let clusters: Api<ShortenerCluster> = Api::namespaced(self.client.clone(), &self.namespace);
        clusters.get("main").await?.status.and_then(|status| status.allocation).context("a ledger")
    }

    /// Nothing is lost, nothing was given out twice, and insert-if-absent is not what hid a clash.
    async fn check(mut self, may_burn: bool) -> Result<()> {
        self.history.check_at(&self.fleet, 1).await?;
        self.ended.add(&self.fleet.metrics().await?);
        ensure!(self.ended.sum("shortener_mint_clashes_total") == 0.0, "codes clashed when they were minted");
        let burnt = self.ended.sum("shortener_claims_burnt_total");
        say(&format!("{} links; {}; {burnt} claims burnt", self.history.links(), self.history.summary()));
        ensure!(may_burn || burnt == 0.0, "{burnt} claims were burnt");
        self.fleet.stop().await
    }
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
fn say(what: &str) {
    println!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_and_nodes_that_die_give_out_no_code_and_no_id_twice() -> Result<()> {
    let nodes = sized(6, 20);
    let Some((mut scene, mut operators)) = Scene::start("granted", nodes, 2).await? else { return Ok(()) };
    let wanted = sized(50_000, 1_000_000);
    let mut load = Load::start(&scene.fleet, &scene.history, CREATORS, 0);
    let mut rounds = 0_usize;
    while scene.history.links() < wanted {
        let made = scene.history.links();
        scene.restart(usize::from(u16::from_be_bytes(random())) % nodes).await?;
        // Every other time an operator dies in the middle of whatever it does.
        if rounds.is_multiple_of(2) {
            operators.remove(rounds / 2 % 2).kill().await;
            operators.push(scene.operator().await?);
        }
        rounds += 1;
        wait_until("creates go on", GRANTS_GO_ON_WITHIN, async || Ok(scene.history.links() > made + nodes)).await?;
        tokio::time::sleep(Duration::from_secs(sized(1, 5))).await; // the pace of the deaths
    }
    load.stop().await?;
    println!("{rounds} nodes died, and {} operators", rounds.div_ceil(2));
    ensure!(rounds >= 4, "only {rounds} nodes died");
    for operator in operators {
        operator.stop().await?;
    }
    scene.check(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_restored_edited_or_deleted_and_a_node_that_was_stopped_give_out_nothing_twice() -> Result<()>
{
    let Some((mut scene, operators)) = Scene::start("restored", 3, 1).await? else { return Ok(()) };
    let mut load = Load::start(&scene.fleet, &scene.history, 8, 0);
    let snapshot = scene.kubernetes.snapshot().await?;
    let at_snapshot = scene.ledger().await?.next_block;
    for node in 0..3 {
        scene.restart(node).await?;
    }
    scene.until_all_create().await?;
    let before = scene.ledger().await?.next_block;
    ensure!(before > at_snapshot, "more was granted after the snapshot");
    scene.kubernetes.restore(&snapshot).await?;
    // The ledger knows nothing of what was granted since; the nodes' reports and claims do.
    let clock = Clock::system();
    let restored_at = clock.monotonic();
    scene.restart(0).await?;
    scene.until_all_create().await?;
    println!("grants go on {:?} after etcd was restored", clock.monotonic().saturating_sub(restored_at));
    wait_until("the ledger is past what was claimed", GRANTS_GO_ON_WITHIN, async || {
        Ok(scene.ledger().await?.next_block > before)
    })
    .await?;

    let clusters: Api<ShortenerCluster> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let none = Patch::Merge(json!({"status": null}));
    clusters.patch_status("main", &PatchParams::default(), &none).await?;
    scene.restart(1).await?;
    scene.until_all_create().await?;

    // `kubectl replace --force` deletes the resource and makes it anew.
    let mut again = clusters.get("main").await?;
    again.status = None;
    again.metadata = kube::api::ObjectMeta {
        name: Some("main".to_owned()),
        namespace: Some(scene.namespace.clone()),
        ..Default::default()
    };
    let manifest = serde_json::to_string(&again)?;
    let replaced = ["replace", "--force", "--cascade=background", "-n", scene.namespace.as_str(), "-f", "-"];
    scene.kubernetes.kubectl_with_input(&replaced, &manifest).await?;
    scene.restart(2).await?;
    scene.until_all_create().await?;
    ensure!(clusters.get("main").await?.uid() != again.uid(), "it is another resource");

    // A node that stands still past its worker's window goes on with another worker ID.
    scene.fleet.hold(0, true).await?;
    tokio::time::sleep(Duration::from_secs(sized(70, 180))).await; // a window is a minute at most
    scene.fleet.hold(0, false).await?;
    scene.until_all_create().await?;
    load.stop().await?;
    for operator in operators {
        operator.stop().await?;
    }
    scene.check(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_no_create_fails() -> Result<()> {
    let Some((scene, operators)) = Scene::start("away", 4, 1).await? else { return Ok(()) };
    scene.kubernetes.kill(Part::ApiServer)?;
    let refused = scene.history.count("create 5");
    let mut load = Load::start(&scene.fleet, &scene.history, 2, 0);
    tokio::time::sleep(Duration::from_secs(sized(20, 600))).await; // how long it is away
    load.stop().await?;
    ensure!(scene.history.count("create 5") == refused, "{}", scene.history.summary());
    ensure!(scene.history.count("create unanswered") == 0, "{}", scene.history.summary());
    scene.kubernetes.restart(Part::ApiServer).await?;
    for operator in operators {
        operator.stop().await?;
    }
    scene.check(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump_by_an_hour_give_out_nothing_twice() -> Result<()> {
    let clocks = WallClocks::new(3)?;
    let Some((mut scene, operators)) = Scene::start_with("clocks", 3, 1, |node| clocks.environment(node)).await? else {
        return Ok(());
    };
    let mut load = Load::start(&scene.fleet, &scene.history, 8, 0);
    // Each node's clock jumps while it works, and it starts anew with a clock that is wrong.
    for shift in [HOUR, -HOUR, 0] {
        for (node, shift) in [(0, shift), (1, -shift)] {
            clocks.shift(node, shift)?;
            ensure!((scene.clock_is_ahead(node).await? - shift).abs() < HOUR / 60, "its clock did not jump");
        }
        let made = scene.history.links();
        wait_until("creates go on", GRANTS_GO_ON_WITHIN, async || Ok(scene.history.links() > made + 1_000)).await?;
        scene.until_all_create().await?;
        for node in 0..3 {
            scene.restart(node).await?;
        }
        scene.until_all_create().await?;
    }
    load.stop().await?;
    for operator in operators {
        operator.stop().await?;
    }
    scene.check(false).await
}
