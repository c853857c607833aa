//! What a node writes down: every line JSON, every request with its ID, and no secret of anybody's.
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::Client;

use super::scene::{WAITING, builder, path_of, post_bytes, resource_of, send_with, started, text};

const ADDRESS: &str = "203.0.113.77";
const EMAIL: &str = "grace.hopper@example.com";
const PASSWORD: &str = "nobody-guesses-this-one";
const TARGET: &str = "https://private-host.example.com/path-nobody-sees?session=query-secret#fragment-secret";

#[tokio::test]
async fn a_log_holds_every_request_with_its_id_and_no_secret() -> Result<()> {
    let builder = builder().await?.setting("LOG_LEVEL", "debug").setting("TRUSTED_PROXIES", "127.0.0.1");
    let mut node = started(builder.setting("ANALYTICS_FLUSH_INTERVAL", "100ms")).await?;
    let client =
        node.client()?.with_header("x-forwarded-for", ADDRESS).with_header("x-request-id", "the-callers-own-id");
    let [access, refresh] = session(&client).await?;
    let credentials = json!({ "email": "nobody@example.com", "password": PASSWORD });
    client.post("/api/v1/auth/login", &credentials).await?.expect_status(401)?;
    sign_in_and_out(&client).await?;
    node.terminate()?;
    assert!(node.wait_for_exit().await?.success());

    let log = node.log();
    let mut requests = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        if line["message"] == "request" && line["request_id"] != WAITING {
            requests += 1;
            assert_eq!(line["request_id"], "the-callers-own-id", "{line}");
            assert!(line["route"].is_string() && line["status"].is_u64() && line["duration_ms"].is_f64(), "{line}");
        }
    }
    assert_eq!(requests, 19, "one line a request: {log}");
    expect_who_did_what(&log)?;
    let signature = access.rsplit('.').next().unwrap_or_default().to_owned();
    for secret in [
        PASSWORD,
        "wrong-but-close",
        &access,
        &signature,
        &refresh,
        "forged-token-secret",
        "query-secret",
        "fragment-secret",
        "path-nobody-sees",
        "private-host",
        "title-secret",
        "tag-secret",
        "key-secret",
        "referrer-secret",
        "203.0.113",
        EMAIL,
        "grace.hopper",
        "Bearer",
    ] {
        assert!(!log.contains(secret), "{secret} stands in the log:\n{log}");
    }
    Ok(())
}

/// Sixteen requests that carry everything that must not be written down; gives the tokens among it.
async fn session(client: &Client) -> Result<[String; 2]> {
    let credentials = json!({ "email": EMAIL, "password": PASSWORD });
    client.post("/api/v1/auth/register", &credentials).await?.expect_status(201)?;
    client
        .post("/api/v1/auth/login", &json!({ "email": EMAIL, "password": "wrong-but-close" }))
        .await?
        .expect_status(401)?;
    let tokens: Value = client.post("/api/v1/auth/login", &credentials).await?.expect_status(200)?.json()?;
    let (access, refresh) = (text(&tokens, "access_token")?, text(&tokens, "refresh_token")?);
    let user = client.with_token(&access);
    let body = json!({ "original_url": TARGET, "title": "title-secret", "tags": ["tag-secret"] });
    let link: Value = user
        .send(Method::POST, "/api/v1/urls", |request| request.header("idempotency-key", "key-secret").json(&body))
        .await?
        .expect_status(201)?
        .json()?;
    for status in [302, 302] {
        let path = format!("{}?visitor=query-secret", path_of(&link)?);
        send_with(client, Method::GET, &path, ("referer", "https://referrer-secret.example.org/"))
            .await?
            .expect_status(status)?;
    }
    user.get("/api/v1/urls?q=query-secret").await?.expect_status(200)?;
    user.get(&format!("/api/v1/analytics{}/summary", path_of(&link)?)).await?.expect_status(200)?;
    user.delete(&resource_of(&link)?).await?.expect_status(204)?;
    client.with_token("forged-token-secret").get("/api/v1/auth/me").await?.expect_status(401)?;
    let spend = async |token: &Value| client.post("/api/v1/auth/refresh", &json!({ "refresh_token": token })).await;
    let next: Value = spend(&json!(refresh)).await?.expect_status(200)?.json()?;
    spend(&json!(refresh)).await?.expect_status(200)?;
    spend(&next["refresh_token"]).await?.expect_status(200)?;
    spend(&json!(refresh)).await?.expect_status(401)?;
    let wrong = format!(r#"{{"email":"{EMAIL}","password":{{"{PASSWORD}":1}},"{PASSWORD}":2}}"#);
    post_bytes(client, "/api/v1/auth/login", Some("application/json"), wrong).await?.expect_status(422)?;
    client.get("/path-nobody-sees/at-all?session=query-secret").await?.expect_status(404)?;
    Ok([access, refresh])
}

/// Two requests: a session that is ended by its user.
async fn sign_in_and_out(client: &Client) -> Result<()> {
    let credentials = json!({ "email": EMAIL, "password": PASSWORD });
    let tokens: Value = client.post("/api/v1/auth/login", &credentials).await?.expect_status(200)?.json()?;
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    client.post("/api/v1/auth/logout", &body).await?.expect_status(204)?;
    Ok(())
}

/// What happened to accounts is written down with whose they are, by their IDs.
fn expect_who_did_what(log: &str) -> Result<()> {
    let lines = log.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let user = lines.iter().rfind(|line| line["message"] == "registered").context("no registration")?["user"].clone();
    assert!(user.as_str().is_some_and(|user| user.parse::<u64>().is_ok()), "{user}");
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    for (message, of_whom) in [
        ("signed in", vec![&user, &user]),
        ("a sign-in was refused", vec![&user, &Value::Null]),
        ("an access token was refused", vec![&Value::Null]),
        ("a session was refreshed", vec![&user, &user]),
        ("a session was refreshed again, with the token that it was given before", vec![&user]),
        ("a spent refresh token was presented; its family is revoked", vec![&user]),
        ("signed out", vec![&user]),
    ] {
        let found = of(message);
        assert_eq!(found.iter().map(|line| &line["user"]).collect::<Vec<_>>(), of_whom, "{message}: {found:?}");
    }
    Ok(())
}
