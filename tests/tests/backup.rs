//! Backing up and restoring with the program itself: from one store to another, while nodes go on, and so that no code is ever
//! given out twice.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use shortener_tests::client::Client;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::programs::node_program;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::sizes::sized;
use shortener_tests::tikv::Tikv;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse battery staple";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_mins(1);
/// Clients that create while a backup is made.
const CREATORS: usize = 4;

/// Runs `shortener-node backup` or `restore`.
async fn run(task: &str, database_url: &str, file: &Path) -> Result<Output> {
    let mut command = Command::new(node_program()?);
    command.arg(task).arg(file).env("DATABASE_URL", database_url).kill_on_drop(true);
    timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("the {task} takes too long"))?
        .context("running it")
}

async fn succeeds(task: &str, database_url: &str, file: &Path) -> Result<()> {
    let Output { status, stderr, .. } = run(task, database_url, file).await?;
    ensure!(status.success(), "the {task} ended with {status}: {}", String::from_utf8_lossy(&stderr));
    Ok(())
}

/// It does not exit with 0, and says why in one line.
async fn is_refused(task: &str, database_url: &str, file: &Path, reason: &str) -> Result<()> {
    let Output { status, stderr, .. } = run(task, database_url, file).await?;
    let said = String::from_utf8_lossy(&stderr);
    let is_one_line = said.lines().count() == 1 && said.contains(reason);
    ensure!(!status.success() && is_one_line, "the {task} ended with {status} and did not say {reason:?}: {said}");
    Ok(())
}

fn on(database_url: &str) -> NodeBuilder {
    Node::builder()
        .setting("BASE_URL", "http://sho.rt")
        .setting("SECRET_KEY", "a secret of tests alone, 32 bytes")
        .setting("DATABASE_URL", database_url)
        .setting("TRUSTED_PROXIES", "127.0.0.0/8")
        .setting("ANALYTICS_FLUSH_INTERVAL", "100ms")
}

async fn started(builder: NodeBuilder) -> Result<Node> {
    let node = builder.start().await?;
    // It is ready before it has reached its store.
    node.client()?.until_health_is("ok").await?;
    Ok(node)
}

async fn create(client: &Client, target: &str) -> Result<String> {
    let link = client.create(target).await?;
    link["short_code"].as_str().map(str::to_owned).context("a link has a code")
}

