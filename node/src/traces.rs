//! Traces for an OpenTelemetry collector: which spans there are, and how they get there. Off without an `OTLP_ENDPOINT`.
//!
//! A trace begins with a span of the target [`ROOT`]; what happens within it are spans of the target [`STEP`], which are seen
//! only within one. Nothing else is ever sent: no log lines, no spans of libraries. Without an endpoint nobody listens to
//! either target, and a span costs one look at an atomic number.
//!
//! A request waits for none of this. Spans that ended go into a bounded queue, and are dropped when that is full; a thread of their own
//! takes them out, in batches, each with a deadline. A collector that is away costs those spans and a line in the log now and then.
//!
//! A span holds routes, statuses and names of operations: never a code, a URL, a token or an address.

mod exporter;

use std::fmt;
use std::time::Duration;

use futures::TryFutureExt;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Instrument, Level, Metadata, Span};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::Registry;
use url::Url;

use crate::ambient::{Clock, random};
use exporter::{EXPORT_DEADLINE, Exporter};

/// The target of spans that begin a trace, or go on with a caller's.
pub const ROOT: &str = "traces::root";
/// The target of spans within one.
pub const STEP: &str = "traces::step";

/// Spans that may wait to be sent, some 2 MB; what comes beyond is dropped.
const SPANS_WAITING_MAX: usize = 2_048;
/// Spans sent at once: a request of some 200 KB.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others to be sent with.
const BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// How long spans that wait have to be sent when the node stops. The rest of a shutdown leaves so much of its 10 s.
const FLUSH: Duration = Duration::from_millis(500);
const _: () = assert!(BATCH_SPANS_MAX <= SPANS_WAITING_MAX, "a batch fits the queue");

/// A collector's base URL for OTLP over HTTP, as `OTLP_ENDPOINT` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(Url);

impl OtlpEndpoint {
    /// Parses what `OTLP_ENDPOINT` may be. The error says what would be right, and repeats nothing: there may be a password in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = || {
            "must be the base URL of a collector that takes OTLP over HTTP, http:// or https:// without credentials and query, such \
             as http://localhost:4318"
                .to_owned()
        };
        let mut url = Url::parse(text).map_err(|_| shape())?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(shape());
        }
        let base = url.path().trim_end_matches('/').to_owned();
        if base.ends_with(SIGNAL_PATH) {
            return Err(format!("must not end with {SIGNAL_PATH}: it is the base URL, and the node adds that itself"));
        }
        url.set_path(&format!("{base}{SIGNAL_PATH}"));
        Ok(Self(url))
    }

    /// The URL that traces are sent to.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

/// What the specification of OTLP appends to a base URL for traces.
const SIGNAL_PATH: &str = "/v1/traces";

/// Where traces are sent to, and from whom.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector.
    pub endpoint: OtlpEndpoint,
    /// What tells this node from others: the pod's name. Without one, a name is made up for this process.
    pub instance: Option<String>,
}

/// Why no traces can be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// This machine's certificates are needed and cannot be read.
    #[error("OTLP_ENDPOINT: cannot use the certificates that this machine trusts: {0}")]
    Certificates(std::io::Error),
    /// The exporter does not take the settings.
    #[error("OTLP_ENDPOINT: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Sends spans to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send what [`Traces::layer`] hears; on `runtime`, which must outlive it. The collector need not be there.
    pub fn start(settings: &TraceSettings, runtime: Handle, clock: Clock) -> Result<Self, TracesError> {
        let exporter = Exporter::new(&settings.endpoint, runtime, clock).map_err(TracesError::Certificates)?;
        // Of the environment it takes OTEL_EXPORTER_OTLP_HEADERS, by which collectors are given a key; the rest is said here.
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(exporter)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint.url().as_str())
            .with_timeout(EXPORT_DEADLINE)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_INTERVAL)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            // What is not to be followed never becomes a span.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource(settings))
            .build();
        Ok(Self { provider })
    }

    /// What hears the spans.
    pub fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(env!("CARGO_PKG_NAME")))
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false);
        layer.with_filter(Followed).boxed()
    }

    /// Sends what waits, for as long as [`FLUSH`] at most, and ends. It blocks.
    pub fn stop(self) {
        // What could not be sent by now is lost, as the log has said if it was for want of a collector.
        let _ = self.provider.shutdown_with_timeout(FLUSH);
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

/// Who sends. Not what the environment says beside our own settings.
fn resource(settings: &TraceSettings) -> Resource {
    let instance = settings.instance.clone().unwrap_or_else(|| hex::encode(random::<16>()));
    let detectors: [Box<dyn ResourceDetector>; 1] = [Box::new(TelemetryResourceDetector)];
    Resource::builder_empty()
        .with_detectors(&detectors)
        .with_service_name("shortener")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build()
}

/// Lets through roots, and steps within one. A step outside, as of a request that is not followed or of work in the background, is not seen.
#[derive(Clone, Copy, Debug)]
struct Followed;

impl Filter<Registry> for Followed {
    fn enabled(&self, of: &Metadata<'_>, at: &Context<'_, Registry>) -> bool {
        of.is_span() && (of.target() == ROOT || (of.target() == STEP && at.lookup_current().is_some()))
    }

    fn callsite_enabled(&self, of: &'static Metadata<'static>) -> Interest {
        match of.is_span() && matches!(of.target(), ROOT | STEP) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

/// Whether anybody listens.
pub fn are_on() -> bool {
    tracing::span_enabled!(target: ROOT, Level::INFO)
}

/// Does `run` within `span`, which must have declared what [`failed`] writes down of an error: its `kind`.
///
/// (No `async fn`: that would keep room for `run` twice, and calls of the store are large.)
pub fn within<T, E>(
    span: Span,
    kind: impl Fn(&E) -> &'static str,
    run: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    run.instrument(span.clone()).inspect_err(move |error| failed(&span, kind(error)))
}

/// Takes note that what `span` is of failed; `kind` is a word for why, of a few that there are. The span must have declared
/// `otel.status_code` and `error.type`.
pub fn failed(span: &Span, kind: &str) {
    span.record("otel.status_code", "ERROR").record("error.type", kind);
}

#[cfg(test)]
mod tests;
