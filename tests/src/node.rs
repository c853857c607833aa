//! One real node as a child process: started on free loopback ports with a data directory of its own, waited for until
//! it is ready, stopped with SIGTERM or killed. Every wait has a deadline, and a node outlives neither its handle nor the
//! process that started it.
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::programs::node_program;
use crate::server_process::{DIE_WITH_PARENT, spawn_lasting};

/// A cold start opens the store and claims IDs; on two busy cores that stays far below this.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// The node promises to exit within 10 s of SIGTERM; a little more, so that it is the node's promise that fails.
const EXIT_DEADLINE: Duration = Duration::from_secs(12);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_TAIL_BYTES: usize = 4_096;

/// What a node is started with. Limits are raised out of the way, since all callers come from one address; a test of
/// the limits sets its own.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    binary: Option<PathBuf>,
    data: Option<Arc<TempDir>>,
    /// What the public listener is bound to.
    interface: IpAddr,
    settings: BTreeMap<String, String>,
}

impl NodeBuilder {
    /// Sets one of the node's settings by its environment name.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Keeps the data where another node had it.
    #[must_use]
    pub fn data(mut self, data: Arc<TempDir>) -> Self {
        self.data = Some(data);
        self
    }

    /// Has the public listener on this address, which 127.0.0.1 must reach.
    #[must_use]
    pub fn listen_on(mut self, interface: IpAddr) -> Self {
        self.interface = interface;
        self
    }

    /// Starts this binary instead of the one that was built with the tests.
    #[must_use]
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Starts the node and waits until it is ready.
    pub async fn start(self) -> Result<Node> {
        let mut node = self.spawn()?;
        node.wait_until_ready().await?;
        Ok(node)
    }

    /// Starts the node without waiting: for the starts that are to fail.
    pub fn spawn(self) -> Result<Node> {
        let data = match self.data {
            Some(data) => data,
            None => Arc::new(TempDir::new().context("making a data directory")?),
        };
        let [port, admin_port] = free_ports()?;
        let base_url = format!("http://127.0.0.1:{port}");
        let log = TempDir::new().context("making a directory for the log")?;
        let log_file = File::create(log.path().join("node.log")).context("making the log")?;
        let binary = self.binary.map_or_else(node_program, Ok)?;
        let mut command = Command::new("setpriv");
        command
            .args(DIE_WITH_PARENT)
            .arg(&binary)
            .current_dir(data.path())
            .env("LISTEN_ADDR", SocketAddr::new(self.interface, port).to_string())
            .env("ADMIN_ADDR", format!("127.0.0.1:{admin_port}"))
            .env("BASE_URL", &base_url)
            .env("DATABASE_URL", format!("embedded:{}", data.path().join("store").display()))
            .envs(&self.settings)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("sharing the log")?)
            .stderr(log_file)
            .process_group(0) // Ctrl-C in a terminal is for whoever started the node, and then stops it
            .kill_on_drop(true);
        let runtime = Handle::current();
        let spawn = move || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = spawn_lasting(spawn).with_context(|| format!("starting {}", binary.display()))?;
        let admin_url = format!("http://127.0.0.1:{admin_port}");
        Ok(Node { child, data, log, base_url, admin_url })
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    data: Arc<TempDir>,
    log: TempDir,
    base_url: String,
    admin_url: String,
}

impl Node {
    /// A node with the defaults of a test.
    pub fn builder() -> NodeBuilder {
        let limits =
            [("REQUESTS", "1000000"), ("ANONYMOUS", "1000000"), ("REGISTER", "1000000/60"), ("LOGIN", "1000000/60")];
        let settings =
            limits.into_iter().map(|(name, limit)| (format!("RATE_LIMIT_{name}"), limit.to_owned())).collect();
        NodeBuilder { binary: None, data: None, interface: Ipv4Addr::LOCALHOST.into(), settings }
    }

    /// A started node with the defaults of a test.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// `http://127.0.0.1:port` of the public listener; short URLs begin with it.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// `127.0.0.1:port` of the public listener.
    pub fn address(&self) -> &str {
        self.base_url.trim_start_matches("http://")
    }

    /// `http://127.0.0.1:port` of probes and metrics.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The directory with everything that the node keeps.
    pub fn data(&self) -> Arc<TempDir> {
        Arc::clone(&self.data)
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// An anonymous client of this node.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.base_url)
    }

    /// All that the node has written so far to its standard output and error.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log.path().join("node.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `/readyz` on the admin port answers 200; an early exit is an error that shows the log.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let client = Client::new(&self.admin_url)?;
        let ready = async {
            loop {
                if let Some(status) = self.child.try_wait().context("asking for the node's exit")? {
                    bail!("the node exited with {status} before it was ready:\n{}", self.log_tail());
                }
                if client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                    return Ok(());
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        match timeout(READY_DEADLINE, ready).await {
            Ok(result) => result,
            Err(_) => bail!("the node is not ready after {READY_DEADLINE:?}:\n{}", self.log_tail()),
        }
    }

    /// Waits for the node to exit by itself.
    pub async fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        match timeout(EXIT_DEADLINE, self.child.wait()).await {
            Ok(status) => status.context("waiting for the node's exit"),
            Err(_) => bail!("the node still runs after {EXIT_DEADLINE:?}:\n{}", self.log_tail()),
        }
    }

    /// Asks the node to stop (SIGTERM) without waiting.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Tells the node that its terminal is gone, or that files were replaced (SIGHUP).
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// Makes the node hang (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a hanging node go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.context("the node has exited already")?, signal).context("signalling the node")
    }

    /// Stops the node as a supervisor does, and holds it to exit code 0 in time. Returns its data.
    pub async fn stop(mut self) -> Result<Arc<TempDir>> {
        self.terminate()?;
        let status = self.wait_for_exit().await?;
        ensure!(status.success(), "the node exited with {status} after SIGTERM:\n{}", self.log_tail());
        Ok(self.data)
    }

    /// Ends the node without warning (SIGKILL). Returns its data as the crash left it.
    pub async fn kill(mut self) -> Result<Arc<TempDir>> {
        self.child.kill().await.context("killing the node")?;
        Ok(self.data)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
        log.get(start..).unwrap_or_default().to_owned()
    }
}

/// Different ports that are free now. Another process may take one before the node binds it; the node then says so.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known, so that they differ.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding a loopback port")?;
        *port = listener.local_addr().context("reading the bound port")?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
