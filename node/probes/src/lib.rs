//! The listener for probes and metrics, of the node and of the operator alike.
//!
//! Whoever reaches this port could keep the kubelet's probes out, and so have every pod restarted. So a connection
//! carries one request, and one that lingers gives up its place: when all places are taken, [`places`] says which one
//! is closed. A probe takes milliseconds, so it is not closed. While every connection is new, the next one waits to be
//! accepted, until one of them is answered or lingers.

pub mod core_dumps;
mod places;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use places::{Network, Place, to_close};

/// Connections at once. A probe and a scrape are two; the rest is for a flood, whose connections linger until they are closed.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to send the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take, until the client has read it: a slow scrape of large metrics takes less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// From when on a connection lingers: a probe that was accepted is answered long before.
const LINGERS_AFTER: Duration = Duration::from_millis(100);
/// How often it is looked whether one lingers, while all places are taken by new connections.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long open connections may go on after a shutdown.
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes of a request's head: the request line of a probe, and few headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Headers in a request.
const HEADERS_MAX: usize = 64;
/// How long to wait after `accept` failed for want of file descriptors: only closing connections helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown`; then answers what has begun, for [`DRAIN`] at most.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut server = Server { router, connections: JoinSet::new(), open: Vec::new() };
    loop {
        let has_place = server.make_place();
        tokio::select! {
            accepted = listener.accept(), if has_place => match accepted {
                Ok((stream, peer)) => server.take(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the admin port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = server.connections.join_next_with_id() => {
                server.forget(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            () = tokio::time::sleep(LOOK_EVERY), if !has_place => {}
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    let drained = async { while server.connections.join_next().await.is_some() {} };
    // What is left then reads nothing; it is closed with the set.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

struct Server {
    router: Router,
    connections: JoinSet<()>,
    /// In the order in which they were taken.
    open: Vec<Open>,
}

struct Open {
    id: Id,
    from: Network,
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// How far a connection has come.
#[derive(Debug, Default)]
struct Progress {
    is_asking: AtomicBool,
    lingers: AtomicBool,
}

impl Server {
    /// Keeps a place free for the next connection, and tells whether it could. One that lingers gives up its own; new ones are left alone, because a
    /// probe may be among them.
    fn make_place(&mut self) -> bool {
        if self.open.len() < CONNECTIONS_MAX {
            return true;
        }
        let place = |open: &Open| Place {
            from: open.from,
            is_asking: open.progress.is_asking.load(Ordering::Relaxed),
            lingers: open.progress.lingers.load(Ordering::Relaxed),
        };
        let places: Vec<_> = self.open.iter().map(place).collect();
        let Some(index) = to_close(&places) else { return false };
        self.open.remove(index).task.abort();
        true
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        // An answer is written at once and whole.
        let _ = stream.set_nodelay(true);
        let progress = Arc::<Progress>::default();
        let task = self.connections.spawn(answer_one(stream, self.router.clone(), progress.clone()));
        self.open.push(Open { id: task.id(), from: Network::of(peer.ip()), progress, task });
    }

    fn forget(&mut self, id: Id) {
        self.open.retain(|open| open.id != id);
    }
}

/// Answers one request and closes the connection.
async fn answer_one(stream: TcpStream, router: Router, progress: Arc<Progress>) {
    let asking = progress.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        asking.is_asking.store(true, Ordering::Relaxed);
        router.clone().oneshot(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let overdue = async {
        tokio::time::sleep(LINGERS_AFTER).await;
        progress.lingers.store(true, Ordering::Relaxed);
        tokio::time::sleep(HEADER_TIMEOUT.saturating_sub(LINGERS_AFTER)).await;
        if progress.is_asking.load(Ordering::Relaxed) {
            tokio::time::sleep(ANSWER_TIMEOUT).await;
        }
    };
    tokio::select! {
        // A connection that breaks off is the client's affair.
        _ = serving => {}
        () = overdue => {}
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Far more than an answer takes on a busy machine, and less than the timeouts add up to.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn started(shutdown: &CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = "x".repeat(8 << 20);
        let answer_large = move || {
            let large = large.clone();
            async move { large }
        };
        let router = Router::new().route("/livez", get(async || "ok\n")).route("/large", get(answer_large));
        tokio::spawn(serve(listener, router, shutdown.clone()));
        address
    }

    async fn ask(address: SocketAddr, text: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // A reset comes after the answer where a client sent more than one request.
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap()
    }

    /// Whether the server closes a connection on which `text` was sent, and the answer is read when `reads`.
    async fn is_closed(address: SocketAddr, text: &str) -> bool {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let closed = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
        tokio::time::timeout(PATIENCE, closed).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_carries_one_request_and_is_closed() {
        let shutdown = CancellationToken::new();
        let address = started(&shutdown).await;
        let request = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
        let answer = ask(address, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        assert!(ask(address, &request.repeat(20)).await.matches("HTTP/1.1 200").count() <= 1);
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_client_that_is_silent_or_slow_is_closed() {
        let shutdown = CancellationToken::new();
        let address = started(&shutdown).await;
        for sent in ["", "GET /livez HTTP/1.1\r\nhost: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            assert!(is_closed(address, sent).await, "{sent:?}");
        }
        shutdown.cancel();
    }

    /// The newest connection finds a place, whatever more than fit do with theirs.
    #[tokio::test]
    async fn a_probe_is_answered_while_others_hold_every_place() {
        let shutdown = CancellationToken::new();
        let address = started(&shutdown).await;
        for sent in ["", "GET /livez HT", "GET /large HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS_MAX + 64 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(sent.as_bytes()).await.unwrap();
                held.push(stream);
            }
            let answer = ask(address, "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{sent:?}: {answer:?}");
        }
        shutdown.cancel();
    }
}
