//! One server of a Redis Cluster, asked through `redis-cli`: what it is, and what it sees of the others.
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::certificates::Certificates;
use crate::server_process::ServerProcess;

/// A server that hangs is an error, not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long a server must be silent before the others replace it: shorter than Redis' 15 s, so that tests are short.
const NODE_TIMEOUT_MS: &str = "2000";

/// What all servers of a cluster have in common.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) full_coverage: bool,
    pub(super) certificates: Option<Certificates>,
    pub(super) user: Option<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: ServerProcess,
    port: u16,
    cli: PathBuf,
    credentials: Vec<OsString>,
}

/// A cluster as one of its servers sees it.
#[derive(Debug)]
pub(super) struct View {
    /// Whether this server takes commands.
    pub(super) is_ok: bool,
    /// Whether this server itself is a primary.
    pub(super) is_primary: bool,
    /// Replicas that are not failing.
    pub(super) replicas: usize,
    /// Slots and the ports of their primaries.
    pub(super) slots: Vec<Slots>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Slots {
    pub(super) range: RangeInclusive<u16>,
    pub(super) port: u16,
}

impl View {
    pub(super) fn primary_of(&self, slot: u16) -> Option<u16> {
        self.slots.iter().find(|slots| slots.range.contains(&slot)).map(|slots| slots.port)
    }

    /// Reads `CLUSTER NODES`, a line a server: id, host:port@bus, flags, primary, ping, pong, epoch, link, slots…
    fn parse(info: &str, nodes: &str) -> Result<Self> {
        let is_ok = info.lines().any(|line| line.trim() == "cluster_state:ok");
        let mut view = Self { is_ok, is_primary: false, replicas: 0, slots: Vec::new() };
        for line in nodes.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let address = words.nth(1).context("a server has an address")?;
            let flags: Vec<_> = words.next().context("a server has flags")?.split(',').collect();
            if flags.contains(&"myself") {
                view.is_primary = flags.contains(&"master");
            }
            if flags.iter().any(|flag| flag.starts_with("fail") || *flag == "handshake" || *flag == "noaddr") {
                continue;
            }
            view.replicas += usize::from(flags.contains(&"slave"));
            let port = address.split(['@', ',']).next().and_then(|address| address.rsplit(':').next());
            let port = port.and_then(|port| port.parse().ok()).context("an address ends with a port")?;
            // Slots on the move are in brackets; they also lie in a range.
            for slots in words.skip(5).filter(|slots| !slots.starts_with('[')) {
                let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
                let range =
                    first.parse().context("a slot is a number")?..=last.parse().context("a slot is a number")?;
                view.slots.push(Slots { range, port });
            }
        }
        Ok(view)
    }
}

impl Server {
    pub(super) fn start(program: &Path, folder: &Path, port: u16, bus_port: u16, settings: &Settings) -> Result<Self> {
        let data = folder.join(format!("redis-{port}"));
        std::fs::create_dir(&data).context("making a folder for Redis")?;
        let log = folder.join(format!("redis-{port}.log"));
        let arguments = arguments(port, bus_port, &data, settings);
        let process = ServerProcess::start(program, arguments, log)?;
        Ok(Self { process, port, cli: program.with_file_name("redis-cli"), credentials: credentials(settings) })
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it sees of the cluster.
    pub(super) async fn view(&self) -> Result<View> {
        View::parse(&self.cli(&["cluster", "info"]).await?, &self.cli(&["cluster", "nodes"]).await?)
    }

    /// Whether this replica has all that its primary has.
    pub(super) async fn is_linked(&self) -> Result<bool> {
        Ok(self.cli(&["info", "replication"]).await?.lines().any(|line| line.trim() == "master_link_status:up"))
    }

    pub(super) async fn commands(&self) -> Result<Vec<(String, u64)>> {
        let stats = self.cli(&["info", "commandstats"]).await?;
        let counts = stats.lines().filter_map(|line| {
            let (command, counts) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((command.to_owned(), counts.split(',').next()?.parse().ok()?))
        });
        Ok(counts.collect())
    }

    pub(super) async fn connections(&self) -> Result<u64> {
        let clients = self.cli(&["client", "list", "type", "normal"]).await?;
        Ok(clients.lines().filter(|line| line.starts_with("id=")).count() as u64)
    }

    /// Runs a command and returns what it answers; an error that Redis answers is an error.
    pub(super) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.cli_within(ANSWER_DEADLINE, arguments).await
    }

