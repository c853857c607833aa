//! The short form of the same service: `POST /shortener/url/` and `GET /shortener/url/{id}`.
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::scene::{Scene, create_alias, expect_fields, expect_problem, expect_refused, path_of, text};

const SHORTEN: &str = "/shortener/url/";
const TARGET: &str = "https://example.com/short-form";

#[tokio::test]
async fn a_url_that_is_posted_is_followed_with_301() -> Result<()> {
    let scene = Scene::open().await?;
    let answer = scene.anyone.post(SHORTEN, &json!({ "url": TARGET })).await?.expect_status(201)?;
    let made: Value = answer.json()?;
    expect_fields(&made, &["id", "short_url"])?;
    let id = text(&made, "id")?;
    assert_eq!(made["short_url"], json!(format!("{}/{id}", scene.node.base_url())));
    assert!(answer.header("ratelimit-limit").is_some());
    for method in [Method::GET, Method::HEAD] {
        let followed =
            scene.anyone.send(method, &format!("{SHORTEN}{id}"), |request| request).await?.expect_status(301)?;
        assert_eq!(followed.header("location"), Some(TARGET));
    }
    // The same link as that of the long form, which redirects with the link's own status.
    scene.anyone.get(&format!("/{id}")).await?.expect_status(302)?;
    let alias =
        create_alias(&scene.anyone, "long-form", json!({ "original_url": TARGET, "redirect_status": 307 })).await?;
    scene.anyone.get(&format!("/shortener/url{}", path_of(&alias)?)).await?.expect_status(301)?;
    Ok(())
}

/// The status is that of the short form, the time for which it may be kept is the link's own.
#[tokio::test]
async fn a_temporary_link_is_not_kept_because_it_was_followed_by_the_short_form() -> Result<()> {
    let scene = Scene::open().await?;
    for (status, cache) in [
        (302, "private, max-age=0"),
        (307, "private, max-age=0"),
        (301, "public, max-age=300"),
        (308, "public, max-age=300"),
    ] {
        let body = json!({ "original_url": TARGET, "redirect_status": status });
        let alias = create_alias(&scene.anyone, "kept", body).await?;
        let answer = scene.anyone.get(&format!("/shortener/url{}", path_of(&alias)?)).await?.expect_status(301)?;
        assert_eq!(answer.header("cache-control"), Some(cache), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_short_form_refuses_it_names_in_its_own_words() -> Result<()> {
    let scene = Scene::open().await?;
    for (body, field) in [
        (json!({ "url": "http://localhost/" }), "url"),
        (json!({ "url": 1 }), "url"),
        (json!({}), "url"),
        (json!({ "url": TARGET, "alias": "x" }), "alias"),
        (json!({ "original_url": TARGET }), "original_url"),
        (json!([TARGET]), "body"),
    ] {
        expect_refused(&scene.anyone.post(SHORTEN, &body).await?, &[field])?;
    }
    expect_problem(&scene.anyone.get("/shortener/url/never-made").await?, 404)?;
    let answer = scene.anyone.get(SHORTEN).await?;
    expect_problem(&answer, 405)?;
    assert_eq!(answer.header("allow"), Some("POST"));
    Ok(())
}

#[tokio::test]
async fn a_signed_in_user_owns_what_she_shortens() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let made: Value = user.post(SHORTEN, &json!({ "url": TARGET })).await?.expect_status(201)?.json()?;
    let listed: Value = user.get("/api/v1/urls").await?.json()?;
    assert_eq!(listed["items"][0]["short_code"], made["id"]);
    Ok(())
}
