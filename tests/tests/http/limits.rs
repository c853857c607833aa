//! Rate limits: by endpoint, per user with a token, per client address without; and whose word on that address is taken.
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;
use shortener_tests::client::{Answer, Client};
use shortener_tests::node::NodeBuilder;

use super::scene::{
    PASSWORD, Scene, builder, caller, create, email, eventually, expect_problem, path_of, send_with, started, user,
};

const DAY: u32 = 86_400;

/// Windows of a day: no scenario lasts long enough to see one slide.
async fn limited() -> Result<NodeBuilder> {
    let window = DAY.to_string();
    let limited = builder()
        .await?
        .setting("RATE_LIMIT_ANONYMOUS", "3")
        .setting("RATE_LIMIT_REQUESTS", "5")
        .setting("RATE_LIMIT_WINDOW", window)
        .setting("TRUSTED_PROXIES", "127.0.0.1");
    Ok(limited)
}

#[tokio::test]
async fn each_endpoint_counts_its_callers_by_address_or_by_user() -> Result<()> {
    let node = started(limited().await?).await?;
    let (one, other) = (caller(&node)?, caller(&node)?);
    for remaining in [2, 1, 0] {
        expect_figures(&shorten(&one).await?.expect_status(201)?, 3, remaining)?;
    }
    for refused in [shorten(&one).await?, one.post("/shortener/url/", &json!({ "url": "https://example.com/" })).await?]
    {
        expect_problem(&refused, 429)?;
        expect_figures(&refused, 3, 0)?;
        let after: u32 = refused.header("retry-after").context("Retry-After")?.parse()?;
        assert!((1..=2 * DAY).contains(&after));
    }
    expect_figures(&one.get("/api/v1/qr/unknown").await?.expect_status(404)?, 3, 2)?;
    expect_figures(&shorten(&other).await?.expect_status(201)?, 3, 2)?;

    // A user is counted wherever she comes from, and not for her address, which has nothing left.
    let (ada, bob) = (user(&other).await?, user(&other).await?);
    let token = ada.token().context("a token")?;
    for (from, remaining) in [(&one, 4), (&other, 3), (&one, 2), (&other, 1), (&one, 0)] {
        expect_figures(&shorten(&from.with_token(token)).await?.expect_status(201)?, 5, remaining)?;
    }
    expect_problem(&shorten(&ada).await?, 429)?;
    expect_figures(&shorten(&bob).await?.expect_status(201)?, 5, 4)?;
    expect_figures(&ada.get("/api/v1/urls").await?.expect_status(200)?, 5, 4)?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_refused_counts_and_guessing_tokens_is_limited_too() -> Result<()> {
    let node = started(limited().await?).await?;
    let guesser = caller(&node)?.with_token("guess");
    for status in [401, 401, 401, 429] {
        expect_problem(&guesser.get("/api/v1/auth/me").await?, status)?;
    }
    let careless = caller(&node)?;
    for status in [422, 422, 422, 429] {
        expect_problem(&careless.post("/api/v1/urls", &json!({})).await?, status)?;
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn health_redirects_pages_and_documentation_are_not_limited() -> Result<()> {
    let node = started(limited().await?).await?;
    let client = caller(&node)?;
    let link: serde_json::Value = shorten(&client).await?.json()?;
    for path in ["/api/v1/health", &path_of(&link)?, "/", "/docs", "/openapi.json", "/assets/app.js"] {
        for _ in 0..20 {
            let answer = client.get(path).await?;
            assert!(answer.status < 400 && answer.header("ratelimit-limit").is_none(), "{path}: {}", answer.status);
        }
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn registrations_and_logins_are_counted_by_address_and_free_again_when_promised() -> Result<()> {
    let node = limited().await?.setting("RATE_LIMIT_REGISTER", "2/2").setting("RATE_LIMIT_LOGIN", "3/86400");
    let node = started(node).await?;
    let (one, other) = (caller(&node)?, caller(&node)?);
    let ada = user(&other).await?;
    let invalid = json!({ "email": "nobody", "password": "x" });
    eventually("a third registration within two seconds is refused", async || {
        let answer = one.post("/api/v1/auth/register", &invalid).await?;
        if answer.status == 422 {
            return Ok(false);
        }
        expect_problem(&answer, 429)?;
        let after: u32 = answer.header("retry-after").context("Retry-After")?.parse()?;
        assert!((1..=4).contains(&after), "{after}");
        Ok(true)
    })
    .await?;
    eventually("registering is possible again", async || {
        Ok(one.post("/api/v1/auth/register", &invalid).await?.status == 422)
    })
    .await?;

    let guess = json!({ "email": email(), "password": "wrong password" });
    for status in [401, 401, 401, 429] {
        // A token does not help: it is the address that is counted.
        let with_token = one.with_token(ada.token().context("a token")?);
        let client = if status == 429 { &with_token } else { &one };
        expect_problem(&client.post("/api/v1/auth/login", &guess).await?, status)?;
    }
    let right = json!({ "email": email(), "password": PASSWORD });
    expect_problem(&one.post("/api/v1/auth/login", &right).await?, 429)?;
    expect_problem(&other.post("/api/v1/auth/login", &right).await?, 401)?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn only_a_trusted_proxy_says_whose_address_it_is() -> Result<()> {
    let node = started(limited().await?).await?;
    let from = |header: &'static str, value: String| {
        let client = node.client();
        async move { shorten(&client?.with_header(header, &value)).await }
    };
    // What the client itself wrote stands left of what the proxy added, and moves nobody to another address.
    for (number, status) in [201, 201, 201, 429].into_iter().enumerate() {
        let answer =
            from("x-forwarded-for", format!("203.0.113.{number}, 198.51.100.7")).await?.expect_status(status)?;
        expect_figures(&answer, 3, 2_u32.saturating_sub(u32::try_from(number)?))?;
    }
    from("forwarded", "for=198.51.100.8;proto=https".to_owned()).await?.expect_status(201)?;
    // Addresses of one IPv6 /64 are one household.
    for (number, status) in [201, 201, 201, 429].into_iter().enumerate() {
        from("x-forwarded-for", format!("2001:db8:0:1::{number}")).await?.expect_status(status)?;
    }
    from("x-forwarded-for", "2001:db8:0:2::1".to_owned()).await?.expect_status(201)?;
    node.stop().await?;

    let node = started(limited().await?.setting("TRUSTED_PROXIES", "192.0.2.0/24")).await?;
    for (number, status) in [201, 201, 201, 429].into_iter().enumerate() {
        let client = node.client()?;
        let client = client.with_header("x-forwarded-for", &format!("203.0.113.{number}"));
        shorten(&client.with_header("forwarded", &format!("for=203.0.113.{number}"))).await?.expect_status(status)?;
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_address_that_guesses_codes_is_slowed_and_the_others_are_not() -> Result<()> {
    let scene = Scene::open().await?;
    let body = json!({ "original_url": "https://example.com/" });
    let known = path_of(&create(&scene.anyone, &body).await?)?;
    let hidden = path_of(&create(&scene.anyone, &body).await?)?;
    let guesser = caller(&scene.node)?;
    let mut guesses = 0;
    let slowed = loop {
        let answer = guesser.get(&format!("/guess-{guesses}")).await?;
        if answer.status != 404 {
            break answer;
        }
        guesses += 1;
        assert!(guesses <= 200, "nobody stops this");
    };
    expect_problem(&slowed, 429)?;
    assert!(guesses >= 50, "a page of dead links is no search: {guesses}");
    expect_problem(&guesser.get(&hidden).await?, 429).context("else 429 would say that a code is unknown")?;
    expect_problem(&guesser.get("/shortener/url/guess-again").await?, 429)?;
    scene.anyone.get(&known).await?.expect_status(302)?;
    guesser.get(&known).await?.expect_status(302).context("what others click goes on")?;
    scene.anyone.get("/guess-0").await?.expect_status(404)?;
    let head = send_with(&guesser, Method::HEAD, "/guess-head", ("accept", "*/*")).await?;
    assert_eq!(head.status, 429);
    Ok(())
}

async fn shorten(client: &Client) -> Result<Answer> {
    client.post("/api/v1/urls", &json!({ "original_url": "https://example.com/" })).await
}

fn expect_figures(answer: &Answer, limit: u32, remaining: u32) -> Result<()> {
    let figure = |name: &str| -> Result<u32> { Ok(answer.header(name).with_context(|| name.to_owned())?.parse()?) };
    assert_eq!((figure("ratelimit-limit")?, figure("ratelimit-remaining")?), (limit, remaining));
    assert!((1..=DAY).contains(&figure("ratelimit-reset")?));
    assert_eq!(answer.header("retry-after").is_some(), answer.status == 429);
    Ok(())
}
