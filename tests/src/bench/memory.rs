//! Resident memory of the node at a million links: created through its API, then again after a restart, then with its
//! cache as full as random redirects make it. Shows that memory is bounded by settings and not by the number of links.
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::creates::{address, create_requests, on_disk};
use super::load::{Build, Until, drive};
use super::machine::{described, resident_mib};
use crate::node::Node;

const CLIENTS: usize = 64;
/// How many different codes the redirects ask for. Each is an alias, so that they are known without being collected.
const REDIRECTED: u64 = 100_000;

/// Creates `links` links and prints the memory at each stage.
pub async fn run(links: u64) -> Result<()> {
    let data = Arc::new(on_disk()?);
    let node = Node::builder().data(Arc::clone(&data)).start().await?;
    let mut rows = vec![("started, no link", resident(&node)?)];
    let aliases = links.min(REDIRECTED);
    drive(address(&node)?, CLIENTS, Until::Requests(aliases), StatusCode::CREATED, alias_requests(&node)?).await?;
    let others = Until::Requests(links - aliases);
    drive(address(&node)?, CLIENTS, others, StatusCode::CREATED, create_requests(&node)?).await?;
    rows.push(("all created", resident(&node)?));
    node.stop().await?;

    let node = Node::builder().data(Arc::clone(&data)).start().await?;
    check(&node).await?;
    rows.push(("started again", resident(&node)?));
    let redirects = Until::Requests(aliases * 5);
    let asked = redirect_requests(&node, aliases)?;
    let measured = drive(address(&node)?, CLIENTS, redirects, StatusCode::FOUND, asked).await?;
    rows.push(("after redirects of 100,000 codes, five times each", resident(&node)?));
    node.stop().await?;
    report(links, &rows, measured.per_second())
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn report(links: u64, rows: &[(&str, f64)], redirects_per_second: f64) -> Result<()> {
    println!("{}; {links} links, cache at its default of 64 MiB\n", described()?);
    println!("| node | resident MiB |\n|---|---:|");
    for (stage, mib) in rows {
        println!("| {stage} | {mib:.0} |");
    }
    println!(
        "\nThe redirects went at {redirects_per_second:.0}/s through {CLIENTS} clients, most of them read from the store."
    );
    Ok(())
}

fn resident(node: &Node) -> Result<f64> {
    resident_mib(node.pid().context("the node runs")?)
}

/// The links are there after the restart.
async fn check(node: &Node) -> Result<()> {
    let last: Value = json!("https://www.example.com/alias/7");
    let answer = node.client()?.get("/a0000007").await?.expect_status(302)?;
    anyhow::ensure!(
        answer.header("location").map(Value::from) == Some(last),
        "a link leads elsewhere after the restart"
    );
    Ok(())
}

fn alias(number: u64) -> String {
    format!("a{number:07}")
}

fn alias_requests(node: &Node) -> Result<Build> {
    let plain = create_requests(node)?;
    Ok(Arc::new(move |number| {
        let original_url = format!("https://www.example.com/alias/{number}");
        let body = json!({ "original_url": original_url, "custom_alias": alias(number) });
        plain(number).map(|_| Full::new(Bytes::from(body.to_string())))
    }))
}

/// Each code in a row, again and again: the worst order for a cache that is smaller than all of them.
fn redirect_requests(node: &Node, aliases: u64) -> Result<Build> {
    let host = address(node)?.to_string();
    Ok(Arc::new(move |number| {
        let mut request = Request::new(Full::new(Bytes::new()));
        let path = format!("/{}", alias(number % aliases));
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().extend(host.parse().map(|host| (header::HOST, host)));
        request
    }))
}
