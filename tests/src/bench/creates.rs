//! Creates a second, durable, with 64 clients, beside the number of synced appends that the same disk takes one after
//! another. A create is acknowledged only after its sync, so without a group commit the second would bound the first.
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use shortener_node::ambient::Clock;
use tempfile::TempDir;

use super::load::{Build, Measured, Until, drive};
use super::machine::{Spread, described};
use crate::node::Node;
use crate::tasks::checks::cache_directory;

/// About what a create writes: the link under its code, its ID, the owner's index.
const APPEND_BYTES: usize = 512;

/// How hard and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// How often the node and the bare disk take their turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one turn
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clients, each with one connection and one request at a time
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

/// Measures the node and the disk in turns and prints the table.
pub async fn run(load: Load) -> Result<()> {
    let span = Duration::from_secs(load.seconds);
    let data = Arc::new(on_disk()?);
    let node = Node::builder().data(Arc::clone(&data)).start().await?;
    let (address, build) = (address(&node)?, create_requests(&node)?);
    let create =
        async |span| drive(address, load.clients, Until::Elapsed(span), StatusCode::CREATED, Arc::clone(&build)).await;
    create(Duration::from_secs(2)).await?; // warm-up
    let (mut creates, mut appends) = (Vec::new(), Vec::new());
    for round in 0..load.rounds {
        appends.push(synced_appends_per_second(&data, span)?);
        let measured = create(span).await?;
        eprintln!(
            "round {}: {:.0} creates/s, {:.0} synced appends/s",
            round + 1,
            measured.per_second(),
            appends[round]
        );
        creates.push(measured);
    }
    node.stop().await?;
    report(load, &creates, &appends)
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn report(load: Load, creates: &[Measured], appends: &[f64]) -> Result<()> {
    let Load { rounds, seconds, clients } = load;
    let of = |figure: &dyn Fn(&Measured) -> f64| Spread::of(creates.iter().map(figure));
    println!("{}; {clients} clients, {rounds} rounds of {seconds} s each in turns; median (min–max)\n", described()?);
    println!("| | |\n|---|---:|");
    println!("| durable creates/s | {:.0} |", of(&Measured::per_second)?);
    println!("| p50 ms | {:.2} |", of(&|measured| measured.quantile_ms(0.5))?);
    println!("| p99 ms | {:.2} |", of(&|measured| measured.quantile_ms(0.99))?);
    println!(
        "| synced appends of {APPEND_BYTES} bytes/s, one after another | {:.0} |",
        Spread::of(appends.iter().copied())?
    );
    let ratios = creates.iter().zip(appends).map(|(creates, appends)| creates.per_second() / appends);
    println!("| creates ÷ synced appends | {:.2} |", Spread::of(ratios)?);
    Ok(())
}

/// A directory on the disk that the project's other caches lie on; the system's place for temporary files may be memory.
pub fn on_disk() -> Result<TempDir> {
    let parent = cache_directory()?;
    std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    TempDir::with_prefix_in("bench-", parent).context("making a data directory")
}

/// The node's address for a bare connection.
pub fn address(node: &Node) -> Result<SocketAddr> {
    node.address().parse().context("reading the node's address")
}

/// Requests that each create another link.
pub fn create_requests(node: &Node) -> Result<Build> {
    let host = address(node)?.to_string();
    Ok(Arc::new(move |number| {
        let body = json!({ "original_url": format!("https://www.example.com/articles/{number}?utm_source=letter") });
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/api/v1/urls");
        let headers = request.headers_mut();
        headers.extend(host.parse().map(|host| (header::HOST, host)));
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        request
    }))
}

fn synced_appends_per_second(directory: &TempDir, span: Duration) -> Result<f64> {
    let clock = Clock::system();
    let mut file = File::create(directory.path().join("appends")).context("making a file to append to")?;
    let mut count = 0_u32;
    while clock.monotonic() < span {
        file.write_all(&[0x5a; APPEND_BYTES]).context("appending")?;
        file.sync_data().context("syncing")?;
        count += 1;
    }
    Ok(f64::from(count) / clock.monotonic().as_secs_f64())
}
