//! Connections: accept, speak HTTP/1 or HTTP/2, finish what is in flight when told to stop.
//!
//! Everything a stranger can hold open has a limit: connections, the time to send a header, headers, streams.

mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use http::{HeaderValue, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client_addr::Peer;
use super::unread;
pub use limits::ConnectionLimits;

/// How long to wait after `accept` failed for want of file descriptors: only closing connections helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether all are closed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Serves `router` on `listener` within `limits`, until `shutdown`. Then connections that are in use are told
/// to close for as long as `farewell`, because who sends a request at the moment when an idle connection is closed has lost it; and
/// what is in flight is waited for, at most `drain` in all.
pub async fn serve(
    listener: TcpListener,
    limits: ConnectionLimits,
    router: Router,
    shutdown: CancellationToken,
    farewell: Duration,
    drain: Duration,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let (builder, says_goodbye) = (Arc::new(builder(&limits)), Arc::new(AtomicBool::new(false)));
    let server =
        Server { listener, limits, connections, builder, router, graceful: GracefulShutdown::new(), says_goodbye };
    server.accept_until(shutdown.cancelled()).await;
    server.says_goodbye.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(drain, async {
        server.accept_until(server.left_alone(farewell)).await;
        let Server { listener, graceful, .. } = server;
        drop(listener);
        graceful.shutdown().await;
    });
    if ended.await.is_err() {
        tracing::warn!("some requests did not finish within {drain:?}");
    }
}

struct Server {
    listener: TcpListener,
    limits: ConnectionLimits,
    connections: Arc<Semaphore>,
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    graceful: GracefulShutdown,
    /// Whether answers tell their connection to close.
    says_goodbye: Arc<AtomicBool>,
}

impl Server {
    async fn accept_until(&self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &self.connections) => accepted,
                () = &mut end => return,
            };
            if let Some((stream, peer, permit)) = accepted {
                self.serve_connection(stream, peer, permit);
            }
        }
    }

    /// Resolves when every connection is closed, and after `farewell` at the latest.
    async fn left_alone(&self, farewell: Duration) {
        let closed = async {
            while self.graceful.count() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Those that are still open then are idle, or busy with one request.
        let _ = tokio::time::timeout(farewell, closed).await;
    }

    fn serve_connection(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let connection = self.graceful.watcher();
        let (builder, router, says_goodbye) = (self.builder.clone(), self.router.clone(), self.says_goodbye.clone());
        let idle_timeout = self.limits.idle_timeout;
        tokio::spawn(async move {
            let activity = Arc::new(Activity::default());
            let active = activity.clone();
            let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer.ip()));
                // HTTP/2 has a message of its own for it, which the shutdown sends.
                let may_keep = request.version() >= Version::HTTP_2;
                let (request, rest) = unread::watch(request);
                let answer = router.clone().oneshot(request);
                let (in_flight, says_goodbye) = (active.clone().begin(), says_goodbye.clone());
                async move {
                    let mut answer = answer.await;
                    rest.discard().await;
                    if let (Ok(answer), false, true) = (&mut answer, may_keep, says_goodbye.load(Ordering::Relaxed)) {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    drop(in_flight);
                    answer
                }
            });
            let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                // A connection that breaks off is the client's affair.
                _ = connection.watch(serving.into_owned()) => {}
                () = activity.idle(idle_timeout) => {}
            }
            drop(permit);
        });
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

    /// Resolves when no request has begun or been in flight for `timeout`, at most twice that.
    async fn idle(&self, timeout: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(timeout).await;
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

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max as usize)
        .max_headers(limits.headers_max)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes_max)
        .max_concurrent_streams(limits.streams_max)
        .keep_alive_interval(Some(limits.header_timeout));
    builder
}
