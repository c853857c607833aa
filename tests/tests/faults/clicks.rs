//! Each click is counted once, whatever becomes of the nodes that took it, queued it, and wrote it. Only what waited in the memory
//! of a node that was killed is lost.
use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use shortener_node::clicks::click_count;
use shortener_tests::fleet::history::Acknowledged;
use shortener_tests::fleet::load::BROWSER;
use shortener_tests::fleet::{Fleet, Metrics};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::tikv::Tikv;
use shortener_tests::tikv_engine::Engine;

use super::scene::{FOLLOWERS, KEYSPACE, PATIENCE, Scene, Servers, report, until, until_well};

/// The streams of clicks: `analytics:{keyspace}:{number}`.
const STREAMS: &str = "analytics:*:[0-7]";
/// Who reads them.
const GROUP: &str = "nodes";
/// Links that are counted at once.
const COUNTS_AT_ONCE: usize = 32;
/// Clicks that make some batches of a hundred, in several streams.
const CLICKS: u64 = 400;

/// Waits until no click is on its way any more: neither in a node that lives nor in a stream. What a dead node had taken from there
/// is left to it for half a minute; then all that has piled up is written.
async fn until_drained(fleet: &Fleet, redis: &RedisCluster) -> Result<()> {
    let drained = async || {
        let is_empty = redis.entries(STREAMS).await.is_ok_and(|entries| entries == 0);
        is_empty && fleet.metrics().await.is_ok_and(|metrics| in_memory(&metrics) == 0.0)
    };
    until("all clicks are written", 3 * PATIENCE, drained).await
}

/// Clicks that were taken in and are nowhere but in the node.
fn in_memory(metrics: &Metrics) -> f64 {
    let of = |name: &str| metrics.sum(&format!("shortener_clicks_{name}_total"));
    of("recorded") - of("queued") - of("dropped")
}

