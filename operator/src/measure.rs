//! What Prometheus knows of a cluster's nodes → [`Sample`]. One request: an expression that names each figure, so that all are of one
//! moment.
//!
//! Nodes are named one by one, those that are ready and warm: a pod that is starting, or another cluster's, must not be part of it. Every
//! way in which the answer can be missing, old or meaningless is an [`Unavailable`] that says what to look at.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use shortener_crds::cluster::{Autoscaling, Prometheus};
use url::form_urlencoded;

use crate::plan::autoscale::{Sample, Unavailable};

/// How long Prometheus may take. A decision that is late is better than one that hangs.
const DEADLINE: Duration = Duration::from_secs(5);
/// More is no answer to what is asked.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How much of what Prometheus complains of is repeated, in characters.
const SAID_MAX: usize = 200;
/// The shortest window, in seconds.
const RECENT_MIN_S: i32 = 15;
/// Figures that were scraped longer ago than this many times the interval are old.
const SCRAPES_MISSED: i32 = 2;

/// Asks Prometheus; cheap to clone.
#[derive(Clone, Debug)]
pub struct Measurements {
    client: reqwest::Client,
}

/// Which nodes, and how they are scraped.
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// Their pods: those that are warm.
    pub pods: &'a [String],
    /// Time between two scrapes, in seconds.
    pub scraped_every: i32,
}

impl Measurements {
    /// Fails when the system cannot give what a client needs.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .user_agent(concat!("shortener-operator/", env!("CARGO_PKG_VERSION")))
            // A redirect would lead where the spec does not.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client })
    }

    /// What the nodes did lately.
    pub async fn sample(&self, settings: &Autoscaling, nodes: Nodes<'_>) -> Result<Sample, Unavailable> {
        let Some(prometheus) = &settings.prometheus else {
            return Err(Unavailable("spec.autoscaling.prometheus is not set".to_owned()));
        };
        if nodes.pods.is_empty() {
            return Err(Unavailable("no node is warm yet".to_owned()));
        }
        let answer = self.ask(prometheus, &expression(settings, prometheus, nodes)).await.and_then(read);
        let answer = answer.map_err(|why| {
            Unavailable(format!(
                "{why}; look at spec.autoscaling.prometheus.url, {}, and at that Prometheus",
                prometheus.url
            ))
        })?;
        sample_of(&answer, nodes)
    }

    async fn ask(&self, prometheus: &Prometheus, expression: &str) -> Result<(StatusCode, Vec<u8>), String> {
        let url = format!("{}/api/v1/query", prometheus.url.trim_end_matches('/'));
        // A form, since the names of a thousand pods are too long for a URL.
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs([("query", expression)]).finish();
        let request = self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let sent = request.send().await;
        let mut answer = sent.map_err(|error| format!("Prometheus does not answer: {}", cause(&error)))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) =
            answer.chunk().await.map_err(|error| format!("Prometheus broke off: {}", cause(&error)))?
        {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(format!("Prometheus answers with more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        Ok((status, body))
    }
}

/// The innermost reason, without the URL, which the message names once.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { format!("not within {DEADLINE:?}") } else { cause.to_string() }
}

