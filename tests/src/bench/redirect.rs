//! The cached redirect beside `nginx` answering `return 302` and beside a bare hyper server answering the same 302: the
//! same machine, the same connections, in turns, so that what else the machine does falls on all three. The load
//! generator takes its part of the same cores; the ratios are worth more than the rates.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::machine::{Spread, described};
use crate::node::{Node, free_ports};

/// Where the redirects lead; nobody follows them.
pub const TARGET: &str = "https://www.example.com/articles/2026/a-page-with-a-name?utm_source=letter&utm_medium=mail";

/// Clicks count as people's, so that the node does all of its work.
const USER_AGENT: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How hard and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// How often each server takes its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one turn
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections, all kept alive
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

/// What one turn measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Turn {
    per_second: f64,
    p99_ms: f64,
}

/// Measures the three servers in turns and prints the table.
pub async fn run(load: Load) -> Result<()> {
    let scratch = TempDir::new().context("making a scratch directory")?;
    let [nginx_port, bare_port] = free_ports()?;
    let node = Node::start().await?;
    let link = node.client()?.post("/api/v1/urls", &json!({ "original_url": TARGET })).await?.expect_status(201)?;
    let link: serde_json::Value = link.json()?;
    let short_url = link["short_url"].as_str().context("a link has a short URL")?.to_owned();
    let _nginx = start_nginx(scratch.path(), nginx_port).await?;
    let _bare = start_bare(bare_port).await?;

    let servers = [
        ("shortener-node", short_url),
        ("nginx `return 302`", format!("http://127.0.0.1:{nginx_port}/code")),
        ("bare hyper", format!("http://127.0.0.1:{bare_port}/code")),
    ];
    let mut turns: [Vec<Turn>; 3] = Default::default();
    for (_, url) in &servers {
        wrk(url, Load { seconds: 2, ..load }).await?; // warm-up: caches, connections, branch predictors
    }
    for round in 0..load.rounds {
        for ((name, url), turns) in servers.iter().zip(&mut turns) {
            let turn = wrk(url, load).await?;
            eprintln!("round {}: {name}: {:.0}/s, p99 {:.2} ms", round + 1, turn.per_second, turn.p99_ms);
            turns.push(turn);
        }
    }
    node.stop().await?;
    report(load, servers.map(|(name, _)| name), &turns)
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn report(load: Load, names: [&str; 3], turns: &[Vec<Turn>; 3]) -> Result<()> {
    let Load { rounds, seconds, connections } = load;
    println!(
        "{}; {connections} connections, {rounds} rounds of {seconds} s each in turns; median (min–max)\n",
        described()?
    );
    println!("| server | redirects/s | p99 ms | node ÷ it: rate | node ÷ it: p99 |\n|---|---:|---:|---:|---:|");
    let node = &turns[0];
    for (name, own) in names.into_iter().zip(turns) {
        let rate = Spread::of(own.iter().map(|turn| turn.per_second))?;
        let p99 = Spread::of(own.iter().map(|turn| turn.p99_ms))?;
        // Ratios of the same round: what slowed a round down slowed both.
        let rate_ratio = Spread::of(node.iter().zip(own).map(|(node, own)| node.per_second / own.per_second))?;
        let p99_ratio = Spread::of(node.iter().zip(own).map(|(node, own)| node.p99_ms / own.p99_ms))?;
        println!("| {name} | {rate:.0} | {p99:.2} | {rate_ratio:.2} | {p99_ratio:.2} |");
    }
    Ok(())
}

async fn start_nginx(directory: &Path, port: u16) -> Result<Child> {
    let here = directory.display();
    let configuration = format!(
        "worker_processes auto;\ndaemon off;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path {here}/body;\n\
           proxy_temp_path {here}/proxy;\n  fastcgi_temp_path {here}/fastcgi;\n  uwsgi_temp_path {here}/uwsgi;\n  scgi_temp_path {here}/scgi;\n\
           server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      add_header Cache-Control \"private, max-age=0\" always;\n      return 302 \"{TARGET}\";\n    }}\n  }}\n}}\n"
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, configuration).context("writing nginx's configuration")?;
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut nginx = Command::new(program.unwrap_or("nginx"));
    nginx.arg("-c").arg(&path).arg("-p").arg(directory);
    start(&mut nginx, port).await
}

async fn start_bare(port: u16) -> Result<Child> {
    let program = std::env::current_exe().context("asking for this program's path")?.with_file_name("bare_302");
    start(Command::new(program).arg(format!("127.0.0.1:{port}")), port).await
}

/// Starts a server and waits until it listens.
async fn start(command: &mut Command, port: u16) -> Result<Child> {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().context("starting a server")?;
    let listens = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(LISTEN_DEADLINE, listens).await.context("the server does not listen")?;
    Ok(child)
}

async fn wrk(url: &str, load: Load) -> Result<Turn> {
    let Load { seconds, connections, .. } = load;
    let output = Command::new("wrk")
        .args(["--threads", "2", "--connections", &connections.to_string(), "--duration", &format!("{seconds}s")])
        .args(["--latency", "--header", USER_AGENT, url])
        .output()
        .await
        .context("starting wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk ended with {}: {said}", output.status);
    // Both lines appear only when there is something to tell.
    ensure!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "not every request was answered by a redirect:\n{said}"
    );
    parse(&said).with_context(|| format!("reading what wrk said:\n{said}"))
}

fn parse(said: &str) -> Option<Turn> {
    let after = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    Some(Turn { per_second: after("Requests/sec:")?.parse().ok()?, p99_ms: milliseconds(after("99%")?)? })
}

fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0)];
    let (number, unit) = units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_and_the_p99_are_read_from_what_wrk_says() {
        let said = "  Latency Distribution\n     50%  412.00us\n     99%    1.83ms\n  1186 requests in 2.00s\nRequests/sec:  61234.50\n";
        assert_eq!(parse(said), Some(Turn { per_second: 61_234.5, p99_ms: 1.83 }));
        assert_eq!(milliseconds("250.00us"), Some(0.25));
        assert_eq!(milliseconds("1.20s"), Some(1_200.0));
        assert_eq!(parse("unable to connect"), None);
    }
}
