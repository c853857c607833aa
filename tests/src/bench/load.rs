//! A load generator for what wrk cannot measure: each client is one connection that asks, waits for the whole answer,
//! and asks again. An answer of another status than the wanted one is an error, so that a rate is a rate of successes.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use shortener_node::ambient::Clock;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many requests in all.
    Requests(u64),
    /// After so long; what is in flight is finished.
    Elapsed(Duration),
}

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the first request to the last answer.
    pub took: Duration,
    /// How long each request took, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
}

impl Measured {
    /// Answers a second.
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
    pub fn per_second(&self) -> f64 {
        self.latencies_us.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that `share` of the requests stayed within, in milliseconds; 0 of no request.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a list"
    )]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.latencies_us.len().saturating_sub(1) as f64 * share) as usize;
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    }
}

/// Builds the n-th request of a run.
pub type Build = Arc<dyn Fn(u64) -> Request<Full<Bytes>> + Send + Sync>;

/// Drives `clients` connections at once, each request built from its number in the run.
pub async fn drive(
    address: SocketAddr,
    clients: usize,
    until: Until,
    wanted: StatusCode,
    build: Build,
) -> Result<Measured> {
    let clock = Clock::system();
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let connection = connect(address).await?;
        running.spawn(client(connection, clock.clone(), until, Arc::clone(&next), wanted, Arc::clone(&build)));
    }
    let start = clock.monotonic();
    let mut latencies_us = Vec::new();
    while let Some(ended) = running.join_next().await {
        latencies_us.extend(ended.context("a client ended badly")??);
    }
    let took = clock.monotonic().saturating_sub(start);
    latencies_us.sort_unstable();
    Ok(Measured { took, latencies_us })
}

/// Opens a connection that is kept alive.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("connecting")?;
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("opening an HTTP connection")?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn client(
    mut connection: SendRequest<Full<Bytes>>,
    clock: Clock,
    until: Until,
    next: Arc<AtomicU64>,
    wanted: StatusCode,
    build: Build,
) -> Result<Vec<u32>> {
    let start = clock.monotonic();
    let mut latencies_us = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let asked = clock.monotonic();
        let over = match until {
            Until::Requests(total) => number >= total,
            Until::Elapsed(span) => asked.saturating_sub(start) >= span,
        };
        if over {
            return Ok(latencies_us);
        }
        connection.ready().await.context("waiting for the connection")?;
        let response = connection.send_request(build(number)).await.context("asking")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("reading the answer")?.to_bytes();
        ensure!(status == wanted, "request {number} was answered with {status}: {}", String::from_utf8_lossy(&body));
        let took = clock.monotonic().saturating_sub(asked);
        latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_rates_are_those_of_the_requests() {
        let measured =
            Measured { took: Duration::from_secs(2), latencies_us: (1..=100).map(|ms| ms * 1_000).collect() };
        assert!((measured.per_second() - 50.0).abs() < 1e-9);
        assert!((measured.quantile_ms(0.5) - 50.0).abs() < 1e-9);
        assert!((measured.quantile_ms(0.99) - 99.0).abs() < 1e-9);
    }
}
