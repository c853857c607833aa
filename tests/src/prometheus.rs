//! A Prometheus for the tests: the real server, on a free loopback port with a folder of its own. It scrapes what it is told of, with the
//! labels that a cluster's service discovery would give.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::client::Client;
use crate::prepared::{Prepared, not_run, provided};
use crate::server_process::{ServerFolder, ServerProcess, lasting_ports, wait_until};

/// Installs Prometheus and prints where it is.
pub const SCRIPT: &str = "tests/env/prometheus.sh";
/// Names the program when it is there already.
pub const PROGRAM_VARIABLE: &str = "SHORTENER_PROMETHEUS_BIN";

/// It starts in a second on two idle cores.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Far more often than anybody does, so that tests are short.
const SCRAPE_INTERVAL: &str = "1s";
const TARGETS: &str = "targets.json";

/// A running server.
#[derive(Debug)]
pub struct Prometheus {
    // The process comes before its folder: fields are dropped in this order.
    process: ServerProcess,
    port: u16,
    folder: ServerFolder,
}

/// What is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The path of its metrics.
    pub path: String,
    /// The labels `namespace` and `pod`.
    pub namespace: String,
    /// See above.
    pub pod: String,
}

impl Prometheus {
    /// Starts one that scrapes nothing yet. None, and a line that says so, where it cannot be had; in CI that is a failure.
    pub async fn start() -> Result<Option<Self>> {
        let program = match program().await? {
            Prepared::Ready(path) => PathBuf::from(path),
            Prepared::Missing(reason) => {
                not_run(&format!("the tests with Prometheus: {reason}"))?;
                return Ok(None);
            }
        };
        let (folder, port) = (ServerFolder::new()?, lasting_ports(1)?[0]);
        folder.write(TARGETS, "[]")?;
        let config = json!({
            "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL},
            "scrape_configs": [{"job_name": "nodes", "file_sd_configs": [{"files": [TARGETS], "refresh_interval": "1s"}]}],
        });
        // JSON is YAML.
        let config = folder.write("prometheus.yml", &config.to_string())?;
        let arguments = vec![
            format!("--config.file={}", config.display()).into(),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()).into(),
            format!("--web.listen-address=127.0.0.1:{port}").into(),
            "--log.level=warn".into(),
        ];
        let process = ServerProcess::start(&program, arguments, folder.path().join("prometheus.log"))?;
        let prometheus = Self { process, port, folder };
        prometheus.wait_until_ready().await?;
        Ok(Some(prometheus))
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Scrapes these, and nothing else, from the next second on.
    pub fn scrape(&self, targets: &[Target]) -> Result<()> {
        let targets: Vec<Value> = targets
            .iter()
            .map(|Target { address, path, namespace, pod }| {
                let labels = json!({"__metrics_path__": path, "namespace": namespace, "pod": pod});
                json!({"targets": [address], "labels": labels})
            })
            .collect();
        // Renamed, so that it is never read half.
        let new = self.folder.write("targets.new", &Value::from(targets).to_string())?;
        std::fs::rename(new, self.folder.path().join(TARGETS)).context("replacing the targets")
    }

    /// Ends it without warning.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on its data and address.
    pub async fn restart(&self) -> Result<()> {
        self.process.start_again()?;
        self.wait_until_ready().await
    }

    /// Makes it hang: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// The value of an expression that has one.
    pub async fn query(&self, expression: &str) -> Result<Option<f64>> {
        query(&Client::new(&self.url())?, expression).await
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let client = Client::new(&self.url())?;
        wait_until("Prometheus is ready", START_DEADLINE, async || {
            self.process.expect_running()?;
            Ok(client.get("/-/ready").await.is_ok_and(|answer| answer.status == 200))
        })
        .await
    }
}

/// Asks a Prometheus for the value of an expression that has one.
pub async fn query(prometheus: &Client, expression: &str) -> Result<Option<f64>> {
    let encoded: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    let answer: Value = prometheus.get(&format!("/api/v1/query?query={encoded}")).await?.json()?;
    ensure!(answer["status"] == "success", "Prometheus refuses {expression}: {answer}");
    let value = answer["data"]["result"][0]["value"][1].as_str();
    value.map(|value| value.parse().with_context(|| format!("{expression} is {value}"))).transpose()
}

/// Where it is: named by the environment, else installed by the script, once a process.
async fn program() -> Result<Prepared> {
    static PROGRAM: OnceCell<Prepared> = OnceCell::const_new();
    provided(&PROGRAM, PROGRAM_VARIABLE, SCRIPT).await
}
