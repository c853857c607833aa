//! What stays bounded while something fails, or while nothing does: reads of the store, their time, and connections.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shortener_node::ambient::Clock;
use shortener_tests::fleet::Fleet;
use shortener_tests::fleet::history::{Acknowledged, History};
use shortener_tests::fleet::load::Load;
use shortener_tests::sizes::sized;
use shortener_tests::tikv::Tikv;
use tokio::task::JoinSet;

use super::scene::{CREATORS, FOLLOWERS, KEYSPACE, NODES, PATIENCE, Servers, lasts, report, until};

/// Links that are followed while Redis is away.
const CODES: u64 = 50;
/// How long a node keeps a link by itself: `LOCAL_CACHE_TTL`.
const TTL: Duration = Duration::from_secs(5);
/// Reads of the store that are in flight at once at most.
const STORE_READS_MAX: usize = 256;
/// How long a redirect may wait for the store, and what that takes longer on a busy machine.
const READ_DEADLINE: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_millis(750);
/// What is turned away takes far less.
const AT_ONCE: Duration = Duration::from_millis(500);

/// PD, the store, and six of Redis.
const SERVERS: usize = 8;
/// Clients of one server that a node has at once. It should be one; but one that is not answered in time is replaced, once a
/// second, and lives until its last call is over, which on a machine that is held up takes some. It is far from one for each of
/// the clients that are the load.
const CLIENTS_MAX: usize = 8;
const _: () = assert!(2 * CLIENTS_MAX < CREATORS + FOLLOWERS);

