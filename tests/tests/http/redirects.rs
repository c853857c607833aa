//! `GET|HEAD /{short_code}`: where links lead, for how long, and what those see who follow one that leads nowhere.
use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::{Answer, Client};

use super::scene::{
    Scene, builder, caller, create, create_alias, eventually, expect_problem, path_of, resource_of, send_with, started,
    text, unique, with_management_token,
};

const TARGET: &str = "https://example.com/target?a=b#c";

#[tokio::test]
async fn a_link_redirects_with_its_own_status_to_get_and_head_alike() -> Result<()> {
    let scene = Scene::open().await?;
    let temporary = "private, max-age=0";
    let permanent = "public, max-age=300";
    for (asked, status, cache) in [
        (Value::Null, 302, temporary),
        (json!(301), 301, permanent),
        (json!(302), 302, temporary),
        (json!(307), 307, temporary),
        (json!(308), 308, permanent),
    ] {
        let link = create(&scene.anyone, &json!({ "original_url": TARGET, "redirect_status": asked })).await?;
        for method in [Method::GET, Method::HEAD] {
            let answer = scene.anyone.send(method, &path_of(&link)?, |request| request).await?.expect_status(status)?;
            assert_eq!(answer.header("location"), Some(TARGET));
            assert_eq!(answer.header("cache-control"), Some(cache), "{status}");
            assert!(answer.body.is_empty() && answer.header("x-request-id").is_some());
            assert!(answer.header("ratelimit-limit").is_none() && answer.header("set-cookie").is_none());
        }
        let with_query = scene.anyone.get(&format!("{}?utm_source=x", path_of(&link)?)).await?;
        assert_eq!(with_query.header("location"), Some(TARGET));
    }
    Ok(())
}

