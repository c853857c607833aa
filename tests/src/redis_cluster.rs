//! A Redis Cluster for the tests: three primaries and three replicas, each a process on free loopback ports with a folder
//! of its own. They can be killed, paused and wiped; with TLS and an ACL user when asked for. With `TEST_REDIS_SEEDS` the
//! same tests run against a cluster that is there already, which is left as it is: only the tests that harm a cluster are
//! then not run.
mod builder;
mod server;
mod slots;
mod streams;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::OnceCell;

pub use self::builder::RedisClusterBuilder;
use self::server::{Server, Settings, View};
pub use self::slots::MovingSlot;
use crate::certificates::Certificates;
use crate::server_process::{ServerFolder, wait_until};
use crate::sizes::environment;

/// Seed nodes of a real cluster, comma separated, to be used instead of servers of our own.
pub const SEEDS_VARIABLE: &str = "TEST_REDIS_SEEDS";
/// Names `redis-server` when it is installed already.
pub const SERVER_VARIABLE: &str = "SHORTENER_REDIS_SERVER";
/// Installs it and prints its path.
pub const SCRIPT: &str = "tests/env/redis.sh";

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// So many keys lie on all three primaries, but by a chance of one in fifty thousand.
const KEYS_IN_ALL_SLOTS: usize = 30;
/// Six servers make a cluster in 3 s on two idle cores.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// A running cluster. Indices of servers begin with 0; which of them are primaries changes.
#[derive(Debug)]
pub struct RedisCluster {
    // Processes come before their folder: fields are dropped in this order.
    servers: Vec<Server>,
    settings: Settings,
    external: Option<Vec<String>>,
    _folder: ServerFolder,
}

