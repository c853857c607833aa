//! Nodes that an operator hands their IDs, on a real API server and TiKV: what they ask, what they make of grants, and that nothing of
//! theirs waits for the API server.

#[path = "lease/scene.rs"]
mod scene;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::Value;
use shortener_crds::ids::allocate::{Entry, Ledger};
use shortener_crds::ids::{BLOCK_SIZE, BootId, CodeLength, IdRange, WorkerId};
use shortener_crds::lease::{CLUSTER_LABEL, Report};
use shortener_node::allocation::{extend_worker, take_worker};
use shortener_node::ambient::Clock;
use shortener_node::kv::WRITE_DEADLINE;
use shortener_tests::kubernetes::{Kubernetes, Part};
use shortener_tests::server_process::wait_until;
use shortener_tests::tikv_engine::Engine;

use scene::{CLUSTER, PATIENCE, Scene, burnt, create, ids, until_creates};

/// How long the API server is away: longer than a request to it may take, and than several pauses between them.
const AWAY: Duration = Duration::from_secs(20);
/// How late an operator begins: later than one that is there, and no later than one that takes over from another.
const LATE: Duration = Duration::from_secs(4);
/// A start waits 15 s for its first IDs.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// Longer than two watches of a node last, one after the other, and their pauses.
const TWO_WATCHES: Duration = Duration::from_secs(128);
/// The API server remembers each change of a Lease for 75 s, and some hundred older ones.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(85);
/// More than that.
const OTHERS_WRITE: usize = 500;
/// A window is a minute at most.
const WINDOW_RUNS_OUT: Duration = Duration::from_secs(90);

/// A block but for a few codes: one was minted, and some for creates that were refused for want of an ID.
fn holds_one_block(ids: &Value) -> bool {
    ids["remaining"].as_u64().is_some_and(|remaining| (BLOCK_SIZE - 1_000..BLOCK_SIZE).contains(&remaining))
}

