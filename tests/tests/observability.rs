//! What people and alerts look at: every query asks for metrics that are really exported, every dashboard's query is one that
//! Prometheus understands, and every alert fires when it should and is silent when all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_crds::conditions::ConditionType;
use shortener_node::ambient::random;
use shortener_operator::kinds::Kind;
use shortener_operator::metrics::{Metrics, Outcome};
use shortener_operator::plan::resources::{Inputs, build_all};
use shortener_operator::plan::validate::validate;
use shortener_tests::client::Client;
use shortener_tests::node::Node;
use shortener_tests::operator::sample;
use shortener_tests::prometheus::Prometheus;
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::{ServerFolder, fresh_name};
use shortener_tests::sizes::workspace_root;
use shortener_tests::tikv::Tikv;

/// The labels of the series in the tests of alerts.
const NODE: &str = r#"namespace="default",shortener_dev_cluster="main",pod="main-0""#;
const OPERATOR: &str = r#"cluster_namespace="default",cluster="main""#;

/// The sample's objects of a kind.
fn objects(kind: Kind) -> Result<Vec<Value>> {
    let resource = sample(&json!({"metadata": {"uid": "1", "generation": 1}}))?;
    let cluster: ShortenerCluster = serde_json::from_value(resource)?;
    let cluster = validate(&cluster).context("the sample makes sense")?;
    let kinds = Kind::ALL.iter().copied().collect();
    let inputs = Inputs { image: "shortener:1", replicas: Some(3), secret_versions: BTreeMap::new(), kinds: &kinds };
    let all = build_all(&cluster, &inputs)?;
    Ok(all.into_iter().filter(|desired| desired.kind == kind).map(|desired| desired.object).collect())
}

fn rules() -> Result<Value> {
    let rule = objects(Kind::PrometheusRule)?.into_iter().next().context("there is a PrometheusRule")?;
    Ok(rule["spec"].clone())
}

/// All that is named `expr` in it.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(expression) if name == "expr" => found.push(expression.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Every query that the product comes with.
fn all_expressions() -> Result<Vec<String>> {
    let mut all = Vec::new();
    expressions(&rules()?, &mut all);
    for dashboard in objects(Kind::ConfigMap)?.iter().filter_map(|map| map["data"].as_object()).flatten() {
        let (name, text) = dashboard;
        if Path::new(name).extension().is_some_and(|end| end == "json") {
            expressions(&serde_json::from_str(text.as_str().unwrap_or_default())?, &mut all);
        }
    }
    let of_operator = workspace_root()?.join("charts/shortener-operator/files/dashboard.json");
    expressions(&serde_json::from_str(&std::fs::read_to_string(of_operator)?)?, &mut all);
    ensure!(all.len() > 30, "{all:?}");
    Ok(all)
}

/// The metrics that a query names.
fn metrics_in(expression: &str) -> impl Iterator<Item = String> + '_ {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let is_metric = |word: &&str| word.starts_with("process_") || word.starts_with("shortener_");
    // A label that begins alike.
    words.filter(is_metric).filter(|word| *word != "shortener_dev_cluster").map(str::to_owned)
}