impl RedisCluster {
    /// A cluster whose other slots go on when some have no primary, without TLS and users.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder { full_coverage: false, tls: false, user: None }
    }

    /// The cluster that the tests of this binary share: each takes names of its own, and none harms it. None as for
    /// [`RedisClusterBuilder::start`], but for a cluster that is there already, which is then the shared one.
    pub async fn shared() -> Result<Option<&'static Self>> {
        static SHARED: OnceCell<Option<RedisCluster>> = OnceCell::const_new();
        let start = async || match environment(SEEDS_VARIABLE) {
            Some(seeds) => Self::external(&seeds).map(Some),
            None => Self::builder().start_own().await,
        };
        Ok(SHARED.get_or_try_init(start).await?.as_ref())
    }

    fn external(seeds: &str) -> Result<Self> {
        let external = seeds.split(',').map(|seed| seed.trim().to_owned()).collect();
        let settings = Settings { full_coverage: true, certificates: None, user: None };
        Ok(Self { servers: Vec::new(), settings, external: Some(external), _folder: ServerFolder::new()? })
    }

    /// `host:port` of every server, dead or alive.
    pub fn seeds(&self) -> Vec<String> {
        self.external.clone().unwrap_or_else(|| self.servers.iter().map(Server::address).collect())
    }

    /// The node's `REDIS_URL`.
    pub fn url(&self) -> String {
        let scheme = if self.settings.certificates.is_some() { "rediss-cluster" } else { "redis-cluster" };
        let user = self.settings.user.as_ref().map(|(name, password)| format!("{name}:{password}@"));
        format!("{scheme}://{}{}", user.unwrap_or_default(), self.seeds().join(","))
    }

    /// What clients of a cluster with TLS need.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.settings.certificates.as_ref()
    }

    /// The server that is the primary of `key`'s slot now, as the others see it.
    pub async fn primary_of(&self, key: &str) -> Result<usize> {
        let any = self.any_up()?;
        let slot = any.cli(&["cluster", "keyslot", key]).await?.trim().parse().context("a slot is a number")?;
        let view = any.view().await?;
        let port = view.primary_of(slot).with_context(|| format!("slot {slot} has no primary"))?;
        self.servers.iter().position(|server| server.port() == port).context("the primary is a stranger")
    }

    /// Kills the primary of `key`'s slot and returns its index.
    pub async fn kill_primary_of(&self, key: &str) -> Result<usize> {
        let primary = self.primary_of(key).await?;
        self.kill(primary)?;
        Ok(primary)
    }

    /// Kills a server.
    pub fn kill(&self, server: usize) -> Result<()> {
        self.server(server)?.process.kill()
    }

    /// Starts a killed server, which has lost its keys but not its place, and waits until all is whole again.
    pub async fn restart(&self, server: usize) -> Result<()> {
        self.server(server)?.process.start_again()?;
        self.wait_until_whole().await
    }

    /// Makes a server hang: connections stay open and nothing answers.
    pub fn pause(&self, server: usize) -> Result<()> {
        self.server(server)?.process.pause()
    }

    /// Makes all servers hang.
    pub fn pause_all(&self) -> Result<()> {
        self.own_servers()?.iter().try_for_each(|server| server.process.pause())
    }

    /// Lets all of them go on.
    pub fn resume_all(&self) -> Result<()> {
        self.own_servers()?.iter().try_for_each(|server| server.process.resume())
    }

    /// Lets a hanging server go on.
    pub fn resume(&self, server: usize) -> Result<()> {
        self.server(server)?.process.resume()
    }

    /// Kills all servers, with all that they hold.
    pub fn stop_all(&self) -> Result<()> {
        self.own_servers()?.iter().try_for_each(|server| server.process.kill())
    }

    /// Starts all servers that were killed, empty, and waits until all is whole again.
    pub async fn start_all(&self) -> Result<()> {
        for server in self.own_servers()?.iter().filter(|server| server.process.pid().is_none()) {
            server.process.start_again()?;
        }
        self.wait_until_whole().await
    }

    /// Removes every key, as if all of Redis had lost its memory.
    pub async fn wipe(&self) -> Result<()> {
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            if server.view().await?.is_primary {
                server.cli(&["flushall"]).await?;
            }
        }
        Ok(())
    }

    /// How many keys there are.
    pub async fn keys(&self) -> Result<u64> {
        let mut keys = 0;
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            if server.view().await?.is_primary {
                keys += server.cli(&["dbsize"]).await?.trim().parse::<u64>().context("a number of keys")?;
            }
        }
        Ok(keys)
    }

    /// How often each command was called on the servers that are up, since each started: `get`, `evalsha`, `cluster|nodes`.
    pub async fn commands(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            for (command, calls) in server.commands().await? {
                *all.entry(command).or_default() += calls;
            }
        }
        Ok(all)
    }

    /// The same on the replicas alone.
    pub async fn commands_of_replicas(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            if !server.view().await?.is_primary {
                for (command, calls) in server.commands().await? {
                    *all.entry(command).or_default() += calls;
                }
            }
        }
        Ok(all)
    }

    /// Runs a command on every server that is up and gives what each answered.
    pub async fn ask_all(&self, command: &[&str]) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            answers.push(server.cli(command).await?);
        }
        Ok(answers)
    }

    /// All keys that begin so.
    pub async fn keys_of(&self, kind: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            if server.view().await?.is_primary {
                let found = server.cli(&["keys", &format!("{kind}*")]).await?;
                keys.extend(found.lines().map(str::to_owned).filter(|key| !key.is_empty()));
            }
        }
        Ok(keys)
    }

    /// In how many seconds a key runs out; -1 when it never does, -2 when it is not there.
    pub async fn seconds_left(&self, key: &str) -> Result<i64> {
        let primary = self.server(self.primary_of(key).await?)?;
        primary.cli(&["ttl", key]).await?.trim().parse().context("a time to live is a number")
    }

    /// Connections of clients that are open now, this question's among them; links between the servers are not.
    pub async fn connections(&self) -> Result<u64> {
        let mut connections = 0;
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            connections += server.connections().await?;
        }
        Ok(connections)
    }

    /// Waits until every slot has a primary that is up, as every server that is up sees it. After a primary was killed or
    /// paused, that is when its replica has taken over.
    pub async fn wait_until_serving(&self) -> Result<()> {
        wait_until("Redis Cluster serves", START_DEADLINE, async || {
            for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
                server.process.expect_running()?;
                let Ok(view) = server.view().await else { return Ok(false) };
                if !view.is_ok || self.slots_served(&view) < SLOTS {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Waits until all servers are up, every slot has a primary, and every primary a replica that has all its keys.
    pub async fn wait_until_whole(&self) -> Result<()> {
        self.wait_until_serving().await?;
        wait_until("Redis Cluster is whole", START_DEADLINE, async || {
            for server in self.own_servers()? {
                let Ok(view) = server.view().await else { return Ok(false) };
                if view.replicas != PRIMARIES || !(view.is_primary || server.is_linked().await.unwrap_or(false)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Waits until every server names the replicas to clients too, which it does once something was written that they have.
    pub async fn wait_until_replicas_are_named(&self) -> Result<()> {
        let ports: Vec<_> = self.own_servers()?.iter().map(|server| server.port().to_string()).collect();
        wait_until("Redis Cluster names its replicas", START_DEADLINE, async || {
            for key in 0..KEYS_IN_ALL_SLOTS {
                self.any_up()?.cli(&["-c", "set", &format!("key-{key}"), "1", "ex", "60"]).await?;
            }
            for server in self.own_servers()? {
                let named = server.cli(&["cluster", "slots"]).await?;
                if !ports.iter().all(|port| named.lines().any(|line| line.trim() == port)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    fn slots_served(&self, view: &View) -> usize {
        let is_up = |port: u16| self.servers.iter().any(|server| server.port() == port && server.process.is_up());
        view.slots.iter().filter(|slots| is_up(slots.port)).map(|slots| slots.range.clone().count()).sum()
    }

    /// Makes one cluster of servers that do not know each other.
    async fn join(&self) -> Result<()> {
        for server in &self.servers {
            wait_until("Redis answers", START_DEADLINE, async || {
                server.process.expect_running()?;
                Ok(server.cli(&["ping"]).await.is_ok())
            })
            .await?;
        }
        let addresses = self.seeds();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        self.any_up()?.cli_within(START_DEADLINE, &create).await?;
        self.wait_until_whole().await
    }

    fn any_up(&self) -> Result<&Server> {
        self.own_servers()?.iter().find(|server| server.process.is_up()).context("no server is up")
    }

    fn own_servers(&self) -> Result<&[Server]> {
        ensure!(self.external.is_none(), "the servers are not ours to ask or harm");
        Ok(&self.servers)
    }

    fn server(&self, server: usize) -> Result<&Server> {
        self.own_servers()?.get(server).with_context(|| format!("there is no server {server}"))
    }
}
