//! Connections: accept, speak HTTP/1 or HTTP/2, finish what is in flight when told to stop.
//!
//! Everything a stranger can hold open has a limit: connections, the time to send a header, headers, streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client_addr::Peer;

/// How long a client may take to send a request's header; also how long an idle connection of HTTP/1 is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept on which nothing is asked: silent from the start, or its last answer still not read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes of a request's header: a target URL fits into none, cookies are not ours.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Headers in a request.
const HEADERS_MAX: usize = 64;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How long to wait after `accept` failed for want of file descriptors: only closing connections helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener`, at most `connections_max` connections at once, until `shutdown`; then waits for what is in
/// flight, at most `drain`.
pub async fn serve(
    listener: TcpListener,
    connections_max: usize,
    router: Router,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let connections = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let connection = graceful.watcher();
        let (builder, router) = (builder.clone(), router.clone());
        tokio::spawn(async move {
            let activity = Arc::new(Activity::default());
            let active = activity.clone();
            let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer.ip()));
                let answer = router.clone().oneshot(request.map(axum::body::Body::new));
                let in_flight = active.clone().begin();
                async move {
                    let answer = answer.await;
                    drop(in_flight);
                    answer
                }
            });
            let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                // A connection that breaks off is the client's affair.
                _ = connection.watch(serving.into_owned()) => {}
                () = activity.idle() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish within {drain:?}");
    }
}

/// What goes on in a connection. The HTTP library times the header of a request, but not the silence before it is known which
/// HTTP is spoken, nor a client that only answers pings or does not read its answers.
#[derive(Debug, Default)]
struct Activity {
    begun: AtomicUsize,
    in_flight: AtomicUsize,
}

impl Activity {
    /// Counts a request in flight until what it gives is dropped.
    fn begin(self: Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Resolves when no request has begun or been in flight for [`IDLE_TIMEOUT`], at most twice that.
    async fn idle(&self) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if self.begun.load(Ordering::Relaxed) == begun && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

#[derive(Debug)]
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and whole: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .max_headers(HEADERS_MAX)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(HEADER_TIMEOUT));
    builder
}
