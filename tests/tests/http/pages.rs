//! What browsers are given: the page and the documentation with every file they name, and the headers that keep them safe.
use anyhow::{Context, Result};
use serde_json::json;
use shortener_tests::client::Client;

use super::scene::{Scene, create, path_of};

#[tokio::test]
async fn the_page_and_the_documentation_load_whole_and_from_nowhere_else() -> Result<()> {
    let scene = Scene::open().await?;
    for (page, least) in [("/", 3), ("/docs", 5)] {
        let html = scene.anyone.get(page).await?.expect_status(200)?;
        assert!(html.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        let named = named_files(&html.text());
        assert!(named.len() >= least, "{page} names {named:?}");
        for file in named {
            assert!(
                file.starts_with('/') && !file.starts_with("//"),
                "{page} names {file}, which is outside or relative"
            );
            expect_file(&scene.anyone, &file).await?;
        }
    }
    let setup = scene.anyone.get("/docs/swagger-initializer.js").await?.expect_status(200)?.text();
    assert!(setup.contains("/openapi.json") && !setup.contains("petstore"), "{setup}");
    Ok(())
}

#[tokio::test]
async fn what_browsers_and_crawlers_ask_for_by_themselves_is_there() -> Result<()> {
    let scene = Scene::open().await?;
    for (path, kind) in [("/favicon.ico", "image/svg+xml"), ("/robots.txt", "text/plain; charset=utf-8")] {
        let answer = scene.anyone.get(path).await?.expect_status(200)?;
        assert_eq!(answer.header("content-type"), Some(kind));
    }
    Ok(())
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_browsers_safe() -> Result<()> {
    let scene = Scene::open().await?;
    for path in [
        "/",
        "/docs",
        "/docs/swagger-ui.css",
        "/openapi.json",
        "/assets/app.js",
        "/api/v1/health",
        "/api/v1/urls",
        "/never-made",
        "/no/such/path",
    ] {
        let answer = scene.anyone.get(path).await?;
        let policy = answer.header("content-security-policy").with_context(|| path.to_owned())?;
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        for kept_out in ["object-src 'none'", "base-uri 'none'", "form-action "] {
            assert!(policy.contains(kept_out), "{path} allows what {kept_out} forbids: {policy}");
        }
        assert!(
            !policy.contains("unsafe-eval") && !policy.contains("script-src 'self' 'unsafe-inline'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains('*') && !policy.contains("http"), "{path} lets others in: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert!(answer.header("referrer-policy").is_some(), "{path}");
        assert!(answer.header("server").is_none() && answer.header("x-powered-by").is_none(), "{path}");
    }
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let redirect = scene.anyone.get(&path_of(&link)?).await?;
    assert!(redirect.header("referrer-policy").is_none(), "a target learns what browsers tell by default");
    Ok(())
}

/// What a page loads: its `src` and `href` that are no link to another page.
fn named_files(html: &str) -> Vec<String> {
    let after = |name: &str| html.split(name).skip(1).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>();
    let tags: Vec<_> = html.split('<').filter(|tag| tag.starts_with("link ")).collect();
    let linked = tags.iter().filter_map(|tag| tag.split("href=\"").nth(1)?.split('"').next());
    linked.chain(after("src=\"")).filter(|file| !file.is_empty()).map(str::to_owned).collect()
}

async fn expect_file(client: &Client, path: &str) -> Result<()> {
    let answer = client.get(path).await?.expect_status(200).with_context(|| path.to_owned())?;
    let kind = answer.header("content-type").context("a type")?;
    let wanted = match path.rsplit('.').next() {
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => kind,
    };
    assert!(kind.starts_with(wanted), "{path} is {kind}");
    assert!(!answer.body.is_empty());
    Ok(())
}
