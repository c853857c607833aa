//! Several nodes on shared servers as their callers see them: one service, whichever node is asked, and one that answers in
//! time and comes back by itself whatever its servers do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use shortener_tests::client::{Answer, Client};
use shortener_tests::fleet::Metrics;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::programs::next_node_program;
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::{fresh_name, lasting_ports, wait_until};
use shortener_tests::tcp_proxy::Door;
use shortener_tests::tikv::Tikv;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const PASSWORD: &str = "correct horse battery staple";
/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take once its request is there.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// How soon every node has heard of a change.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How soon a node has ended after it was told to.
const EXIT_WITHIN: Duration = Duration::from_secs(10);
/// What any of it may take longer on a busy machine.
const SLACK: Duration = Duration::from_millis(900);
/// Servers of a Redis Cluster of the tests.
const REDIS_SERVERS: usize = 6;

/// What nodes of one service have in common.
fn on(database_url: &str, redis_url: &str) -> NodeBuilder {
    Node::builder()
        .setting("BASE_URL", "http://sho.rt")
        .setting("SECRET_KEY", "a secret of tests alone, 32 bytes")
        .setting("DATABASE_URL", database_url)
        .setting("REDIS_URL", redis_url)
}

/// So many nodes on the servers that tests share; none where these cannot be had.
async fn nodes(count: usize, set: impl Fn(NodeBuilder) -> NodeBuilder) -> Result<Option<Vec<Node>>> {
    let Some(tikv) = Tikv::shared().await? else { return Ok(None) };
    let Some(redis) = RedisCluster::shared().await? else { return Ok(None) };
    let database_url = tikv.database_url(&fresh_name("service"));
    let mut nodes = Vec::new();
    for _ in 0..count {
        let node = set(on(&database_url, &redis.url())).start().await?;
        node.client()?.until_health_is("ok").await?;
        nodes.push(node);
    }
    Ok(Some(nodes))
}

async fn signed_in(node: &Node) -> Result<Client> {
    node.client()?.register_and_login("ada@example.com", PASSWORD).await
}

/// A link with this alias, as its path under the API.
async fn create(client: &Client, alias: &str, target: &str) -> Result<String> {
    let body = json!({ "original_url": target, "custom_alias": alias });
    let link: Value = client.post("/api/v1/urls", &body).await?.expect_status(201)?.json()?;
    Ok(format!("/api/v1/urls/{}", link["id"].as_str().context("a link has an ID")?))
}

fn expect_location(answer: &Answer, target: &str) -> Result<()> {
    let location = answer.header("location");
    ensure!(answer.status == 302 && location == Some(target), "{} to {location:?}", answer.status);
    Ok(())
}

/// The same caller at another node.
fn at(node: &Node, caller: &Client) -> Result<Client> {
    Ok(node.client()?.with_token(caller.token().context("the caller is signed in")?))
}

/// Sends a thousand requests through all nodes in turn, so many at once, and counts those that are not refused.
async fn admitted(clients: &[Client], path: &str, status: u16, in_flight: usize) -> Result<usize> {
    let requests = (0..1_000).map(|number| clients[number % clients.len()].get(path));
    let mut answers = stream::iter(requests).buffer_unordered(in_flight);
    let mut admitted = 0;
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        if answer.status == 429 {
            ensure!(answer.header("retry-after").is_some(), "a 429 does not say when to come back");
        } else {
            ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.text());
            admitted += 1;
        }
    }
    Ok(admitted)
}

