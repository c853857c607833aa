//! Access tokens that this node did not give out, or that somebody touched, are refused wherever they are presented.
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use super::scene::{PASSWORD, Scene, email, expect_problem, send_with, text};

#[tokio::test]
async fn a_touched_or_foreign_access_token_is_refused_on_every_route_that_takes_one() -> Result<()> {
    let scene = Scene::open().await?;
    let credentials = json!({ "email": email(), "password": PASSWORD });
    scene.anyone.post("/api/v1/auth/register", &credentials).await?.expect_status(201)?;
    let tokens: Value = scene.anyone.post("/api/v1/auth/login", &credentials).await?.json()?;
    let token = text(&tokens, "access_token")?;
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { anyhow::bail!("no JWT") };
    let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    let none = encode(&json!({ "alg": "none", "typ": "at+jwt", "kid": "1" }));
    let mut another_user = decoded.clone();
    another_user["sub"] = json!("1");
    let mut for_ever = decoded.clone();
    for_ever["exp"] = json!(decoded["exp"].as_u64().context("exp")? + 1_000_000);
    let forged = [
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{}", signature.chars().rev().collect::<String>()),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("{header}.{}.{signature}", encode(&another_user)),
        format!("{header}.{}.{signature}", encode(&for_ever)),
        format!("{token}="),
        format!("{token}.{signature}"),
        text(&tokens, "refresh_token")?,
        "x".repeat(5_000),
    ];
    for token in &forged {
        let forger = scene.anyone.with_token(token);
        for path in
            ["/api/v1/auth/me", "/api/v1/urls", "/api/v1/urls/1", "/api/v1/analytics/abc/summary", "/api/v1/qr/abc"]
        {
            expect_problem(&forger.get(path).await?, 401)?;
        }
        // Not taken for an anonymous caller: who sent a token meant to be somebody.
        expect_problem(&forger.post("/api/v1/urls", &json!({ "original_url": "https://example.com/" })).await?, 401)?;
        expect_problem(&forger.delete("/api/v1/urls/1").await?, 401)?;
    }
    for header in ["Basic YTpi", "Bearer", "Bearer ", &token, &format!("Token {token}")] {
        let answer = send_with(&scene.anyone, Method::GET, "/api/v1/auth/me", ("authorization", header)).await?;
        expect_problem(&answer, 401)?;
    }
    let twice = scene.anyone.with_token(&token);
    let answer =
        send_with(&twice, Method::GET, "/api/v1/auth/me", ("authorization", &format!("Bearer {token}"))).await?;
    expect_problem(&answer, 401)?;
    twice.get("/api/v1/auth/me").await?.expect_status(200)?;
    Ok(())
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
