//! Traces as a collector gets them from a real node: what is in them, what is not, and that nothing else depends on them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::Clock;
use shortener_tests::client::Client;
use shortener_tests::collector::{Collector, Mood, Span};
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::tikv::Tikv;

const PATIENCE: Duration = Duration::from_secs(30);
/// A trace that somebody has begun, and the span in it that calls us.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SECRET: &str = "a secret of tests alone, 32 bytes";
/// What a node has after its last request to stop in, a collector that hangs included: clicks and spans, but no request.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

fn traced(collector: &Collector) -> NodeBuilder {
    Node::builder().setting("OTLP_ENDPOINT", collector.url()).setting("POD_NAME", "main-7c9f-x2b4q")
}

/// A caller in whose trace the node's spans belong; `flags` are 01 if that is followed.
fn caller(node: &Node, flags: &str) -> Result<Client> {
    Ok(node.client()?.with_header("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}")))
}

async fn path_of_new(client: &Client, target: &str) -> Result<String> {
    let link = client.create(target).await?;
    Ok(format!("/{}", link["short_code"].as_str().context("a link has a code")?))
}

/// What is below `parent`, a line a span, in the order of their beginnings.
fn below(spans: &[Span], parent: &str, depth: usize) -> Vec<String> {
    let mut children: Vec<_> = spans.iter().filter(|span| span.parent == parent).collect();
    children.sort_by_key(|span| span.began_ns);
    let lines = children.into_iter().flat_map(|span| {
        let line = format!("{}{}", "  ".repeat(depth), span.name);
        std::iter::once(line).chain(below(spans, &span.id, depth + 1))
    });
    lines.collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    spans.iter().find(|span| span.name == name).with_context(|| format!("no span is called {name:?}: {spans:#?}"))
}

fn check_attributes(span: &Span, expected: &[(&str, &str)]) -> Result<()> {
    let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ensure!(span.attributes == expected, "{}: {:?}", span.name, span.attributes);
    Ok(())
}

#[tokio::test]
async fn a_create_and_its_redirects_are_spans_of_the_callers_trace_down_to_cache_minting_and_store() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let node = traced(&collector).setting("TRUSTED_PROXIES", "127.0.0.1").start().await?;
    let caller = caller(&node, "01")?;
    let path = path_of_new(&caller, "https://www.example.com/").await?;
    caller.get(&path).await?.expect_status(302)?;
    caller.get(&path).await?.expect_status(302)?;
    caller.get("/api/v1/urls/1").await?.expect_status(404)?;
    let url = url::Url::parse(node.base_url())?;
    node.stop().await?;
    let spans = collector.spans()?;
    let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let expected = [
        "POST /api/v1/urls",
        "  mint code",
        "  mint id",
        "  transaction",
        "    commit",
        "GET /{short_code}",
        "  local cache",
        "  get",
        "GET /{short_code}",
        "  local cache",
    ];
    assert_eq!(below(&ours, CALLER, 0), expected, "{spans:#?}");
    assert_eq!(ours.len(), expected.len());
    // Blocks are claimed beside all requests, in traces of their own.
    assert_eq!(below(&spans, "", 0)[..2], ["claim blocks", "  transaction"]);

    let port = url.port().context("a port")?.to_string();
    let of_request = [("http.response.status_code", "302"), ("url.scheme", "http"), ("server.address", "127.0.0.1")];
    let of_request = [&of_request[..], &[("server.port", &port), ("network.protocol.version", "1.1")]].concat();
    let redirect = [&of_request[..], &[("http.request.method", "GET"), ("http.route", "/{short_code}")]].concat();
    check_attributes(named(&ours, "GET /{short_code}")?, &redirect)?;
    check_attributes(named(&ours, "get")?, &[("db.system.name", "embedded"), ("db.operation.name", "get")])?;
    let hits =
        ours.iter().filter(|span| span.name == "local cache").map(|span| &span.attributes["shortener.cache.hit"]);
    assert_eq!(hits.collect::<Vec<_>>(), ["false", "true"]);
    for span in &ours {
        let is_server = span.parent == CALLER;
        ensure!(span.kind == if is_server { 2 } else { 1 } && !span.is_error && span.events_and_links == 0, "{span:?}");
        let who = ["service.name", "service.version", "service.instance.id", "telemetry.sdk.language"];
        let who = who.map(|name| span.resource.get(name).map(String::as_str));
        assert_eq!(who, [Some("shortener"), Some(env!("CARGO_PKG_VERSION")), Some("main-7c9f-x2b4q"), Some("rust")]);
    }
    ensure!(collector.paths().iter().all(|path| path == "/v1/traces"), "{:?}", collector.paths());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_redis_and_tikv_are_spans_and_so_is_their_failure() -> Result<()> {
    let Some(tikv) = Tikv::builder().start().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let collector = Collector::start(Mood::Takes).await?;
    let node = traced(&collector)
        .setting("TRUSTED_PROXIES", "127.0.0.1")
        .setting("DATABASE_URL", tikv.database_url(&fresh_name("traces")))
        .setting("REDIS_URL", redis.url())
        .setting("SECRET_KEY", SECRET);
    let node = node.start().await?;
    node.client()?.until_health_is("ok").await?;
    let caller = caller(&node, "01")?;
    caller.get("/unknown").await?.expect_status(404)?;
    redis.stop_all()?;
    caller.get("/unknown2").await?.expect_status(404)?;
    node.stop().await?;
    let spans = collector.spans()?;
    let redirect = ["GET /{short_code}", "  local cache", "  GET", "  get"];
    assert_eq!(below(&spans, CALLER, 0), [redirect, redirect].concat(), "{spans:#?}");
    let mut gets: Vec<_> = spans.iter().filter(|span| span.name == "GET" && span.trace == TRACE).collect();
    gets.sort_by_key(|span| span.began_ns);
    let [fine, failed] = gets[..] else { anyhow::bail!("{gets:?}") };
    check_attributes(fine, &[("db.system.name", "redis"), ("db.operation.name", "GET")])?;
    ensure!(
        fine.kind == 3 && !fine.is_error && failed.is_error && failed.attributes.contains_key("error.type"),
        "{failed:?}"
    );
    let read = named(&spans, "get")?;
    check_attributes(read, &[("db.system.name", "tikv"), ("db.operation.name", "get")])?;
    ensure!(read.kind == 3, "{read:?}");
    Ok(())
}

