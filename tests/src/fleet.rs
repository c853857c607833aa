//! Several nodes as one service on shared servers, and a load on them that counts every answer and keeps what was
//! acknowledged, to be checked when the fault is over.
pub mod history;
pub mod load;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::sync::RwLock;

use crate::client::Client;
use crate::node::{Node, NodeBuilder};
use crate::sockets;

/// Of all nodes alike, so that a token of one is good at all of them.
const BASE_URL: &str = "http://sho.rt";
const SECRET_KEY: &str = "a secret of tests alone, 32 bytes";

/// The nodes. One that is killed can be replaced by a new process, as a supervisor does.
#[derive(Debug)]
pub struct Fleet {
    builders: Vec<NodeBuilder>,
    nodes: Vec<RwLock<Member>>,
}

#[derive(Debug)]
struct Member {
    node: Option<Node>,
    client: Client,
}

impl Fleet {
    /// What the nodes of a fleet on a store, and on a cache if there is one, are started with.
    pub fn builder(database_url: &str, redis_url: Option<&str>) -> NodeBuilder {
        let mut builder = Node::builder()
            .setting("BASE_URL", BASE_URL)
            .setting("SECRET_KEY", SECRET_KEY)
            .setting("DATABASE_URL", database_url)
            .setting("ANALYTICS_FLUSH_INTERVAL", "500ms")
            .setting("LOG_LEVEL", "warn");
        if let Some(redis_url) = redis_url {
            builder = builder.setting("REDIS_URL", redis_url);
        }
        builder
    }

    /// Starts so many nodes on a store, and on a cache if there is one.
    pub async fn start(nodes: usize, database_url: &str, redis_url: Option<&str>) -> Result<Arc<Self>> {
        Self::of(nodes, Self::builder(database_url, redis_url)).await
    }

    /// Starts so many nodes as `builder` says.
    pub async fn of(nodes: usize, builder: NodeBuilder) -> Result<Arc<Self>> {
        Self::of_each(vec![builder; nodes]).await
    }

    /// Starts a node as each of these says.
    pub async fn of_each(builders: Vec<NodeBuilder>) -> Result<Arc<Self>> {
        let mut members = Vec::new();
        for builder in &builders {
            let node = builder.clone().start().await?;
            members.push(RwLock::new(Member { client: node.client()?, node: Some(node) }));
        }
        Ok(Arc::new(Self { builders, nodes: members }))
    }

    /// How many nodes there are, dead or alive.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A client of one node: of its last process, if it is dead.
    pub async fn client(&self, node: usize) -> Client {
        self.nodes[node % self.nodes.len()].read().await.client.clone()
    }

    /// Ends a node without warning. Its metrics of the last moment are given, since they end with it.
    pub async fn kill(&self, node: usize) -> Result<Metrics> {
        let mut member = self.nodes[node].write().await;
        let victim = member.node.take().context("the node is dead already")?;
        let metrics = Metrics::of(&victim).await?;
        victim.kill().await?;
        Ok(metrics)
    }

    /// Starts a new process in place of one that was killed.
    pub async fn replace(&self, node: usize) -> Result<()> {
        self.put(node, self.builders[node].clone()).await
    }

    /// Stops a node as a rollout does, and starts this program in its place. Who wants a client of it meanwhile waits.
    pub async fn roll(&self, node: usize, program: PathBuf) -> Result<()> {
        let mut member = self.nodes[node].write().await;
        member.node.take().context("the node is dead already")?.stop().await?;
        let started = self.builders[node].clone().binary(program).start().await?;
        *member = Member { client: started.client()?, node: Some(started) };
        Ok(())
    }

    /// Stops a node and holds this program to refusing to start in its place. Returns what it says.
    pub async fn expect_refusal(&self, node: usize, program: PathBuf) -> Result<String> {
        let mut member = self.nodes[node].write().await;
        member.node.take().context("the node is dead already")?.stop().await?;
        let mut refusing = self.builders[node].clone().binary(program).spawn()?;
        let status = refusing.wait_for_exit().await?;
        ensure!(status.code() == Some(1), "it exited with {status}:\n{}", refusing.log());
        Ok(refusing.log())
    }