fn names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// What an operator exports that has visited a cluster.
fn exported_by_operator() -> Result<BTreeSet<String>> {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry)?;
    metrics.visited(Outcome::Done, std::time::Duration::from_millis(1));
    let conditions: Vec<Value> = ConditionType::ALL
        .iter()
        .map(|condition| {
            json!({"type": condition.as_str(), "status": "True", "reason": "Pending", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect();
    let status = json!({"conditions": conditions, "allocation": {"nextBlock": 1, "codeLength": 7, "grants": []}});
    metrics.wrote("default", "main", &serde_json::from_value(status)?);
    Ok(names(&prometheus::TextEncoder::new().encode_to_string(&registry.gather())?))
}

/// What a node exports that has served on TiKV and Redis Cluster; none where they cannot be had.
async fn exported_by_node() -> Result<Option<BTreeSet<String>>> {
    let (Some(tikv), Some(redis)) = (Tikv::shared().await?, RedisCluster::shared().await?) else { return Ok(None) };
    let node = Node::builder()
        .setting("DATABASE_URL", tikv.database_url(&fresh_name("observed")))
        .setting("REDIS_URL", redis.url())
        .setting("SECRET_KEY", "a secret of tests alone, 32 bytes")
        .start()
        .await?;
    let client = node.client()?;
    client.until_health_is("ok").await?;
    let link = client.create("https://www.example.com/").await?;
    let path = format!("/{}", link["short_code"].as_str().context("a link has a code")?);
    client.get(&path).await?.expect_status(302)?;
    let text = Client::new(node.admin_url())?.get("/metrics").await?.text();
    node.stop().await?;
    Ok(Some(names(&text)))
}

#[tokio::test]
async fn every_query_asks_for_metrics_that_are_exported_and_prometheus_understands_it() -> Result<()> {
    let Some(prometheus) = Prometheus::start().await? else { return Ok(()) };
    let Some(by_node) = exported_by_node().await? else { return Ok(()) };
    let exported: BTreeSet<String> = by_node.into_iter().chain(exported_by_operator()?).collect();
    let mut unknown = BTreeSet::new();
    for expression in all_expressions()? {
        // Grafana's own word for a span that holds enough scrapes; it puts one in its place.
        prometheus.query(&expression.replace("$__rate_interval", "1m")).await?;
        unknown.extend(metrics_in(&expression).filter(|metric| !exported.contains(metric)));
    }
    ensure!(unknown.is_empty(), "nobody exports {unknown:?}; there are {exported:?}");
    Ok(())
}

/// A series for promtool: its name with labels, and its values minute by minute.
type Series = (String, String);

/// Of a series its name, a part of its labels, and the values that it has instead.
type Fault = (&'static str, &'static str, &'static str);

/// All is well: 100 redirects a second, all fast.
fn well(hours: u32) -> Vec<Series> {
    let minutes = hours * 60;
    let node = |name: &str, labels: &str, values: String| (format!("{name}{{{NODE}{labels}}}"), values);
    let operator = |name: &str, labels: &str, values: String| (format!("{name}{{{OPERATOR}{labels}}}"), values);
    let bucket = |le: &str| {
        let labels = format!(",stage=\"total\",le=\"{le}\"");
        node("shortener_redirect_duration_seconds_bucket", &labels, format!("0+6000x{minutes}"))
    };
    let condition = |name: &str, value: u8| {
        operator("shortener_operator_condition", &format!(",condition=\"{name}\""), format!("{value}x{minutes}"))
    };
    vec![
        bucket("0.05"),
        bucket("0.1"),
        bucket("0.2"),
        bucket("+Inf"),
        node("shortener_redirect_duration_seconds_count", ",stage=\"total\"", format!("0+6000x{minutes}")),
        node("shortener_http_requests_total", ",status=\"302\"", format!("0+6000x{minutes}")),
        node("shortener_http_requests_total", ",status=\"503\"", format!("0x{minutes}")),
        node("shortener_backend_breaker_open", ",backend=\"tikv\"", format!("0x{minutes}")),
        node("shortener_allocation_waiting", "", format!("0x{minutes}")),
        node("shortener_mint_clashes_total", "", format!("0x{minutes}")),
        node("shortener_claims_burnt_total", "", format!("0x{minutes}")),
        node("shortener_clicks_dropped_total", "", format!("0x{minutes}")),
        operator("shortener_operator_blocks_remaining", "", format!("53000000-1x{minutes}")),
        condition("BackendBound", 0),
        condition("AllocationHealthy", 1),
        condition("ScalingActive", 1),
    ]
}

/// The series with others in place of those that begin so.
fn but(mut series: Vec<Series>, changed: &[Fault]) -> Result<Vec<Series>> {
    for (name, label, values) in changed {
        let found = series.iter_mut().find(|(full, _)| full.starts_with(name) && full.contains(label));
        (*values).clone_into(&mut found.with_context(|| format!("there is no {name} with {label}"))?.1);
    }
    Ok(series)
}

#[tokio::test]
async fn every_alert_fires_when_it_should_and_none_while_all_is_well() -> Result<()> {
    // It brings promtool along.
    if Prometheus::start().await?.is_none() {
        return Ok(());
    }
    let slow = [
        ("shortener_redirect_duration_seconds_bucket", "le=\"0.05\"", "0+3000x600"),
        ("shortener_redirect_duration_seconds_bucket", "le=\"0.1\"", "0+3000x600"),
    ];
    let faults: Vec<(&str, Vec<Fault>)> = vec![
        ("ShortenerLatencyBurnsFast", slow.to_vec()),
        ("ShortenerLatencyBurnsSlowly", slow.to_vec()),
        ("ShortenerErrors", vec![("shortener_http_requests_total", "503", "0+600x600")]),
        ("ShortenerBackEndDown", vec![("shortener_backend_breaker_open", "", "1x600")]),
        ("ShortenerBackEndBound", vec![("shortener_operator_condition", "BackendBound", "1x600")]),
        ("ShortenerAllocationUnhealthy", vec![("shortener_operator_condition", "AllocationHealthy", "0x600")]),
        ("ShortenerIdsAwaited", vec![("shortener_allocation_waiting", "", "1x600")]),
        ("ShortenerCodesRunOut", vec![("shortener_operator_blocks_remaining", "", "53000000-10000x600")]),
        ("ShortenerMintClash", vec![("shortener_mint_clashes_total", "", "0+1x600")]),
        ("ShortenerClaimsBurnt", vec![("shortener_claims_burnt_total", "", "0+1x600")]),
        // A node that burnt some before it was scraped for the first time.
        ("ShortenerClaimsBurnt", vec![("shortener_claims_burnt_total", "", "_x500 2x100")]),
        ("ShortenerClicksDropped", vec![("shortener_clicks_dropped_total", "", "0+60x600")]),
        ("ShortenerScalingBlind", vec![("shortener_operator_condition", "ScalingActive", "0x600")]),
    ];
    let rules = rules()?;
    let alerts: BTreeSet<&str> = rules["groups"][0]["rules"]
        .as_array()
        .context("rules")?
        .iter()
        .filter_map(|rule| rule["alert"].as_str())
        .collect();
    let tried: BTreeSet<&str> = faults.iter().map(|(alert, _)| *alert).collect();
    ensure!(alerts == tried, "alerts {alerts:?}, tried {tried:?}");

    let mut tests = Vec::new();
    let mut case = |name: &str, series: Vec<Series>, fires: &[&str]| {
        let series: Vec<Value> =
            series.into_iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
        // What is not named here is not looked at: of a fault only its own alert is asked for, of all being well every one.
        let asked = if fires.is_empty() { alerts.iter().copied().collect::<Vec<_>>() } else { fires.to_vec() };
        let expected: Vec<Value> = asked
            .iter()
            .map(|alert| {
                let expr = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)");
                let count = u8::from(fires.contains(alert));
                json!({"expr": expr, "eval_time": "9h", "exp_samples": [{"labels": "{}", "value": count}]})
            })
            .collect();
        tests.push(json!({"name": name, "interval": "1m", "input_series": series, "promql_expr_test": expected}));
    };
    case("all is well", well(10), &[]);
    for (alert, fault) in &faults {
        case(alert, but(well(10), fault)?, &[alert]);
    }
    let folder = ServerFolder::new()?;
    // JSON is YAML.
    folder.write("rules.yml", &rules.to_string())?;
    let file = json!({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests});
    let tests = folder.write(&format!("{:x}.yml", u32::from_le_bytes(random())), &file.to_string())?;
    let output = Command::new("promtool").args(["test", "rules"]).arg(&tests).output().context("starting promtool")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}
