//! Load that is offered at a fixed rate, whatever becomes of it: a slow answer does not make the next question come later.
//!
//! Each connection has its share of the questions, and a moment for each. One that cannot be asked yet because the connection's last
//! one was not answered waits, and that is part of its latency. That the timer wakes up to a millisecond late is not: it is the
//! generator's own.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use redis::AsyncCommands;
use redis::cluster_async::ClusterConnection;
use shortener_node::ambient::Clock;
use shortener_node::kv::Kv;
use tokio::task::JoinSet;

use crate::bench::load::{Build, Measured, connect};

/// How much is asked, of everybody together.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Questions a second.
    pub per_second: u64,
    /// For how long.
    pub span: Duration,
}

impl Offer {
    /// How many questions that are.
    pub fn questions(self) -> u64 {
        self.per_second * self.span.as_secs()
    }

    /// When a question is due, from the beginning on.
    fn due(self, question: u64) -> Duration {
        Duration::from_micros(question * 1_000_000 / self.per_second)
    }
}

/// One connection: asks a question and waits for the whole answer.
pub trait Ask: Send + 'static {
    /// Asks the question of this number. An answer that is not the wanted one is an error.
    fn ask(&mut self, number: u64) -> impl Future<Output = Result<()>> + Send;
}

/// Asks over HTTP.
pub struct Http {
    connection: SendRequest<Full<Bytes>>,
    wanted: StatusCode,
    build: Build,
}

impl Http {
    /// So many connections, spread evenly over the addresses.
    pub async fn open(
        addresses: &[SocketAddr],
        connections: usize,
        wanted: StatusCode,
        build: &Build,
    ) -> Result<Vec<Self>> {
        let mut opened = Vec::new();
        for address in addresses.iter().cycle().take(connections) {
            opened.push(Self { connection: connect(*address).await?, wanted, build: build.clone() });
        }
        Ok(opened)
    }
}

impl Ask for Http {
    async fn ask(&mut self, number: u64) -> Result<()> {
        self.connection.ready().await.context("waiting for the connection")?;
        let response = self.connection.send_request((self.build)(number)).await.context("asking")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("reading the answer")?.to_bytes();
        ensure!(
            status == self.wanted,
            "question {number} was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }
}

/// Asks Redis for one key, with nothing of the node in between.
#[derive(Clone)]
pub struct RedisGet {
    /// Shared by all, as in the node.
    pub connection: ClusterConnection,
    /// What is asked for.
    pub key: String,
}

impl Ask for RedisGet {
    async fn ask(&mut self, _: u64) -> Result<()> {
        let value: Option<Vec<u8>> = self.connection.get(&self.key).await.context("asking Redis")?;
        ensure!(value.is_some(), "Redis does not have {}", self.key);
        Ok(())
    }
}

/// Asks TiKV for one key by the node's own engine: a timestamp of PD, and a point get.
#[derive(Clone)]
pub struct StoreGet {
    /// Shared by all, as in the node.
    pub kv: Kv,
    /// What is asked for.
    pub key: Vec<u8>,
}

impl Ask for StoreGet {
    async fn ask(&mut self, _: u64) -> Result<()> {
        ensure!(self.kv.get(&self.key).await.context("asking the store")?.is_some(), "the store does not have the key");
        Ok(())
    }
}

/// Asks all questions of an offer, each connection its share.
pub async fn ask_all<A: Ask>(offer: Offer, connections: Vec<A>) -> Result<Measured> {
    let clock = Clock::system();
    let step = connections.len() as u64;
    let mut running = JoinSet::new();
    for (first, connection) in (0..).zip(connections) {
        running.spawn(ask_in_time(offer, connection, clock.clone(), first, step));
    }
    let mut latencies_us = Vec::new();
    while let Some(ended) = running.join_next().await {
        latencies_us.extend(ended.context("a connection ended badly")??);
    }
    latencies_us.sort_unstable();
    Ok(Measured { took: clock.monotonic(), latencies_us })
}

async fn ask_in_time<A: Ask>(offer: Offer, mut connection: A, clock: Clock, first: u64, step: u64) -> Result<Vec<u32>> {
    let mut latencies_us = Vec::new();
    let mut number = first;
    while number < offer.questions() {
        let (now, due) = (clock.monotonic(), offer.due(number));
        let asked = if now < due {
            tokio::time::sleep(due.saturating_sub(now)).await;
            clock.monotonic()
        } else {
            due
        };
        connection.ask(number).await?;
        let took = clock.monotonic().saturating_sub(asked);
        latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        number += step;
    }
    Ok(latencies_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs once, at the first question.
    struct HangsOnce(Duration);

    impl Ask for HangsOnce {
        async fn ask(&mut self, _: u64) -> Result<()> {
            tokio::time::sleep(std::mem::take(&mut self.0)).await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_waits_behind_a_slow_answer_counts_as_slow() {
        let offer = Offer { per_second: 100, span: Duration::from_secs(1) };
        let measured = ask_all(offer, vec![HangsOnce(Duration::from_millis(500))]).await.unwrap();
        assert_eq!(measured.latencies_us.len(), 100);
        // Those of half a second waited for a quarter of a second on average.
        let waited = measured.latencies_us.iter().filter(|us| **us > 20_000).count();
        assert!(waited >= 45, "{waited} of 100 waited");
        assert!(measured.quantile_ms(1.0) >= 500.0);
    }

    #[test]
    fn questions_are_spread_over_the_time() {
        let offer = Offer { per_second: 400, span: Duration::from_secs(3) };
        assert_eq!(offer.questions(), 1_200);
        assert_eq!(offer.due(0), Duration::ZERO);
        assert_eq!(offer.due(1_199), Duration::from_micros(2_997_500));
    }
}