/// Each figure, named by the label `figure`. A pod that is scraped by two jobs counts once.
fn expression(settings: &Autoscaling, prometheus: &Prometheus, nodes: Nodes<'_>) -> String {
    let names = nodes.pods.join("|");
    let of = format!(r#"namespace="{}",pod=~"{names}""#, nodes.namespace);
    // Two scrapes and a half, so that there are always two of them in it.
    let recent = (nodes.scraped_every * 5 / 2).max(RECENT_MIN_S);
    let window = prometheus.query_window_seconds.max(recent);
    let quantile = f64::from(i32::from(settings.target_latency.percentile)) / 100.0;
    let latency = |seconds: i32| {
        format!(
            "histogram_quantile({quantile}, sum by (le) \
             (rate(shortener_redirect_duration_seconds_bucket{{stage=\"total\",{of}}}[{seconds}s])))"
        )
    };
    let cpu = |seconds: i32| {
        format!(
            "avg(max by (pod) (rate(shortener_cpu_seconds_total{{{of}}}[{seconds}s])) \
             / max by (pod) (shortener_cpu_limit_cores{{{of}}}))"
        )
    };
    let old = nodes.scraped_every * SCRAPES_MISSED;
    let figures = [
        (
            "redirects",
            format!(
                "sum(max by (pod) (increase(shortener_redirect_duration_seconds_count{{stage=\"total\",{of}}}[{window}s])))"
            ),
        ),
        ("latency", latency(window)),
        ("recent_latency", latency(recent)),
        (
            "time",
            format!(
                "sum by (stage) (rate(shortener_redirect_duration_seconds_sum{{stage!=\"total\",{of}}}[{window}s]))"
            ),
        ),
        ("cpu", cpu(window)),
        ("recent_cpu", cpu(recent)),
        (
            "in_flight",
            format!(
                "avg(max by (pod) (avg_over_time(shortener_in_flight_requests{{{of}}}[{window}s])) \
                 / max by (pod) (shortener_in_flight_limit{{{of}}}))"
            ),
        ),
        ("nodes", format!("count(max by (pod) (shortener_in_flight_limit{{{of}}}))")),
        ("fresh", format!("count(time() - max by (pod) (timestamp(shortener_in_flight_limit{{{of}}})) <= {old})")),
    ];
    let named = figures.map(|(name, figure)| format!("label_replace({figure}, \"figure\", \"{name}\", \"\", \"\")"));
    named.join(" or ")
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// What Prometheus says, or why that is no answer. Of what is none of Prometheus' nothing is repeated.
fn read((status, body): (StatusCode, Vec<u8>)) -> Result<Data, String> {
    match serde_json::from_slice(&body) {
        Ok(Answer { status, data: Some(data), .. }) if status == "success" => Ok(data),
        Ok(Answer { error: Some(error), .. }) => {
            let why: String = error.chars().take(SAID_MAX).collect();
            Err(format!("Prometheus refuses the query: {why}"))
        }
        _ if status.is_success() => Err("what answers is no Prometheus".to_owned()),
        _ => Err(format!("Prometheus answers with {status}")),
    }
}

fn sample_of(data: &Data, nodes: Nodes<'_>) -> Result<Sample, Unavailable> {
    let figures: BTreeMap<(&str, &str), f64> = data
        .result
        .iter()
        .filter_map(|Series { metric, value: (_, figure) }| {
            let stage = metric.get("stage").map_or("", String::as_str);
            Some(((metric.get("figure")?.as_str(), stage), figure.parse().ok()?))
        })
        .collect();
    let figure = |name: &str| figures.get(&(name, "")).copied();
    let named = nodes.pods.len();
    if figure("nodes").is_none() {
        return Err(Unavailable(format!(
            "Prometheus has no figures of the {named} nodes in namespace {}; its scrapes must give them the labels namespace and pod",
            nodes.namespace
        )));
    }
    let fresh = figure("fresh").unwrap_or_default();
    // Of half of them is enough to go by; one that is cut off is no reason to stop.
    if fresh * 2.0 < f64::from(u32::try_from(named).unwrap_or(u32::MAX)) {
        return Err(Unavailable(format!(
            "Prometheus has figures of only {fresh} of {named} nodes that are not older than {SCRAPES_MISSED} scrapes, which \
             spec.monitoring.intervalSeconds says are {} s apart; look at its targets",
            nodes.scraped_every
        )));
    }
    let missing =
        |what: &str| Unavailable(format!("Prometheus has no {what} of the nodes yet: that takes two scrapes"));
    let time = |stage: &str| figures.get(&("time", stage)).copied().ok_or_else(|| missing("redirect times"));
    let (local, cache, store) = (time("local")?, time("cache")?, time("store")?);
    let redirects = figure("redirects").ok_or_else(|| missing("redirects"))?;
    // Of nothing there is no percentile, which Prometheus says with NaN.
    let latency = |name: &str| {
        figure(name).filter(|seconds| redirects > 0.0 || seconds.is_finite()).map(|seconds| seconds * 1_000.0)
    };
    let (cpu, in_flight) =
        (figure("cpu").ok_or_else(|| missing("CPU time"))?, figure("in_flight").ok_or_else(|| missing("load"))?);
    let mut sample = Sample {
        redirects,
        latency_ms: latency("latency"),
        recent_latency_ms: latency("recent_latency").filter(|latency| latency.is_finite()),
        local,
        cache,
        store,
        utilization: cpu,
        recent_utilization: figure("recent_cpu"),
    };
    // Who waits for a back end fills no node.
    let busy = in_flight * sample.local_share();
    // `max` would take the other for what is no number, and a fleet of which nothing is known for an idle one.
    sample.utilization = if cpu.is_nan() || busy.is_nan() { f64::NAN } else { cpu.max(busy) };
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PODS: [&str; 2] = ["main-a", "main-b"];

    fn read(figures: &[(&str, &str, &str)]) -> Result<Sample, Unavailable> {
        let result: Vec<Value> = figures
            .iter()
            .map(|(figure, stage, value)| match *stage {
                "" => json!({"metric": {"figure": figure}, "value": [1.5, value]}),
                stage => json!({"metric": {"figure": figure, "stage": stage}, "value": [1.5, value]}),
            })
            .collect();
        let body = json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string();
        let pods = PODS.map(str::to_owned);
        let data = super::read((StatusCode::OK, body.into_bytes())).map_err(Unavailable)?;
        sample_of(&data, Nodes { namespace: "links", pods: &pods, scraped_every: 15 })
    }

    const ALL: [(&str, &str, &str); 11] = [
        ("redirects", "", "6000"),
        ("latency", "", "0.12"),
        ("recent_latency", "", "0.1"),
        ("time", "local", "0.75"),
        ("time", "cache", "0.05"),
        ("time", "store", "0.2"),
        ("cpu", "", "0.5"),
        ("recent_cpu", "", "0.7"),
        ("in_flight", "", "0.9"),
        ("nodes", "", "2"),
        ("fresh", "", "2"),
    ];

    fn with(name: &str, value: Option<&str>) -> Vec<(&'static str, &'static str, String)> {
        ALL.iter()
            .filter(|(figure, ..)| *figure != name || value.is_some())
            .map(|(figure, stage, figures)| {
                let value = if *figure == name { value.unwrap_or_default() } else { figures };
                (*figure, *stage, value.to_owned())
            })
            .collect()
    }

    fn read_with(name: &str, value: Option<&str>) -> Result<Sample, Unavailable> {
        let figures = with(name, value);
        read(&figures.iter().map(|(figure, stage, value)| (*figure, *stage, value.as_str())).collect::<Vec<_>>())
    }

    #[test]
    fn an_answer_is_read_and_who_waits_for_a_back_end_fills_no_node() {
        let sample = read(&ALL).unwrap();
        assert_eq!(
            (sample.redirects, sample.latency_ms, sample.recent_latency_ms),
            (6_000.0, Some(120.0), Some(100.0))
        );
        assert!((sample.local_share() - 0.75).abs() < 1e-9);
        assert!((sample.utilization - 0.675).abs() < 1e-9, "{}", sample.utilization);
        assert_eq!(sample.recent_utilization, Some(0.7));
        assert_eq!(read_with("recent_cpu", None).unwrap().recent_utilization, None);
    }

    #[test]
    fn what_is_missing_or_old_is_said() {
        for (name, said) in [
            ("nodes", "labels namespace and pod"),
            ("fresh", "0 of 2 nodes"),
            ("redirects", "no redirects"),
            ("time", "redirect times"),
            ("cpu", "CPU time"),
            ("in_flight", "two scrapes"),
        ] {
            let Unavailable(why) = read_with(name, None).unwrap_err();
            assert!(why.contains(said), "{name}: {why}");
        }
        assert!(read_with("fresh", Some("1")).is_ok(), "half of them");
        let empty = read(&[]).unwrap_err();
        assert!(empty.0.contains("no figures of the 2 nodes"), "{empty:?}");
    }

    #[test]
    fn without_redirects_there_is_no_latency() {
        let mut figures = with("redirects", Some("0"));
        for (name, _, value) in &mut figures {
            if name.ends_with("latency") {
                "NaN".clone_into(value);
            }
        }
        let idle =
            read(&figures.iter().map(|(figure, stage, value)| (*figure, *stage, value.as_str())).collect::<Vec<_>>());
        let idle = idle.unwrap();
        assert_eq!((idle.latency_ms, idle.recent_latency_ms, idle.redirects), (None, None, 0.0));
    }

    #[test]
    fn what_is_no_number_makes_no_fleet_idle() {
        for name in ["cpu", "in_flight"] {
            assert!(read_with(name, Some("NaN")).unwrap().utilization.is_nan(), "{name}");
        }
        assert!(read_with("recent_cpu", Some("NaN")).unwrap().recent_utilization.is_some_and(f64::is_nan));
    }

    #[test]
    fn what_is_no_prometheus_is_told_and_not_repeated() {
        let said =
            |status: StatusCode, body: &str| super::read((status, body.as_bytes().to_vec())).err().unwrap_or_default();
        let refused = json!({"status": "error", "errorType": "bad_data", "error": "parse error"}).to_string();
        assert!(said(StatusCode::BAD_REQUEST, &refused).contains("parse error"));
        let long = json!({"status": "error", "error": "x".repeat(10_000)}).to_string();
        assert!(said(StatusCode::BAD_REQUEST, &long).len() < 300);
        for foreign in [r#"{"status": "ok", "data": "a secret"}"#, "<html>a secret</html>", r#"["a secret"]"#, ""] {
            assert_eq!(said(StatusCode::OK, foreign), "what answers is no Prometheus", "{foreign}");
            assert_eq!(said(StatusCode::NOT_FOUND, foreign), "Prometheus answers with 404 Not Found", "{foreign}");
        }
    }

    #[test]
    fn windows_are_long_enough_for_the_scrapes() {
        let settings = json!({"minReplicas": 2, "maxReplicas": 9, "prometheus": {"url": "http://prometheus:9090"}});
        let settings: Autoscaling = serde_json::from_value(settings).unwrap();
        let pods = PODS.map(str::to_owned);
        let asked = |scraped_every| {
            let nodes = Nodes { namespace: "links", pods: &pods, scraped_every };
            expression(&settings, settings.prometheus.as_ref().unwrap(), nodes)
        };
        assert!(asked(1).contains("[15s]") && asked(1).contains("[60s]"));
        assert!(asked(60).contains("[150s]") && !asked(60).contains("[60s]"));
    }

    #[test]
    fn the_expression_names_the_nodes_and_the_windows() {
        let settings = json!({"minReplicas": 2, "maxReplicas": 9, "prometheus": {"url": "http://prometheus:9090"}});
        let settings: Autoscaling = serde_json::from_value(settings).unwrap();
        let pods = PODS.map(str::to_owned);
        let nodes = Nodes { namespace: "links", pods: &pods, scraped_every: 15 };
        insta::assert_snapshot!(
            expression(&settings, settings.prometheus.as_ref().unwrap(), nodes)
                .replace(" or label_replace", "\nor label_replace")
        );
    }
}
