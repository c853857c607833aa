//! Several nodes on shared servers while something fails: what was acknowledged stays, no code is given out twice, nobody
//! is told that a link is not there which is, nobody waits beyond the deadlines, and all recovers by itself.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::{Clock, random};
use shortener_tests::client::Client;
use shortener_tests::fleet::history::History;
use shortener_tests::fleet::load::Load;
use shortener_tests::fleet::{Fleet, Metrics};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::sizes::sized;
use shortener_tests::tikv::{Tikv, TikvBuilder};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Nodes in a fleet.
const NODES: usize = 4;
/// Clients that create, and that follow.
const CREATORS: usize = 8;
const FOLLOWERS: usize = 16;
/// Links that have to be there before anything is broken.
const LINKS_FIRST: usize = 200;
/// How long an answer may take: the deadline of a write, what reads around it may take, and a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(7);
/// How soon all is well once the back end is.
const RECOVERY: Duration = Duration::from_secs(5);
/// The same where PD has to elect a leader.
const ELECTION: Duration = Duration::from_secs(15);
/// How long anything of the test itself may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A fleet on servers of its own, under load.
struct Scene {
    tikv: Tikv,
    redis: RedisCluster,
    fleet: Arc<Fleet>,
    history: Arc<History>,
    load: Load,
}

impl Scene {
    /// None where the servers cannot be had; the harness has said so.
    async fn start(tikv: TikvBuilder) -> Result<Option<Self>> {
        let Some(tikv) = tikv.start().await? else { return Ok(None) };
        let Some(redis) = RedisCluster::builder().start().await? else { return Ok(None) };
        let fleet = Fleet::start(NODES, &tikv.database_url("faults"), Some(&redis.url())).await?;
        for node in 0..NODES {
            let client = fleet.client(node).await;
            until("a node has reached its servers", PATIENCE, async || is_well(&client).await).await?;
        }
        let history = Arc::new(History::default());
        let load = Load::start(&fleet, &history, CREATORS, FOLLOWERS);
        until("links are there", PATIENCE, async || history.links() >= LINKS_FIRST).await?;
        Ok(Some(Self { tikv, redis, fleet, history, load }))
    }

    /// Waits until redirects and creates are answered again and nothing else is: for as long as `deadline`.
    async fn recovers(&self, deadline: Duration) -> Result<()> {
        let clock = Clock::system();
        let well = async {
            loop {
                let before = self.bad();
                let (links, redirects) = (self.history.links(), self.history.count("redirect 302"));
                let progress = async || {
                    self.history.links() >= links + 20 && self.history.count("redirect 302") >= redirects + 100
                };
                until("the fleet works", PATIENCE, progress).await?;
                if self.bad() == before {
                    return Ok(());
                }
            }
        };
        match timeout(deadline, well).await {
            Ok(well) => {
                report(&format!("well after {:?}", clock.monotonic()));
                well
            }
            Err(_) => {
                let logs = self.fleet.logs().await.join("\n");
                anyhow::bail!("not well after {deadline:?}: {}\n{logs}", self.history.summary())
            }
        }
    }

    fn bad(&self) -> u64 {
        self.history.count("redirect 5") + self.history.count("create 5") + self.history.count("redirect unanswered")
    }

    /// Ends the load and checks all that was seen; gives the metrics of the nodes that are left.
    async fn end(self) -> Result<Metrics> {
        self.load.stop().await;
        report(&self.history.summary());
        let slowest = self.history.slowest("");
        ensure!(slowest <= ANSWER_MAX, "an answer took {slowest:?}: {}", self.history.summary());
        self.history.check(&self.fleet).await?;
        let metrics = self.fleet.metrics().await?;
        ensure!(metrics.sum("shortener_mint_clashes_total") == 0.0, "minted codes clashed");
        ensure!(metrics.sum("shortener_claims_burnt_total") == 0.0, "claims were burnt");
        self.fleet.stop().await?;
        Ok(metrics)
    }
}

