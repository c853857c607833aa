//! A fleet on servers of its own, and the load on it that counts every answer.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shortener_node::ambient::{Clock, random};
use shortener_tests::client::Client;
use shortener_tests::fleet::history::History;
use shortener_tests::fleet::load::Load;
use shortener_tests::fleet::{Fleet, Metrics};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::tikv::{Tikv, TikvBuilder};
use tokio::time::timeout;

/// Nodes in a fleet.
pub const NODES: usize = 4;
/// Clients that create, and that follow.
pub const CREATORS: usize = 8;
pub const FOLLOWERS: usize = 16;
/// Links that have to be there before anything is broken.
pub const LINKS_FIRST: usize = 200;
/// How long an answer may take: all that is read and written for it has 3 s; the rest is for Redis and a busy machine.
pub const ANSWER_MAX: Duration = Duration::from_millis(4_500);
/// How soon all is well once the back end is.
pub const RECOVERY: Duration = Duration::from_secs(5);
/// The same where nodes died: what they had locked in the store stays locked for seconds, and whoever waits for it in line longer.
pub const LOCKS_GONE: Duration = Duration::from_secs(30);
/// The same where PD has to elect a leader.
pub const ELECTION: Duration = Duration::from_secs(15);
/// How long anything of the test itself may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The keyspace of the nodes: each scene has servers of its own.
pub const KEYSPACE: &str = "faults";

/// The servers behind a fleet.
pub struct Servers {
    pub tikv: Tikv,
    pub redis: RedisCluster,
}

impl Servers {
    /// None where they cannot be had; the harness has said so.
    pub async fn start(tikv: TikvBuilder) -> Result<Option<Self>> {
        let Some(tikv) = tikv.start().await? else { return Ok(None) };
        let Some(redis) = RedisCluster::builder().start().await? else { return Ok(None) };
        Ok(Some(Self { tikv, redis }))
    }

    /// So many nodes that have reached them.
    pub async fn fleet(&self, nodes: usize) -> Result<Arc<Fleet>> {
        let fleet = Fleet::start(nodes, &self.tikv.database_url(KEYSPACE), Some(&self.redis.url())).await?;
        until_well(&fleet).await?;
        Ok(fleet)
    }
}

/// Waits until all nodes say that both of their back ends work and that they can create.
pub async fn until_well(fleet: &Fleet) -> Result<()> {
    for node in 0..fleet.len() {
        fleet.client(node).await.until_health_is("ok").await?;
    }
    Ok(())
}

/// A fleet on servers of its own, under load.
pub struct Scene {
    pub servers: Servers,
    pub fleet: Arc<Fleet>,
    pub history: Arc<History>,
    pub load: Load,
}

impl Scene {
    /// None where the servers cannot be had; the harness has said so.
    pub async fn start(tikv: TikvBuilder) -> Result<Option<Self>> {
        let Some(servers) = Servers::start(tikv).await? else { return Ok(None) };
        let fleet = servers.fleet(NODES).await?;
        let history = Arc::new(History::default());
        let load = Load::start(&fleet, &history, CREATORS, FOLLOWERS);
        until("links are there", PATIENCE, async || history.links() >= LINKS_FIRST).await?;
        Ok(Some(Self { servers, fleet, history, load }))
    }

    /// Waits until redirects and creates are answered again and nothing else is: for as long as `deadline`.
    pub async fn recovers(&self, deadline: Duration) -> Result<()> {
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

    /// Has only links followed that are in Redis: all but a few of the youngest.
    pub async fn follow_only_what_redis_has(&self) -> Result<()> {
        let links = self.history.links();
        let first = self.history.first(links);
        let are_there = async || {
            let Ok(keys) = self.servers.redis.keys_of("url").await else { return false };
            // A key ends with the domain, of which there is none here, and the path.
            let paths: HashSet<&str> = keys.iter().filter_map(|key| key.rsplit(':').next()).collect();
            first.iter().all(|link| paths.contains(link.path.as_str()))
        };
        until("all links are in Redis", PATIENCE, are_there).await?;
        self.history.follow_only(Some(links));
        Ok(())
    }

    /// Answers that a fault cost.
    pub fn bad(&self) -> u64 {
        self.failed_redirects() + self.history.count("create 5")
    }

    /// Redirects that were refused or not answered.
    pub fn failed_redirects(&self) -> u64 {
        self.history.count("redirect 5") + self.history.count("redirect unanswered")
    }

    /// Ends the load and checks all that was seen; gives the metrics of the nodes that are left.
    pub async fn end(mut self) -> Result<Metrics> {
        self.load.stop().await?;
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

/// Whether a node says that both of its back ends work and that it can create.
pub async fn is_well(client: &Client) -> bool {
    client.health().await.is_ok_and(|health| health["status"] == "ok")
}

/// Waits until `condition` holds.
pub async fn until(what: &str, deadline: Duration, condition: impl AsyncFn() -> bool) -> Result<()> {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(deadline, holds).await.with_context(|| format!("waited {deadline:?} in vain until {what}"))
}

/// Lets time pass under load: how long a fault lasts is what these tests are about.
pub async fn lasts(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Prints what a test saw.
#[expect(clippy::print_stderr, reason = "the figures of a fault test are for people, who run it to see them")]
pub fn report(summary: &str) {
    eprintln!("{summary}");
}

/// A number below this one, at random.
pub fn chance(below: usize) -> usize {
    usize::from(u16::from_be_bytes(random())) % below
}