/// Has a link made by each node in turn.
async fn make_links(fleet: &Fleet, history: &History, links: u64) -> Result<()> {
    for number in 0..links {
        let target = serde_json::json!({ "original_url": format!("https://www.example.com/{number}") });
        let made =
            fleet.client(usize::try_from(number)?).await.post("/api/v1/urls", &target).await?.expect_status(201)?;
        history.acknowledged(Acknowledged::from_answer(&made)?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_each_node_reads_a_code_once_in_its_time_to_live() -> Result<()> {
    let Some(servers) = Servers::start(Tikv::builder()).await? else { return Ok(()) };
    let (fleet, history) = (servers.fleet(NODES).await?, Arc::new(History::default()));
    make_links(&fleet, &history, CODES).await?;
    let mut load = Load::start(&fleet, &history, 0, FOLLOWERS);
    // What a node reads once, such as the day's salt for its first clicks, has been read.
    until("clicks are on their way", PATIENCE, async || {
        fleet.metrics().await.is_ok_and(|metrics| metrics.sum("shortener_clicks_queued_total") >= 1_000.0)
    })
    .await?;
    servers.redis.stop_all()?;
    let clock = Clock::system();
    let reads = async || Ok::<_, anyhow::Error>(servers.tikv.status().await?.requests("KvGet"));
    let (before, followed) = (reads().await?, history.count("redirect 302"));
    lasts(sized(Duration::from_secs(12), Duration::from_mins(1))).await;
    let (reads, followed) = (reads().await? - before, history.count("redirect 302") - followed);
    let away = clock.monotonic();
    load.stop().await?;
    ensure!(history.count("redirect") == history.count("redirect 302"), "{}", history.summary());

    // What is at least so far apart fits so often into the span. Each node also reads a row a second to see whether the store works.
    let times = |apart: Duration| away.as_secs() / apart.as_secs() + 1;
    let nodes = NODES as u64;
    let allowed = CODES * nodes * times(TTL) + nodes * times(Duration::from_secs(1));
    report(&format!("{away:.1?} without Redis: {followed} redirects, {reads} reads of the store, {allowed} allowed"));
    ensure!(reads <= allowed, "{reads} reads of the store, {allowed} allowed");
    // It says something only if far more was asked, and if it was the store that answered.
    ensure!(followed > 2 * allowed, "only {followed} redirects: {}", history.summary());
    ensure!(reads >= CODES * nodes, "only {reads} reads of the store");
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_store_that_hangs_are_bounded_in_number_and_time_and_answered_with_503() -> Result<()> {
    let Some(tikv) = Tikv::builder().start().await? else { return Ok(()) };
    let fleet = Fleet::start(1, &tikv.database_url(KEYSPACE), None).await?;
    let (client, history) = (fleet.client(0).await, History::default());
    client.until_health_is("ok").await?;
    make_links(&fleet, &history, 1).await?;
    let known = history.link(0).context("a link was made")?;
    client.get(&known.path).await?.expect_status(302)?;
    tikv.pause_store(0)?;
    let (clock, mut asking) = (Clock::system(), JoinSet::new());
    for number in 0..2 * STORE_READS_MAX {
        let (client, clock) = (client.clone(), clock.clone());
        asking.spawn(async move {
            let begun = clock.monotonic();
            let answer = client.get(&format!("/code-{number}")).await;
            answer.map(|answer| (answer, clock.monotonic().saturating_sub(begun)))
        });
    }
    let (mut at_once, mut slowest) = (0, Duration::ZERO);
    for asked in asking.join_all().await {
        let (answer, took) = asked?;
        ensure!(answer.status == 503, "answered with {}: {}", answer.status, answer.text());
        ensure!(answer.header("retry-after").is_some(), "nobody is told when to come back: {}", answer.text());
        at_once += usize::from(took < AT_ONCE);
        slowest = slowest.max(took);
    }
    report(&format!("{at_once} of {} turned away at once, the slowest answer after {slowest:?}", 2 * STORE_READS_MAX));
    ensure!(slowest < READ_DEADLINE + SLACK, "an answer took {slowest:?}");
    ensure!(at_once >= STORE_READS_MAX, "only {at_once} were turned away at once");
    ensure!(at_once < 2 * STORE_READS_MAX, "nobody waited for the store");
    client.get(&known.path).await?.expect_status(302).context("what the node knows")?;
    tikv.resume_store(0)?;
    fleet.stop().await
}

/// How many connections a node has to each server, by what it is and its address.
type Connections = BTreeMap<String, usize>;

/// The connections of each node to the servers behind it.
async fn connections(servers: &Servers, fleet: &Fleet) -> Result<Vec<Connections>> {
    let (drivers, redis) = (servers.tikv.pd_endpoints(), servers.redis.seeds());
    let named = |server: SocketAddr| {
        let address = server.to_string();
        let is_of = |servers: &[String]| servers.contains(&address);
        let kind = if is_of(&drivers) {
            "PD"
        } else if is_of(&redis) {
            "Redis"
        } else {
            "store"
        };
        format!("{kind} {address}")
    };
    let mut all = Vec::new();
    for node in 0..fleet.len() {
        all.push(fleet.connections(node).await?.into_iter().map(|(server, open)| (named(server), open)).collect());
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_the_same_connections_under_load_and_has_no_more_after_a_fault() -> Result<()> {
    let Some(servers) = Servers::start(Tikv::builder()).await? else { return Ok(()) };
    // A node connects to what it is told of when it starts.
    servers.redis.wait_until_replicas_are_named().await?;
    let (fleet, history) = (servers.fleet(NODES).await?, Arc::new(History::default()));
    make_links(&fleet, &history, NODES as u64).await?;
    // Some are opened soon after the start, and all nodes have the same in the end.
    let alike = async || {
        connections(&servers, &fleet)
            .await
            .is_ok_and(|all| all.iter().all(|one| *one == all[0]) && all[0].len() == SERVERS)
    };
    until("each node is connected to every server", PATIENCE, alike).await?;
    let idle = connections(&servers, &fleet).await?;
    report(&format!("idle: {idle:?}"));
    let mut load = Load::start(&fleet, &history, CREATORS, FOLLOWERS);
    let clock = Clock::system();
    while clock.monotonic() < sized(Duration::from_secs(5), Duration::from_mins(1)) {
        let busy = connections(&servers, &fleet).await?;
        let is_bounded = busy.iter().zip(&idle).all(|(busy, idle)| {
            busy.iter().all(|(server, open)| idle.get(server).is_some_and(|before| *open <= before * CLIENTS_MAX))
        });
        ensure!(is_bounded, "idle {idle:?}, under load {busy:?}");
        lasts(Duration::from_millis(50)).await;
    }
    let as_before = async || connections(&servers, &fleet).await.is_ok_and(|busy| busy == idle);
    until("the load has opened no connection that stays", PATIENCE, as_before).await?;
    let killed = servers.redis.kill_primary_of("any key").await?;
    servers.tikv.kill_store(0)?;
    lasts(Duration::from_secs(3)).await;
    servers.redis.restart(killed).await?;
    servers.tikv.restart_store(0).await?;
    // To a server that was away while a node connected anew it connects when it is told of it again.
    let no_more = async || {
        let is_within = |(now, idle): (&Connections, &Connections)| {
            now.iter().all(|(server, open)| idle.get(server).is_some_and(|before| open <= before))
        };
        connections(&servers, &fleet).await.is_ok_and(|now| now.iter().zip(&idle).all(is_within))
    };
    until("no node has more connections than before", PATIENCE, no_more).await?;
    report(&format!("after the faults: {:?}", connections(&servers, &fleet).await?));
    load.stop().await?;
    report(&history.summary());
    fleet.stop().await
}
