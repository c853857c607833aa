//! Slots that move from one primary to another while links in them are written and read.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use shortener_node::cache::redis_cluster::links::SharedLinks;
use shortener_node::cache::redis_cluster::{RedisCluster, Server};
use shortener_tests::redis_cluster::RedisCluster as Servers;
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::sized;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Client, PATIENCE, at, fresh, link};

/// Links, each in a slot of its own.
const LINKS: usize = 8;
/// How often each is written and read in each step of its move.
const ROUNDS: u32 = 5;

/// Writes a link, higher each time, and reads it at both nodes after each write: neither may fail, or miss it, or be behind.
async fn write_and_read(
    links: SharedLinks,
    readers: [RedisCluster; 2],
    code: String,
    version: Arc<AtomicU32>,
    stops: CancellationToken,
) -> Result<()> {
    let key = readers[0].keys()?.url("", &code);
    let mut get = redis::cmd("GET");
    get.arg(key.as_str());
    while !stops.is_cancelled() {
        let next = version.load(Ordering::SeqCst) + 1;
        let is_kept = links.put_change(&at(&code), &link(next)).await;
        ensure!(
            is_kept.with_context(|| format!("writing {code} for the {next}. time"))?,
            "{code} was written by another"
        );
        for redis in &readers {
            // Not by `SharedLinks::get`, to which an error is a miss like any other.
            let found: Option<Vec<u8>> = redis.query(Server::Primary, &key, &get).await?;
            let found =
                found.with_context(|| format!("{code} is not there after it was written for the {next}. time"))?;
            ensure!(
                found.starts_with(&next.to_be_bytes()),
                "{code} is stale after it was written for the {next}. time"
            );
        }
        version.store(next, Ordering::SeqCst);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_slots_move_nothing_fails_and_nothing_is_stale() -> Result<()> {
    let Some(servers) = Servers::builder().start().await? else { return Ok(()) };
    let identity = fresh();
    let mut clients = [Client::connected(&servers, identity).await?, Client::connected(&servers, identity).await?];
    let (links, readers) = (clients[0].links(), clients.each_ref().map(|client| client.redis.clone()));
    let keys = clients[0].redis.keys()?;
    let (mut load, stops) = (JoinSet::new(), CancellationToken::new());
    let versions: Vec<_> = (0..LINKS).map(|_| Arc::new(AtomicU32::new(0))).collect();
    for (number, version) in versions.iter().enumerate() {
        load.spawn(write_and_read(
            links.clone(),
            readers.clone(),
            format!("code{number}"),
            version.clone(),
            stops.clone(),
        ));
    }
    for turn in 0..sized(LINKS, 10 * LINKS) {
        let number = turn % LINKS;
        let (key, version) = (keys.url("", &format!("code{number}")), &versions[number]);
        let some_rounds = async |load: &mut JoinSet<Result<()>>| {
            let enough = version.load(Ordering::SeqCst) + ROUNDS;
            wait_until("the link is written and read", PATIENCE, async || {
                if let Some(ended) = load.try_join_next() {
                    ended??;
                }
                Ok(version.load(Ordering::SeqCst) >= enough)
            })
            .await
        };
        let before = servers.primary_of(key.as_str()).await?;
        let moving = servers.begin_move(key.as_str()).await?;
        some_rounds(&mut load).await.context("before the keys are moved")?;
        moving.move_keys().await?;
        some_rounds(&mut load).await.context("after the keys were moved")?;
        moving.end().await?;
        some_rounds(&mut load).await.context("after the slot was moved")?;
        ensure!(servers.primary_of(key.as_str()).await? != before, "the slot of {key} stayed");
    }
    stops.cancel();
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    Ok(())
}
