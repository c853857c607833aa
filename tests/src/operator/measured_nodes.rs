//! Nodes as Prometheus sees them: the node's own metrics, of redirects that a test makes up, served where Prometheus can scrape them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::{Counter, Encoder, Gauge, Registry, TextEncoder};
use shortener_node::ambient::Clock;
use shortener_node::http::metrics::HttpMetrics;
use shortener_node::links::Waited;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::prometheus::Target;

/// How often something happens on them.
const TICK: Duration = Duration::from_millis(100);

/// What each node does.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeLoad {
    /// Redirects a second.
    pub redirects: f64,
    /// How long each takes.
    pub latency: Duration,
    /// How much of that it waits for the store.
    pub store: Duration,
    /// The share of its CPU that it uses.
    pub cpu: f64,
}

/// Any number of nodes; they end when it is dropped.
#[derive(Debug)]
pub struct MeasuredNodes {
    address: SocketAddr,
    load: Arc<Mutex<NodeLoad>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Node {
    registry: Registry,
    http: HttpMetrics,
    cpu: Counter,
    /// Redirects that are begun and not yet whole.
    part: f64,
}

impl Node {
    fn new() -> Result<Self> {
        let registry = Registry::new();
        let http = HttpMetrics::register(&registry)?;
        let cpu = Counter::new("shortener_cpu_seconds_total", "As a node has it, but made up.")?;
        let cores = Gauge::new("shortener_cpu_limit_cores", "One core.")?;
        cores.set(1.0);
        registry.register(Box::new(cpu.clone()))?;
        registry.register(Box::new(cores))?;
        Ok(Self { registry, http, cpu, part: 0.0 })
    }

    fn live(&mut self, load: NodeLoad, span: Duration) {
        self.cpu.inc_by(load.cpu * span.as_secs_f64());
        self.part += load.redirects * span.as_secs_f64();
        while self.part >= 1.0 {
            self.part -= 1.0;
            self.http.redirected(load.latency, Waited { cache: Duration::ZERO, store: load.store });
        }
    }

    fn metrics(&self) -> Vec<u8> {
        self.http.refresh();
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

impl MeasuredNodes {
    /// Starts so many nodes on which nothing happens.
    pub async fn start(nodes: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for metrics")?;
        let address = listener.local_addr()?;
        let nodes = (0..nodes).map(|_| Node::new()).collect::<Result<Vec<_>>>()?;
        let (nodes, load) = (Arc::new(Mutex::new(nodes)), Arc::new(Mutex::new(NodeLoad::default())));
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, nodes.clone())));
        let living = AbortOnDropHandle::new(tokio::spawn(live(nodes, load.clone())));
        Ok(Self { address, load, _tasks: [serving, living] })
    }

    /// What each node does from now on.
    pub fn set(&self, load: NodeLoad) {
        *lock(&self.load) = load;
    }

    /// Where the metrics of a node are, for the pod that it runs in.
    pub fn target(&self, node: usize, namespace: &str, pod: &str) -> Target {
        Target {
            address: self.address.to_string(),
            path: format!("/{node}"),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        }
    }
}

async fn live(nodes: Arc<Mutex<Vec<Node>>>, load: Arc<Mutex<NodeLoad>>) {
    let (clock, mut before) = (Clock::system(), Duration::ZERO);
    loop {
        tokio::time::sleep(TICK).await;
        let now = clock.monotonic();
        let load = *lock(&load);
        lock(&nodes).iter_mut().for_each(|node| node.live(load, now.saturating_sub(before)));
        before = now;
    }
}

async fn serve(listener: TcpListener, nodes: Arc<Mutex<Vec<Node>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let answer = service_fn(async |request: Request<Incoming>| {
                let node = request.uri().path().trim_start_matches('/').parse::<usize>().ok();
                let metrics = node.and_then(|node| lock(&nodes).get(node).map(Node::metrics));
                let mut response = Response::new(Full::new(Bytes::from(metrics.clone().unwrap_or_default())));
                if metrics.is_none() {
                    *response.status_mut() = StatusCode::NOT_FOUND;
                }
                Ok::<_, Infallible>(response)
            });
            // Prometheus may hang up as it likes.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