/// After a load that has stopped, on nodes of which some were killed: what is counted is what was answered, but for what died in
/// the memory of a node, and for redirects whose answer was lost.
pub async fn expect_each_click_once(scene: &Scene, of_the_dead: &Metrics, kills: usize) -> Result<()> {
    until_drained(&scene.fleet, &scene.servers.redis).await?;
    let store = Engine::open(scene.servers.tikv.pd_endpoints(), KEYSPACE).await?;
    let links: Vec<_> = (0..scene.history.links()).filter_map(|number| scene.history.link(number)).collect();
    let counts = stream::iter(&links).map(|link| click_count(&store.kv, "", link.path.trim_start_matches('/')));
    let counts = counts.buffer_unordered(COUNTS_AT_ONCE);
    let counted = counts.try_fold(0, async |sum, count| Ok(sum + count)).await.context("counting the clicks")?;

    let (answered, unanswered) = (scene.history.count("redirect 302"), scene.history.count("redirect unanswered"));
    // A node's figures are read just before it is killed: what is in flight then may still be taken in.
    let lost_max = whole(in_memory(of_the_dead))? + (kills * FOLLOWERS) as u64;
    report(&format!("{answered} clicks answered, {unanswered} not, {counted} counted, {lost_max} may be lost"));
    ensure!(counted <= answered + unanswered, "{counted} clicks are counted of {answered} + {unanswered}");
    ensure!(counted + lost_max >= answered, "{counted} clicks are counted of {answered}; {lost_max} may be lost");
    let dropped = scene.fleet.metrics().await?.sum("shortener_clicks_dropped_total");
    ensure!(dropped + of_the_dead.sum("shortener_clicks_dropped_total") == 0.0, "clicks were dropped");
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, which is checked to be one")]
fn whole(count: f64) -> Result<u64> {
    ensure!(count >= 0.0, "{count} is no count");
    Ok(count as u64)
}

/// One node after another, and one link that is followed.
struct OneNode {
    servers: Servers,
    fleet: std::sync::Arc<Fleet>,
    store: Engine,
    link: Acknowledged,
    followed: u64,
}

impl OneNode {
    async fn start(servers: Servers) -> Result<Self> {
        let fleet = servers.fleet(1).await?;
        let store = Engine::open(servers.tikv.pd_endpoints(), KEYSPACE).await?;
        let target = serde_json::json!({ "original_url": "https://www.example.com/" });
        let made = fleet.client(0).await.post("/api/v1/urls", &target).await?.expect_status(201)?;
        Ok(Self { servers, fleet, store, link: Acknowledged::from_answer(&made)?, followed: 0 })
    }

    async fn counted(&self) -> Result<u64> {
        Ok(click_count(&self.store.kv, "", self.link.path.trim_start_matches('/')).await?)
    }

    /// Follows the link, and waits until the node has put all that it took in into the streams.
    async fn follow(&mut self, clicks: u64) -> Result<()> {
        let client = self.fleet.client(0).await.with_header("User-Agent", BROWSER);
        for _ in 0..clicks {
            client.get(&self.link.path).await?.expect_status(302)?;
        }
        self.followed += clicks;
        let queued = async || self.fleet.metrics().await.is_ok_and(|metrics| in_memory(&metrics) == 0.0);
        until("the clicks are in the streams", PATIENCE, queued).await
    }

    /// The same, and waits until the node has also taken some of them out and cannot write them: the store does not answer.
    async fn follow_while_nothing_is_written(&mut self, clicks: u64) -> Result<()> {
        let Servers { tikv, redis } = &self.servers;
        let settled = async || match (redis.entries(STREAMS).await, redis.taken(STREAMS, GROUP).await) {
            (Ok(entries), Ok(taken)) => entries == taken,
            _ => false,
        };
        until("nothing is left to take", PATIENCE, settled).await?;
        let before = redis.taken(STREAMS, GROUP).await?;
        tikv.pause_store(0)?;
        self.follow(clicks).await?;
        let redis = &self.servers.redis;
        let taken = async || redis.taken(STREAMS, GROUP).await.is_ok_and(|taken| taken > before);
        until("the node has taken a batch", PATIENCE, taken).await
    }

    async fn replace(&self) -> Result<()> {
        self.fleet.replace(0).await?;
        until_well(&self.fleet).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_had_put_into_the_stream_is_counted_exactly() -> Result<()> {
    let Some(servers) = Servers::start(Tikv::builder()).await? else { return Ok(()) };
    let mut scene = OneNode::start(servers).await?;
    scene.follow(1).await?;
    until("the first is counted", PATIENCE, async || scene.counted().await.is_ok_and(|counted| counted == 1)).await?;

    // It dies after it has written a batch and before it could say so: whoever claims the batch writes it again.
    scene.follow_while_nothing_is_written(CLICKS).await?;
    scene.servers.redis.pause_all()?;
    scene.servers.tikv.resume_store(0)?;
    until("a batch is written", PATIENCE, async || scene.counted().await.is_ok_and(|counted| counted > 1)).await?;
    let _ = scene.fleet.kill(0).await?;
    scene.servers.redis.resume_all()?;
    scene.servers.redis.wait_until_whole().await?;
    let left = scene.servers.redis.entries(STREAMS).await?;
    ensure!(left > 0, "the dead node had acknowledged everything");
    scene.replace().await?;
    scene.follow(1).await?;

    // Its successor dies with batches that it could not write.
    scene.follow_while_nothing_is_written(CLICKS).await?;
    let _ = scene.fleet.kill(0).await?;
    scene.servers.tikv.resume_store(0)?;
    scene.replace().await?;

    until_drained(&scene.fleet, &scene.servers.redis).await?;
    let counted = scene.counted().await?;
    ensure!(counted == scene.followed, "{counted} clicks are counted of {}", scene.followed);
    let metrics = scene.fleet.metrics().await?;
    report(&format!(
        "{counted} of {} clicks counted, {} written by the last node",
        scene.followed,
        metrics.sum("shortener_clicks_written_total")
    ));
    scene.fleet.stop().await
}