    pub(super) async fn cli_within(&self, deadline: Duration, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.cli);
        command
            .args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.credentials)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(deadline, command.output()).await.context("Redis does not answer")?;
        let output = output.with_context(|| format!("starting {}", self.cli.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "Redis refuses {arguments:?}: {said}{complaint}");
        Ok(said)
    }
}

fn arguments(port: u16, bus_port: u16, data: &Path, settings: &Settings) -> Vec<OsString> {
    let Settings { full_coverage, certificates, user } = settings;
    let mut arguments = Vec::new();
    let mut set = |name: &str, values: &[&str]| {
        arguments.push(format!("--{name}").into());
        arguments.extend(values.iter().map(OsString::from));
    };
    set("bind", &["127.0.0.1"]);
    set("dir", &[&data.display().to_string()]);
    set("cluster-enabled", &["yes"]);
    set("cluster-config-file", &["nodes.conf"]);
    set("cluster-port", &[&bus_port.to_string()]);
    set("cluster-node-timeout", &[NODE_TIMEOUT_MS]);
    set("cluster-require-full-coverage", &[if *full_coverage { "yes" } else { "no" }]);
    set("cluster-replica-validity-factor", &["0"]); // a replica that was away for long takes over too
    set("repl-diskless-sync-delay", &["0"]);
    // Nothing is kept: the node's Redis is disposable, and a server that comes back is empty.
    set("appendonly", &["no"]);
    set("save", &[""]);
    set("maxmemory", &["64mb"]);
    set("maxmemory-policy", &["allkeys-lru"]);
    match certificates {
        None => set("port", &[&port.to_string()]),
        Some(Certificates { ca, cert, key }) => {
            set("port", &["0"]);
            set("tls-port", &[&port.to_string()]);
            set("tls-ca-cert-file", &[&ca.display().to_string()]);
            set("tls-cert-file", &[&cert.display().to_string()]);
            set("tls-key-file", &[&key.display().to_string()]);
            set("tls-auth-clients", &["yes"]);
            set("tls-replication", &["yes"]);
            set("tls-cluster", &["yes"]);
        }
    }
    if let Some((name, password)) = user {
        set("user", &["default", "off"]);
        set("user", &[name, "on", &format!(">{password}"), "~*", "&*", "+@all"]);
        set("masteruser", &[name]);
        set("masterauth", &[password]);
    }
    arguments
}

fn credentials(settings: &Settings) -> Vec<OsString> {
    let mut credentials: Vec<OsString> = Vec::new();
    if let Some(Certificates { ca, cert, key }) = &settings.certificates {
        credentials.push("--tls".into());
        for (name, path) in [("--cacert", ca), ("--cert", cert), ("--key", key)] {
            credentials.extend([name.into(), path.clone().into_os_string()]);
        }
    }
    if let Some((name, password)) = &settings.user {
        credentials.extend(["--no-auth-warning", "--user", name, "--pass", password].map(OsString::from));
    }
    credentials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_the_slots_of_primaries_that_do_not_fail() -> Result<()> {
        let nodes = "\
            a1 127.0.0.1:7001@17001 myself,slave b2 0 1 2 connected\n\
            b2 127.0.0.1:7002@17002,host master - 0 1 2 connected 0-5460 [93->-a1]\n\
            c3 127.0.0.1:7003@17003 master,fail - 0 1 3 disconnected 5461-10922\n\
            d4 127.0.0.1:7004@17004 slave,fail? c3 0 1 3 connected\n\
            e5 127.0.0.1:7005@17005 master - 0 1 3 connected 10923-16382 16383\n";
        let view = View::parse("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n", nodes)?;
        assert!(view.is_ok && !view.is_primary);
        assert_eq!((view.replicas, view.primary_of(5_460), view.primary_of(5_461)), (1, Some(7_002), None));
        assert_eq!(view.primary_of(16_383), Some(7_005));
        Ok(())
    }
}