/// Whether a node says that both of its back ends work.
async fn is_well(client: &Client) -> bool {
    client.get("/api/v1/health").await.is_ok_and(|answer| answer.text().contains(r#""status":"ok","store""#))
}

/// Waits until `condition` holds.
async fn until(what: &str, deadline: Duration, condition: impl AsyncFn() -> bool) -> Result<()> {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(deadline, holds).await.with_context(|| format!("waited {deadline:?} in vain until {what}"))
}

/// Lets time pass under load: how long a fault lasts is what these tests are about.
async fn lasts(span: Duration) {
    tokio::time::sleep(span).await;
}

#[expect(clippy::print_stderr, reason = "the figures of a fault test are for people, who run it to see them")]
fn report(summary: &str) {
    eprintln!("{summary}");
}

fn chance(below: usize) -> usize {
    usize::from(u16::from_be_bytes(random())) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_lose_nothing_that_was_acknowledged() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let (clock, mut of_the_dead) = (Clock::system(), Metrics::default());
    while clock.monotonic() < sized(Duration::from_secs(15), Duration::from_mins(2)) {
        let victim = chance(NODES);
        of_the_dead.add(&scene.fleet.kill(victim).await?);
        scene.fleet.replace(victim).await?;
    }
    scene.recovers(RECOVERY).await?;
    ensure!(of_the_dead.sum("shortener_mint_clashes_total") == 0.0, "minted codes clashed");
    ensure!(of_the_dead.sum("shortener_claims_burnt_total") == 0.0, "claims were burnt");
    ensure!(scene.history.count("redirect 5") == 0, "redirects failed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_primary_may_die_and_all_of_redis_be_wiped_or_away() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let killed = scene.redis.kill_primary_of("any key").await?;
    lasts(Duration::from_secs(4)).await;
    scene.redis.restart(killed).await?;
    scene.redis.wait_until_whole().await?;
    scene.redis.wipe().await?;
    lasts(Duration::from_secs(2)).await;
    scene.redis.stop_all()?;
    lasts(sized(Duration::from_secs(6), Duration::from_mins(1))).await;
    let away = scene.fleet.client(0).await.get("/api/v1/health").await?.expect_status(200)?;
    ensure!(away.text().contains("degraded"), "health does not tell that Redis is away: {}", away.text());
    scene.redis.start_all().await?;
    scene.redis.wait_until_serving().await?;
    let client = scene.fleet.client(0).await;
    until("health is well again", RECOVERY, async || is_well(&client).await).await?;
    ensure!(scene.bad() == 0, "Redis cost answers: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_or_hangs_costs_no_cached_redirect_and_comes_back() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    for hangs in [false, true] {
        if hangs {
            scene.tikv.pause_store(0)?;
        } else {
            scene.tikv.kill_store(0)?;
        }
        lasts(sized(Duration::from_secs(6), Duration::from_secs(20))).await;
        let health = scene.fleet.client(0).await.get("/api/v1/health").await?;
        ensure!(health.status == 503, "health does not tell that the store is away: {}", health.text());
        if hangs {
            scene.tikv.resume_store(0)?;
        } else {
            scene.tikv.restart_store(0).await?;
        }
        scene.recovers(RECOVERY + Duration::from_secs(5)).await?;
    }
    // All links that were acknowledged are in Redis, so that no redirect needs the store.
    ensure!(scene.history.count("redirect 5") == 0, "cached redirects failed: {}", scene.history.summary());
    ensure!(scene.history.count("create 5") > 0, "no create noticed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_placement_drivers_may_die() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder().pd_members(3)).await? else { return Ok(()) };
    let leader = scene.tikv.pd_leader().await?;
    scene.tikv.kill_pd(leader)?;
    scene.recovers(ELECTION).await?;
    ensure!(scene.history.count("redirect 5") == 0, "cached redirects failed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_lost_answers_of_the_store_multiply_nothing() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    scene.tikv.delay_answers(0.05, Duration::from_millis(200)).await?;
    scene.tikv.drop_write_answers(0.1).await?;
    let links = scene.history.links();
    until("creates go on", PATIENCE, async || scene.history.links() >= links + sized(300, 20_000)).await?;
    scene.tikv.reset_faults().await?;
    scene.recovers(RECOVERY).await?;
    let metrics = scene.end().await?;
    let (calls, retries) =
        (metrics.sum("shortener_backend_calls_total"), metrics.sum("shortener_backend_retries_total"));
    ensure!(retries <= 0.2 * calls, "{retries} retries of {calls} calls");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_refreshes_of_one_token_at_once_one_succeeds() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let credentials = json!({ "email": "ada@example.com", "password": "correct horse battery staple" });
    let client = scene.fleet.client(0).await;
    client.post("/api/v1/auth/register", &credentials).await?.expect_status(201)?;
    for _ in 0..sized(3, 50) {
        let pair: serde_json::Value =
            client.post("/api/v1/auth/login", &credentials).await?.expect_status(200)?.json()?;
        let body = json!({ "refresh_token": pair["refresh_token"] });
        let mut refreshes = JoinSet::new();
        for turn in 0..100 {
            let (client, body) = (scene.fleet.client(turn).await, body.clone());
            refreshes.spawn(async move { client.post("/api/v1/auth/refresh", &body).await });
        }
        let mut successors = 0;
        for answer in refreshes.join_all().await {
            match answer?.status {
                200 => successors += 1,
                401 | 503 => {}
                other => anyhow::bail!("a refresh was answered with {other}"),
            }
        }
        ensure!(successors == 1, "{successors} refreshes succeeded");
    }
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_given_out_once_whatever_node_is_asked() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    for round in 0..sized(50, 1_000) {
        let mut creates = JoinSet::new();
        for node in 0..NODES {
            let client = scene.fleet.client(node).await;
            let body = json!({ "original_url": format!("https://www.example.com/{node}"), "custom_alias": format!("alias-{round}") });
            creates.spawn(async move { client.post("/api/v1/urls", &body).await });
        }
        let mut statuses = Vec::new();
        for answer in creates.join_all().await {
            statuses.push(answer?.status);
        }
        statuses.sort_unstable();
        ensure!(statuses == [201, 409, 409, 409], "round {round}: {statuses:?}");
    }
    scene.end().await?;
    Ok(())
}
