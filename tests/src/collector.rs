//! A collector of traces, as far as a node sees it: it takes what is sent by OTLP over HTTP and keeps it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A span, with what a test asks of it.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Which trace it is part of, in hex.
    pub trace: String,
    /// Its ID, in hex.
    pub id: String,
    /// Its parent's; empty for a root.
    pub parent: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// When it began, in nanoseconds since 1970.
    pub began_ns: u64,
    /// Whether it says that something failed.
    pub is_error: bool,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of who sent it.
    pub resource: BTreeMap<String, String>,
    /// How many events and links it has.
    pub events_and_links: usize,
}

/// What it does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes them.
    Takes,
    /// It refuses them.
    Refuses,
    /// It never answers.
    Hangs,
}

#[derive(Debug, Default)]
struct Taken {
    requests: Vec<Bytes>,
    paths: Vec<String>,
}

/// The collector; it ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    _serving: AbortOnDropHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    pub async fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a collector")?;
        let address = listener.local_addr()?;
        let taken = Arc::<Mutex<Taken>>::default();
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, taken.clone(), mood)));
        Ok(Self { address, taken, _serving: serving })
    }

    /// Its base URL: what `OTLP_ENDPOINT` takes.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were asked for.
    pub fn paths(&self) -> Vec<String> {
        lock(&self.taken).paths.clone()
    }

    /// Everything that was sent, as it was.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.taken).requests.concat()
    }

    /// The spans that were sent.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let requests = lock(&self.taken).requests.clone();
        let mut spans = Vec::new();
        for request in requests {
            for of_one in ExportTraceServiceRequest::decode(request).context("no OTLP")?.resource_spans {
                let resource = text(&of_one.resource.context("spans have a resource")?.attributes);
                let sent = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(sent.map(|span| Span {
                    name: span.name,
                    trace: hex::encode(span.trace_id),
                    id: hex::encode(span.span_id),
                    parent: hex::encode(span.parent_span_id),
                    kind: span.kind,
                    began_ns: span.start_time_unix_nano,
                    is_error: span.status.is_some_and(|status| status.code == 2),
                    attributes: text(&span.attributes),
                    resource: resource.clone(),
                    events_and_links: span.events.len() + span.links.len(),
                }));
            }
        }
        Ok(spans)
    }
}

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let of = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_so)) => is_so.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), of(attribute))).collect()
}

async fn serve(listener: TcpListener, taken: Arc<Mutex<Taken>>, mood: Mood) {
    while let Ok((stream, _)) = listener.accept().await {
        let taken = taken.clone();
        tokio::spawn(async move {
            let answer =
                service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(take(request, &taken, mood).await));
            // A node may hang up as it likes.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn take(request: Request<Incoming>, taken: &Mutex<Taken>, mood: Mood) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    {
        let mut taken = lock(taken);
        taken.paths.push(path);
        taken.requests.push(body);
    }
    let mut response = Response::new(Full::new(Bytes::new()));
    match mood {
        Mood::Takes => {}
        Mood::Refuses => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        Mood::Hangs => std::future::pending().await,
    }
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
