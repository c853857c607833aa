//! Redirects and creates of one, two and four nodes on the same PD, store and Redis Cluster, and the connections that a node keeps open
//! for them. Clients are spread over the nodes, with no proxy between.
//!
//! All fleets are up all the time, each in a keyspace of its own, and take turns; those that are not asked only poll. The load is
//! offered at a fixed rate, far below what the machine can do: the figures are of latency and not of throughput, and more
//! nodes on the same cores cannot be faster. In the same rounds the same rate is asked of Redis and of the store alone.
mod connections;
mod offered;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use self::connections::Kept;
use self::offered::{Http, Offer, RedisGet, StoreGet, ask_all};
use self::report::{Figures, Turn, What};
use super::load::Build;
use super::redirect::TARGET;
use crate::fleet::history::Acknowledged;
use crate::fleet::load::BROWSER;
use crate::fleet::{Fleet, Metrics};
use crate::redis_cluster::RedisCluster;
use crate::server_process::wait_until;
use crate::tikv::Tikv;
use crate::tikv_engine::Engine;

/// How many nodes the fleets have.
const NODES: [usize; 3] = [1, 2, 4];
/// Longer than a turn: what a node knows by itself it knows to the end.
const LOCAL_CACHE_TTL: &str = "10m";
/// Links that are made at once, before what is measured.
const MADE_AT_ONCE: usize = 16;
/// A node reaches its servers in a second on two idle cores.
const PATIENCE: Duration = Duration::from_mins(1);
/// About the size of a link in Redis and in the store.
const VALUE_BYTES: usize = 150;

/// How hard and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// How often each fleet takes its turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one turn
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Redirects a second, of all clients and all nodes together
    #[arg(long, default_value_t = 400)]
    redirects: u64,
    /// Creates a second, of all clients and all nodes together
    #[arg(long, default_value_t = 100)]
    creates: u64,
    /// Connections of clients, spread evenly over the nodes
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

impl Load {
    fn offer(self, per_second: u64) -> Offer {
        Offer { per_second, span: Duration::from_secs(self.seconds) }
    }
}

/// Measures the fleets in turns and prints the tables.
pub async fn run(load: Load) -> Result<()> {
    ensure!(
        NODES.iter().all(|nodes| load.connections.is_multiple_of(*nodes)),
        "connections must spread evenly over {NODES:?} nodes"
    );
    let tikv = Tikv::builder().start().await?.context("the store cannot be had, see above")?;
    let redis = RedisCluster::builder().start().await?.context("Redis cannot be had, see above")?;
    // A node connects to what it is told of when it starts.
    redis.wait_until_replicas_are_named().await?;
    let mut bare = Bare::open(&tikv, &redis).await?;
    let (mut figures, mut kept) = (Figures::default(), Kept::of(&tikv, &redis)?);
    let mut fleets = Vec::new();
    for nodes in NODES {
        let fleet = Measured::start(nodes, &tikv, &redis).await?;
        kept.idle(nodes, &fleet.fleet).await?;
        fleets.push(fleet);
    }
    for round in 0..load.rounds {
        bare.turns(load, &mut figures).await?;
        for fleet in &fleets {
            fleet.turns(load, &redis, &mut figures, &mut kept).await?;
        }
        figures.tell(round);
    }
    for fleet in fleets {
        fleet.fleet.stop().await?;
    }
    figures.print(load)?;
    kept.print();
    Ok(())
}

/// What is behind the nodes, without them.
struct Bare {
    redis: RedisGet,
    store: StoreGet,
    _engine: Engine,
}

impl Bare {
    async fn open(tikv: &Tikv, redis: &RedisCluster) -> Result<Self> {
        let seeds = redis.seeds().into_iter().map(|seed| format!("redis://{seed}/"));
        let client = redis::cluster::ClusterClient::new(seeds).context("reading Redis' addresses")?;
        let connection = client.get_async_connection().await.context("connecting to Redis")?;
        let engine = Engine::open(tikv.pd_endpoints(), "bare").await?;
        let mut transaction = engine.kv.begin().await.context("beginning a transaction")?;
        transaction.put(b"key".into(), vec![0x5a; VALUE_BYTES]);
        transaction.commit().await.context("writing what is asked for")?;
        let redis = RedisGet { connection, key: "bare".to_owned() };
        Ok(Self { redis, store: StoreGet { kv: engine.kv.clone(), key: b"key".to_vec() }, _engine: engine })
    }

    async fn turns(&mut self, load: Load, figures: &mut Figures) -> Result<()> {
        let offer = load.offer(load.redirects);
        // Again in each round: all of Redis is wiped in between.
        let mut set = redis::cmd("SET");
        set.arg(&self.redis.key).arg(vec![0x5a_u8; VALUE_BYTES]);
        let () = set.query_async(&mut self.redis.connection).await.context("writing what is asked for")?;
        let turn = ask_all(offer, vec![self.redis.clone(); load.connections]).await?;
        figures.add(What::BareRedis, 0, Turn::of(&turn));
        let turn = ask_all(offer, vec![self.store.clone(); load.connections]).await?;
        figures.add(What::BareStore, 0, Turn::of(&turn));
        Ok(())
    }
}

