//! What is a span and what is none, told by the spans themselves.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::config::LogLevel;
use crate::logging::listeners;
use crate::logging::tests::Lines;

const LEVELS: [LogLevel; 3] = [LogLevel::Error, LogLevel::Info, LogLevel::Trace];

/// Keeps what ended, to be looked at.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&mut batch);
        Ok(())
    }
}

impl Ended {
    /// The names of spans, each with its parent's.
    fn tree(&self) -> Vec<(String, Option<String>)> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |id| spans.iter().find(|span| span.span_context.span_id() == id).map(|span| span.name.to_string());
        spans.iter().map(|span| (span.name.to_string(), name(span.parent_span_id))).collect()
    }
}

#[test]
fn where_no_traces_are_sent_every_span_is_off_once_and_for_all_whatever_is_logged() {
    for level in LEVELS {
        let subscriber = tracing_subscriber::registry().with(listeners(level, Lines::default().listener(), None));
        for span in [info_span!(target: ROOT, "root"), info_span!(target: STEP, "step")] {
            let metadata = span.metadata().unwrap();
            assert!(
                tracing::Subscriber::register_callsite(&subscriber, metadata).is_never(),
                "{level:?}: {metadata:?}"
            );
        }
        tracing::subscriber::with_default(subscriber, || {
            assert!(!are_on(), "{level:?}");
            assert!(info_span!(target: ROOT, "root").is_disabled(), "{level:?}");
            assert!(info_span!(target: STEP, "step").is_disabled(), "{level:?}");
        });
    }
}

#[test]
fn spans_do_not_stand_in_log_lines() {
    for level in LEVELS {
        let (lines, ended) = (Lines::default(), Ended::default());
        let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
        let traces = Traces { provider }.layer();
        let subscriber = tracing_subscriber::registry().with(listeners(level, lines.listener(), Some(traces)));
        tracing::subscriber::with_default(subscriber, || {
            info_span!(target: ROOT, "root", of = "the span").in_scope(|| tracing::error!("what is logged"));
        });
        let written = lines.text();
        assert!(written.contains("what is logged") && written.lines().count() == 1, "{level:?}: {written}");
        assert!(!written.contains("root") && !written.contains("the span"), "{level:?}: {written}");
        assert_eq!(ended.tree(), [("root".to_owned(), None)]);
    }
}

#[test]
fn a_root_is_a_span_and_a_step_only_within_one_and_nothing_else_is() {
    let ended = Ended::default();
    let provider =
        SdkTracerProvider::builder().with_simple_exporter(ended.clone()).with_sampler(Sampler::AlwaysOn).build();
    let subscriber = tracing_subscriber::registry().with(vec![Traces { provider }.layer()]);
    tracing::subscriber::with_default(subscriber, || {
        assert!(are_on());
        info_span!(target: STEP, "alone").in_scope(|| drop(info_span!(target: STEP, "step of what is none")));
        assert!(info_span!(target: "tikv_client", "of a library").is_disabled());
        let root = info_span!(target: ROOT, "root");
        root.in_scope(|| {
            tracing::error!(target: STEP, "a log line");
            info_span!(target: STEP, "step").in_scope(|| drop(info_span!(target: STEP, "step of a step")));
            assert!(info_span!("of ours, and no step").is_disabled());
        });
        drop(root);
        drop(info_span!(target: STEP, "too late"));
    });
    let expected = [("step of a step", Some("step")), ("step", Some("root")), ("root", None)];
    assert_eq!(ended.tree(), expected.map(|(name, parent)| (name.to_owned(), parent.map(str::to_owned))));
    let events: usize = ended.0.lock().unwrap().iter().map(|span| span.events.len()).sum();
    assert_eq!(events, 0);
}

#[tokio::test]
async fn a_failure_is_written_down_by_its_kind() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
    let subscriber = tracing_subscriber::registry().with(vec![Traces { provider }.layer()]);
    let listening = tracing::subscriber::set_default(subscriber);
    let run = async |result: Result<u8, &'static str>| {
        let empty = tracing::field::Empty;
        let span = info_span!(target: ROOT, "root", otel.status_code = empty, "error.type" = empty);
        within(span, |error: &&'static str| *error, async { result }).await
    };
    assert_eq!((run(Ok(1)).await, run(Err("conflict")).await), (Ok(1), Err("conflict")));
    drop(listening);
    let spans = ended.0.lock().unwrap();
    let told: Vec<_> = spans.iter().map(|span| (format!("{:?}", span.status), span.attributes.len())).collect();
    assert_eq!(told[0], ("Unset".to_owned(), 0));
    assert!(
        told[1].0.starts_with("Error") && spans[1].attributes[0] == KeyValue::new("error.type", "conflict"),
        "{told:?}"
    );
}

#[test]
fn the_path_of_traces_is_added_to_a_base_url() {
    let check =
        |base: &str, expected| assert_eq!(OtlpEndpoint::parse(base).unwrap().url().as_str(), expected, "{base}");
    check("http://localhost:4318", "http://localhost:4318/v1/traces");
    check("http://localhost:4318/", "http://localhost:4318/v1/traces");
    check("https://collector.example.com/otlp", "https://collector.example.com/otlp/v1/traces");
    check("https://collector.example.com/otlp//", "https://collector.example.com/otlp/v1/traces");
}