#[tokio::test]
async fn a_code_that_leads_nowhere_is_a_page_for_browsers_and_a_problem_for_others() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let inactive = create(&user, &json!({ "original_url": TARGET })).await?;
    user.patch(&resource_of(&inactive)?, &json!({ "is_active": false })).await?.expect_status(200)?;
    let huge = format!("/{}", "x".repeat(9_000));
    for path in [&path_of(&inactive)?, "/never-made", "/ab", "/%FF", "/a%00b", "/a%2Fb", "/%20", "/ä", "/.env", &huge]
    {
        expect_nowhere(&scene.anyone, path, 404).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_expired_link_is_gone() -> Result<()> {
    let scene = Scene::open().await?;
    for expiry in [json!(1), json!(2)] {
        let link = create(&scene.anyone, &json!({ "original_url": TARGET, "expires_in": expiry })).await?;
        let path = path_of(&link)?;
        eventually("the link expires", async || match scene.anyone.get(&path).await? {
            Answer { status: 302, .. } => Ok(false),
            answer => expect_problem(&answer, 410).map(|_| true),
        })
        .await?;
        expect_nowhere(&scene.anyone, &path, 410).await?;
        with_management_token(&scene.anyone, &link)?.get(&resource_of(&link)?).await?.expect_status(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn caches_keep_a_permanent_redirect_no_longer_than_the_link_lives() -> Result<()> {
    let scene = Scene::open().await?;
    let body = json!({ "original_url": TARGET, "redirect_status": 301, "expires_in": 90 });
    let answer = scene.anyone.get(&path_of(&create(&scene.anyone, &body).await?)?).await?.expect_status(301)?;
    ensure!(age(&answer).is_some_and(|age| (60..=90).contains(&age)), "{:?}", answer.header("cache-control"));
    Ok(())
}

#[tokio::test]
async fn a_cdn_keeps_temporary_redirects_where_that_is_configured() -> Result<()> {
    let node = builder().await?.setting("CACHE_MAX_AGE", "60").setting("REDIRECT_STATUS", "307");
    let node = started(node).await?;
    let client = node.client()?;
    for (body, ages) in [
        (json!({ "original_url": TARGET }), 60..=60),
        (json!({ "original_url": TARGET, "expires_in": 30 }), 1..=30),
        (json!({ "original_url": TARGET, "expires_in": 3_600 }), 60..=60),
    ] {
        let answer = client.get(&path_of(&create(&client, &body).await?)?).await?.expect_status(307)?;
        ensure!(age(&answer).is_some_and(|age| ages.contains(&age)), "{:?}", answer.header("cache-control"));
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn the_very_next_redirect_sees_every_change() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let alias = unique("next");
    expect_nowhere(&scene.anyone, &format!("/{alias}"), 404).await?;
    let link = create(&user, &json!({ "original_url": TARGET, "custom_alias": alias })).await?;
    let (path, resource) = (path_of(&link)?, resource_of(&link)?);
    for number in 0..20 {
        let target = format!("https://example.com/{number}");
        user.patch(&resource, &json!({ "original_url": target })).await?.expect_status(200)?;
        assert_eq!(scene.anyone.get(&path).await?.expect_status(302)?.header("location"), Some(target.as_str()));
        user.patch(&resource, &json!({ "is_active": false })).await?.expect_status(200)?;
        scene.anyone.get(&path).await?.expect_status(404)?;
        user.patch(&resource, &json!({ "is_active": true, "redirect_status": 307 })).await?.expect_status(200)?;
        scene.anyone.get(&path).await?.expect_status(307)?;
        user.patch(&resource, &json!({ "redirect_status": null })).await?.expect_status(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_links_code_leads_nowhere_and_is_never_given_out_again() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create_alias(&user, "doomed", json!({ "original_url": TARGET, "tags": ["x"] })).await?;
    let (path, resource) = (path_of(&link)?, resource_of(&link)?);
    scene.anyone.get(&path).await?.expect_status(302)?;
    let deleted = user.delete(&resource).await?.expect_status(204)?;
    assert!(deleted.body.is_empty());
    expect_nowhere(&scene.anyone, &path, 404).await?;
    expect_problem(&user.get(&resource).await?, 404)?;
    expect_problem(&user.patch(&resource, &json!({ "is_active": true })).await?, 404)?;
    expect_problem(&user.delete(&resource).await?, 404)?;
    expect_problem(&user.get(&format!("/api/v1/qr{path}")).await?, 404)?;
    expect_problem(&user.get(&format!("/api/v1/analytics{path}/summary")).await?, 404)?;
    assert_eq!(user.get("/api/v1/urls").await?.json::<Value>()?, json!({ "items": [], "next_cursor": null }));
    let again = json!({ "original_url": TARGET, "custom_alias": link["short_code"] });
    expect_problem(&user.post("/api/v1/urls", &again).await?, 409)?;
    expect_problem(&scene.anyone.post("/api/v1/urls", &again).await?, 409)?;
    expect_nowhere(&scene.anyone, &path, 404).await
}

#[tokio::test]
async fn a_redirect_that_keeps_the_method_takes_every_method_and_others_take_get_and_head() -> Result<()> {
    let scene = Scene::open().await?;
    let methods = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, "PROPFIND".parse()?];
    for (status, keeps) in [(301, false), (302, false), (307, true), (308, true)] {
        let link = create(&scene.anyone, &json!({ "original_url": TARGET, "redirect_status": status })).await?;
        let path = path_of(&link)?;
        for method in &methods {
            // A body is for the target, and is not read.
            for body in [Vec::new(), b"{\"a\": 1}".to_vec(), vec![b'x'; 200_000]] {
                let answer = scene.anyone.send(method.clone(), &path, |request| request.body(body)).await?;
                if keeps {
                    let answer = answer.expect_status(status)?;
                    assert_eq!(answer.header("location"), Some(TARGET));
                    assert!(answer.header("allow").is_none() && answer.body.is_empty());
                } else {
                    expect_problem(&answer, 405)?;
                    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
                }
            }
        }
        let short_form = scene.anyone.post(&format!("/shortener/url{path}"), &json!({})).await?;
        expect_problem(&short_form, 405)?;
    }
    for nowhere in ["/never-made-at-all", "/.env"] {
        let answer = scene.anyone.post(nowhere, &json!({})).await?;
        expect_problem(&answer, 405)?;
    }
    Ok(())
}

/// What text leaves at the end of a link: the redirect is answered at once, for each of its two routes and for HEAD too.
#[tokio::test]
async fn what_no_code_can_hold_at_the_end_of_a_path_is_cut_off() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create_alias(&scene.anyone, "Launch", json!({ "original_url": TARGET })).await?;
    let path = path_of(&link)?;
    for end in include_str!("../../corpora/path_ends.txt").lines().filter(|line| !line.starts_with("# ")) {
        for method in [Method::GET, Method::HEAD] {
            for (path, status) in [(format!("{path}{end}"), 302), (format!("/shortener/url{path}{end}"), 301)] {
                let answer = scene.anyone.send(method.clone(), &path, |request| request).await?;
                assert_eq!((answer.status, answer.header("location")), (status, Some(TARGET)), "{method} {path:?}");
            }
        }
    }
    let with_query = scene.anyone.get(&format!("{path}/?utm_source=x")).await?.expect_status(302)?;
    assert_eq!(with_query.header("location"), Some(TARGET));
    for other in
        [format!("{path}.html"), format!("{path}/x"), format!("{path}%2Fx"), format!("/x{path}"), format!("/{path}")]
    {
        expect_problem(&scene.anyone.get(&other).await?, 404)?;
    }
    // Our own pages are no links.
    for (path, status) in [("/docs/", 200), ("/api/", 404), ("/api/v1/urls/", 404), ("/openapi.json/", 404)] {
        assert_eq!(scene.anyone.get(path).await?.status, status, "{path}");
    }
    Ok(())
}

/// Browsers and scanners ask for files: none of that tries a code.
#[tokio::test]
async fn what_cannot_be_a_code_is_no_guess() -> Result<()> {
    let scene = Scene::open().await?;
    let hidden = path_of(&create(&scene.anyone, &json!({ "original_url": TARGET })).await?)?;
    let visitor = caller(&scene.node)?;
    for _ in 0..10 {
        for path in include_str!("../../corpora/no_codes.txt").lines().filter(|line| !line.starts_with("# ")) {
            let answer = visitor.get(path).await?;
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    visitor.get(&hidden).await?.expect_status(302)?;
    Ok(())
}

/// For how long anybody may keep an answer, in seconds.
fn age(answer: &Answer) -> Option<u32> {
    answer.header("cache-control")?.strip_prefix("public, max-age=")?.parse().ok()
}

/// A page without scripts for who asks for one, as browsers do; a problem for everybody else; nothing that a cache keeps.
async fn expect_nowhere(client: &Client, path: &str, status: u16) -> Result<()> {
    let browsers = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
    let page = send_with(client, Method::GET, path, ("accept", browsers)).await?.expect_status(status)?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().starts_with("<!doctype html>") && !page.text().contains("<script"));
    for accept in ["*/*", "application/json"] {
        let problem = send_with(client, Method::GET, path, ("accept", accept)).await?;
        expect_problem(&problem, status)?;
        assert_eq!(problem.header("vary"), Some("Accept"));
        assert_eq!(problem.header("cache-control"), Some("private, max-age=0"));
    }
    let head = client.send(Method::HEAD, path, |request| request).await?.expect_status(status)?;
    assert!(head.body.is_empty() && text(&json!({ "id": head.header("x-request-id") }), "id").is_ok());
    Ok(())
}
