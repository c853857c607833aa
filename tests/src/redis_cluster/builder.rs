//! Starts a cluster: its program, six servers, and then the cluster of them.
use std::path::PathBuf;

use anyhow::Result;
use tokio::sync::OnceCell;

use super::server::{Server, Settings};
use super::{PRIMARIES, RedisCluster, SCRIPT, SEEDS_VARIABLE, SERVER_VARIABLE};
use crate::certificates::Certificates;
use crate::prepared::{Prepared, not_run, provided, say_not_run};
use crate::server_process::{ServerFolder, lasting_ports};
use crate::sizes::environment;

/// Each primary has a replica.
const SERVERS: usize = 2 * PRIMARIES;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct RedisClusterBuilder {
    pub(super) full_coverage: bool,
    pub(super) tls: bool,
    pub(super) user: Option<(String, String)>,
}

impl RedisClusterBuilder {
    /// Refuses every command while any slot has no primary, as Redis does by default.
    #[must_use]
    pub fn require_full_coverage(mut self) -> Self {
        self.full_coverage = true;
        self
    }

    /// TLS alone, between the servers too; clients must show a certificate.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// An ACL user with this password; the default user is off.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Starts the cluster and waits until it serves. None, and a line that says so, where Redis cannot be had or the tests
    /// are to use a cluster that is there already; the first is a failure in CI.
    pub async fn start(self) -> Result<Option<RedisCluster>> {
        if environment(SEEDS_VARIABLE).is_some() {
            say_not_run(&format!("{SEEDS_VARIABLE} is set, and this test harms its servers"));
            return Ok(None);
        }
        self.start_own().await
    }

    pub(super) async fn start_own(self) -> Result<Option<RedisCluster>> {
        let program = match program().await? {
            Prepared::Ready(path) => PathBuf::from(path),
            Prepared::Missing(reason) => {
                not_run(&format!("the tests on Redis Cluster: {reason}"))?;
                return Ok(None);
            }
        };
        let folder = ServerFolder::new()?;
        let certificates = self.tls.then(|| Certificates::write(folder.path())).transpose()?;
        let settings = Settings { full_coverage: self.full_coverage, certificates, user: self.user };
        let ports = lasting_ports(2 * SERVERS)?;
        let (ports, bus_ports) = ports.split_at(SERVERS);
        let pairs = ports.iter().zip(bus_ports);
        let servers = pairs.map(|(port, bus_port)| Server::start(&program, folder.path(), *port, *bus_port, &settings));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let cluster = RedisCluster { servers, settings, external: None, _folder: folder };
        cluster.join().await?;
        Ok(Some(cluster))
    }
}

/// Where `redis-server` is: named by the environment, else installed by the script, once a process.
async fn program() -> Result<Prepared> {
    static PROGRAM: OnceCell<Prepared> = OnceCell::const_new();
    provided(&PROGRAM, SERVER_VARIABLE, SCRIPT).await
}
