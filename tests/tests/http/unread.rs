//! What clients that do not read their answers cost: memory of the node, and nothing of anybody else's.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_tests::bench::machine::resident_mib;
use shortener_tests::client::Client;
use shortener_tests::node::Node;
use shortener_tests::wire::Unread;
use tokio::time::{sleep, timeout};

use super::scene::eventually;

/// Clients that do not read.
const CONNECTIONS: usize = 64;
/// What each of them sends at most.
const REQUESTS: usize = 300;
/// How much more memory the node may take meanwhile.
const GROWTH_MAX_MIB: f64 = 64.0;
/// Far above what a request takes on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// The window of a client of HTTP/2 that has room for any answer.
const WINDOW_OPEN: u32 = (1 << 31) - 1;

const BUNDLE: &str = "/docs/swagger-ui-bundle.js";

fn get(host: &str, method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn create(host: &str) -> String {
    let body = json!({ "original_url": "https://www.example.com/a/page" }).to_string();
    let head = "content-type: application/json\r\ncontent-length";
    format!("POST /api/v1/urls HTTP/1.1\r\nHost: {host}\r\n{head}: {}\r\n\r\n{body}", body.len())
}

/// Requests that strangers may make of the public listener.
fn of_the_public(host: &str, known: &str) -> Vec<Unread> {
    let mixed = [get(host, "GET", BUNDLE), get(host, "GET", known), create(host), get(host, "GET", "/none")].concat();
    let http2 = |name, window, method, path| {
        let headers = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)];
        Unread::http2(name, window, &headers)
    };
    vec![
        Unread::http1("large answers", get(host, "GET", BUNDLE)),
        Unread::http1("the OpenAPI document", get(host, "GET", "/openapi.json")),
        Unread::http1("small answers", get(host, "GET", "/robots.txt")),
        Unread::http1("redirects", get(host, "GET", known)),
        Unread::http1("HEAD", get(host, "HEAD", BUNDLE)),
        Unread::http1("404", get(host, "GET", "/no/such/path")),
        Unread::http1("creates", create(host)),
        Unread::http1("all of it", mixed),
        http2("large answers by HTTP/2", WINDOW_OPEN, "GET", BUNDLE),
        http2("large answers by HTTP/2 without a window", 0, "GET", BUNDLE),
        http2("small answers by HTTP/2", WINDOW_OPEN, "GET", "/robots.txt"),
        http2("small answers by HTTP/2 without a window", 0, "GET", "/openapi.json"),
        http2("404 by HTTP/2", WINDOW_OPEN, "GET", "/no/such/path"),
        http2("404 by HTTP/2 without a window", 0, "GET", "/no/such/path"),
        http2("HEAD by HTTP/2", WINDOW_OPEN, "HEAD", BUNDLE),
        http2("redirects by HTTP/2", WINDOW_OPEN, "GET", known),
    ]
}

/// The same of the admin listener.
fn of_the_admin(host: &str) -> Vec<Unread> {
    let headers = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/metrics")];
    vec![
        Unread::http1("metrics", get(host, "GET", "/metrics")),
        Unread::http1("404 of the admin port", get(host, "GET", "/none")),
        Unread::http2("metrics by HTTP/2", WINDOW_OPEN, &headers),
        Unread::http2("metrics by HTTP/2 without a window", 0, &headers),
    ]
}

/// Holds the node to its memory while clients do what `unread` says, and others to their answers.
async fn hold(node: &Node, address: SocketAddr, unread: &Unread, others: &Client) -> Result<()> {
    let pid = node.pid().context("the node runs")?;
    let before = resident_mib(pid)?;
    // One place is kept for others where a listener has as many.
    let held = unread.hold(address, CONNECTIONS - 1, REQUESTS).await?;
    let mut highest = before;
    for _ in 0..10 {
        highest = highest.max(resident_mib(pid)?);
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(
        highest - before <= GROWTH_MAX_MIB,
        "{}: from {before:.0} to {highest:.0} MiB for {CONNECTIONS} clients that do not read",
        unread.name
    );
    for path in ["/robots.txt", "/livez"] {
        let asked = timeout(ANSWERED_WITHIN, others.get(path)).await;
        asked.with_context(|| format!("{}: nobody else is answered", unread.name))??;
    }
    drop(held);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_cost_bounded_memory_and_harm_nobody() -> Result<()> {
    let node = Node::start().await?;
    let client = node.client()?;
    let link = client.create("https://www.example.com/").await?;
    let known = format!("/{}", link["short_code"].as_str().context("a code")?);
    // What is kept once for all is there before anything is measured.
    for path in [BUNDLE, "/openapi.json", "/robots.txt", known.as_str(), "/none"] {
        client.get(path).await?;
    }
    let public: SocketAddr = node.address().parse()?;
    for unread in of_the_public(node.address(), &known) {
        hold(&node, public, &unread, &client).await?;
    }
    let admin = node.admin_url().trim_start_matches("http://").to_owned();
    let others = Client::new(node.admin_url())?;
    for unread in of_the_admin(&admin) {
        hold(&node, admin.parse()?, &unread, &others).await?;
        // All places of this listener were taken.
        eventually("the admin port has places again", async || Ok(others.get("/livez").await.is_ok())).await?;
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() -> Result<()> {
    /// Above the 30 s that an answer may stay unread, with time for a busy machine.
    const GIVEN_UP_WITHIN: Duration = Duration::from_mins(2);
    let node = Node::start().await?;
    let public: SocketAddr = node.address().parse()?;
    let slow = tokio::spawn(read_slowly(public, get(node.address(), "GET", BUNDLE)));
    let host = node.address();
    let headers = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", BUNDLE)];
    let mut held = Vec::new();
    for unread in [
        Unread::http1("large answers", get(host, "GET", BUNDLE)),
        Unread::http2("large answers by HTTP/2", WINDOW_OPEN, &headers),
        Unread::http2("large answers by HTTP/2 without a window", 0, &headers),
    ] {
        held.extend(unread.hold(public, 2, 20).await?);
    }
    let admin = Client::new(node.admin_url())?;
    let wanted = "shortener_connections_cut_total{reason=\"unread\"} 6";
    let given_up = async {
        while !admin.get("/metrics").await?.text().lines().any(|line| line == wanted) {
            sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    timeout(GIVEN_UP_WITHIN, given_up).await.context("they are kept")??;
    let length = slow.await??;
    ensure!(length > 1_000_000, "the slow client was cut off after {length} bytes");
    Ok(())
}

/// Reads an answer for longer than others may leave theirs unread.
async fn read_slowly(address: SocketAddr, request: String) -> Result<usize> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const STEPS: usize = 80;
    let mut stream = shortener_tests::wire::connect_unread(address).await?;
    stream.write_all(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut part = vec![0; 24 * 1024];
    let mut length = 0;
    for _ in 0..STEPS {
        sleep(Duration::from_millis(600)).await;
        let mut taken = 0;
        while taken < part.len() {
            match stream.read(&mut part[taken..]).await? {
                0 => return Ok(length + taken),
                read => taken += read,
            }
        }
        length += taken;
    }
    Ok(length)
}
