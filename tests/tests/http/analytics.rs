//! `GET /api/v1/analytics/{short_code}/summary`, after real redirects with the user agents of real programs.
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::Client;

use super::scene::{
    Scene, caller, create, eventually, expect_fields, expect_problem, expect_refused, path_of, resource_of,
};

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1";
const IPAD: &str = "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1";
const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const PREVIEW: &str = "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)";

#[tokio::test]
async fn people_are_counted_by_what_they_use_and_bots_apart() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create(&user, &json!({ "original_url": "https://example.com/" })).await?;
    let path = path_of(&link)?;
    let people: [(&str, &[(&str, &str)]); 5] = [
        (CHROME, &[("referer", "https://www.news.example.org/article?reader=ada")]),
        (CHROME, &[("referer", "https://news.example.org/")]),
        (FIREFOX, &[]),
        (IPHONE, &[("referer", "android-app://com.google.android.gm/")]),
        (IPAD, &[("referer", "http://203.0.113.9/admin")]),
    ];
    for (agent, headers) in people {
        click(&scene.anyone, Method::GET, &path, &[&[("user-agent", agent)], headers].concat()).await?;
    }
    // The same software from another address is somebody else.
    click(&caller(&scene.node)?, Method::GET, &path, &[("user-agent", FIREFOX)]).await?;
    let bots: [(Method, &[(&str, &str)]); 7] = [
        (Method::GET, &[("user-agent", GOOGLEBOT)]),
        (Method::GET, &[("user-agent", PREVIEW)]),
        (Method::GET, &[("user-agent", "curl/8.5.0")]),
        (Method::GET, &[]),
        (Method::HEAD, &[("user-agent", CHROME)]),
        (Method::GET, &[("user-agent", CHROME), ("sec-purpose", "prefetch;prerender")]),
        (Method::GET, &[("user-agent", FIREFOX), ("x-moz", "prefetch")]),
    ];
    for (method, headers) in &bots {
        click(&scene.anyone, method.clone(), &path, headers).await?;
    }
    let counted = |summary: &Value| summary["total_clicks"] == 6 && summary["bot_clicks"] == 7;
    eventually("the clicks are counted", async || Ok(counted(&fresh(&user, &path).await?))).await?;

    let summary = fresh(&user, &path).await?;
    let lists = ["referrers", "browsers", "operating_systems", "devices", "countries"];
    let figures = ["short_code", "period_days", "total_clicks", "unique_visitors", "bot_clicks", "daily"];
    expect_fields(&summary, &[&figures[..], &lists[..]].concat())?;
    assert_eq!((&summary["short_code"], &summary["period_days"]), (&link["short_code"], &json!(30)));
    assert_eq!(summary["unique_visitors"], 5);
    let named = |list: &str, expected: Value| assert_eq!(summary[list], expected, "{list}");
    let counts = |pairs: &[(&str, u64)]| -> Value {
        pairs.iter().map(|(name, clicks)| json!({ "name": name, "clicks": clicks })).collect()
    };
    named(
        "referrers",
        counts(&[("direct", 2), ("news.example.org", 2), ("(address)", 1), ("com.google.android.gm", 1)]),
    );
    named("browsers", counts(&[("Chrome", 2), ("Firefox", 2), ("Safari", 2)]));
    named("operating_systems", counts(&[("Linux", 2), ("Windows", 2), ("iOS", 2)]));
    named("devices", counts(&[("desktop", 4), ("mobile", 1), ("tablet", 1)]));
    named("countries", counts(&[("unknown", 6)]));
    expect_thirty_days(&summary)?;
    let counted: Value = user.get(&resource_of(&link)?).await?.json()?;
    assert_eq!(counted["click_count"], 6);
    Ok(())
}

