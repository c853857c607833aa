//! What a scenario plays with: the node that the scenarios share, callers that each come from an address of their own,
//! users, and the shapes that all answers have in common.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::{Answer, Client};
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::fresh_name;
use shortener_tests::sizes::on_servers;
use shortener_tests::tikv::Tikv;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// A password that every user of the scenarios has.
pub const PASSWORD: &str = "correct horse battery";
/// The further domains of the shared node.
pub const DOMAINS: [&str; 2] = ["go.example.com", "x.test:8080"];

/// Above what anything that a scenario waits for may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Held by the scenarios that run now. With the last of them the node ends, since nothing drops a static.
static SHARED: Mutex<Weak<Node>> = Mutex::const_new(Weak::new());
static NUMBERS: AtomicU32 = AtomicU32::new(1);

/// The shared node and a caller from an address that nobody else has.
pub struct Scene {
    pub node: Arc<Node>,
    pub anyone: Client,
}

impl Scene {
    pub async fn open() -> Result<Self> {
        let mut shared = SHARED.lock().await;
        let node = match shared.upgrade() {
            Some(node) => node,
            None => {
                let builder = builder().await?.setting("DOMAINS", DOMAINS.join(","));
                let builder = builder.setting("TRUSTED_PROXIES", "127.0.0.1");
                Arc::new(started(builder.setting("ANALYTICS_FLUSH_INTERVAL", "100ms")).await?)
            }
        };
        *shared = Arc::downgrade(&node);
        let anyone = caller(&node)?;
        Ok(Self { node, anyone })
    }

    /// A new user, signed in, who comes from an address of her own.
    pub async fn user(&self) -> Result<Client> {
        user(&caller(&self.node)?).await
    }
}

/// The ID of requests that are part of no scenario.
pub const WAITING: &str = "is-it-well";

/// A node of its own, by itself or on the servers that nodes share; the contract is the same.
pub async fn builder() -> Result<NodeBuilder> {
    if !on_servers() {
        return Ok(Node::builder());
    }
    let tikv = Tikv::shared().await?.context("there is no TiKV to run the scenarios on")?;
    let redis = RedisCluster::shared().await?.context("there is no Redis Cluster to run the scenarios on")?;
    let builder = Node::builder().setting("DATABASE_URL", tikv.database_url(&fresh_name("http")));
    Ok(builder.setting("REDIS_URL", redis.url()).setting("SECRET_KEY", "a secret of tests alone, 32 bytes"))
}

/// Starts a node and waits until it has reached its servers.
pub async fn started(builder: NodeBuilder) -> Result<Node> {
    let node = builder.start().await?;
    node.client()?.with_header("x-request-id", WAITING).until_health_is("ok").await?;
    Ok(node)
}

/// A caller of a node that trusts this machine as its proxy, from an address that nobody else has.
pub fn caller(node: &Node) -> Result<Client> {
    let [_, a, b, c] = (number() + 256).to_be_bytes();
    Ok(node.client()?.with_header("x-forwarded-for", &format!("100.{a}.{b}.{c}")))
}

/// Registers a new user and signs her in.
pub async fn user(client: &Client) -> Result<Client> {
    client.register_and_login(&email(), PASSWORD).await
}

/// An e-mail address that nobody has used.
pub fn email() -> String {
    format!("ada.{}@example.com", number())
}

/// A name that nobody has used.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", number())
}

fn number() -> u32 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Asks again until the answer is yes.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asked = async {
        while !holds().await? {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    };
    timeout(DEADLINE, asked).await.with_context(|| format!("waiting in vain: {what}"))?
}

/// A field that is text.
pub fn text(value: &Value, name: &str) -> Result<String> {
    let text = value[name].as_str().map(str::to_owned);
    text.with_context(|| format!("{name} is no text in {value}"))
}

/// Creates a link from `body`.
pub async fn create(client: &Client, body: &Value) -> Result<Value> {
    client.post("/api/v1/urls", body).await?.expect_status(201)?.json()
}