/// How often nodes did not hear from Redis in time: each then counts by itself.
async fn unheard(nodes: &[Node]) -> Result<f64> {
    let mut unheard = 0.0;
    for node in nodes {
        let metrics = Metrics::of(node).await?;
        for outcome in ["failed", "refused"] {
            let series = format!("shortener_backend_calls_total{{backend=\"redis\",outcome=\"{outcome}\"}}");
            unheard += metrics.sum(&series);
        }
    }
    Ok(unheard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_one_limit_through_however_many_nodes() -> Result<()> {
    let limits = |node: NodeBuilder| {
        node.setting("RATE_LIMIT_ANONYMOUS", "100")
            .setting("RATE_LIMIT_REQUESTS", "100")
            .setting("RATE_LIMIT_WINDOW", "5m")
            .setting("TRUSTED_PROXIES", "127.0.0.1")
    };
    let Some(nodes) = nodes(5, limits).await? else { return Ok(()) };
    // What counts by user, and what counts by address.
    for (path, by_user, status) in [("/api/v1/auth/me", true, 200), ("/api/v1/urls/1", false, 404)] {
        let mut is_shown = false;
        // All at once may be more than a busy machine does in the 250 ms that Redis has; then half of it, and so on.
        for round in 0..6 {
            let caller = nodes[0].client()?.with_header("x-forwarded-for", &format!("192.0.2.{round}"));
            let token = match by_user {
                true => caller
                    .register_and_login(&format!("ada{round}@example.com"), PASSWORD)
                    .await?
                    .token()
                    .map(str::to_owned),
                false => None,
            };
            let clients = nodes.iter().map(|node| {
                let client = node.client()?.with_header("x-forwarded-for", &format!("192.0.2.{round}"));
                Ok(token.as_ref().map_or_else(|| client.clone(), |token| client.with_token(token)))
            });
            let clients = clients.collect::<Result<Vec<_>>>()?;
            let before = unheard(&nodes).await?;
            let admitted = admitted(&clients, path, status, 1_000 >> round).await?;
            if unheard(&nodes).await? <= before {
                ensure!(admitted == 100, "{path}: {admitted} requests were admitted");
                is_shown = true;
                break;
            }
        }
        ensure!(is_shown, "{path}: Redis never answered in time");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_or_deletion_reaches_every_node_within_a_second() -> Result<()> {
    // What a node remembers it would remember for the whole test.
    let Some(nodes) = nodes(3, |node| node.setting("LOCAL_CACHE_TTL", "1h")).await? else { return Ok(()) };
    let ada = signed_in(&nodes[0]).await?;
    let link = create(&ada, "launch", "https://example.com/0").await?;
    let anyone = nodes.iter().map(Node::client).collect::<Result<Vec<_>>>()?;
    for client in &anyone {
        expect_location(&client.get("/launch").await?, "https://example.com/0")?;
    }
    for version in 1..=6 {
        let target = format!("https://example.com/{version}");
        let changer = at(&nodes[version % nodes.len()], &ada)?;
        changer.patch(&link, &json!({ "original_url": target })).await?.expect_status(200)?;
        let changed = Clock::system();
        for client in &anyone {
            wait_until("the change is seen", PATIENCE, async || {
                Ok(client.get("/launch").await?.header("location") == Some(target.as_str()))
            })
            .await?;
        }
        ensure!(changed.monotonic() < HEARD_WITHIN, "change {version} took {:?}", changed.monotonic());
    }
    at(&nodes[1], &ada)?.delete(&link).await?.expect_status(204)?;
    let deleted = Clock::system();
    for client in &anyone {
        wait_until("the deletion is seen", PATIENCE, async || Ok(client.get("/launch").await?.status == 404)).await?;
    }
    ensure!(deleted.monotonic() < HEARD_WITHIN, "the deletion took {:?}", deleted.monotonic());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_cut_off_serves_nothing_deleted_for_longer_than_it_remembers() -> Result<()> {
    let remembers = Duration::from_secs(2);
    let Some(nodes) = nodes(2, |node| node.setting("LOCAL_CACHE_TTL", "2s")).await? else { return Ok(()) };
    let ada = signed_in(&nodes[0]).await?;
    let cut_off = nodes[1].client()?;
    for round in 0..3 {
        let alias = format!("launch-{round}");
        let link = create(&ada, &alias, "https://example.com/").await?;
        let path = format!("/{alias}");
        cut_off.get(&path).await?.expect_status(302)?;
        nodes[1].pause()?;
        ada.delete(&link).await?.expect_status(204)?;
        nodes[1].resume()?;
        let back = Clock::system();
        wait_until("the node has forgotten", PATIENCE, async || Ok(cut_off.get(&path).await?.status == 404)).await?;
        ensure!(back.monotonic() < remembers + SLACK, "served for {:?} what was deleted", back.monotonic());
        // Fewer than an address may guess.
        for _ in 0..10 {
            cut_off.get(&path).await?.expect_status(404)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_servers_and_works_once_they_are_there() -> Result<()> {
    let Some(tikv) = Tikv::shared().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::shared().await? else { return Ok(()) };
    // Nobody listens there yet: connections are refused.
    let [pd, seed] = lasting_ports(2)?[..] else { anyhow::bail!("two ports were asked for") };
    let database_url = format!("tikv://127.0.0.1:{pd}/{}", fresh_name("late"));
    let node = on(&database_url, &format!("redis-cluster://127.0.0.1:{seed}")).start().await?;
    let client = node.client()?;
    let body = json!({ "original_url": "https://example.com/" });
    for _ in 0..3 {
        Client::new(node.admin_url())?.get("/readyz").await?.expect_status(200)?;
        let answer = client.get("/api/v1/health").await?.expect_status(503)?;
        ensure!(answer.json::<Value>()?["status"] == "unavailable", "{}", answer.text());
        for answer in [client.post("/api/v1/urls", &body).await?, client.get("/no-such-code").await?] {
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{}", answer.text());
            // What exactly is wrong is the operators' affair, who read it in the log.
            let said = answer.text().to_lowercase();
            let tells =
                ["127.0.0.1", "tikv", "redis", "breaker", "connect"].into_iter().find(|word| said.contains(word));
            ensure!(tells.is_none(), "a caller is told of {tells:?}: {said}");
        }
    }
    let addresses = |servers: Vec<String>| {
        let parsed = servers.iter().map(|server| server.parse::<SocketAddr>());
        parsed.collect::<Result<Vec<_>, _>>().context("reading a server's address")
    };
    let _pd = Door::on(pd).await?.in_turn(addresses(tikv.pd_endpoints())?);
    let _seed = Door::on(seed).await?.in_turn(addresses(redis.seeds())?);
    node.client()?.until_health_is("ok").await?;
    create(&client, "launch", "https://example.com/launch").await?;
    expect_location(&client.get("/launch").await?, "https://example.com/launch")?;
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_while_redis_is_away_are_counted_once_it_is_back() -> Result<()> {
    let Some(tikv) = Tikv::shared().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let node = on(&tikv.database_url(&fresh_name("clicks")), &redis.url());
    let node = node.setting("ANALYTICS_FLUSH_INTERVAL", "100ms").start().await?;
    node.client()?.until_health_is("ok").await?;
    let ada = signed_in(&node).await?;
    let link = create(&ada, "launch", "https://example.com/").await?;
    let person = node.client()?.with_header("user-agent", FIREFOX);
    let counted = async || Ok::<_, anyhow::Error>(ada.get(&link).await?.json::<Value>()?["click_count"].as_u64());
    let click = async |times: usize| {
        for _ in 0..times {
            person.get("/launch").await?.expect_status(302)?;
        }
        Ok::<_, anyhow::Error>(())
    };
    click(120).await?;
    // Those that lie in Redis would be lost with it.
    wait_until("the first clicks are counted", PATIENCE, async || Ok(counted().await? == Some(120))).await?;
    redis.stop_all()?;
    click(250).await?;
    node.client()?.until_health_is("degraded").await?;
    click(250).await?;
    redis.start_all().await?;
    wait_until("all clicks are counted", PATIENCE, async || Ok(counted().await? >= Some(620))).await?;
    ensure!(counted().await? == Some(620), "{:?} clicks were counted", counted().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_case_that_the_store_is_too_slow_for_is_answered_503_in_time() -> Result<()> {
    let Some(tikv) = Tikv::builder().start().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::shared().await? else { return Ok(()) };
    let node = on(&tikv.database_url("slow"), &redis.url()).start().await?;
    node.client()?.until_health_is("ok").await?;
    let ada = signed_in(&node).await?;
    let link = create(&ada, "launch", "https://example.com/").await?;
    // Each call is in time; the four reads and the commit of a change together are not.
    tikv.delay_answers(1.0, Duration::from_millis(700)).await?;
    let clock = Clock::system();
    let answer = ada.patch(&link, &json!({ "title": "late" })).await?;
    let took = clock.monotonic();
    ensure!(answer.status == 503, "{} after {took:?}: {}", answer.status, answer.text());
    ensure!(answer.header("retry-after").is_some(), "the 503 does not say when to come back");
    ensure!(took < ANSWER_DEADLINE + SLACK, "answered after {took:?}");
    tikv.reset_faults().await?;
    wait_until("changes work again", PATIENCE, async || {
        Ok(ada.patch(&link, &json!({ "title": "in time" })).await?.status == 200)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_servers_hang_still_ends_in_time() -> Result<()> {
    let Some(tikv) = Tikv::builder().start().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let mut node = on(&tikv.database_url("hangs"), &redis.url()).start().await?;
    node.client()?.until_health_is("ok").await?;
    let client = node.client()?.with_header("user-agent", FIREFOX);
    create(&client, "launch", "https://example.com/").await?;
    client.get("/launch").await?.expect_status(302)?;
    tikv.pause_store(0)?;
    tikv.pause_pd(0)?;
    (0..REDIS_SERVERS).try_for_each(|server| redis.pause(server))?;
    // A click that waits to be written, and a create that waits for the store.
    client.get("/launch").await?.expect_status(302)?;
    let body = json!({ "original_url": "https://example.com/" });
    let creating = tokio::spawn(async move { client.send(Method::POST, "/api/v1/urls", |it| it.json(&body)).await });
    wait_until("the create is in flight", PATIENCE, async || {
        let metrics = Client::new(node.admin_url())?.get("/metrics").await?.text();
        Ok(metrics.lines().any(|line| line == "shortener_in_flight_requests 1"))
    })
    .await?;
    let clock = Clock::system();
    node.terminate()?;
    let status = node.wait_for_exit().await?;
    ensure!(status.success(), "exited with {status}:\n{}", node.log());
    ensure!(clock.monotonic() < EXIT_WITHIN, "ended after {:?}", clock.monotonic());
    let answer = creating.await??;
    ensure!(answer.status == 503, "the create was answered with {}", answer.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_a_command_raises_the_format_and_an_older_node_stops_and_says_why() -> Result<()> {
    const WHY: &str = "the keyspace is in format 3, and this program knows formats up to 2";
    let Some(tikv) = Tikv::shared().await? else { return Ok(()) };
    let database_url = tikv.database_url(&fresh_name("service"));
    let builder = Node::builder()
        .setting("BASE_URL", "http://sho.rt")
        .setting("SECRET_KEY", "a secret of tests alone, 32 bytes")
        .setting("DATABASE_URL", &database_url);
    let (mut older, newer) = (builder.clone().start().await?, builder.clone().binary(next_node_program()?));
    let link = older.client()?.create("https://www.example.com/").await?;
    let path = format!("/{}", link["short_code"].as_str().context("a code")?);
    let raise = async || {
        let mut command = tokio::process::Command::new(next_node_program()?);
        let ended = command.arg("raise-format").env("DATABASE_URL", &database_url).output().await?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8_lossy(&ended.stderr).into_owned())
    };

    // Beside the older node it writes what that one reads.
    let node = newer.clone().start().await?;
    older.client()?.get(&path).await?.expect_status(302)?;
    node.stop().await?;
    for said in ["raised the keyspace from format 2 to 3", "the keyspace was in format 3 already"] {
        let output = raise().await?;
        ensure!(output.contains(said), "{output:?} does not say {said:?}");
    }
    let status = older.wait_for_exit().await?;
    ensure!(status.code() == Some(1) && older.log().contains(WHY), "{status}: {}", older.log());
    let mut refusing = builder.spawn()?;
    let status = refusing.wait_for_exit().await?;
    ensure!(status.code() == Some(1) && refusing.log().contains(WHY), "{status}: {}", refusing.log());
    let node = newer.start().await?;
    node.client()?.get(&path).await?.expect_status(302)?;
    node.stop().await?;
    Ok(())
}
