//! What the programs are to the machine that they run on: signals that end them or do not, the sockets that they listen on, and
//! what of their memory may be written to a disk.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use shortener_tests::client::Client;
use shortener_tests::node::{Node, free_ports};
use shortener_tests::programs::operator_program;
use shortener_tests::server_process::{ServerFolder, ServerProcess, wait_until};

/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_hangup_ends_no_node_and_has_its_files_read_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("blocked");
    std::fs::write(&file, "bad.example.com\n")?;
    let node = Node::builder().setting("BLOCKED_HOSTS_FILE", file.display().to_string()).start().await?;
    let reads = || node.log().matches("read BLOCKED_HOSTS_FILE").count();
    let at_start = reads();
    node.hang_up()?;
    wait_until("the list is read again", PATIENCE, async || Ok(reads() > at_start)).await?;
    node.hang_up()?;
    wait_until("the list is read once more", PATIENCE, async || Ok(reads() > at_start + 1)).await?;
    node.client()?.create("https://www.example.com/").await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_on_all_interfaces_answers_on_ipv4_and_ipv6_and_knows_the_addresses_of_both() -> Result<()> {
    let with_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !with_ipv6 {
        println!("NOT RUN: this machine has no IPv6");
        return Ok(());
    }
    let node = Node::builder()
        .listen_on(Ipv6Addr::UNSPECIFIED.into())
        .setting("TRUSTED_PROXIES", "127.0.0.1")
        .setting("RATE_LIMIT_ANONYMOUS", "3")
        .setting("RATE_LIMIT_WINDOW", "86400")
        .start()
        .await?;
    let (_, port) = node.address().rsplit_once(':').context("an address has a port")?;
    let [v4, v6] = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
        .map(|ip| Client::new(&format!("http://{}", std::net::SocketAddr::new(ip, port.parse().unwrap_or_default()))));
    let (v4, v6) = (v4?, v6?);
    let shorten = async |client: &Client, from: &str| {
        let client = client.with_header("x-forwarded-for", from);
        let body = serde_json::json!({ "original_url": "https://www.example.com/" });
        anyhow::Ok(client.post("/api/v1/urls", &body).await?.status)
    };
    // An IPv4 client of this socket has an IPv4-mapped address. It is the trusted proxy all the same.
    for number in 0..6 {
        let status = shorten(&v4, &format!("203.0.113.{number}")).await?;
        ensure!(status == 201, "client {number} of a trusted proxy got {status}");
    }
    // ::1 is nobody's proxy, so that one address is counted.
    let mut statuses = Vec::new();
    for number in 0..4 {
        statuses.push(shorten(&v6, &format!("203.0.113.{number}")).await?);
    }
    ensure!(statuses == [201, 201, 201, 429], "{statuses:?}");
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_nodes_memory_is_dumped() -> Result<()> {
    let node = Node::start().await?;
    let pid = node.pid().context("it runs")?;
    ensure!(core_limit(pid)? == ["0", "0"], "core dumps may have {:?}", core_limit(pid)?);
    node.stop().await?;
    Ok(())
}

/// The soft and the hard limit of a process's core dumps, in bytes.
fn core_limit(pid: u32) -> Result<Vec<String>> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).context("a limit")?;
    Ok(core.split_whitespace().take(2).map(str::to_owned).collect())
}

/// An operator whose API server does not answer: it goes on asking.
const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
";

#[tokio::test]
async fn a_hangup_ends_no_operator_and_nothing_of_its_memory_is_dumped() -> Result<()> {
    let folder = ServerFolder::new()?;
    let kubeconfig = folder.write("kubeconfig", KUBECONFIG)?;
    let [port] = free_ports()?;
    let address = format!("127.0.0.1:{port}");
    let arguments = ["run".into(), format!("--metrics-addr={address}").into()];
    // Its environment is the test's but for this.
    let program = Path::new("/usr/bin/env");
    let operator = operator_program()?;
    let all = [format!("KUBECONFIG={}", kubeconfig.display()).into(), operator.into_os_string()];
    let arguments = all.into_iter().chain(arguments).collect();
    let operator = ServerProcess::start(program, arguments, folder.path().join("log"))?;
    let admin = Client::new(&format!("http://{address}"))?;
    let lives = async || {
        operator.expect_running()?;
        Ok(admin.get("/livez").await.is_ok_and(|answer| answer.status == 200))
    };
    wait_until("it answers that it is alive", PATIENCE, lives).await?;
    let pid = operator.pid().context("it runs")?;
    ensure!(core_limit(pid)? == ["0", "0"], "core dumps may have {:?}", core_limit(pid)?);
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
    for _ in 0..3 {
        kill_process(raw, Signal::HUP)?;
        ensure!(admin.get("/livez").await?.status == 200, "it is gone");
    }
    operator.expect_running()
}
