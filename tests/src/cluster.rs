//! A whole cluster on this machine: its back ends, and nodes behind one port that take connections in turn.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use shortener_node::ambient::random;

use crate::node::Node;
use crate::redis_cluster::RedisCluster;
use crate::server_process::wait_until;
use crate::tcp_proxy::{Door, TcpProxy};
use crate::tikv::Tikv;

const NODES: usize = 3;
/// Nodes that read one keyspace are one service.
const KEYSPACE: &str = "cluster";
/// A node reaches its servers and claims its first codes in less than a second on two idle cores.
const WELL_DEADLINE: Duration = Duration::from_secs(30);

/// Servers behind the nodes, and the settings by which a node finds them.
#[derive(Debug)]
pub struct BackEnds {
    /// Where the nodes keep everything.
    pub tikv: Tikv,
    /// What they share beside that.
    pub redis: RedisCluster,
    /// The settings that all nodes have in common, by their environment names.
    pub settings: Vec<(&'static str, String)>,
}

impl BackEnds {
    /// Starts them. None, and a line that says so, where they cannot be had.
    async fn start() -> Result<Option<Self>> {
        let Some(tikv) = Tikv::builder().start().await? else { return Ok(None) };
        let Some(redis) = RedisCluster::builder().start().await? else { return Ok(None) };
        let settings = vec![
            ("DATABASE_URL", tikv.database_url(KEYSPACE)),
            ("REDIS_URL", redis.url()),
            ("SECRET_KEY", hex::encode(random::<32>())),
        ];
        Ok(Some(Self { tikv, redis, settings }))
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // What is in front comes before what is behind it: fields are dropped in this order.
    proxy: TcpProxy,
    nodes: Vec<Node>,
    back_ends: BackEnds,
}

impl Cluster {
    /// Starts everything and waits until it serves on `port` (0: any). None, and a line that says so, where the servers
    /// behind the nodes cannot be had.
    pub async fn start(port: u16) -> Result<Option<Self>> {
        // The port is taken first: the nodes need to know it, and whoever has it already is to be heard of at once.
        let door = Door::on(port).await?;
        let Some(back_ends) = BackEnds::start().await? else { return Ok(None) };
        let base_url = format!("http://localhost:{}", door.port());
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let mut node = Node::builder().setting("BASE_URL", &base_url);
            for (name, value) in &back_ends.settings {
                node = node.setting(name, value);
            }
            nodes.push(node.start().await?);
        }
        for node in &nodes {
            wait_until("a node has reached its servers", WELL_DEADLINE, async || is_well(node).await).await?;
        }
        let addresses = nodes.iter().map(|node| address(node.base_url())).collect::<Result<Vec<_>>>()?;
        Ok(Some(Self { proxy: door.in_turn(addresses), nodes, back_ends }))
    }

    /// `http://127.0.0.1:port` of the one port.
    pub fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is behind them.
    pub fn back_ends(&self) -> &BackEnds {
        &self.back_ends
    }

    /// Stops the nodes as a supervisor does, then ends what is behind them.
    pub async fn stop(self) -> Result<()> {
        let Self { proxy, nodes, back_ends } = self;
        drop(proxy);
        for node in &nodes {
            // Whoever plays with the cluster may have killed it already.
            let _ = node.terminate();
        }
        for mut node in nodes {
            node.wait_for_exit().await?;
        }
        drop(back_ends);
        Ok(())
    }
}

/// Whether a node has reached its servers and can create links. It is ready before: that says nothing of its servers.
async fn is_well(node: &Node) -> Result<bool> {
    let answer = node.client()?.get("/api/v1/health").await?;
    let health: Value = answer.json()?;
    Ok(health["status"] == "ok" && health["ids"]["remaining"].as_u64().is_some_and(|remaining| remaining > 0))
}

/// The address in `http://address`.
fn address(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://").context("a node speaks HTTP")?;
    address.parse().with_context(|| format!("reading the address of {url}"))
}
