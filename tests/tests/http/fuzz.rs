//! Whatever a client sends, it is the client's mistake that it is told of: never a 500, never a hang.
use anyhow::{Result, ensure};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use serde_json::{Map, Value, json};
use shortener_tests::sizes::sized;

use super::scene::{Scene, create, expect_problem, path_of, post_bytes, resource_of};

const FIELDS: [&str; 16] = [
    "original_url",
    "custom_alias",
    "expires_at",
    "expires_in",
    "redirect_status",
    "title",
    "tags",
    "domain",
    "is_active",
    "email",
    "password",
    "full_name",
    "refresh_token",
    "url",
    "",
    "__proto__",
];

#[tokio::test]
async fn no_body_makes_the_node_fail() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = resource_of(&create(&user, &json!({ "original_url": "https://example.com/" })).await?)?;
    let mut cases = cases();
    // Registering and signing in cost a quarter of a second each when the body is good enough to be tried.
    let routes = [
        (Method::POST, "/api/v1/urls"),
        (Method::PATCH, link.as_str()),
        (Method::POST, "/shortener/url/"),
        (Method::POST, "/api/v1/auth/refresh"),
        (Method::POST, "/api/v1/auth/logout"),
        (Method::POST, "/api/v1/auth/register"),
    ];
    for number in 0..sized(300, 30_000) {
        let (method, path) = &routes[number % routes.len()];
        let body = object().new_tree(&mut cases).map_err(anyhow::Error::msg)?.current();
        let answer = user.send(method.clone(), path, |request| request.json(&body)).await?;
        match answer.status {
            200 | 201 | 204 => {}
            400 | 401 | 409 | 422 => drop(expect_problem(&answer, answer.status)?),
            status => anyhow::bail!("{method} {path} answers {status} to {body}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_bytes_in_a_body_or_a_path_make_the_node_fail() -> Result<()> {
    let scene = Scene::open().await?;
    let mut cases = cases();
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let link = path_of(&create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?)?;
    for number in 0..sized(100, 10_000) {
        let bytes = bytes.new_tree(&mut cases).map_err(anyhow::Error::msg)?.current();
        let answer = post_bytes(&scene.anyone, "/api/v1/urls", Some("application/json"), bytes.clone()).await?;
        ensure!(matches!(answer.status, 400 | 422), "{} for {bytes:?}", answer.status);
        let escaped = bytes.iter().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02X}"));
        let path = match number % 4 {
            0 => format!("/{escaped}"),
            1 => format!("/api/v1/urls?cursor={escaped}&q={escaped}"),
            2 => format!("/api/v1/qr{link}?size={escaped}"),
            _ => format!("/shortener/url/{escaped}"),
        };
        // A new address each time: who asks for many unknown codes is slowed.
        let answer = super::scene::caller(&scene.node)?.get(&path).await?;
        // No bytes at all name the page.
        let is_page = path == "/" && answer.status == 200;
        ensure!(is_page || matches!(answer.status, 401 | 404 | 405 | 422), "{} for {path}", answer.status);
    }
    Ok(())
}

/// The same cases in each run: a run that fails can be run again.
fn cases() -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// An object of fields that some route knows, and of one that none does.
fn object() -> impl Strategy<Value = Value> {
    let field = (proptest::sample::select(&FIELDS[..]), value());
    proptest::collection::vec(field, 0..6).prop_map(|fields| {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        Value::Object(fields.collect::<Map<_, _>>())
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![301_u64, 302, 60]).prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "https?://[a-zé0-9.:@\\[\\]%/?#\\\\ -]{0,40}".prop_map(Value::from),
        "[A-Za-z0-9_-]{0,70}".prop_map(Value::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})".prop_map(Value::from),
        Just(json!("https://example.com/")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,4}", inner, 0..3).prop_map(|fields| json!(fields)),
        ]
    })
}