#[tokio::test]
async fn a_stranger_neither_gets_into_a_trace_nor_has_redirects_followed() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let node = traced(&collector).start().await?;
    let stranger = caller(&node, "01")?;
    let path = path_of_new(&stranger, "https://www.example.com/").await?;
    for _ in 0..100 {
        stranger.get(&path).await?.expect_status(302)?;
    }
    node.stop().await?;
    let spans = collector.spans()?;
    let create = named(&spans, "POST /api/v1/urls")?;
    ensure!(create.parent.is_empty() && spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
    // One in a hundred is followed by chance; that of a hundred twenty are, does not happen.
    let followed = spans.iter().filter(|span| span.name == "GET /{short_code}").count();
    ensure!(followed < 20, "{followed} redirects are followed");
    Ok(())
}

#[tokio::test]
async fn what_a_trusted_caller_does_not_follow_is_not_followed() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let node = traced(&collector).setting("TRUSTED_PROXIES", "127.0.0.1").start().await?;
    let path = path_of_new(&caller(&node, "00")?, "https://www.example.com/").await?;
    caller(&node, "01")?.get(&path).await?.expect_status(302)?;
    node.stop().await?;
    let spans = collector.spans()?;
    named(&spans, "GET /{short_code}")?;
    ensure!(named(&spans, "POST /api/v1/urls").is_err() && named(&spans, "mint code").is_err(), "{spans:#?}");
    Ok(())
}

#[tokio::test]
async fn nothing_of_whom_or_whereto_is_in_a_trace() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let node = traced(&collector).setting("TRUSTED_PROXIES", "127.0.0.1").start().await?;
    let caller = caller(&node, "01")?.with_header("x-forwarded-for", "203.0.113.77");
    let caller = caller.with_header("user-agent", "agent-secret").with_header("referer", "https://referrer-secret/");
    let ada = caller.register_and_login("ada.lovelace@example.com", "correct horse battery staple").await?;
    let ada = ada.with_header("baggage", "user=baggage-secret");
    let once = ada.with_header("idempotency-key", "key-secret");
    let body = json!({
        "original_url": "https://private-host.example.org/path-secret?q=query-secret", "custom_alias": "alias-secret",
        "title": "title-secret", "tags": ["tag-secret"],
    });
    once.post("/api/v1/urls", &body).await?.expect_status(201)?;
    once.post("/api/v1/urls", &body).await?.expect_status(201)?;
    ada.post("/api/v1/urls", &body).await?.expect_status(409)?;
    ada.get("/alias-secret?token=parameter-secret").await?.expect_status(302)?;
    let path = path_of_new(&caller, "https://private-host.example.org/").await?;
    caller.get(&path).await?.expect_status(302)?;
    caller.get("/unknown-secret").await?.expect_status(404)?;
    node.stop().await?;
    let spans = collector.spans()?;
    for name in ["POST /api/v1/urls", "GET /{short_code}", "get", "commit"] {
        named(&spans, name)?;
    }
    let sent = collector.bytes();
    let sent = String::from_utf8_lossy(&sent);
    let token = ada.token().context("she is signed in")?;
    let signature = token.rsplit('.').next().context("a token has a signature")?;
    let code = path.trim_start_matches('/');
    for secret in [token, signature, code, "secret", "private-host", "ada.lovelace", "203.0.113", "Bearer"] {
        ensure!(!sent.contains(secret), "{secret} is in a trace");
    }
    Ok(())
}