/// The codes of all links that the caller owns.
async fn owned(client: &Client) -> Result<BTreeSet<String>> {
    let (mut codes, mut query) = (BTreeSet::new(), String::from("limit=100"));
    loop {
        let page: Value = client.get(&format!("/api/v1/urls?{query}")).await?.expect_status(200)?.json()?;
        let items = page["items"].as_array().context("a page has items")?;
        codes.extend(items.iter().filter_map(|link| link["short_code"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=100&cursor={cursor}"),
            None => return Ok(codes),
        }
    }
}

async fn status_of(client: &Client, code: &str) -> Result<u16> {
    Ok(client.get(&format!("/{code}")).await?.status)
}

/// The codes of them that redirect. Each is asked for from another address, since many may be unknown.
async fn followed(client: &Client, codes: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let asked = stream::iter(codes).zip(stream::iter(0_u32..)).map(async |(code, number)| {
        let address = Ipv4Addr::from(0x0a00_0000 + number).to_string();
        let status = status_of(&client.with_header("x-forwarded-for", &address), code).await?;
        Ok::<_, anyhow::Error>((status, code.clone()))
    });
    let answers: Vec<(u16, String)> = asked.buffer_unordered(16).try_collect().await?;
    answers
        .into_iter()
        .filter_map(|(status, code)| match status {
            302 => Some(Ok(code)),
            404 => None,
            other => Some(Err(anyhow::anyhow!("{code} is answered with {other}"))),
        })
        .collect()
}

/// Creates until told to stop, and gives what was acknowledged.
async fn create_until(client: Client, stop: CancellationToken) -> Result<Vec<String>> {
    let mut codes = Vec::new();
    while !stop.is_cancelled() {
        codes.push(create(&client, "https://www.example.com/meanwhile").await?);
    }
    Ok(codes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_on_tikv_that_is_in_use_is_backed_up_as_it_was_at_one_moment_and_restored_into_another() -> Result<()>
{
    let Some(tikv) = Tikv::shared().await? else { return Ok(()) };
    let [from, to] = ["from", "to"].map(|name| tikv.database_url(&fresh_name(name)));
    let node = started(on(&from)).await?;
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    let mut before = BTreeSet::new();
    for number in 0..sized(100, 5_000) {
        before.insert(create(&ada, &format!("https://www.example.com/{number}")).await?);
    }
    let clicked = before.first().context("there are links")?.clone();
    let visitor = node.client()?.with_header("user-agent", FIREFOX);
    visitor.get(&format!("/{clicked}")).await?.expect_status(302)?;
    let total = async |client: &Client| {
        let summary: Value =
            client.get(&format!("/api/v1/analytics/{clicked}/summary")).await?.expect_status(200)?.json()?;
        Ok::<_, anyhow::Error>(summary["total_clicks"].as_u64())
    };
    let fresh = ada.with_header("cache-control", "no-cache");
    wait_until("the click is counted", PATIENCE, async || Ok(total(&fresh).await? == Some(1))).await?;

    let stop = CancellationToken::new();
    let creators: Vec<_> = (0..CREATORS).map(|_| tokio::spawn(create_until(ada.clone(), stop.clone()))).collect();
    let folder = TempDir::new()?;
    let file = folder.path().join("links.jsonl");
    succeeds("backup", &from, &file).await?;
    let mode = std::fs::metadata(&file)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "others may read the backup: {mode:o}");
    ensure!(std::fs::read_dir(folder.path())?.count() == 1, "something is left beside the backup");
    stop.cancel();
    let mut all = before.clone();
    for creator in creators {
        all.extend(creator.await??);
    }
    ensure!(all.len() > before.len(), "nothing was created meanwhile");

    succeeds("restore", &to, &file).await?;
    is_refused("restore", &to, &file, "not empty").await?;
    let restored = started(on(&to)).await?;
    let ada_there = restored.client()?.with_token(ada.token().context("she is signed in")?);
    let there = owned(&ada_there).await?;
    ensure!(there.is_superset(&before), "what was there before the backup is missing");
    // A link is in two rows, at its code and in its owner's list: at one moment both are there or neither.
    ensure!(followed(&restored.client()?, &all).await? == there, "a link was restored in part");
    ensure!(total(&ada_there).await? == Some(1), "the click is lost");

    // Both go on, neither knowing of the other.
    for number in 0..50 {
        for client in [&ada, &ada_there] {
            let code = create(client, &format!("https://www.example.com/after/{number}")).await?;
            ensure!(all.insert(code.clone()), "{code} was given out twice");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_machine_keeps_moves_to_tikv() -> Result<()> {
    let Some(tikv) = Tikv::shared().await? else { return Ok(()) };
    let data = Arc::new(TempDir::new()?);
    let embedded = format!("embedded:{}", data.path().join("store").display());
    let node = started(on(&embedded).data(data.clone())).await?;
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    let code = create(&ada, "https://www.example.com/").await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("links.jsonl");
    is_refused("backup", &embedded, &file, "in use").await?;
    node.stop().await?;
    // A file of somebody else is neither in the way nor touched.
    let other = folder.path().join("links.jsonl.part");
    std::fs::write(&other, "somebody else's")?;
    succeeds("backup", &embedded, &file).await?;
    ensure!(std::fs::read_to_string(&other)? == "somebody else's", "another file was written to");
    ensure!(std::fs::read_dir(folder.path())?.count() == 2, "something is left beside the backup");
    let database_url = tikv.database_url(&fresh_name("moved"));
    succeeds("restore", &database_url, &file).await?;
    let node = started(on(&database_url)).await?;
    ensure!(status_of(&node.client()?, &code).await? == 302, "the link did not move");
    let there = node.client()?.with_token(ada.token().context("she is signed in")?);
    ensure!(owned(&there).await? == BTreeSet::from([code]), "she does not own it there");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_backed_up_or_restored_is_said_in_one_line_and_leaves_nothing() -> Result<()> {
    let folder = TempDir::new()?;
    let store = |name: &str| format!("embedded:{}", folder.path().join(name).display());
    let file = folder.path().join("links.jsonl");
    is_refused("backup", &store("empty"), &file, "empty").await?;
    ensure!(!file.exists(), "an empty backup was made");
    is_refused("restore", &store("to"), &file, "links.jsonl").await?;
    std::fs::write(&file, "no backup\n")?;
    is_refused("restore", &store("to"), &file, "line 1").await
}
