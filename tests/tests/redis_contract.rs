//! What the node relies on in Redis, on a real Redis Cluster: its scripts, its streams, and what becomes of its connection when
//! servers are killed, hang, or are behind TLS. Each test has a keyspace of its own, so that those which harm nothing share a
//! cluster.

mod redis_contract {
    mod slots;
}

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::join_all;
use prometheus::Registry;
use shortener_node::ambient::{Clock, UnixMs, random};
use shortener_node::cache::local::LocalCache;
use shortener_node::cache::redis_cluster::invalidations::{self, Cursor, Invalidation, News};
use shortener_node::cache::redis_cluster::links::{SharedLink, SharedLinks};
use shortener_node::cache::redis_cluster::{RedisCertificates, RedisCluster, RedisFailure, RedisSettings, Server};
use shortener_node::cache::{Cache, CacheKey, Kept};
use shortener_node::clicks::queue::{CLAIM_AFTER, ClickQueue, ClickQueueReader, STREAM_ENTRIES_MAX};
use shortener_node::clicks::{ClickMetrics, ClickReader, ClickRows, ClickWriteError, CountriesNow, click_count};
use shortener_node::domains::{Domains, Served, settle};
use shortener_node::kv::Kv;
use shortener_node::kv::embedded::Embedded;
use shortener_node::limits::memory::MemoryLimits;
use shortener_node::limits::redis::RedisLimits;
use shortener_node::limits::{LimitRule, Subject};
use shortener_node::links::coherence::Coherence;
use shortener_node::links::link::Destination;
use shortener_node::public_url::{BaseUrl, PublicUrls};
use shortener_node::resilience::BackEndMetrics;
use shortener_node::store::clicks::{Click, ClickId};
use shortener_node::store::links::LinkAddress;
use shortener_tests::redis_cluster::RedisCluster as Servers;
use shortener_tests::server_process::wait_until;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(20);
/// The clients of one limit.
const CLIENTS: usize = 5;

