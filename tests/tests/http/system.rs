//! Health and the OpenAPI document.
use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use shortener_tests::sizes::on_servers;

use super::scene::{Scene, expect_fields};

#[tokio::test]
async fn health_says_how_the_node_and_what_it_depends_on_are() -> Result<()> {
    let scene = Scene::open().await?;
    let answer = scene.anyone.get("/api/v1/health").await?.expect_status(200)?;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let health: Value = answer.json()?;
    expect_fields(&health, &["status", "store", "cache", "ids"])?;
    assert_eq!(health["status"], "ok");
    let engines = if on_servers() { ["tikv", "redis-cluster"] } else { ["embedded", "memory"] };
    for (part, engine) in ["store", "cache"].into_iter().zip(engines) {
        expect_fields(&health[part], &["engine", "status", "latency_ms"])?;
        assert_eq!((&health[part]["engine"], &health[part]["status"]), (&engine.into(), &"ok".into()));
        assert!(health[part]["latency_ms"].as_f64().is_some_and(|latency| (0.0..1_000.0).contains(&latency)));
    }
    expect_fields(&health["ids"], &["status", "worker_id", "remaining", "waiting"])?;
    assert!(health["ids"]["worker_id"].as_u64().is_some_and(|id| id < 1 << 12), "{health}");
    assert!(health["ids"]["remaining"].as_u64().is_some_and(|codes| codes > 0));
    Ok(())
}

#[tokio::test]
async fn the_openapi_document_names_every_route_and_every_schema_it_refers_to() -> Result<()> {
    let scene = Scene::open().await?;
    let answer = scene.anyone.get("/openapi.json").await?.expect_status(200)?;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document: Value = answer.json()?;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert_eq!(document["servers"][0]["url"], scene.node.base_url());
    let mut named = BTreeSet::new();
    for (path, item) in document["paths"].as_object().context("paths")? {
        for (method, operation) in item.as_object().context("operations")? {
            named.insert(format!("{method} {path}"));
            let responses = operation["responses"].as_object().context("responses")?;
            assert!(
                responses.keys().any(|status| status.starts_with('2') || status.starts_with('3')),
                "{method} {path}"
            );
            assert!(responses["default"]["content"]["application/problem+json"].is_object(), "{method} {path}");
        }
    }
    let contract = [
        "post /api/v1/auth/register",
        "post /api/v1/auth/login",
        "post /api/v1/auth/refresh",
        "post /api/v1/auth/logout",
        "get /api/v1/auth/me",
        "post /api/v1/urls",
        "get /api/v1/urls",
        "get /api/v1/urls/{id}",
        "patch /api/v1/urls/{id}",
        "delete /api/v1/urls/{id}",
        "get /{short_code}",
        "post /shortener/url/",
        "get /shortener/url/{id}",
        "get /api/v1/analytics/{short_code}/summary",
        "get /api/v1/qr/{short_code}",
        "get /api/v1/health",
    ];
    assert_eq!(named, contract.map(str::to_owned).into());
    for pointer in references(&document) {
        let path = pointer.strip_prefix('#').context("a reference within the document")?;
        assert!(document.pointer(path).is_some(), "{pointer} leads nowhere");
    }
    Ok(())
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
