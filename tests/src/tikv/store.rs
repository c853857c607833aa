//! A process of the tests' store, and what its admin address says and does.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::timeout;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::server_process::ServerProcess;
use crate::tcp_proxy::TcpProxy;

/// A store that hangs is an error, not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Store {
    pub(super) process: ServerProcess,
    admin_url: String,
    /// What clients are told of instead of the store's own addresses; none without TLS.
    proxies: Vec<TcpProxy>,
}

impl Store {
    /// Starts a process whose admin address has the first of the ports, and its stores the others. With certificates a
    /// proxy stands before each store, and clients are told of the proxies alone.
    pub(super) async fn start(
        binaries: &Path,
        folder: &Path,
        number: usize,
        ports: &[u16],
        certificates: Option<&Certificates>,
        more: Vec<String>,
    ) -> Result<Self> {
        let addresses = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
        let (admin, stores) = addresses.split_first().context("a store needs two ports")?;
        let data = folder.join(format!("store-{number}"));
        let mut arguments = vec![format!("-addr={}", stores.join(",")), format!("-status-addr={admin}")];
        arguments.push(format!("-data-dir={}", data.display()));
        let mut proxies = Vec::new();
        if let Some(certificates) = certificates {
            for port in ports.iter().skip(1) {
                let store = (Ipv4Addr::LOCALHOST, *port).into();
                proxies.push(TcpProxy::ending_tls(certificates, store).await?);
            }
            let advertised = proxies.iter().map(|proxy| proxy.address().to_string()).collect::<Vec<_>>();
            arguments.push(format!("-advertise-addr={}", advertised.join(",")));
        }
        arguments.extend(more);
        let log = folder.join(format!("store-{number}.log"));
        let arguments = arguments.into_iter().map(Into::into).collect();
        let process = ServerProcess::start(&binaries.join("tikvd"), arguments, log)?;
        Ok(Self { process, admin_url: format!("http://{admin}"), proxies })
    }

    /// `http://host:port` of its admin address.
    pub(super) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// `host:port` of the proxies before it.
    pub(super) fn proxies(&self) -> impl Iterator<Item = String> {
        self.proxies.iter().map(|proxy| proxy.address().to_string())
    }

    pub(super) async fn status(&self) -> Result<StoreStatus> {
        let client = Client::new(&self.admin_url)?;
        let answer = timeout(ANSWER_DEADLINE, client.get("/status")).await.context("the store does not answer")??;
        answer.expect_status(200)?.json()
    }

    /// Sends a request that changes something.
    pub(super) async fn ask(&self, request: &str) -> Result<()> {
        let client = Client::new(&self.admin_url)?;
        let send = client.send(Method::POST, request, |request| request);
        let answer = timeout(ANSWER_DEADLINE, send).await.context("the store does not answer")??;
        ensure!(answer.status == 200, "the store refuses {request}: {}", answer.text());
        Ok(())
    }
}

/// What stores know of themselves.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StoreStatus {
    /// Calls by method, such as `KvGet`.
    pub requests: BTreeMap<String, u64>,
    /// Answers that were delayed on purpose.
    pub delayed: u64,
    /// Answers to prewrites and commits that were lost on purpose.
    pub dropped: u64,
    /// Requests that were refused on purpose.
    pub refused: u64,
    /// Connections that are open now.
    pub connections: u64,
    /// The regions that are here.
    pub regions: Vec<Region>,
}

/// A range of keys with one leader.
#[derive(Clone, Debug, Deserialize)]
pub struct Region {
    /// Its number.
    pub id: u64,
    /// `host:port` of the store that leads it.
    pub leader: String,
}

impl StoreStatus {
    /// How often a method was called.
    pub fn requests(&self, method: &str) -> u64 {
        self.requests.get(method).copied().unwrap_or(0)
    }

    /// Calls of all methods.
    pub fn all_requests(&self) -> u64 {
        self.requests.values().sum()
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { requests, delayed, dropped, refused, connections, regions } = other;
        for (method, count) in requests {
            *self.requests.entry(method).or_default() += count;
        }
        self.delayed += delayed;
        self.dropped += dropped;
        self.refused += refused;
        self.connections += connections;
        self.regions.extend(regions);
    }
}
