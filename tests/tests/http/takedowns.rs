//! What is blocked: it stops redirecting within seconds, whoever made it and whenever, and says so.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use shortener_tests::client::Client;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::programs::node_program;
use tokio::process::Command;

use super::scene::{
    builder, create, create_alias, eventually, expect_problem, path_of, send_with, started, text, user,
};

const TARGET: &str = "https://www.evil.example/page";
const BASE_URL: &str = "http://sho.rt";

/// A node on an embedded store.
fn node_of_its_own() -> NodeBuilder {
    // The tests reach it by its address, which is none of its hosts.
    let builder = Node::builder().setting("BASE_URL", BASE_URL).setting("DOMAINS", "go.example.com");
    builder.setting("UNKNOWN_HOSTS", "default")
}

/// Runs `shortener-node block` or `unblock` on the store of a node that runs.
async fn order(database_url: &str, verb: &str, what: &str) -> Result<String> {
    let mut command = Command::new(node_program()?);
    command.args([verb, what]).env("DATABASE_URL", database_url);
    let ended = command.kill_on_drop(true).output().await.context("running it")?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success() == said.contains("blocked"), "{verb} {what} ended with {}: {said}", ended.status);
    Ok(said)
}

async fn until(client: &Client, path: &str, status: u16) -> Result<()> {
    eventually(&format!("{path} answers {status}"), async || Ok(client.get(path).await?.status == status)).await
}

#[tokio::test]
async fn what_the_command_blocks_stops_redirecting_until_it_is_unblocked() -> Result<()> {
    let node = started(node_of_its_own()).await?;
    let database_url = format!("embedded:{}", node.data().path().join("store").display());
    let client = node.client()?;
    let owner = user(&client).await?;
    let by_host = create(&owner, &json!({ "original_url": TARGET, "redirect_status": 301 })).await?;
    let by_code = create_alias(&owner, "promo", json!({ "original_url": "https://example.com/" })).await?;
    let elsewhere = json!({ "original_url": "https://example.com/", "custom_alias": by_code["short_code"], "domain": "go.example.com" });
    create(&owner, &elsewhere).await?;
    let (host_path, code_path) = (path_of(&by_host)?, path_of(&by_code)?);
    client.get(&host_path).await?.expect_status(301)?;
    client.get(&code_path).await?.expect_status(302)?;

    order(&database_url, "block", "evil.example").await?;
    order(&database_url, "block", &text(&by_code, "short_url")?).await?;
    for path in [&host_path, &code_path] {
        until(&client, path, 451).await?;
        let problem = expect_problem(&client.get(path).await?, 451)?;
        assert_eq!(problem["type"], "urn:shortener:problem:blocked");
        let page = send_with(&client, Method::GET, path, ("accept", "text/html")).await?.expect_status(451)?;
        assert!(page.text().contains("has been blocked") && page.header("location").is_none());
        assert_eq!(page.header("cache-control"), Some("private, max-age=0"));
        client.get(&format!("/shortener/url{path}")).await?.expect_status(451)?;
    }
    // The same code of another domain, another code, and a host of a similar name go on; no new link leads to the blocked host.
    send_with(&client, Method::GET, &code_path, ("host", "go.example.com")).await?.expect_status(302)?;
    let similar = create(&owner, &json!({ "original_url": "https://notevil.example/" })).await?;
    client.get(&path_of(&similar)?).await?.expect_status(302)?;
    let refused = owner.post("/api/v1/urls", &json!({ "original_url": TARGET })).await?;
    expect_problem(&refused, 422)?;

    // It is kept: a node that starts again knows it before its first redirect.
    let node = started(node_of_its_own().data(node.stop().await?)).await?;
    let client = node.client()?;
    client.get(&host_path).await?.expect_status(451)?;
    order(&database_url, "unblock", "evil.example").await?;
    order(&database_url, "unblock", &text(&by_code, "short_code")?).await?;
    until(&client, &host_path, 301).await?;
    until(&client, &code_path, 302).await?;
    for wrong in ["not a host", "https://unknown.example/promo"] {
        let said = order(&database_url, "block", wrong).await?;
        ensure!(said.lines().count() == 1 && said.contains(wrong), "{said}");
    }
    // A host means what it means to the nodes, whether it is in their settings now or not, and whether they run or not.
    let renamed = node_of_its_own().setting("BASE_URL", "http://new.example").setting("DOMAINS", "sho.rt");
    let node = started(renamed.data(node.stop().await?)).await?;
    let client = node.client()?.with_header("host", "new.example");
    order(&database_url, "block", &text(&by_code, "short_url")?).await?;
    until(&client, &code_path, 451).await?;
    let data = node.stop().await?;
    order(&database_url, "block", &format!("https://go.example.com{code_path}")).await?;
    let node = started(node_of_its_own().data(data)).await?;
    send_with(&node.client()?, Method::GET, &code_path, ("host", "go.example.com")).await?.expect_status(451)?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_comes_into_the_file_stops_links_that_are_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("blocked");
    std::fs::write(&file, "# nothing yet\n")?;
    let node = builder().await?.setting("BLOCKED_HOSTS_FILE", file.to_str().context("a path is text")?);
    let node = started(node).await?;
    let client = node.client()?;
    let path = path_of(&create(&client, &json!({ "original_url": TARGET })).await?)?;
    client.get(&path).await?.expect_status(302)?;
    std::fs::write(&file, "evil.example\n")?;
    tokio::time::timeout(Duration::from_mins(1), until(&client, &path, 451)).await??;
    std::fs::write(&file, "# nothing any more\n")?;
    until(&client, &path, 302).await?;
    node.stop().await?;
    Ok(())
}