fn ledger() -> Ledger {
    Ledger::new(CodeLength::DEFAULT)
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_grant_redirects_are_served_and_creates_refused_and_then_it_mints() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "first").await? else { return Ok(()) };
    let node = scene.pod("main-0").await?.start().await?;
    let asks =
        scene.until_says("main-0", "it wants a block", |report| report.wanted == 1 && report.store_reachable).await?;
    ensure!(asks.cache_reachable.is_none() && asks.mark == 0, "{asks:?}");
    let (lease, _) = scene.lease("main-0").await?.context("it is there")?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder, Some(asks.boot_id.to_string()));
    assert_eq!(lease.metadata.labels.and_then(|labels| labels.get(CLUSTER_LABEL).cloned()).as_deref(), Some(CLUSTER));
    let owners = lease.metadata.owner_references.unwrap_or_default();
    let owners: Vec<_> = owners.iter().map(|owner| (owner.kind.as_str(), owner.name.as_str(), &owner.uid)).collect();
    assert_eq!(owners, [("Pod", "main-0", &asks.pod_uid.0)]);

    assert_eq!(create(&node).await?, None);
    node.client()?.get("/no-such").await?.expect_status(404)?;
    assert_eq!(ids(&node).await?["waiting"], true);
    let operator = scene.operate(ledger());
    let code = until_creates(&node).await?;
    let worker = scene.worker_of(&code).await?;
    node.client()?.get(&format!("/{code}")).await?.expect_status(302)?;
    let entry = operator.ledger().entries.into_values().next().context("it was granted something")?;
    assert_eq!((worker, entry.granted), (entry.worker.get(), 1));
    let shown = ids(&node).await?;
    ensure!(shown["waiting"] == false && shown["worker_id"] == worker && holds_one_block(&shown), "{shown}");
    let says = scene.until_says("main-0", "the mark is raised", |report| report.mark == 1).await?;
    assert_eq!((says.wanted, burnt(&node).await?), (1, 0));
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_ready_mints_though_its_operator_is_late() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "late").await? else { return Ok(()) };
    let begins_late = async |_| {
        tokio::time::sleep(LATE).await;
        Ok(scene.operate(ledger()))
    };
    let (node, _operator) = scene.start_with("main-0", begins_late).await?;
    create(&node).await?.context("the first create after the node was ready was refused")?;
    ensure!(!node.log().contains("cannot allocate"), "{}", node.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_place_is_another_boot_that_takes_the_lease_over_and_gets_grants_of_its_own() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "restart").await? else { return Ok(()) };
    let operator = scene.operate(ledger());
    let container = scene.pod("main-0").await?;
    let (mut boots, mut workers, mut codes) = (HashSet::new(), HashSet::new(), HashSet::new());
    for restarts in 0..3 {
        let node = container.clone().start().await?;
        let worker = scene.worker_of(&until_creates(&node).await?).await?;
        for _ in 0..20 {
            let code = create(&node).await?.context("it has IDs")?;
            ensure!(codes.insert(code.clone()), "{code} was given out twice");
        }
        let entry = operator.ledger().entries.into_values().next().context("it was granted something")?;
        assert_eq!(entry.run, IdRange::new(CodeLength::DEFAULT, restarts, 1).ok(), "no block is used by two boots");
        ensure!(boots.insert(entry.boot_id) && workers.insert(worker), "the worker ID {worker} is used again at once");
        let (lease, report) = scene.lease("main-0").await?.context("it is there")?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        assert_eq!((holder, report.boot_id), (Some(entry.boot_id.to_string()), entry.boot_id));
        node.kill().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lease_is_written_again_with_the_same_boot_and_counts() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "deleted").await? else { return Ok(()) };
    let operator = scene.operate(ledger());
    let node = scene.pod("main-0").await?.start().await?;
    until_creates(&node).await?;
    let before = scene.until_says("main-0", "the mark is raised", |report| report.mark == 1).await?;
    let (lease, _) = scene.lease("main-0").await?.context("it is there")?;
    scene.leases().delete("main-0", &DeleteParams::default()).await?;
    wait_until("there is another", PATIENCE, async || {
        let another = scene.lease("main-0").await?;
        Ok(another.is_some_and(|(another, report)| another.metadata.uid != lease.metadata.uid && report == before))
    })
    .await?;
    create(&node).await?.context("minting goes on")?;
    assert_eq!(operator.ledger().next_block, 1, "nothing more was granted for it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_to_another_boot_is_passed_over() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "foreign").await? else { return Ok(()) };
    let twice = async |asks: Report| {
        scene.grant("main-0", BootId(1), 5, 10, 1).await?;
        scene.grant("main-0", asks.boot_id, 6, 20, 1).await
    };
    let (node, ()) = scene.start_with("main-0", twice).await?;
    let worker = scene.worker_of(&until_creates(&node).await?).await?;
    assert_eq!(worker, 6);
    let shown = ids(&node).await?;
    ensure!(holds_one_block(&shown), "{shown}");
    // The foreign block, which lies below, was not claimed: whoever it was granted to still can.
    let granted = async |asks: Report| scene.grant("main-1", asks.boot_id, 5, 10, 1).await;
    let (other, ()) = scene.start_with("main-1", granted).await?;
    assert_eq!(scene.worker_of(&until_creates(&other).await?).await?, 5);
    assert_eq!((burnt(&node).await?, burnt(&other).await?), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_id_that_the_store_refuses_is_reported_and_another_awaited() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "refused").await? else { return Ok(()) };
    let holder = scene.self_sufficient().start().await?;
    let taken = scene.worker_of(&until_creates(&holder).await?).await?;
    let node = scene.pod("main-0").await?.start().await?;
    let asks = scene.until_asks("main-0").await?;
    scene.grant("main-0", asks.boot_id, taken, 7, 1).await?;
    let refused = Some(WorkerId::try_from(taken)?);
    scene.until_says("main-0", "its worker ID is refused", |report| report.refused_worker == refused).await?;
    assert_eq!(create(&node).await?, None);
    let run = IdRange::new(CodeLength::DEFAULT, 7, 1).ok();
    let entry = Entry { boot_id: asks.boot_id, worker: WorkerId::try_from(taken)?, run, granted: 1 };
    let next_worker = WorkerId::try_from(taken)?;
    let entries = [(asks.pod_uid, entry)].into();
    let _operator = scene.operate(Ledger { next_block: 8, next_worker, entries, ..ledger() });
    let worker = scene.worker_of(&until_creates(&node).await?).await?;
    assert_eq!(worker, next_worker.following().get());
    scene.until_says("main-0", "nothing is refused any more", |report| report.refused_worker.is_none()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_block_that_is_claimed_already_is_burnt_counted_and_reported_by_the_mark() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "burnt").await? else { return Ok(()) };
    let node = scene.pod("main-0").await?.start().await?;
    let asks = scene.until_asks("main-0").await?;
    // Who hands itself what it wants claims block 0 behind the operator's back.
    let other = scene.self_sufficient().start().await?;
    let mut codes = HashSet::from([until_creates(&other).await?]);
    scene.grant("main-0", asks.boot_id, 0, 0, 1).await?;
    let says = scene.until_says("main-0", "it wants another", |report| report.wanted == 2).await?;
    assert_eq!((says.mark, burnt(&node).await?), (1, 1));
    assert_eq!(create(&node).await?, None);
    // A ledger that is behind: it is raised to what the node reports.
    let entry = Entry { boot_id: asks.boot_id, worker: WorkerId::default(), run: None, granted: 1 };
    let operator = scene.operate(Ledger { entries: [(asks.pod_uid, entry)].into(), ..ledger() });
    ensure!(codes.insert(until_creates(&node).await?), "a code was given out twice");
    assert_eq!((operator.ledger().next_block, burnt(&node).await?), (2, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_gone_or_hangs_no_create_fails_and_grants_come_when_it_is_back() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().start().await? else { return Ok(()) };
    let Some(scene) = Scene::open(&kubernetes, "away").await? else { return Ok(()) };
    let granted = async |asks: Report| {
        scene.grant("main-0", asks.boot_id, 3, 0, 1).await?;
        Ok(asks)
    };
    let (node, asks) = scene.start_with("main-0", granted).await?;
    for (granted, hangs) in [(2, false), (3, true)] {
        match hangs {
            true => kubernetes.pause(Part::ApiServer)?,
            false => kubernetes.kill(Part::ApiServer)?,
        }
        let clock = Clock::system();
        while clock.monotonic() < AWAY {
            create(&node).await?.context("a create failed while the API server was away")?;
        }
        match hangs {
            true => {
                kubernetes.resume(Part::ApiServer)?;
                kubernetes.wait_until_serving().await?;
            }
            false => kubernetes.restart(Part::ApiServer).await?,
        }
        scene.grant("main-0", asks.boot_id, 3, granted - 1, granted).await?;
        scene.until_says("main-0", "the next block is claimed", |report| report.mark == granted).await?;
        assert_eq!(ids(&node).await?["waiting"], false);
    }
    kubernetes.pause(Part::ApiServer)?;
    node.stop().await.context("no shutdown waits for the API server")?;
    let started = scene_without_api_server(&scene).await;
    kubernetes.resume(Part::ApiServer)?;
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_has_not_changed_for_long_is_watched_on() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "seldom").await? else { return Ok(()) };
    let operator = scene.operate(ledger());
    let node = scene.pod("main-0").await?.start().await?;
    until_creates(&node).await?;
    drop(operator);
    let clock = Clock::system();
    tokio::time::sleep(FORGOTTEN_AFTER).await; // how long the API server remembers a change at least
    for _ in 0..OTHERS_WRITE {
        scene.other_writes().await?;
    }
    let left = TWO_WATCHES.checked_sub(clock.monotonic()).context("the second watch ended before all was forgotten")?;
    tokio::time::sleep(left).await; // how long a node's watches last
    ensure!(!node.log().contains("no word with the operator"), "{}", node.log());
    node.stop().await?;
    Ok(())
}

/// A node that starts while the API server hangs serves redirects.
async fn scene_without_api_server(scene: &Scene<'_>) -> Result<()> {
    let kubeconfig = scene.kubernetes.kubeconfig().to_str().context("a path is text")?;
    let pod =
        [("POD_NAMESPACE", scene.namespace.as_str()), ("POD_NAME", "main-1"), ("POD_UID", "none"), ("POD_IP", "::1")];
    let builder = scene.self_sufficient().setting("ALLOCATION", "lease").setting("CLUSTER_NAME", CLUSTER);
    let builder = pod.iter().fold(builder, |builder, (name, value)| builder.setting(name, *value));
    let clock = Clock::system();
    let node = builder.setting("KUBECONFIG", kubeconfig).start().await?;
    ensure!(clock.monotonic() < STARTS_WITHIN, "it took {:?} to start", clock.monotonic());
    node.client()?.get("/no-such").await?.expect_status(404)?;
    assert_eq!(create(&node).await?, None);
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hung_past_its_window_never_mints_with_its_old_worker_id_again() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let Some(scene) = Scene::open(kubernetes, "hung").await? else { return Ok(()) };
    let _operator = scene.operate(ledger());
    let node = scene.pod("main-0").await?.start().await?;
    let old = scene.worker_of(&until_creates(&node).await?).await?;
    let engine = Engine::open(scene.tikv.pd_endpoints(), &scene.keyspace).await?;
    node.pause()?;
    let mut taken = None;
    wait_until("another boot can take its worker ID", WINDOW_RUNS_OUT, async || {
        taken = take_worker(&engine.kv, BootId(1), WorkerId::try_from(old)?).await?.ok();
        Ok(taken.is_some())
    })
    .await?;
    // What the node takes for the store's time is behind by as long as its last extension took: that, too, has to pass.
    let (mut window, taken_at) = taken.context("it was taken")?;
    wait_until("the node knows that its window has run out", PATIENCE, async || {
        let (extended, now) = extend_worker(&engine.kv, BootId(1), window).await?;
        window = extended;
        Ok(now.since(taken_at) > WRITE_DEADLINE)
    })
    .await?;
    node.resume()?;
    let mut codes = Vec::new();
    wait_until("it has another", PATIENCE, async || {
        codes.extend(create(&node).await?);
        Ok(!codes.is_empty())
    })
    .await?;
    for _ in 0..50 {
        codes.push(create(&node).await?.context("it goes on minting")?);
    }
    let mut new = HashSet::new();
    for code in codes {
        new.insert(scene.worker_of(&code).await?);
    }
    ensure!(!new.contains(&old), "it minted with {old}, which is another's: {new:?}");
    Ok(())
}