/// What the log says of a collector that does not take traces.
fn complaints(node: &Node) -> usize {
    node.log().matches("cannot send traces").count()
}

/// Serves with a collector in this mood, until the node has said that there is trouble with it; then stops the node.
async fn serve_and_stop(collector: &Collector, endpoint: String) -> Result<()> {
    let node =
        traced(collector).setting("OTLP_ENDPOINT", endpoint).setting("TRUSTED_PROXIES", "127.0.0.1").start().await?;
    let caller = caller(&node, "01")?;
    let path = path_of_new(&caller, "https://www.example.com/").await?;
    wait_until("the node says that there is no collector", PATIENCE, async || {
        caller.get(&path).await?.expect_status(302)?;
        Ok(complaints(&node) > 0)
    })
    .await?;
    // More than a queue holds, a dozen batches: nobody waits, and it is not said again.
    for _ in 0..3_000 {
        caller.get(&path).await?.expect_status(302)?;
    }
    assert_eq!(complaints(&node), 1, "{}", node.log());
    ensure!(!node.log().contains("OpenTelemetry"), "the library has something to say as well: {}", node.log());
    let clock = Clock::system();
    node.stop().await?;
    ensure!(clock.monotonic() < STOPPED_WITHIN, "it took {:?} to stop", clock.monotonic());
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_one_line() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let [port] = shortener_tests::node::free_ports()?;
    serve_and_stop(&collector, format!("http://127.0.0.1:{port}")).await?;
    assert_eq!(collector.paths(), [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_requests_nor_the_nodes_end() -> Result<()> {
    let collector = Collector::start(Mood::Hangs).await?;
    serve_and_stop(&collector, collector.url()).await?;
    ensure!(!collector.paths().is_empty(), "it was not asked");
    Ok(())
}

#[tokio::test]
async fn a_collector_that_refuses_is_asked_again_and_costs_one_line() -> Result<()> {
    let collector = Collector::start(Mood::Refuses).await?;
    serve_and_stop(&collector, collector.url()).await?;
    ensure!(collector.paths().len() > 1, "{:?}", collector.paths());
    Ok(())
}

/// The names of a node's threads, of which the system keeps 15 bytes.
fn threads(node: &Node) -> Result<Vec<String>> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid().context("it runs")?))?;
    threads.map(|thread| Ok(std::fs::read_to_string(thread?.path().join("comm"))?)).collect()
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_sent_and_nobody_waits_to_send() -> Result<()> {
    let collector = Collector::start(Mood::Takes).await?;
    let sends = |threads: Vec<String>| threads.iter().any(|name| name.starts_with("OpenTelemetry"));
    // The library's own variables say whereto, but not that traces are wanted.
    let node = Node::builder().setting("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).start().await?;
    let caller = caller(&node, "01")?;
    let path = path_of_new(&caller, "https://www.example.com/").await?;
    caller.get(&path).await?.expect_status(302)?;
    ensure!(!sends(threads(&node)?), "a thread waits for spans");
    node.stop().await?;
    assert_eq!(collector.paths(), [""; 0]);
    let node = traced(&collector).start().await?;
    ensure!(sends(threads(&node)?), "{:?}", threads(&node)?);
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_makes_no_sense_stops_the_start_in_one_line_that_does_not_repeat_it() -> Result<()> {
    for (endpoint, told) in [
        ("collector:4318", "http://localhost:4318"),
        ("https://ada:secret@collector", "without credentials"),
        ("http://collector:4318/v1/traces", "must not end with /v1/traces"),
    ] {
        let mut node = Node::builder().setting("OTLP_ENDPOINT", endpoint).spawn()?;
        assert_eq!(node.wait_for_exit().await?.code(), Some(2), "{endpoint}");
        let log = node.log();
        ensure!(log.lines().count() == 1 && log.contains("OTLP_ENDPOINT: ") && log.contains(told), "{endpoint}: {log}");
        ensure!(!log.contains("secret"), "{log}");
    }
    Ok(())
}