/// A fleet, and where its nodes listen.
struct Measured {
    fleet: Arc<Fleet>,
    nodes: usize,
    addresses: Vec<SocketAddr>,
}

impl Measured {
    async fn start(nodes: usize, tikv: &Tikv, redis: &RedisCluster) -> Result<Self> {
        let builder = Fleet::builder(&tikv.database_url(&format!("fleet-of-{nodes}")), Some(&redis.url()));
        let fleet = Fleet::of(nodes, builder.setting("LOCAL_CACHE_TTL", LOCAL_CACHE_TTL)).await?;
        let mut addresses = Vec::new();
        for node in 0..nodes {
            let client = fleet.client(node).await;
            wait_until("a node has reached its servers", PATIENCE, async || {
                Ok(client.get("/api/v1/health").await?.json::<serde_json::Value>()?["status"] == "ok")
            })
            .await?;
            addresses.push(fleet.address(node).await?);
        }
        let measured = Self { fleet, nodes, addresses };
        // Each node makes a link and follows it: connections that are opened at the first use are open.
        for link in measured.make_links(nodes as u64).await? {
            measured.known_to_all(&link).await?;
        }
        Ok(measured)
    }

    /// One turn of each kind. The links are new in each round, and each is followed once, but for the one that all nodes know.
    async fn turns(&self, load: Load, redis: &RedisCluster, figures: &mut Figures, kept: &mut Kept) -> Result<()> {
        let (redirects, creates) = (load.offer(load.redirects), load.offer(load.creates));
        let per_turn = usize::try_from(redirects.questions()).context("a number of links")?;
        let turn = self.turn(load, creates, StatusCode::CREATED, &create_requests(), kept).await?;
        figures.add(What::Create, self.nodes, turn);
        let links = self.make_links(2 * redirects.questions() + 1).await?;
        let (known, links) = links.split_first().context("links were made")?;
        let (in_redis, in_store) = links.split_at(per_turn);
        self.known_to_all(known).await?;
        for (what, links) in [(What::Local, &[known.clone()][..]), (What::Redis, in_redis), (What::Store, in_store)] {
            if what == What::Store {
                redis.wipe().await?;
            }
            let before = self.fleet.metrics().await?;
            let turn = self.turn(load, redirects, StatusCode::FOUND, &redirect_requests(links), kept).await?;
            let after = self.fleet.metrics().await?;
            figures.add(what, self.nodes, turn.with_share(what.share(&before, &after)));
        }
        Ok(())
    }

    async fn turn(&self, load: Load, offer: Offer, wanted: StatusCode, build: &Build, kept: &mut Kept) -> Result<Turn> {
        let connections = Http::open(&self.addresses, load.connections, wanted, build).await?;
        let half_time = async {
            tokio::time::sleep(offer.span / 2).await;
            kept.busy(self.nodes, &self.fleet).await
        };
        let (measured, sampled) = tokio::join!(ask_all(offer, connections), half_time);
        sampled?;
        Ok(Turn::of(&measured?))
    }

    /// Makes so many links, through all nodes in turn, and gives their paths.
    async fn make_links(&self, links: u64) -> Result<Vec<String>> {
        let made = stream::iter(0..links).map(async |number| {
            let client = self.fleet.client(usize::try_from(number)?).await;
            let answer = client.post("/api/v1/urls", &json!({ "original_url": TARGET })).await?.expect_status(201)?;
            Ok::<_, anyhow::Error>(Acknowledged::from_answer(&answer)?.path)
        });
        made.buffer_unordered(MADE_AT_ONCE).try_collect().await
    }

    /// Has a link followed at each node, which then knows it.
    async fn known_to_all(&self, link: &str) -> Result<()> {
        for node in 0..self.nodes {
            self.fleet.client(node).await.get(link).await?.expect_status(302)?;
        }
        Ok(())
    }
}

impl What {
    /// The share of the redirects between two readings of the nodes' metrics that were answered from there.
    fn share(self, before: &Metrics, after: &Metrics) -> f64 {
        let waited = |stage: &str| {
            let name = format!("shortener_redirect_duration_seconds_count{{stage=\"{stage}\"}}");
            after.sum(&name) - before.sum(&name)
        };
        let (all, redis, store) = (waited("total"), waited("cache"), waited("store"));
        match self {
            Self::Local => (all - redis) / all,
            Self::Redis => (redis - store) / all,
            Self::Store => store / all,
            Self::Create | Self::BareRedis | Self::BareStore => 1.0,
        }
    }
}

/// Requests that follow one link after another.
fn redirect_requests(links: &[String]) -> Build {
    let links = links.to_vec();
    Arc::new(move |number| {
        let link = &links[usize::try_from(number).unwrap_or_default() % links.len()];
        let mut request = request(http::Method::GET, link, Bytes::new());
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(BROWSER));
        request
    })
}

/// Requests that each make another link.
fn create_requests() -> Build {
    Arc::new(|number| {
        let body = json!({ "original_url": format!("{TARGET}&number={number}") });
        let mut request = request(http::Method::POST, "/api/v1/urls", Bytes::from(body.to_string()));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    })
}

fn request(method: http::Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    // The nodes' own domain.
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("sho.rt"));
    request
}
