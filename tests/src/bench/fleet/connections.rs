//! How many connections a node keeps open to what is behind it, idle and under load.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::fleet::Fleet;
use crate::redis_cluster::RedisCluster;
use crate::tikv::Tikv;

/// Connections of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    pd: usize,
    store: usize,
    redis: usize,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pd, store, redis } = self;
        write!(f, "{} (PD {pd}, store {store}, Redis {redis})", pd + store + redis)
    }
}

/// All that was seen, by the number of nodes; of several nodes and moments each figure once.
pub struct Kept {
    pd: BTreeSet<SocketAddr>,
    redis: BTreeSet<SocketAddr>,
    idle: BTreeMap<usize, BTreeSet<Open>>,
    busy: BTreeMap<usize, BTreeSet<Open>>,
}

impl Kept {
    /// Nothing was seen yet of connections to these servers.
    pub fn of(tikv: &Tikv, redis: &RedisCluster) -> Result<Self> {
        let addresses = |texts: Vec<String>| {
            let parsed = texts.iter().map(|text| text.parse().with_context(|| format!("reading the address {text}")));
            parsed.collect::<Result<BTreeSet<SocketAddr>>>()
        };
        let (pd, redis) = (addresses(tikv.pd_endpoints())?, addresses(redis.seeds())?);
        Ok(Self { pd, redis, idle: BTreeMap::new(), busy: BTreeMap::new() })
    }

    /// Takes note of what nodes keep that are asked nothing.
    pub async fn idle(&mut self, nodes: usize, fleet: &Fleet) -> Result<()> {
        let open = self.open(fleet).await?;
        self.idle.entry(nodes).or_default().extend(open);
        Ok(())
    }

    /// Takes note of what nodes keep that are under load.
    pub async fn busy(&mut self, nodes: usize, fleet: &Fleet) -> Result<()> {
        let open = self.open(fleet).await?;
        self.busy.entry(nodes).or_default().extend(open);
        Ok(())
    }

    async fn open(&self, fleet: &Fleet) -> Result<Vec<Open>> {
        let mut all = Vec::new();
        for node in 0..fleet.len() {
            let mut open = Open::default();
            for (address, connections) in fleet.connections(node).await? {
                let kind = match address {
                    pd if self.pd.contains(&pd) => &mut open.pd,
                    redis if self.redis.contains(&redis) => &mut open.redis,
                    _ => &mut open.store,
                };
                *kind += connections;
            }
            all.push(open);
        }
        Ok(all)
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the benchmark's own output")]
    pub fn print(&self) {
        println!("\n| nodes | connections of a node, idle | under load |\n|---:|---|---|");
        let told = |seen: Option<&BTreeSet<Open>>| {
            seen.into_iter().flatten().map(Open::to_string).collect::<Vec<_>>().join(" or ")
        };
        for (nodes, idle) in &self.idle {
            println!("| {nodes} | {} | {} |", told(Some(idle)), told(self.busy.get(nodes)));
        }
    }
}
