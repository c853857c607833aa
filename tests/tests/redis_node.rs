//! One real node on a real Redis Cluster: what is answered from where, and what becomes of it when Redis goes away and comes back.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use shortener_tests::client::Client;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::wait_until;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(30);
const SERVERS: usize = 6;

fn on(servers: &RedisCluster) -> NodeBuilder {
    Node::builder().setting("REDIS_URL", servers.url())
}

async fn signed_in(node: &Node) -> Result<Client> {
    node.client()?.register_and_login("ada@example.com", "correct horse battery staple").await
}

async fn alias(client: &Client, alias: &str, target: &str) -> Result<String> {
    let body = json!({ "original_url": target, "custom_alias": alias });
    let link: Value = client.post("/api/v1/urls", &body).await?.expect_status(201)?.json()?;
    Ok(format!("/api/v1/urls/{}", link["id"].as_str().context("a link has an ID")?))
}

async fn leads_to(client: &Client, alias: &str) -> Result<String> {
    let answer = client.get(&format!("/{alias}")).await?.expect_status(302)?;
    Ok(answer.header("location").context("a redirect leads somewhere")?.to_owned())
}

/// How many redirects waited for this stage.
async fn waited(node: &Node, stage: &str) -> Result<u64> {
    let metrics = Client::new(node.admin_url())?.get("/metrics").await?.text();
    let series = format!("shortener_redirect_duration_seconds_count{{stage=\"{stage}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&series)).context("the stage is there")?;
    Ok(count.parse()?)
}

/// A link is left in Redis in the background. The node forgets it soon enough by itself (`LOCAL_CACHE_TTL`).
async fn until_redis_answers(node: &Node, alias: &str) -> Result<()> {
    wait_until("Redis answers", PATIENCE, async || {
        let (cache, store) = (waited(node, "cache").await?, waited(node, "store").await?);
        leads_to(&node.client()?, alias).await?;
        Ok(waited(node, "cache").await? > cache && waited(node, "store").await? == store)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_process_has_forgotten_redis_answers_and_not_the_store() -> Result<()> {
    let Some(servers) = RedisCluster::shared().await? else { return Ok(()) };
    let node = on(servers).setting("LOCAL_CACHE_TTL", "100ms").start().await?;
    node.client()?.until_health_is("ok").await?;
    let anyone = node.client()?;
    alias(&anyone, "launch", "https://example.com/launch").await?;
    until_redis_answers(&node, "launch").await?;
    assert_eq!(leads_to(&anyone, "launch").await?, "https://example.com/launch");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_fails_and_every_change_is_seen() -> Result<()> {
    let Some(servers) = RedisCluster::builder().start().await? else { return Ok(()) };
    let node = on(&servers).setting("LOCAL_CACHE_TTL", "100ms").start().await?;
    node.client()?.until_health_is("ok").await?;
    let ada = signed_in(&node).await?;
    let (kept, deleted) =
        (alias(&ada, "kept", "https://example.com/1").await?, alias(&ada, "gone", "https://example.com/").await?);
    assert_eq!(leads_to(&ada, "kept").await?, "https://example.com/1");
    servers.stop_all()?;
    for version in 2..20 {
        let target = format!("https://example.com/{version}");
        ada.patch(&kept, &json!({ "original_url": target })).await?.expect_status(200)?;
        assert_eq!(leads_to(&ada, "kept").await?, target);
    }
    ada.delete(&deleted).await?.expect_status(204)?;
    ada.get("/gone").await?.expect_status(404)?;
    node.client()?.until_health_is("degraded").await?;
    servers.start_all().await?;
    let clock = Clock::system();
    node.client()?.until_health_is("ok").await?;
    assert!(clock.monotonic() < Duration::from_secs(5), "{:?}", clock.monotonic());
    ada.get("/gone").await?.expect_status(404)?;
    assert_eq!(leads_to(&ada, "kept").await?, "https://example.com/19");
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_did_not_hear_of_a_deletion_does_not_bring_the_link_back() -> Result<()> {
    let Some(servers) = RedisCluster::builder().start().await? else { return Ok(()) };
    let node = on(&servers).setting("LOCAL_CACHE_TTL", "100ms").start().await?;
    node.client()?.until_health_is("ok").await?;
    let ada = signed_in(&node).await?;
    let link = alias(&ada, "launch", "https://example.com/launch").await?;
    until_redis_answers(&node, "launch").await?;
    (0..SERVERS).try_for_each(|server| servers.pause(server))?;
    ada.delete(&link).await?.expect_status(204)?;
    ada.get("/launch").await?.expect_status(404)?;
    let data = node.kill().await?;
    (0..SERVERS).try_for_each(|server| servers.resume(server))?;
    servers.wait_until_serving().await?;
    // Another process, which has heard of nothing, on the same store and Redis.
    let node = on(&servers).data(data).start().await?;
    node.client()?.until_health_is("ok").await?;
    let (anyone, clock) = (node.client()?, Clock::system());
    wait_until("the deletion is replayed", PATIENCE, async || Ok(anyone.get("/launch").await?.status == 404)).await?;
    // A replay may take a walk over the changes, and what was known before it as long as LOCAL_CACHE_TTL.
    assert!(clock.monotonic() < Duration::from_secs(8), "{:?}", clock.monotonic());
    for _ in 0..50 {
        anyone.get("/launch").await?.expect_status(404)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_go_through_redis_and_are_counted_once() -> Result<()> {
    let Some(servers) = RedisCluster::shared().await? else { return Ok(()) };
    let node = on(servers).setting("ANALYTICS_FLUSH_INTERVAL", "100ms").start().await?;
    node.client()?.until_health_is("ok").await?;
    let ada = signed_in(&node).await?;
    let link = alias(&ada, "launch", "https://example.com/launch").await?;
    let person = node.client()?.with_header("user-agent", FIREFOX);
    for _ in 0..250 {
        leads_to(&person, "launch").await?;
    }
    let counted = async || Ok::<_, anyhow::Error>(ada.get(&link).await?.json::<Value>()?["click_count"].as_u64());
    wait_until("the clicks are counted", PATIENCE, async || Ok(counted().await? >= Some(250))).await?;
    assert_eq!(counted().await?, Some(250));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_kept_with_redis_and_without() -> Result<()> {
    let Some(servers) = RedisCluster::builder().start().await? else { return Ok(()) };
    let node = on(&servers).setting("RATE_LIMIT_ANONYMOUS", "5").start().await?;
    node.client()?.until_health_is("ok").await?;
    let anyone = node.client()?;
    let statuses = async || {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(anyone.get("/api/v1/qr/no-such-code").await?.status);
        }
        Ok::<_, anyhow::Error>(statuses)
    };
    assert_eq!(statuses().await?, [404, 404, 404, 404, 404, 429, 429]);
    servers.stop_all()?;
    // The node begins to count by itself.
    assert_eq!(statuses().await?, [404, 404, 404, 404, 404, 429, 429]);
    Ok(())
}

/// Everything that is counted of sign-ins is counted in Redis: a node that starts anew goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_of_networks_and_accounts_is_shared() -> Result<()> {
    let Some(servers) = RedisCluster::shared().await? else { return Ok(()) };
    let start = || {
        let limits = on(servers).setting("RATE_LIMIT_LOGIN", "2/86400").setting("RATE_LIMIT_REGISTER", "1/86400");
        limits.setting("TRUSTED_PROXIES", "127.0.0.1")
    };
    let node = start().start().await?;
    node.client()?.until_health_is("ok").await?;
    let post = async |node: &Node, address: String, path: &str, body: Value| {
        let client = node.client()?.with_header("x-forwarded-for", &address);
        Ok::<_, anyhow::Error>(client.post(&format!("/api/v1/auth/{path}"), &body).await?.status)
    };
    let invalid = || json!({ "email": "nobody", "password": 1 });
    let guess = |n: u32| (format!("203.0.{n}.1"), json!({ "email": "ada@example.com", "password": "a wrong guess" }));
    for n in 0..4 {
        assert_eq!(post(&node, format!("2001:db8:0:{n}::1"), "register", invalid()).await?, 422);
    }
    assert_eq!(post(&node, "2001:db8:0:4::1".to_owned(), "register", invalid()).await?, 429);
    for n in 0..12 {
        let (address, body) = guess(n);
        post(&node, address, "login", body).await?;
    }
    // A right login does not count, a wrong one does.
    let home = || "198.51.100.1".to_owned();
    let credentials = || json!({ "email": "bob@example.com", "password": "correct horse battery staple" });
    assert_eq!(post(&node, home(), "register", credentials()).await?, 201);
    for _ in 0..4 {
        assert_eq!(post(&node, home(), "login", credentials()).await?, 200);
    }
    let wrong = || json!({ "email": "bob@example.com", "password": "a wrong guess" });
    assert_eq!(post(&node, home(), "login", wrong()).await?, 401);

    let node = start().data(node.stop().await?).start().await?;
    node.client()?.until_health_is("ok").await?;
    assert_eq!(post(&node, "2001:db8:0:5::1".to_owned(), "register", invalid()).await?, 429, "its /56 has had enough");
    let mut statuses = Vec::new();
    for n in 12..20 {
        let (address, body) = guess(n);
        statuses.push(post(&node, address, "login", body).await?);
    }
    // Had it forgotten, ten would pass at once.
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 4, "{statuses:?}");
    assert_eq!(post(&node, home(), "login", wrong()).await?, 401);
    assert_eq!(post(&node, home(), "login", wrong()).await?, 429, "two wrong ones in a day");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_link_is_never_waited_for() -> Result<()> {
    let Some(servers) = RedisCluster::shared().await? else { return Ok(()) };
    let node = on(servers).setting("HOT_URL_CLICK_THRESHOLD", "20").setting("LOCAL_CACHE_TTL", "2").start().await?;
    node.client()?.until_health_is("ok").await?;
    let anyone = node.client()?;
    alias(&anyone, "launch", "https://example.com/launch").await?;
    wait_until("no redirect waits for longer than a time to live", PATIENCE, async || {
        let (clock, before) = (Clock::system(), waited(&node, "cache").await?);
        while clock.monotonic() < Duration::from_secs(5) {
            leads_to(&anyone, "launch").await?;
        }
        Ok(waited(&node, "cache").await? == before)
    })
    .await
}