/// Creates a link with an alias that nobody else has.
pub async fn create_alias(client: &Client, name: &str, mut body: Value) -> Result<Value> {
    body["custom_alias"] = json!(unique(name));
    create(client, &body).await
}

/// The path that a link redirects from.
pub fn path_of(link: &Value) -> Result<String> {
    Ok(format!("/{}", text(link, "short_code")?))
}

/// The path that a link is read and changed at.
pub fn resource_of(link: &Value) -> Result<String> {
    Ok(format!("/api/v1/urls/{}", text(link, "id")?))
}

/// The same caller with the token that the creation of a link without an owner has answered.
pub fn with_management_token(client: &Client, link: &Value) -> Result<Client> {
    Ok(client.with_header("authorization", &format!("Link {}", text(link, "management_token")?)))
}

/// A link as every answer but that of its creation shows it.
pub fn without_management_token(link: &Value) -> Value {
    let mut link = link.clone();
    link.as_object_mut().map(|fields| fields.remove("management_token"));
    link
}

/// A request with one more header.
pub async fn send_with(client: &Client, method: Method, path: &str, header: (&str, &str)) -> Result<Answer> {
    client.send(method, path, |request| request.header(header.0, header.1)).await
}

/// A POST of bytes that need not be JSON.
pub async fn post_bytes(client: &Client, path: &str, kind: Option<&str>, body: impl Into<Vec<u8>>) -> Result<Answer> {
    let body = body.into();
    let build = |request: reqwest::RequestBuilder| match kind {
        Some(kind) => request.header("content-type", kind).body(body),
        None => request.body(body),
    };
    client.send(Method::POST, path, build).await
}

/// Holds an object to exactly these fields.
pub fn expect_fields(value: &Value, names: &[&str]) -> Result<()> {
    let found: BTreeSet<&str> = value.as_object().context("an object")?.keys().map(String::as_str).collect();
    ensure!(found == names.iter().copied().collect(), "wanted the fields {names:?}, found {found:?}");
    Ok(())
}

/// Holds text to RFC 3339 in UTC with milliseconds.
pub fn expect_time(value: &Value) -> Result<()> {
    let shape = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let found = value.as_str().map(shape);
    ensure!(found.as_deref() == Some("0000-00-00T00:00:00.000Z"), "{value} is not written as times are");
    Ok(())
}

/// Holds an answer to be a problem of this status, in the form that all problems have.
pub fn expect_problem(answer: &Answer, status: u16) -> Result<Value> {
    ensure!(answer.status == status, "wanted {status}, got {}: {}", answer.status, answer.text());
    let kind = answer.header("content-type");
    ensure!(kind == Some("application/problem+json"), "{status} comes as {kind:?}: {}", answer.text());
    let problem: Value = answer.json()?;
    let named = problem["type"].as_str().is_some_and(|name| name.starts_with("urn:shortener:problem:"));
    ensure!(named && problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    ensure!(problem["status"] == status, "{problem}");
    ensure!(problem["request_id"].as_str() == answer.header("x-request-id"), "{problem}");
    ensure!((status == 422) || problem.get("errors").is_none(), "only a 422 names fields: {problem}");
    ensure!((status == 401) == answer.header("www-authenticate").is_some(), "a 401 says how to sign in");
    ensure!(!matches!(status, 429 | 503) || answer.header("retry-after").is_some(), "no Retry-After: {problem}");
    Ok(problem)
}

/// Holds an answer to be a 422 that names exactly these fields.
pub fn expect_refused(answer: &Answer, fields: &[&str]) -> Result<()> {
    let problem = expect_problem(answer, 422)?;
    let errors = problem["errors"].as_array().with_context(|| format!("no errors in {problem}"))?;
    let named: Vec<&str> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
    ensure!(named == fields, "wanted {fields:?}, got {problem}");
    ensure!(errors.iter().all(|error| error["message"].as_str().is_some_and(|text| !text.is_empty())), "{problem}");
    Ok(())
}
