//! A gateway with a cache before the nodes, as a CDN would be.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::client::{Answer, Client};
use crate::e2e::load::Load;
use crate::e2e::nginx;
use crate::e2e::world::{NAMESPACE, World};
use crate::server_process::wait_until;
use crate::witness::Ask;

/// How long a gateway may keep a redirect, in seconds.
const MAX_AGE: u64 = 60;
const REPEATED: usize = 20;
/// Redirects a second of others, and for how long.
const CROWD: u32 = 100;
const CROWD_LASTS: Duration = Duration::from_secs(10);
/// nginx counts whole seconds, at both ends.
const GATEWAYS_CLOCK: Duration = Duration::from_secs(2);

pub async fn run(world: &World) -> Result<String> {
    let config = json!({"cacheMaxAge": MAX_AGE, "trustedProxies": ["10.0.0.0/8"]});
    world.nodes_ready(2, &json!({"spec": {"config": config}})).await?;
    start(world).await?;
    let gateway = world.forward("pod/gateway", 8080).await?;
    let visitor = gateway.client()?;
    let owner = visitor.register_and_login("gateway@example.com", "correct horse battery staple").await?;
    let link: Value = owner.create("https://www.example.com/cached").await?;
    let (id, code) = (link["id"].clone(), link["short_code"].as_str().context("a link has a code")?.to_owned());
    let path = format!("/{code}");

    let first = visitor.get(&path).await?.expect_status(302)?;
    ensure!(cache(&first) == "MISS", "the first redirect: {}", cache(&first));
    let mut hits = 0;
    for _ in 0..REPEATED {
        let again = visitor.get(&path).await?.expect_status(302)?;
        ensure!(again.header("location") == Some("https://www.example.com/cached"), "{:?}", again.headers);
        hits += usize::from(cache(&again) == "HIT");
    }
    ensure!(hits == REPEATED, "{hits} of {REPEATED} repeated redirects were answered by the gateway");

    // Beside what follows, many more ask.
    let address = world.kubectl(&["get", "pod/gateway", "-o", "jsonpath={.status.podIP}"]).await?;
    let load = Load::start(world, Ask::Fresh(vec![format!("http://{address}:8080{path}")]), CROWD).await?;
    personal_answers_are_not_kept(&owner, &visitor).await?;
    sleep(CROWD_LASTS).await;
    let load = load.stop(world).await?;
    load.expect_only("redirects through the gateway", &["302"], 500)?;

    // Changed at the nodes; the gateway may go on for as long as it was told.
    let clock = Clock::system();
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    owner.delete(&format!("/api/v1/urls/{id}")).await?.expect_status(204)?;
    let deleted = clock.monotonic();
    let within = Duration::from_secs(MAX_AGE) + GATEWAYS_CLOCK;
    let mut gone = first;
    wait_until("the gateway forgets it", within, async || {
        gone = visitor.get(&path).await?;
        Ok(gone.status == 404 || gone.status == 410)
    })
    .await
    .with_context(|| format!("{} ({})", gone.status, cache(&gone)))?;
    world.kubectl(&["delete", "pod/gateway", "configmap/gateway", "--wait=false"]).await?;
    Ok(format!(
        "{hits} of {REPEATED} repeated redirects answered by the gateway, 0 of {} failed beside them; {} {:.0} s after the link was deleted; no personal answer kept",
        load.total(),
        gone.status,
        clock.monotonic().saturating_sub(deleted).as_secs_f64()
    ))
}

/// Who asks for the same with another token, or none, gets an answer of the nodes.
async fn personal_answers_are_not_kept(owner: &Client, visitor: &Client) -> Result<()> {
    for path in ["/api/v1/urls", "/api/v1/auth/me", "/api/v1/health"] {
        for client in [owner, owner, visitor] {
            let answer = client.get(path).await?;
            ensure!(cache(&answer) != "HIT", "{path} was answered by the gateway");
        }
    }
    let mine: Value = owner.get("/api/v1/urls").await?.expect_status(200)?.json()?;
    ensure!(mine.to_string().contains("https://www.example.com/cached"), "{mine}");
    visitor.get("/api/v1/urls").await?.expect_status(401)?;
    Ok(())
}

/// What the gateway says of its cache.
fn cache(answer: &Answer) -> &str {
    answer.header("x-cache").unwrap_or("nothing")
}

/// nginx, set up as for any site: it keeps what the answers allow.
async fn start(world: &World) -> Result<()> {
    let http = format!(
        "proxy_cache_path /tmp/cache keys_zone=links:1m; \
         server {{ listen 8080; location / {{ proxy_pass http://main.{NAMESPACE}; proxy_cache links; \
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
         add_header X-Cache $upstream_cache_status always; }} }}"
    );
    world.start_pod(NAMESPACE, "gateway", &nginx::pod(NAMESPACE, "gateway", &http, &json!({}))).await
}