    /// Starts this program where no node runs.
    pub async fn start_as(&self, node: usize, program: PathBuf) -> Result<()> {
        self.put(node, self.builders[node].clone().binary(program)).await
    }

    async fn put(&self, node: usize, builder: NodeBuilder) -> Result<()> {
        let started = builder.start().await?;
        let mut member = self.nodes[node].write().await;
        *member = Member { client: started.client()?, node: Some(started) };
        Ok(())
    }

    /// Stops a node where it is (SIGSTOP), or lets it go on.
    pub async fn hold(&self, node: usize, held: bool) -> Result<()> {
        let member = self.nodes[node].read().await;
        let member = member.node.as_ref().context("the node is dead")?;
        if held { member.pause() } else { member.resume() }
    }

    /// The metrics of all nodes that are alive, summed.
    pub async fn metrics(&self) -> Result<Metrics> {
        let mut sum = Metrics::default();
        for member in &self.nodes {
            if let Some(node) = &member.read().await.node {
                sum.add(&Metrics::of(node).await?);
            }
        }
        Ok(sum)
    }

    /// Where a node listens.
    pub async fn address(&self, node: usize) -> Result<SocketAddr> {
        let member = self.nodes[node].read().await;
        let address = member.node.as_ref().map(Node::address).context("the node is dead")?;
        address.parse().with_context(|| format!("reading the address {address}"))
    }

    /// The connections that a node keeps open to the servers behind it, by their addresses.
    pub async fn connections(&self, node: usize) -> Result<BTreeMap<SocketAddr, usize>> {
        let member = self.nodes[node].read().await;
        let pid = member.node.as_ref().and_then(Node::pid).context("the node is dead")?;
        sockets::outgoing(pid)
    }

    /// What each node has logged.
    pub async fn logs(&self) -> Vec<String> {
        let mut logs = Vec::new();
        for member in &self.nodes {
            logs.extend(member.read().await.node.as_ref().map(Node::log));
        }
        logs
    }

    /// Stops all nodes as a supervisor does, and holds each to exit code 0 in time.
    pub async fn stop(&self) -> Result<()> {
        for member in &self.nodes {
            if let Some(node) = member.write().await.node.take() {
                node.stop().await?;
            }
        }
        Ok(())
    }
}

/// Figures of `/metrics`, by name and labels as they are written there.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Of one node now.
    pub async fn of(node: &Node) -> Result<Self> {
        Self::at(node.admin_url()).await
    }

    /// Of whatever has metrics at this address.
    pub async fn at(url: &str) -> Result<Self> {
        let text = Client::new(url)?.get("/metrics").await?.expect_status(200)?.text();
        let figures = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, figure) = line.rsplit_once(' ')?;
            Some((name.to_owned(), figure.parse().ok()?))
        });
        Ok(Self(figures.collect()))
    }

    /// Adds those of another node or time.
    pub fn add(&mut self, other: &Self) {
        for (name, figure) in &other.0 {
            *self.0.entry(name.clone()).or_default() += figure;
        }
    }

    /// The buckets of a histogram: upper bounds, and how many observations lie up to each; in order.
    pub fn buckets(&self, histogram: &str) -> Vec<(f64, f64)> {
        let bound = |name: &str| {
            let bound = name.strip_prefix(histogram)?.strip_prefix("_bucket{le=\"")?.strip_suffix("\"}")?;
            bound.parse::<f64>().ok()
        };
        let mut buckets: Vec<_> = self.0.iter().filter_map(|(name, count)| Some((bound(name)?, *count))).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }

    /// The sum of all figures whose name begins so; labels follow the name in braces.
    pub fn sum(&self, name: &str) -> f64 {
        self.0.iter().filter(|(found, _)| found.starts_with(name)).map(|(_, figure)| figure).sum()
    }
}