#[tokio::test]
async fn a_list_of_a_summary_names_the_ten_largest() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let path = path_of(&create(&user, &json!({ "original_url": "https://example.com/" })).await?)?;
    for number in 0..12 {
        let referrer = format!("https://site-{number:02}.example.org/");
        for _ in 0..=number {
            click(&scene.anyone, Method::GET, &path, &[("user-agent", CHROME), ("referer", &referrer)]).await?;
        }
    }
    eventually("the clicks are counted", async || Ok(fresh(&user, &path).await?["total_clicks"] == 78)).await?;
    let summary = fresh(&user, &path).await?;
    let expected: Value =
        (2..12).rev().map(|n| json!({ "name": format!("site-{n:02}.example.org"), "clicks": n + 1 })).collect();
    assert_eq!(summary["referrers"], expected);
    assert_eq!(summary["unique_visitors"], 1);
    Ok(())
}

#[tokio::test]
async fn a_summary_may_be_old_unless_a_fresh_one_is_asked_for() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create(&user, &json!({ "original_url": "https://example.com/" })).await?;
    let (path, resource) = (path_of(&link)?, resource_of(&link)?);
    let summary = format!("/api/v1/analytics{path}/summary");
    let empty: Value = user.get(&summary).await?.expect_status(200)?.json()?;
    assert_eq!(
        (&empty["total_clicks"], &empty["unique_visitors"], &empty["bot_clicks"]),
        (&json!(0), &json!(0), &json!(0))
    );
    expect_thirty_days(&empty)?;

    click(&scene.anyone, Method::GET, &path, &[("user-agent", CHROME)]).await?;
    let counted = async || Ok(user.get(&resource).await?.json::<Value>()?["click_count"] == 1);
    eventually("the click is counted", counted).await?;
    assert_eq!(user.get(&summary).await?.json::<Value>()?, empty, "the one from before is still good enough");
    assert_eq!(fresh(&user, &path).await?["total_clicks"], 1);
    assert_eq!(user.get(&summary).await?.json::<Value>()?["total_clicks"], 1, "the fresh one takes its place");
    Ok(())
}

#[tokio::test]
async fn a_summary_is_for_the_owner_alone() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let mine = path_of(&create(&user, &json!({ "original_url": "https://example.com/" })).await?)?;
    let summary = |path: &str| format!("/api/v1/analytics{path}/summary");
    expect_problem(&scene.anyone.get(&summary(&mine)).await?, 401)?;
    expect_problem(&scene.user().await?.get(&summary(&mine)).await?, 404)?;
    for unknown in ["/never-made", "/%FF", "/a%2Fb"] {
        expect_problem(&user.get(&summary(unknown)).await?, 404)?;
    }
    expect_problem(&user.get(&format!("{}?domain=evil.example", summary(&mine))).await?, 404)?;
    expect_refused(&user.get(&format!("{}?days=7", summary(&mine))).await?, &["days"])?;
    let answer = user.get(&summary(&mine)).await?.expect_status(200)?;
    ensure!(answer.header("cache-control").is_some_and(|value| value.contains("private")), "not for shared caches");
    Ok(())
}

async fn click(client: &Client, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<()> {
    let build = |request: reqwest::RequestBuilder| {
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    client.send(method, path, build).await?.expect_status(302)?;
    Ok(())
}

async fn fresh(user: &Client, path: &str) -> Result<Value> {
    let path = format!("/api/v1/analytics{path}/summary");
    let answer = user.send(Method::GET, &path, |request| request.header("cache-control", "no-cache")).await?;
    answer.expect_status(200)?.json()
}

/// Thirty different days in order, the last of them today's, which holds all clicks.
fn expect_thirty_days(summary: &Value) -> Result<()> {
    let daily = summary["daily"].as_array().context("daily is a list")?;
    assert_eq!(daily.len(), 30);
    let mut dates = Vec::new();
    for day in daily {
        expect_fields(day, &["date", "clicks"])?;
        dates.push(day["date"].as_str().context("a date")?);
    }
    assert!(dates.iter().all(|date| date.len() == 10) && dates.is_sorted_by(|a, b| a < b), "{dates:?}");
    let sum: u64 = daily.iter().filter_map(|day| day["clicks"].as_u64()).sum();
    assert_eq!(json!(sum), summary["total_clicks"]);
    // All clicks of the scenario are of one day, or of two around midnight.
    assert!(daily[..28].iter().all(|day| day["clicks"] == 0));
    Ok(())
}
