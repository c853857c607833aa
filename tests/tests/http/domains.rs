//! Several domains on one node: each has codes of its own, and the host that a request names chooses among them.
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::{Answer, Client};

use super::scene::{DOMAINS, Scene, create, expect_problem, resource_of, send_with, text, unique};

#[tokio::test]
async fn one_alias_leads_elsewhere_on_each_domain() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let alias = unique("everywhere");
    let mut links = Vec::new();
    for domain in ["", DOMAINS[0], DOMAINS[1]] {
        let target = format!("https://example.com/of-{domain}").replace(':', "-").replacen("https-", "https:", 1);
        let link = create(&user, &json!({ "original_url": target, "custom_alias": alias, "domain": domain })).await?;
        assert_eq!(link["domain"], json!(domain));
        let base = if domain.is_empty() { scene.node.base_url().to_owned() } else { format!("http://{domain}") };
        assert_eq!(link["short_url"], json!(format!("{base}/{alias}")));
        links.push(link);
    }
    let own = scene.node.address();
    for (host, link) in
        [(own, &links[0]), (DOMAINS[0], &links[1]), ("GO.example.COM", &links[1]), (DOMAINS[1], &links[2])]
    {
        let answer = from_host(&scene.anyone, host, &format!("/{alias}")).await?.expect_status(302)?;
        assert_eq!(answer.header("location"), link["original_url"].as_str(), "{host}");
        let short_form =
            from_host(&scene.anyone, host, &format!("/shortener/url/{alias}")).await?.expect_status(301)?;
        assert_eq!(short_form.header("location"), link["original_url"].as_str(), "{host}");
    }
    for strange in ["x.test", "unknown.example"] {
        expect_problem(&from_host(&scene.anyone, strange, &format!("/{alias}")).await?, 404)?;
        expect_problem(&from_host(&scene.anyone, strange, &format!("/shortener/url/{alias}")).await?, 404)?;
    }
    // A change or a deletion on one of them is seen there at once, and leaves the others alone.
    user.patch(&resource_of(&links[1])?, &json!({ "original_url": "https://example.com/moved" }))
        .await?
        .expect_status(200)?;
    let moved = from_host(&scene.anyone, DOMAINS[0], &format!("/{alias}")).await?;
    assert_eq!(moved.header("location"), Some("https://example.com/moved"));
    user.delete(&resource_of(&links[2])?).await?.expect_status(204)?;
    from_host(&scene.anyone, DOMAINS[1], &format!("/{alias}")).await?.expect_status(404)?;
    from_host(&scene.anyone, own, &format!("/{alias}")).await?.expect_status(302)?;
    let gone = json!({ "original_url": "https://example.com/", "custom_alias": alias, "domain": DOMAINS[1] });
    expect_problem(&user.post("/api/v1/urls", &gone).await?, 409)?;
    Ok(())
}

#[tokio::test]
async fn a_path_that_is_no_code_reaches_no_link_of_another_domain() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(
        &scene.anyone,
        &json!({ "original_url": "https://example.com/", "custom_alias": unique("promo"), "domain": DOMAINS[0] }),
    )
    .await?;
    let alias = text(&link, "short_code")?;
    let crooked = [format!("/1%2F{alias}"), format!("/{}%2F{alias}", DOMAINS[0]), format!("/{}%00{alias}", DOMAINS[0])];
    // Asked for before the link itself, so that what is remembered of them could stand in for it; and after.
    for _ in 0..2 {
        for path in &crooked {
            expect_problem(&scene.anyone.get(path).await?, 404)?;
        }
        from_host(&scene.anyone, DOMAINS[0], &format!("/{alias}")).await?.expect_status(302)?;
    }
    from_host(&scene.anyone, "unknown.example", &format!("/{alias}")).await?.expect_status(404)?;
    Ok(())
}

#[tokio::test]
async fn clicks_and_qr_codes_are_those_of_the_domain_that_is_named() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create(
        &user,
        &json!({ "original_url": "https://example.com/", "custom_alias": unique("named"), "domain": DOMAINS[0] }),
    )
    .await?;
    let alias = text(&link, "short_code")?;
    let (summary, qr) = (format!("/api/v1/analytics/{alias}/summary"), format!("/api/v1/qr/{alias}"));
    for path in [&summary, &qr] {
        expect_problem(&user.get(path).await?, 404)?;
        user.get(&format!("{path}?domain={}", DOMAINS[0])).await?.expect_status(200)?;
        expect_problem(&user.get(&format!("{path}?domain={}", DOMAINS[1])).await?, 404)?;
        expect_problem(&user.get(&format!("{path}?domain=evil.example")).await?, 404)?;
    }
    let listed: Value = user.get("/api/v1/urls").await?.json()?;
    assert_eq!(listed["items"][0]["domain"], json!(DOMAINS[0]));
    Ok(())
}

async fn from_host(client: &Client, host: &str, path: &str) -> Result<Answer> {
    send_with(client, Method::GET, path, ("host", host)).await
}
