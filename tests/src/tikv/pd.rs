//! A member of the Placement Driver, and what its HTTP interface says of the cluster.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::timeout;

use crate::certificates::Certificates;
use crate::client::Client;
use crate::server_process::{ServerProcess, lasting_ports};

/// A member that hangs is asked again, not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// PD is to keep the regions as they are: the stores execute none of its orders. Members elect a leader sooner than by default (3 s
/// each): they are neighbours here, and the tests are about what nodes do meanwhile.
const SETTINGS: &str = "lease = 2
tick-interval = \"200ms\"
election-interval = \"1500ms\"
[replication]
max-replicas = 1
[schedule]
leader-schedule-limit = 0
region-schedule-limit = 0
replica-schedule-limit = 0
merge-schedule-limit = 0
hot-region-schedule-limit = 0
";

#[derive(Debug)]
pub(super) struct Pd {
    pub(super) process: ServerProcess,
    pub(super) name: String,
    port: u16,
    tls_port: Option<u16>,
}

impl Pd {
    /// Starts all members at once: none serves before most of them are there. With certificates each has an address with
    /// mutual TLS as well; the plain one stays, since the stores know no TLS.
    pub(super) fn start_all(
        binaries: &Path,
        folder: &Path,
        members: usize,
        certificates: Option<&Certificates>,
    ) -> Result<Vec<Self>> {
        let ports = lasting_ports(members * if certificates.is_some() { 3 } else { 2 })?;
        let (client_ports, peer_ports) = ports.split_at(members);
        let (peer_ports, tls_ports) = peer_ports.split_at(members);
        let name = |member: usize| format!("pd-{member}");
        let peer_url = |port: &u16| format!("http://127.0.0.1:{port}");
        let peers = peer_ports.iter().enumerate().map(|(member, port)| format!("{}={}", name(member), peer_url(port)));
        let initial_cluster = peers.collect::<Vec<_>>().join(",");
        let settings = folder.join("pd.toml");
        std::fs::write(&settings, SETTINGS).context("writing PD's settings")?;
        let start = |(member, (port, peer_port)): (usize, (&u16, &u16))| {
            let tls_port = tls_ports.get(member).copied();
            // The plain address comes first: the stores go to the first one that PD names.
            let tls_url = tls_port.map(|port| format!(",https://127.0.0.1:{port}")).unwrap_or_default();
            let mut arguments = vec![
                format!("--name={}", name(member)),
                format!("--data-dir={}", folder.join(name(member)).display()),
                format!("--client-urls=http://127.0.0.1:{port}{tls_url}"),
                format!("--peer-urls={}", peer_url(peer_port)),
                format!("--initial-cluster={initial_cluster}"),
                format!("--config={}", settings.display()),
                "-L=warn".to_owned(),
            ];
            if let Some(Certificates { ca, cert, key }) = certificates {
                let files = [("cacert", ca), ("cert", cert), ("key", key)];
                arguments.extend(files.map(|(name, file)| format!("--{name}={}", file.display())));
            }
            let arguments = arguments.into_iter().map(Into::into).collect();
            let log = folder.join(format!("{}.log", name(member)));
            let process = ServerProcess::start(&binaries.join("pd-server"), arguments, log)?;
            Ok(Self { process, name: name(member), port: *port, tls_port })
        };
        client_ports.iter().zip(peer_ports).enumerate().map(start).collect()
    }

    /// Where clients find it: with TLS when it has that.
    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port.unwrap_or(self.port))
    }

    /// Where the stores find it.
    pub(super) fn plain_endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name of the member that leads.
    pub(super) async fn leader(&self) -> Result<String> {
        let leader = self.get("/pd/api/v1/leader").await?;
        Ok(leader["name"].as_str().context("the leader has a name")?.to_owned())
    }

    /// Whether there is a leader, and it counts this member as healthy.
    pub(super) async fn is_healthy(&self) -> Result<bool> {
        self.leader().await?;
        let members = self.get("/pd/api/v1/health").await?;
        let members = members.as_array().context("the members are a list")?;
        Ok(members.iter().any(|member| member["name"] == self.name.as_str() && member["health"] == true))
    }

    /// How many regions have a leader.
    pub(super) async fn regions_led(&self) -> Result<usize> {
        let regions = self.get("/pd/api/v1/regions").await?;
        let regions = regions["regions"].as_array().context("the regions are a list")?;
        Ok(regions.iter().filter(|region| region["leader"]["store_id"].is_u64()).count())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let client = Client::new(&format!("http://{}", self.plain_endpoint()))?;
        let answer = timeout(ANSWER_DEADLINE, client.get(path)).await.context("PD does not answer")??;
        ensure!(answer.status == 200, "PD answers {} to {path}: {}", answer.status, answer.text());
        answer.json()
    }
}
