//! `Idempotency-Key`: a create that is repeated because its answer was lost makes no second link.
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::{Answer, Client};

use super::scene::{Scene, caller, eventually, expect_problem, expect_refused, path_of, text, unique};

#[tokio::test]
async fn a_repeated_create_gets_the_first_answer_and_another_body_is_refused() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    for client in [&user, &scene.anyone] {
        let key = unique("key");
        let body = json!({ "original_url": "https://example.com/once", "custom_alias": unique("once") });
        let first = create_with(client, &key, &body).await?.expect_status(201)?;
        for _ in 0..3 {
            let again = create_with(client, &key, &body).await?.expect_status(201)?;
            assert_eq!(
                (again.body, again.headers.get("location")),
                (first.body.clone(), first.headers.get("location"))
            );
        }
        let other = json!({ "original_url": "https://example.com/other" });
        let problem = expect_problem(&create_with(client, &key, &other).await?, 422)?;
        assert!(text(&problem, "type")?.ends_with(":key-reused"), "{problem}");
        let another_key = create_with(client, &unique("key"), &other).await?.expect_status(201)?;
        assert_ne!(another_key.json::<Value>()?["id"], first.json::<Value>()?["id"]);
    }
    let listed: Value = user.get("/api/v1/urls").await?.json()?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_link() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let (key, body) = (unique("key"), json!({ "original_url": "https://example.com/race" }));
    let answers = futures::future::try_join_all((0..32).map(|_| create_with(&user, &key, &body))).await?;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{}", answer.text());
    }
    let listed: Value = user.get("/api/v1/urls").await?.json()?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn the_keys_of_different_callers_are_different_keys() -> Result<()> {
    let scene = Scene::open().await?;
    let (key, body) = (unique("key"), json!({ "original_url": "https://example.com/mine" }));
    let callers = [scene.user().await?, scene.user().await?, caller(&scene.node)?, caller(&scene.node)?];
    let mut ids = Vec::new();
    for client in &callers {
        let link: Value = create_with(client, &key, &body).await?.expect_status(201)?.json()?;
        ids.push(text(&link, "id")?);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), callers.len());
    Ok(())
}

#[tokio::test]
async fn a_create_that_would_be_refused_by_now_still_gets_its_first_answer() -> Result<()> {
    let scene = Scene::open().await?;
    let key = unique("key");
    let soon: Value =
        create_with(&scene.anyone, &unique("key"), &json!({ "original_url": "https://example.com/", "expires_in": 2 }))
            .await?
            .expect_status(201)?
            .json()?;
    let body = json!({ "original_url": "https://example.com/", "expires_at": soon["expires_at"] });
    let first = create_with(&scene.anyone, &key, &body).await?.expect_status(201)?;
    let path = path_of(&first.json()?)?;
    eventually("the link expires", async || Ok(scene.anyone.get(&path).await?.status == 410)).await?;
    assert_eq!(create_with(&scene.anyone, &key, &body).await?.expect_status(201)?.body, first.body);
    expect_refused(&create_with(&scene.anyone, &unique("key"), &body).await?, &["expires_at"])
}

#[tokio::test]
async fn a_refused_create_does_not_use_up_its_key_and_a_key_has_a_shape() -> Result<()> {
    let scene = Scene::open().await?;
    let key = unique("key");
    expect_refused(&create_with(&scene.anyone, &key, &json!({ "original_url": "x" })).await?, &["original_url"])?;
    let body = json!({ "original_url": "https://example.com/" });
    create_with(&scene.anyone, &key, &body).await?.expect_status(201)?;
    for wrong in ["", "käse", &"k".repeat(256)] {
        expect_refused(&create_with(&scene.anyone, wrong, &body).await?, &["Idempotency-Key"])?;
    }
    create_with(&scene.anyone, &format!("{}{key}", "k".repeat(200)), &body).await?.expect_status(201)?;
    Ok(())
}

async fn create_with(client: &Client, key: &str, body: &Value) -> Result<Answer> {
    client.send(Method::POST, "/api/v1/urls", |request| request.header("idempotency-key", key).json(body)).await
}
