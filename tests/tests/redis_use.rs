//! What a node does in a Redis Cluster, seen from there: with which rights, for how long, and how often.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_tests::client::Client;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::workspace_root;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const PASSWORD: &str = "correct horse battery staple";
/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(30);
/// How the line in the README begins that names the rights of a node.
const RIGHTS: &str = "ACL SETUSER shortener ";

/// How keys begin. Of `analytics:` are summaries, which run out, and the streams of clicks, which do not.
const KINDS: [&str; 6] = ["url:", "hot:", "qr:", "analytics:", "ratelimit:", "invalidations:"];

/// A node whose limits are shared, and whose clicks are written at once.
fn on(redis_url: &str) -> NodeBuilder {
    Node::builder()
        .setting("REDIS_URL", redis_url)
        .setting("RATE_LIMIT_ANONYMOUS", "1000")
        .setting("RATE_LIMIT_REQUESTS", "1000")
        .setting("ANALYTICS_FLUSH_INTERVAL", "100ms")
        .setting("LOCAL_CACHE_TTL", "100ms")
}

/// Does all that a node asks Redis for.
async fn use_all_of_it(node: &Node) -> Result<()> {
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    let body = json!({ "original_url": "https://example.com/", "custom_alias": "launch" });
    let link: Value = ada.post("/api/v1/urls", &body).await?.expect_status(201)?.json()?;
    let resource = format!("/api/v1/urls/{}", link["id"].as_str().context("a link has an ID")?);
    let person = node.client()?.with_header("user-agent", FIREFOX);
    for _ in 0..30 {
        person.get("/launch").await?.expect_status(302)?;
        person.get("/never-made").await?.expect_status(404)?;
        person.get("/api/v1/qr/launch").await?.expect_status(200)?;
        ada.get("/api/v1/analytics/launch/summary").await?.expect_status(200)?;
    }
    let counted = async || Ok::<_, anyhow::Error>(ada.get(&resource).await?.json::<Value>()?["click_count"].as_u64());
    wait_until("the clicks are counted", PATIENCE, async || Ok(counted().await? == Some(30))).await?;
    ada.patch(&resource, &json!({ "original_url": "https://example.com/changed" })).await?.expect_status(200)?;
    ada.create("https://example.com/another").await?;
    Ok(())
}

/// `shortener` with the rights that the README names, and this password.
fn rights(password: &str) -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(workspace_root()?.join("README.md")).context("reading the README")?;
    let line = readme.lines().find(|line| line.starts_with(RIGHTS)).context("the README names no rights")?;
    let password = format!(">{password}");
    Ok(line
        .split_whitespace()
        .map(|word| if word.starts_with('>') { password.clone() } else { word.to_owned() })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_readme_names_are_enough_and_every_key_but_the_clicks_runs_out() -> Result<()> {
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let rights = rights("correct-horse")?;
    redis.ask_all(&rights.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let url = redis.url().replace("redis-cluster://", "redis-cluster://shortener:correct-horse@");
    let node = on(&url).setting("HOT_URL_CLICK_THRESHOLD", "20").start().await?;
    node.client()?.until_health_is("ok").await?;
    use_all_of_it(&node).await?;
    let seconds = [
        ("url:", 1..=7_200),
        ("hot:", 3_500..=3_600),
        ("qr:", 86_300..=86_400),
        ("analytics:summary:", 200..=300),
        ("ratelimit:", 1..=60),
        ("invalidations:", 86_300..=86_400),
    ];
    for (kind, seconds) in seconds {
        wait_until(&format!("there is {kind}"), PATIENCE, async || Ok(!redis.keys_of(kind).await?.is_empty())).await?;
        for key in redis.keys_of(kind).await? {
            let left = redis.seconds_left(&key).await?;
            // One that has gone meanwhile has run out.
            ensure!(left == -2 || seconds.contains(&left), "{key} has {left} s left");
        }
    }
    let known = |key: &String| KINDS.iter().any(|kind| key.starts_with(kind));
    let strange: Vec<_> = redis.keys_of("").await?.into_iter().filter(|key| !known(key)).collect();
    ensure!(strange.is_empty(), "nobody knows {strange:?}");
    let denied: Vec<_> =
        redis.ask_all(&["acl", "log"]).await?.into_iter().filter(|log| !log.trim().is_empty()).collect();
    ensure!(denied.is_empty(), "the node was denied something: {denied:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_a_moment_old_is_read_from_replicas() -> Result<()> {
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let writer = on(&redis.url()).start().await?;
    writer.client()?.until_health_is("ok").await?;
    use_all_of_it(&writer).await?;
    // A replica that has never had anything from its primary is none that clients are told of.
    let ports: Vec<_> = redis.seeds().iter().filter_map(|seed| Some(seed.rsplit_once(':')?.1.to_owned())).collect();
    wait_until("clients are told of every replica", PATIENCE, async || {
        let known = redis.ask_all(&["cluster", "slots"]).await?;
        Ok(known.iter().all(|slots| ports.iter().all(|port| slots.lines().any(|line| line.trim() == port))))
    })
    .await?;
    let node = on(&redis.url()).start().await?;
    node.client()?.until_health_is("ok").await?;
    use_all_of_it(&node).await?;
    let gets = redis.commands_of_replicas().await?.get("get").copied().unwrap_or_default();
    ensure!(gets > 0, "no replica has answered");
    Ok(())
}

/// Writes that servers were asked for, by clients and by scripts of clients.
async fn writes(redis: &RedisCluster) -> Result<u64> {
    let commands = redis.commands().await?;
    Ok(["evalsha", "eval", "set", "pexpire"].iter().filter_map(|command| commands.get(*command)).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_many_follow_stays_longer_and_costs_far_fewer_writes_than_it_is_followed() -> Result<()> {
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    // Clicks stay in the node, so that what is written is for the link alone.
    let node = Node::builder()
        .setting("REDIS_URL", redis.url())
        .setting("ANALYTICS_FLUSH_INTERVAL", "10m")
        .setting("ANALYTICS_BATCH_SIZE", "1000")
        .start()
        .await?;
    node.client()?.until_health_is("ok").await?;
    let anyone: Client = node.client()?;
    let body = json!({ "original_url": "https://example.com/", "custom_alias": "launch" });
    anyone.post("/api/v1/urls", &body).await?.expect_status(201)?;
    let kept = async || {
        let keys = redis.keys_of("url:").await?;
        let key = keys.iter().find(|key| key.ends_with("/launch"));
        match key {
            Some(key) => redis.seconds_left(key).await,
            None => Ok(-2),
        }
    };
    wait_until("the link is in Redis", PATIENCE, async || Ok(kept().await? > 0)).await?;
    ensure!(kept().await? <= 300, "a link that was just made is kept for {} s", kept().await?);
    let (before, redirects) = (writes(&redis).await?, 900);
    for _ in 0..redirects {
        anyone.get("/launch").await?.expect_status(302)?;
    }
    wait_until("the link is hot", PATIENCE, async || Ok((7_000..=7_200).contains(&kept().await?))).await?;
    let written = writes(&redis).await? - before;
    ensure!(written * 10 < redirects, "{redirects} redirects cost {written} writes");
    Ok(())
}
