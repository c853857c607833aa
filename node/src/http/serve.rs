//! Connections: accept, speak HTTP/1 or HTTP/2, finish what is in flight when told to stop.
//!
//! Everything that a stranger can hold open has a limit: connections, the time to send a head, its size, streams, answers that are not
//! read, frames that ask for nothing. A head that the HTTP library cannot read is answered by [`refusal`].

mod frames;
mod limits;
mod refusal;
mod socket;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client_addr::Peer;
use super::unread;
pub use limits::ConnectionLimits;
pub use refusal::Refusal;
use socket::Socket;
pub use traffic::{Backlog, UNSENT_BYTES_MAX};
use traffic::{Cut, Traffic};

/// How long to wait after `accept` failed for want of file descriptors: only closing connections helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a header of HTTP/2 counts beside its name and value (RFC 9113, section 6.5.2).
const HTTP2_HEADER_OVERHEAD: usize = 32;
/// The same of HTTP/1: a colon, a space and the end of a line.
const HTTP1_HEADER_OVERHEAD: usize = 4;
/// The HTTP library refuses a head of HTTP/2 by itself if it is so many times too large. The node says it better.
const HEADER_BYTES_REFUSED: u32 = 2;

/// How often it is looked whether all are closed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Serves `router` on `listener` within `limits`, until `shutdown`. Then connections that are in use are told
/// to close for as long as `farewell`, because who sends a request at the moment when an idle connection is closed has lost it; and
/// what is in flight is waited for, at most `drain` in all.
pub async fn serve(
    listener: TcpListener,
    limits: ConnectionLimits,
    backlog: Arc<Backlog>,
    router: Router,
    shutdown: CancellationToken,
    farewell: Duration,
    drain: Duration,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let (builder, says_goodbye) = (Arc::new(builder(&limits)), Arc::new(AtomicBool::new(false)));
    let graceful = GracefulShutdown::new();
    let connection = Connection { limits, backlog, builder, router, says_goodbye };
    let server = Server { listener, connections, graceful, connection };
    server.accept_until(shutdown.cancelled()).await;
    server.connection.says_goodbye.store(true, Ordering::Relaxed);
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
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    connection: Connection,
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
        let (connection, watcher) = (self.connection.clone(), self.graceful.watcher());
        tokio::spawn(async move {
            connection.run(stream, peer, watcher).await;
            drop(permit);
        });
    }
}

/// What every connection of a listener is served with.
#[derive(Clone)]
struct Connection {
    limits: ConnectionLimits,
    backlog: Arc<Backlog>,
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    /// Whether answers tell their connection to close.
    says_goodbye: Arc<AtomicBool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let traffic = Traffic::new(self.backlog.clone());
        let (socket, mut ended) = Socket::new(stream, traffic.clone());
        let service = {
            let (connection, traffic) = (self.clone(), traffic.clone());
            hyper::service::service_fn(move |request| connection.answer(request, peer, &traffic))
        };
        let serving = self.builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
        let outcome = tokio::select! {
            served = watcher.watch(serving.into_owned()) => Ok(served),
            cut = traffic.given_up(&self.limits) => Err(cut),
        };
        // The HTTP library is gone, so that the socket was given back.
        let Ok(ended) = ended.try_recv() else { return };
        match outcome {
            Err(cut) => {
                self.backlog.count(cut);
                if cut == Cut::Unread {
                    // Otherwise the kernel keeps for minutes what the client does not read.
                    let _ = ended.stream.set_zero_linger();
                }
            }
            Ok(_) if ended.is_flooded => {
                self.backlog.count(Cut::Flood);
                refusal::calm(ended).await;
            }
            Ok(_) if ended.is_http2 => {}
            // Another error than that of a head is the client's affair: it has broken off.
            Ok(served) => {
                let error = served.err();
                let error = error.as_ref().and_then(|error| error.downcast_ref());
                let refusal = error.and_then(|error| Refusal::of(error, &ended));
                let mut extensions = http::Extensions::new();
                extensions.insert(Peer(peer.ip()));
                refusal::end(ended, refusal, self.router, extensions).await;
            }
        }
    }

    /// The answer to a request, with all that is done for it counted as in flight.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        traffic: &Arc<Traffic>,
    ) -> impl Future<Output = Result<Response<Body>, std::convert::Infallible>> + use<> {
        request.extensions_mut().insert(Peer(peer.ip()));
        let is_http2 = request.version() >= Version::HTTP_2;
        let is_refused = is_too_large(&request, &self.limits);
        if is_refused {
            request.extensions_mut().insert(Refusal::TooLarge);
        }
        let (request, rest) = unread::watch(request);
        let answer = self.router.clone().oneshot(request);
        let (traffic, says_goodbye) = (traffic.clone(), self.says_goodbye.clone());
        let in_flight = traffic.clone().begin();
        async move {
            let mut answer = answer.await?;
            rest.discard().await;
            // HTTP/2 has a message of its own for it, which the shutdown sends.
            if !is_http2 && (is_refused || says_goodbye.load(Ordering::Relaxed)) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            drop(in_flight);
            Ok(answer.map(|body| traffic.counted(body)))
        }
    }
}

/// Whether a head is over the limits. The HTTP library looks at the size of its own buffers, which are larger when much comes at once.
fn is_too_large<B>(request: &Request<B>, limits: &ConnectionLimits) -> bool {
    let headers = request.headers();
    let overhead = if request.version() >= Version::HTTP_2 { HTTP2_HEADER_OVERHEAD } else { HTTP1_HEADER_OVERHEAD };
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + overhead).sum();
    headers.len() > limits.headers_max || target + bytes > limits.header_bytes_max as usize
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
    // An answer leaves when it is made. To collect answers while more is there to be read (`pipeline_flush`) would keep them for as long
    // as the client sends, and for ever where a part of a request stands behind them.
    builder
        .http1()
        .timer(TokioTimer::new())
        // A client that has sent all that it will send still waits for its answer.
        .half_close(true)
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max as usize)
        .max_headers(limits.headers_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes_max.saturating_mul(HEADER_BYTES_REFUSED))
        .max_concurrent_streams(limits.streams_max)
        .initial_connection_window_size(limits.receive_window)
        .initial_stream_window_size(limits.receive_window / 2)
        .keep_alive_interval(Some(limits.header_timeout));
    builder
}
