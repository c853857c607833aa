//! A store moves from one format of rows to the next, and programs that do not know the next one refuse it.

use anyhow::{Result, ensure};
use serde_json::json;
use shortener_tests::node::Node;
use shortener_tests::programs::next_node_program;

use crate::expect_refusal;

/// What a program says that is too old.
const REFUSAL: &str = "the keyspace is in format 3, and this program knows formats up to 2";

#[tokio::test]
async fn alone_a_newer_program_raises_the_format_when_it_starts_and_the_older_one_refuses_from_then_on() -> Result<()> {
    // Tokens name it, and a node's port is another one each time.
    let builder = || Node::builder().setting("BASE_URL", "http://sho.rt");
    let node = builder().start().await?;
    let user = node.client()?.register_and_login("ada@example.com", "a long enough passphrase").await?;
    let link = user.create("https://www.example.com/old").await?;
    let data = node.stop().await?;

    let next = || builder().data(data.clone()).binary(next_node_program().unwrap_or_default());
    let node = next().start().await?;
    ensure!(node.log().contains("raised the keyspace's format"), "{}", node.log());
    let user = node.client()?.with_token(user.token().unwrap_or_default());
    // One row is rewritten in the next format, one is made in it.
    let id = link["id"].as_str().unwrap_or_default();
    user.patch(&format!("/api/v1/urls/{id}"), &json!({ "title": "new" })).await?.expect_status(200)?;
    user.create("https://www.example.com/new").await?;
    node.stop().await?;

    expect_refusal(builder().data(data.clone()), REFUSAL).await?;
    let node = next().start().await?;
    let user = node.client()?.with_token(user.token().unwrap_or_default());
    let listed: serde_json::Value = user.get("/api/v1/urls").await?.expect_status(200)?.json()?;
    let titles: Vec<_> = listed["items"].as_array().into_iter().flatten().map(|item| item["title"].clone()).collect();
    assert_eq!(titles, [json!(null), json!("new")]);
    node.stop().await?;
    Ok(())
}