/// A client as a node has it; it ends with its handle.
struct Client {
    redis: RedisCluster,
    registry: Registry,
    stops: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Client {
    fn new(settings: &RedisSettings, identity: u128) -> Result<Self> {
        let registry = Registry::new();
        let metrics = BackEndMetrics::register(&registry)?;
        let redis = RedisCluster::new(settings, move || Some(identity), Clock::system(), &metrics)?;
        let stops = CancellationToken::new();
        let tasks = vec![tokio::spawn(redis.clone().keep(stops.clone()))];
        Ok(Self { redis, registry, stops, tasks })
    }

    /// A client of `servers` that is connected.
    async fn connected(servers: &Servers, identity: u128) -> Result<Self> {
        let client = Self::new(&settings(servers)?, identity)?;
        client.wait_until_connected().await?;
        Ok(client)
    }

    async fn wait_until_connected(&self) -> Result<()> {
        let key = self.redis.keys()?.clicks(0);
        let mut exists = redis::cmd("EXISTS");
        exists.arg(key.as_str());
        wait_until("the client is connected", PATIENCE, async || {
            Ok(self.redis.query::<u64>(Server::Primary, &key, &exists).await.is_ok())
        })
        .await
    }

    /// Whether it was given up, which takes some seconds of trying.
    fn is_given_up(&self) -> bool {
        let open = |family: &prometheus::proto::MetricFamily| {
            family.name() == "shortener_backend_breaker_open"
                && family.get_metric().iter().any(|metric| metric.get_gauge().get_value() > 0.5)
        };
        self.registry.gather().iter().any(open)
    }

    /// Links as a node has them, with the task that writes them.
    fn links(&mut self) -> SharedLinks {
        let (links, writes) = SharedLinks::new(self.redis.clone(), Clock::system());
        self.tasks.push(tokio::spawn(links.clone().write(writes, self.stops.clone())));
        links
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn settings(servers: &Servers) -> Result<RedisSettings> {
    RedisSettings::parse(&servers.url()).map_err(anyhow::Error::msg)
}

fn fresh() -> u128 {
    u128::from_be_bytes(random())
}

fn at(code: &str) -> LinkAddress {
    LinkAddress { domain: String::new(), code: code.to_owned() }
}

fn link(version: u32) -> SharedLink {
    SharedLink { version, row: Some(Bytes::from(format!("row {version}"))) }
}

async fn until_kept(links: &SharedLinks, at: &LinkAddress, expected: &SharedLink) -> Result<()> {
    wait_until("the link is kept", PATIENCE, async || Ok(links.get(at).await.as_ref() == Some(expected))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_versions_that_race_the_highest_stays_whoever_comes_last() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let identity = fresh();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connected(servers, identity).await?);
    }
    let links: Vec<_> = clients.iter_mut().map(Client::links).collect();
    for round in 0..20 {
        let at = at(&format!("race{round}"));
        // From high to low and from low to high at once.
        let puts = (1..=30).flat_map(|version| [(version, 0), (31 - version, 1)]).map(|(version, client)| {
            let (links, at) = (links[client].clone(), at.clone());
            async move { links.put_change(&at, &link(version)).await }
        });
        for put in join_all(puts).await {
            put?;
        }
        assert_eq!(links[2].get(&at).await, Some(link(30)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_fill_brings_back_nothing_and_a_code_that_was_unknown_becomes_known() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let mut client = Client::connected(servers, fresh()).await?;
    let links = client.links();
    links.fill(at("abc"), SharedLink::UNKNOWN);
    until_kept(&links, &at("abc"), &SharedLink::UNKNOWN).await?;
    links.created(at("abc"), link(1), false);
    until_kept(&links, &at("abc"), &link(1)).await?;
    links.changed(at("abc"), link(2));
    until_kept(&links, &at("abc"), &link(2)).await?;
    for late in [SharedLink::UNKNOWN, link(1)] {
        assert!(!links.put_change(&at("abc"), &late).await?, "{late:?}");
    }
    assert_eq!(links.get(&at("abc")).await, Some(link(2)));
    // What this node has heard of counts also when Redis has lost it.
    links.heard(&at("abc"), 3);
    assert_eq!(links.get(&at("abc")).await, None);
    assert!(links.put_change(&at("abc"), &link(3)).await?);
    assert_eq!(links.get(&at("abc")).await, Some(link(3)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_runs_out() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let mut client = Client::connected(servers, fresh()).await?;
    let links = client.links();
    let keys = client.redis.keys()?;
    let ttl = async |key: shortener_node::cache::redis_cluster::keys::RedisKey| {
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(key.as_str());
        client.redis.query::<i64>(Server::Primary, &key, &pttl).await.map(|ms| ms / 1_000)
    };
    links.fill(at("unknown"), SharedLink::UNKNOWN);
    links.created(at("created"), link(1), false);
    links.fill(at("filled"), link(1));
    for (code, expected) in [("unknown", SharedLink::UNKNOWN), ("created", link(1)), ("filled", link(1))] {
        until_kept(&links, &at(code), &expected).await?;
    }
    for (code, seconds) in [("unknown", 25..=30), ("created", 265..=300), ("filled", 3_235..=3_600)] {
        let left = ttl(keys.url("", code)).await?;
        assert!(seconds.contains(&left), "{code}: {left} s");
    }
    links.keep_hot(&at("filled")).await?;
    let left = ttl(keys.url("", "filled")).await?;
    assert!((7_190..=7_200).contains(&left), "{left} s");
    let cache = Cache::RedisCluster(client.redis.clone());
    let key = CacheKey { domain: "", code: "abc", of: Kept::Qr("Png:256:4:M".to_owned()) };
    assert_eq!(cache.get(&key).await, None);
    cache.put(&key, Bytes::from_static(b"image"), Duration::from_hours(24)).await;
    let left = ttl(keys.qr("", "abc", "Png:256:4:M")).await?;
    assert!((86_390..=86_400).contains(&left), "{left} s");
    // It is read from any server that has it, which may take a moment.
    wait_until("the image is read", PATIENCE, async || Ok(cache.get(&key).await.is_some())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_requests_at_once_through_five_nodes_exactly_a_hundred_pass() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let identity = fresh();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connected(servers, identity).await?);
    }
    let limits = |client: &Client| Arc::new(RedisLimits::new(client.redis.clone(), MemoryLimits::new(Clock::system())));
    let limits: Vec<_> = clients.iter().map(limits).collect();
    let subject = Subject::of_address([192, 0, 2, 1].into());
    let rule = LimitRule::new(100, Duration::from_mins(1))?;
    let requests = (0..1_000).map(|n| {
        let limits = limits[n % CLIENTS].clone();
        tokio::spawn(async move { limits.take(subject, "urls.create", rule, 1).await })
    });
    let mut decisions = Vec::new();
    for decision in join_all(requests).await {
        decisions.push(decision?);
    }
    assert_eq!(decisions.iter().filter(|decision| decision.allowed).count(), 100);
    let mut remaining: Vec<_> =
        decisions.iter().filter(|decision| decision.allowed).map(|decision| decision.remaining).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, (0..100).collect::<Vec<_>>(), "each was told what was left after it");
    assert!(
        decisions
            .iter()
            .filter(|decision| !decision.allowed)
            .all(|decision| (1..=60).contains(&decision.retry_after_s))
    );
    // Others, and other endpoints, have a count of their own; no address stands in Redis.
    assert!(limits[0].take(subject, "urls.list", rule, 1).await.allowed);
    assert!(limits[0].take(Subject::of_address([192, 0, 2, 2].into()), "urls.create", rule, 1).await.allowed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_does_not_count_and_passes_when_the_window_has_slid_on() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let client = Client::connected(servers, fresh()).await?;
    let limits = RedisLimits::new(client.redis.clone(), MemoryLimits::new(Clock::system()));
    let subject = Subject::of_address([192, 0, 2, 1].into());
    let rule = LimitRule::new(1, Duration::from_secs(1))?;
    assert!(limits.take(subject, "urls", rule, 1).await.allowed);
    let clock = Clock::system();
    // If refusals counted, asking all the time would never pass.
    wait_until("the window slides on", PATIENCE, async || Ok(limits.take(subject, "urls", rule, 1).await.allowed))
        .await?;
    assert!(clock.monotonic() < Duration::from_secs(3), "{:?}", clock.monotonic());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_keeps_the_limits_by_itself() -> Result<()> {
    let nobody = RedisSettings::parse("redis-cluster://127.0.0.1:1").map_err(anyhow::Error::msg)?;
    let client = Client::new(&nobody, fresh())?;
    let limits = RedisLimits::new(client.redis.clone(), MemoryLimits::new(Clock::system()));
    let subject = Subject::of_address([192, 0, 2, 1].into());
    let rule = LimitRule::new(3, Duration::from_mins(1))?;
    let mut allowed = Vec::new();
    for _ in 0..5 {
        allowed.push(limits.take(subject, "urls", rule, 1).await.allowed);
    }
    assert_eq!(allowed, [true, true, true, false, false]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_a_script_is_given_it() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let mut client = Client::connected(servers, fresh()).await?;
    let links = client.links();
    for version in 1..=3 {
        let key = client.redis.keys()?.url("", "abc");
        let mut flush = redis::cmd("SCRIPT");
        flush.arg("FLUSH");
        client.redis.query::<()>(Server::Primary, &key, &flush).await?;
        assert!(links.put_change(&at("abc"), &link(version)).await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_one_node_is_forgotten_on_another_within_a_second() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let identity = fresh();
    let (mut one, mut other) =
        (Client::connected(servers, identity).await?, Client::connected(servers, identity).await?);
    let (links_of_one, links_of_other) = (one.links(), other.links());
    let clock = Clock::system();
    let local = Arc::new(LocalCache::new(1 << 20, Duration::from_hours(1), Destination::weight));
    let public_urls = PublicUrls::new(BaseUrl::parse("http://localhost:8000").map_err(anyhow::Error::msg)?, &[]);
    let public_urls = public_urls.map_err(anyhow::Error::msg)?;
    let domains = Domains::default();
    let settled = settle(&shortener_node::store::domains::Registry::new(), &[], &public_urls, clock.now())?;
    domains.set(Served::new(&settled.registry, &public_urls).context("all hosts are registered")?);
    let coherence = Coherence::new(other.redis.clone(), links_of_other.clone(), local.clone(), domains);
    let stops = other.stops.clone();
    other.tasks.push(tokio::spawn(coherence.follow(stops)));
    let know = async |code: &str| {
        let nowhere = std::future::ready(Ok::<_, std::convert::Infallible>(Destination::Nowhere));
        let _ = local.get_or_read(0, code, clock.monotonic(), nowhere).await;
        local.get(0, code, clock.monotonic()).is_some()
    };
    // The first poll forgets everything, once: what stays is known after it.
    know("first").await;
    wait_until("the first poll", PATIENCE, async || Ok(local.get(0, "first", clock.monotonic()).is_none())).await?;
    for version in 2..12 {
        assert!(know("abc").await && know("other").await);
        let begun = clock.monotonic();
        links_of_one.changed(at("abc"), link(version));
        wait_until("it is forgotten", PATIENCE, async || Ok(local.get(0, "abc", clock.monotonic()).is_none())).await?;
        let took = clock.monotonic().saturating_sub(begun);
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(local.get(0, "other", clock.monotonic()).is_some(), "nothing else is");
        // Nor does it take the one from before out of Redis again.
        assert_ne!(links_of_other.get(&at("abc")).await, Some(link(version - 1)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_changes_is_told_so() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let mut client = Client::connected(servers, fresh()).await?;
    let links = client.links();
    let poll =
        async |cursor: Cursor| Ok::<_, RedisFailure>(cursor.advance(invalidations::poll(&client.redis, cursor).await?));
    let (cursor, news) = poll(Cursor::default()).await?;
    assert_eq!(news, News::Gap, "whoever begins knows nothing of before");
    links.publish(&at("abc"), 2).await?;
    links.publish(&at("abd"), 3).await?;
    let (cursor, news) = poll(cursor).await?;
    let changed = |code, version| Invalidation { at: at(code), version };
    assert_eq!(news, News::Changed(vec![changed("abc", 2), changed("abd", 3)]));
    assert_eq!(poll(cursor).await?.1, News::Changed(Vec::new()));
    // The stream is lost.
    let key = client.redis.keys()?.invalidations();
    let mut del = redis::cmd("DEL");
    del.arg(key.as_str());
    client.redis.query::<()>(Server::Primary, &key, &del).await?;
    let (cursor, news) = poll(cursor).await?;
    assert_eq!(news, News::Gap);
    links.publish(&at("abc"), 4).await?;
    let (cursor, news) = poll(cursor).await?;
    assert_eq!(news, News::Changed(vec![changed("abc", 4)]));
    // It goes on beyond what it keeps.
    let mut trim = redis::cmd("XTRIM");
    links.publish(&at("abc"), 5).await?;
    links.publish(&at("abc"), 6).await?;
    trim.arg(key.as_str()).arg("MAXLEN").arg(1);
    client.redis.query::<()>(Server::Primary, &key, &trim).await?;
    assert_eq!(poll(cursor).await?.1, News::Gap);
    Ok(())
}

/// A store, and what writes clicks into it.
struct Store {
    kv: Kv,
    metrics: ClickMetrics,
    _directory: TempDir,
}

impl Store {
    fn new() -> Result<Self> {
        let directory = TempDir::new()?;
        let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::system())?);
        Ok(Self { kv, metrics: ClickMetrics::register(&Registry::new())?, _directory: directory })
    }

    fn queue(&self, client: &Client, boot_id: u128) -> ClickQueue {
        ClickQueue::new(
            client.redis.clone(),
            ClickReader::new(self.kv.clone(), CountriesNow::default()),
            boot_id,
            &self.metrics,
        )
    }

    /// Starts to write what is in the queue, as the node that `boot_id` names.
    fn read_queue(&self, client: &mut Client, boot_id: u128) -> JoinHandle<()> {
        let rows = ClickRows::new(self.kv.clone(), move || u16::try_from(boot_id % 1_000).unwrap_or_default());
        let reader = ClickQueueReader::new(client.redis.clone(), rows, boot_id, Clock::system(), &self.metrics);
        tokio::spawn(reader.run(client.stops.clone()))
    }

    async fn until_counted(&self, clicks: u64) -> Result<()> {
        let counted = wait_until("the clicks are counted", 3 * PATIENCE, async || {
            Ok(click_count(&self.kv, "", "abc").await? >= clicks)
        });
        counted.await?;
        ensure!(click_count(&self.kv, "", "abc").await? == clicks, "counted twice");
        Ok(())
    }
}

fn clicks(boot_id: u128, counters: std::ops::Range<u64>) -> Vec<(ClickId, Click)> {
    let text = str::to_owned;
    let click = |counter| Click {
        at: UnixMs(1_790_000_000_000),
        domain: text(""),
        code: text("abc"),
        referrer: text("direct"),
        browser: text("Firefox"),
        operating_system: text("Linux"),
        device: text("desktop"),
        country: text("IS"),
        bot: false,
        visitor: counter,
    };
    counters.map(|counter| (ClickId { boot_id, counter }, click(counter))).collect()
}

/// How many entries wait in all streams.
async fn waiting(client: &Client) -> Result<usize> {
    let mut entries = 0;
    for stream in 0..shortener_node::cache::redis_cluster::keys::CLICK_STREAMS {
        let key = client.redis.keys()?.clicks(stream);
        let mut length = redis::cmd("XLEN");
        length.arg(key.as_str());
        entries += client.redis.query::<usize>(Server::Primary, &key, &length).await?;
    }
    Ok(entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_of_many_nodes_are_written_once_each_and_damaged_ones_are_counted_as_dropped() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let (identity, store) = (fresh(), Store::new()?);
    let mut clients = [Client::connected(servers, identity).await?, Client::connected(servers, identity).await?];
    let mut queue = store.queue(&clients[0], 1);
    for batch in 0..40 {
        queue.put(&clicks(1, batch * 10..(batch + 1) * 10)).await?;
    }
    // The same batch again, as by a node that did not hear the answer.
    queue.put(&clicks(1, 0..10)).await?;
    for damaged in [&b"\x01damaged"[..], b"", b"\x00"] {
        let key = clients[0].redis.keys()?.clicks(3);
        let mut add = redis::cmd("XADD");
        add.arg(key.as_str()).arg("*").arg("n").arg(7).arg("b").arg(damaged);
        clients[0].redis.query::<String>(Server::Primary, &key, &add).await?;
    }
    let [one, other] = &mut clients;
    let _reading = [store.read_queue(one, 1), store.read_queue(other, 2)];
    store.until_counted(400).await?;
    wait_until("the streams are empty", PATIENCE, async || Ok(waiting(&clients[0]).await? == 0)).await?;
    assert_eq!((store.metrics.written.get(), store.metrics.dropped.get()), (400, 21));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_took_and_did_not_write_another_one_writes() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let (store, mut client) = (Store::new()?, Client::connected(servers, fresh()).await?);
    store.queue(&client, 0).put(&clicks(1, 0..10)).await?;
    let key = client.redis.keys()?.clicks(0);
    let send = async |command: &str, arguments: &[&str]| {
        let mut command = redis::cmd(command);
        command.arg(arguments);
        client.redis.query::<redis::Value>(Server::Primary, &key, &command).await
    };
    send("XGROUP", &["CREATE", key.as_str(), "nodes", "0"]).await?;
    send("XREADGROUP", &["GROUP", "nodes", "dead", "STREAMS", key.as_str(), ">"]).await?;
    // It died long ago, as far as Redis knows.
    let mut range = redis::cmd("XRANGE");
    range.arg(key.as_str()).arg("-").arg("+");
    let entries: redis::streams::StreamRangeReply = client.redis.query(Server::Primary, &key, &range).await?;
    let id = entries.ids.first().context("the entry is there")?.id.clone();
    let idle_ms = CLAIM_AFTER.as_millis().to_string();
    send("XCLAIM", &[key.as_str(), "nodes", "dead", "0", &id, "IDLE", &idle_ms, "JUSTID"]).await?;
    let _reading = store.read_queue(&mut client, 2);
    store.until_counted(10).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_are_bounded() -> Result<()> {
    let Some(servers) = Servers::shared().await? else { return Ok(()) };
    let (store, mut client) = (Store::new()?, Client::connected(servers, fresh()).await?);
    let streams = usize::from(shortener_node::cache::redis_cluster::keys::CLICK_STREAMS);
    let mut queue = store.queue(&client, 0);
    for entry in 0..STREAM_ENTRIES_MAX * streams {
        queue.put(&clicks(1, entry as u64..entry as u64 + 1)).await?;
    }
    assert!(matches!(queue.put(&clicks(2, 0..1)).await, Err(ClickWriteError::QueueFull)));
    assert_eq!(waiting(&client).await?, STREAM_ENTRIES_MAX * streams);
    let _reading = store.read_queue(&mut client, 2);
    wait_until("there is room again", PATIENCE, async || Ok(queue.put(&clicks(2, 0..1)).await.is_ok())).await
}

/// How long after `harm` a link whose server was harmed can be written again.
async fn recovery(servers: &Servers, harm: impl AsyncFn(usize) -> Result<()>) -> Result<Duration> {
    let mut client = Client::connected(servers, fresh()).await?;
    let links = client.links();
    assert!(links.put_change(&at("abc"), &link(1)).await?);
    let key = client.redis.keys()?.url("", "abc");
    let clock = Clock::system();
    let primary = servers.primary_of(key.as_str()).await?;
    let begun = clock.monotonic();
    harm(primary).await?;
    let mut version = 1;
    wait_until("the link is written again", PATIENCE, async || {
        version += 1;
        let asked = clock.monotonic();
        let is_written = links.put_change(&at("abc"), &link(version)).await.is_ok();
        ensure!(clock.monotonic().saturating_sub(asked) < Duration::from_secs(1), "no call hangs");
        Ok(is_written)
    })
    .await?;
    Ok(clock.monotonic().saturating_sub(begun))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_primary_was_killed_its_replica_is_used() -> Result<()> {
    let Some(servers) = Servers::builder().start().await? else { return Ok(()) };
    let took = recovery(&servers, async |primary| servers.kill(primary)).await?;
    println!("after a kill: {took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_left() -> Result<()> {
    let Some(servers) = Servers::builder().start().await? else { return Ok(()) };
    let took = recovery(&servers, async |primary| servers.pause(primary)).await?;
    println!("after a hang: {took:?}");
    // Its replica takes over after 2 s of silence and an election.
    assert!(took < Duration::from_secs(6), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_a_user_is_used_and_nobody_else_gets_in() -> Result<()> {
    let Some(servers) = Servers::builder().tls().user("ada", "correct horse").start().await? else { return Ok(()) };
    let certificates = servers.certificates().context("the cluster has TLS")?;
    let client = (std::fs::read(&certificates.cert)?, Zeroizing::new(std::fs::read(&certificates.key)?));
    let ca = Some(std::fs::read(&certificates.ca)?);
    let url = servers.url().replace("correct horse", "correct%20horse");
    let known = RedisSettings::parse(&url).map_err(anyhow::Error::msg)?;
    let known = RedisSettings { certificates: RedisCertificates { ca: ca.clone(), client: Some(client) }, ..known };
    let mut ours = Client::new(&known, fresh())?;
    ours.wait_until_connected().await?;
    assert!(ours.links().put_change(&at("abc"), &link(1)).await?);
    let wrong_password = RedisSettings { password: Some(Zeroizing::new("wrong".to_owned())), ..known.clone() };
    let no_certificate = RedisSettings { certificates: RedisCertificates { ca, client: None }, ..known };
    for stranger in [wrong_password, no_certificate] {
        let mut stranger = Client::new(&stranger, fresh())?;
        let links = stranger.links();
        wait_until("it is refused", PATIENCE, async || Ok(stranger.is_given_up())).await?;
        assert!(!stranger.redis.condition().is_up);
        assert!(links.put_change(&at("abc"), &link(1)).await.is_err());
    }
    Ok(())
}
