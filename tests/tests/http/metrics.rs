//! The admin port: whether the process is alive, whether it may take traffic, and what it measures.
use anyhow::{Context, Result};
use serde_json::json;
use shortener_tests::client::Client;

use super::scene::{Scene, create_alias, expect_problem, path_of};

#[tokio::test]
async fn the_admin_port_answers_probes_and_the_public_one_does_not() -> Result<()> {
    let scene = Scene::open().await?;
    let admin = Client::new(scene.node.admin_url())?;
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = admin.get(path).await?.expect_status(200)?;
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        expect_problem(&scene.anyone.get(path).await?, 404)?;
    }
    admin.get("/api/v1/health").await?.expect_status(404)?;
    Ok(())
}

#[tokio::test]
async fn metrics_hold_what_the_fleet_is_sized_by_and_nothing_of_whom_or_whereto() -> Result<()> {
    let scene = Scene::open().await?;
    let target = "https://secret-target.example.com/private?token=tell-nobody";
    let link = create_alias(&scene.anyone, "metered", json!({ "original_url": target })).await?;
    let path = path_of(&link)?;
    let before = Metrics::of(&scene).await?;
    for _ in 0..10 {
        scene.anyone.get(&path).await?.expect_status(302)?;
    }
    scene.anyone.get("/unknown-code-4711").await?.expect_status(404)?;
    scene
        .anyone
        .send(reqwest::Method::from_bytes(b"BREW")?, "/pot/4711", |request| request)
        .await?
        .expect_status(404)?;
    let after = Metrics::of(&scene).await?;

    let count = |stage: &str| format!("shortener_redirect_duration_seconds_count{{stage=\"{stage}\"}}");
    for stage in ["total", "local", "cache", "store"] {
        after.value(&count(stage))?;
    }
    for stage in ["total", "local"] {
        assert!(after.value(&count(stage))? >= before.value(&count(stage))? + 11.0, "{stage}");
    }
    let sum = |metrics: &Metrics, stage: &str| {
        metrics.value(&format!("shortener_redirect_duration_seconds_sum{{stage=\"{stage}\"}}"))
    };
    let parts = sum(&after, "local")? + sum(&after, "cache")? + sum(&after, "store")?;
    assert!((sum(&after, "total")? - parts).abs() < 1e-6, "the stages add up to the total");
    assert!(after.value("shortener_in_flight_requests")? >= 0.0);
    assert!(after.value("shortener_in_flight_limit")? >= 1.0);
    assert!(after.value("shortener_cpu_seconds_total")? > 0.0);
    for never in ["shortener_mint_clashes_total", "shortener_claims_burnt_total", "shortener_clicks_dropped_total"] {
        assert_eq!(after.value(never)?.to_bits(), 0.0_f64.to_bits(), "{never}");
    }
    let answered = "shortener_http_requests_total{method=\"GET\",route=\"/{short_code}\",status=\"302\"}";
    assert!(after.value(answered)? >= before.value(answered).unwrap_or(0.0) + 10.0);

    for secret in [&path[1..], "secret-target", "tell-nobody", "4711", "BREW", "100.", "127.0.0.1", "@"] {
        let told = after
            .0
            .lines()
            .find(|line| !line.starts_with('#') && line.split('}').next().is_some_and(|name| name.contains(secret)));
        assert_eq!(told, None, "{secret} stands in a label");
    }
    Ok(())
}

/// What Prometheus reads.
struct Metrics(String);

impl Metrics {
    async fn of(scene: &Scene) -> Result<Self> {
        Ok(Self(Client::new(scene.node.admin_url())?.get("/metrics").await?.expect_status(200)?.text()))
    }

    fn value(&self, series: &str) -> Result<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("there is no {series}"))?.parse()?)
    }
}
