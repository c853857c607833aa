//! Who may read, change and delete a link, and what a change may be.
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::scene::{
    Scene, create, expect_problem, expect_refused, path_of, resource_of, text, with_management_token,
    without_management_token,
};

const TARGET: &str = "https://example.com/target";

#[tokio::test]
async fn somebody_elses_link_is_not_there() -> Result<()> {
    let scene = Scene::open().await?;
    let (owner, stranger) = (scene.user().await?, scene.user().await?);
    let link = create(&owner, &json!({ "original_url": TARGET, "title": "mine" })).await?;
    let (resource, summary) = (resource_of(&link)?, format!("/api/v1/analytics{}/summary", path_of(&link)?));
    let change = json!({ "original_url": "https://example.com/hijacked" });

    owner.get(&resource).await?.expect_status(200)?;
    owner.get(&summary).await?.expect_status(200)?;
    let mut refusals = vec![scene.anyone.get(&resource).await?];
    for (path, is_summary) in [(&resource, false), (&summary, true)] {
        refusals.push(stranger.get(path).await?);
        if !is_summary {
            refusals.extend([stranger.patch(path, &change).await?, stranger.delete(path).await?]);
        }
    }
    for refusal in &refusals {
        let problem = expect_problem(refusal, 404)?;
        assert_eq!(problem["detail"], expect_problem(&stranger.get("/api/v1/urls/1").await?, 404)?["detail"]);
    }
    for unknown in [
        scene.anyone.patch(&resource, &change).await?,
        scene.anyone.delete(&resource).await?,
        scene.anyone.get(&summary).await?,
    ] {
        expect_problem(&unknown, 401)?;
    }
    let untouched: Value = owner.get(&resource).await?.json()?;
    assert_eq!(untouched, link);
    Ok(())
}

#[tokio::test]
async fn a_link_without_an_owner_is_managed_with_the_token_of_its_creation_and_by_nobody_else() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create(&scene.anyone, &json!({ "original_url": TARGET })).await?;
    let other = create(&scene.anyone, &json!({ "original_url": TARGET })).await?;
    let owned = create(&user, &json!({ "original_url": TARGET })).await?;
    let (resource, token) = (resource_of(&link)?, text(&link, "management_token")?);
    assert!(token.len() >= 43 && owned.get("management_token").is_none(), "{token} {owned}");

    let change = json!({ "is_active": false });
    for (client, status) in [(&scene.anyone, 401), (&user, 404)] {
        expect_problem(&client.get(&resource).await?, 404)?;
        expect_problem(&client.patch(&resource, &change).await?, status)?;
        expect_problem(&client.delete(&resource).await?, status)?;
        expect_problem(&client.get(&format!("/api/v1/analytics{}/summary", path_of(&link)?)).await?, status)?;
    }
    // The token of another link, none at all, a wrong one, and the right one for what is owned or not there: one answer.
    let wrong_end = format!("{}{}", &token[..42], if token.ends_with('A') { 'E' } else { 'A' });
    let wrong = [text(&other, "management_token")?, wrong_end, "x".to_owned(), token.to_uppercase()];
    let refused = wrong.iter().map(|wrong| (wrong.clone(), resource.clone()));
    let elsewhere = [resource_of(&owned)?, "/api/v1/urls/1".to_owned(), resource_of(&other)?];
    let mut details = std::collections::BTreeSet::new();
    for (token, resource) in refused.chain(elsewhere.map(|resource| (token.clone(), resource))) {
        let client = scene.anyone.with_header("authorization", &format!("Link {token}"));
        for answer in
            [client.get(&resource).await?, client.patch(&resource, &change).await?, client.delete(&resource).await?]
        {
            details.insert(text(&expect_problem(&answer, 404)?, "detail")?);
        }
    }
    assert_eq!(details.len(), 1, "{details:?}");
    scene.anyone.get(&path_of(&link)?).await?.expect_status(302)?;

    let manager = with_management_token(&scene.anyone, &link)?;
    let read: Value = manager.get(&resource).await?.expect_status(200)?.json()?;
    assert_eq!(read, without_management_token(&link), "no answer but the first has the token");
    let lower = scene.anyone.with_header("authorization", &format!("link   {token}"));
    let changed: Value = lower.patch(&resource, &json!({ "title": "mine" })).await?.expect_status(200)?.json()?;
    assert!(changed["title"] == "mine" && changed.get("management_token").is_none(), "{changed}");
    manager.delete(&resource).await?.expect_status(204)?;
    scene.anyone.get(&path_of(&link)?).await?.expect_status(404)?;
    expect_problem(&manager.get(&resource).await?, 404)?;
    expect_problem(&manager.patch(&resource, &change).await?, 404)?;
    expect_problem(&manager.delete(&resource).await?, 404)?;
    Ok(())
}

/// IDs in the order in which links were made are neither in order nor near each other, and the IDs that the clock would give name
/// nothing.
#[tokio::test]
async fn a_public_id_tells_no_time_and_is_not_guessed() -> Result<()> {
    const MADE: usize = 40;
    const EPOCH_UNIX_MS: u64 = 1_735_689_600_000;
    const GUESSED_MS: u64 = 200;
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let mut ids = Vec::new();
    for _ in 0..MADE {
        let link = create(&user, &json!({ "original_url": TARGET })).await?;
        ids.push(text(&link, "id")?.parse::<u64>()?);
    }
    let rises = ids.windows(2).filter(|pair| pair[0] < pair[1]).count();
    // Of permutations by chance fewer than one in a billion has so many or so few.
    assert!((6..34).contains(&rises), "{rises} of {MADE} IDs are higher than the one before: {ids:?}");
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let nearest = sorted.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or_default();
    assert!(nearest > 1 << 24, "two IDs are {nearest} apart");
    // The worker ID and the millisecond of the last link, as somebody guesses who knows how IDs are minted.
    let worker = user.health().await?["ids"]["worker_id"].as_u64().context("a worker ID")?;
    let made: jiff::Timestamp =
        text(&user.get("/api/v1/urls?limit=1").await?.json::<Value>()?["items"][0], "created_at")?.parse()?;
    let made_ms = u64::try_from(made.as_millisecond())? - EPOCH_UNIX_MS;
    for ms in made_ms.saturating_sub(GUESSED_MS / 2)..made_ms + GUESSED_MS / 2 {
        expect_problem(&user.get(&format!("/api/v1/urls/{}", ms << 22 | worker << 10)).await?, 404)?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_id_names_no_link() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    for id in ["0", "1", "18446744073709551615", "18446744073709551616", "-1", "+1", "1.0", "abc", "%FF", "%00", "0x1"]
    {
        expect_problem(&user.get(&format!("/api/v1/urls/{id}")).await?, 404)?;
        expect_problem(&user.patch(&format!("/api/v1/urls/{id}"), &json!({ "title": "x" })).await?, 404)?;
        expect_problem(&user.delete(&format!("/api/v1/urls/{id}")).await?, 404)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_change_sets_what_is_there_clears_what_is_null_and_leaves_the_rest() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let body =
        json!({ "original_url": TARGET, "expires_in": 3_600, "redirect_status": 301, "title": "t", "tags": ["a"] });
    let made = create(&user, &body).await?;
    let resource = resource_of(&made)?;
    let change = async |change: Value| -> Result<Value> {
        let changed: Value = user.patch(&resource, &change).await?.expect_status(200)?.json()?;
        assert!(text(&changed, "updated_at")? >= text(&made, "created_at")?);
        for kept in ["id", "domain", "short_code", "short_url", "created_at", "click_count"] {
            assert_eq!(changed[kept], made[kept]);
        }
        assert_eq!(user.get(&resource).await?.json::<Value>()?, changed);
        Ok(changed)
    };
    let fields = |link: &Value| {
        let names = ["original_url", "is_active", "expires_at", "redirect_status", "title", "tags"];
        names.map(|name| link[name].clone())
    };
    let untouched = change(json!({})).await?;
    assert_eq!(fields(&untouched), fields(&made));

    let set = json!({ "original_url": "https://example.com/other", "is_active": false, "expires_at": "2099-01-01T00:00:00.000Z",
        "redirect_status": 307, "title": "new", "tags": ["b", "c"] });
    assert_eq!(fields(&change(set.clone()).await?), fields(&set));

    let title_only = change(json!({ "title": null })).await?;
    let mut expected = set.clone();
    expected["title"] = Value::Null;
    assert_eq!(fields(&title_only), fields(&expected));

    let cleared =
        json!({ "is_active": null, "expires_at": null, "redirect_status": null, "title": null, "tags": null });
    let expected = json!({ "original_url": "https://example.com/other", "is_active": true, "expires_at": null,
        "redirect_status": 302, "title": null, "tags": [] });
    assert_eq!(fields(&change(cleared).await?), fields(&expected));
    Ok(())
}

#[tokio::test]
async fn a_change_that_is_refused_is_named_and_changes_nothing() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create(&user, &json!({ "original_url": TARGET, "title": "t" })).await?;
    let resource = resource_of(&link)?;
    for (field, value) in [
        ("original_url", Value::Null),
        ("original_url", json!("http://localhost/")),
        ("original_url", json!(1)),
        ("is_active", json!("yes")),
        ("expires_at", json!("2001-01-01T00:00:00Z")),
        ("expires_at", json!(5)),
        ("redirect_status", json!(304)),
        ("title", json!("x".repeat(201))),
        ("tags", json!([""])),
        ("custom_alias", json!("another")),
        ("short_code", json!("another")),
        ("domain", json!("go.example.com")),
        ("expires_in", json!(60)),
        ("click_count", json!(1_000_000)),
        ("id", json!("1")),
    ] {
        let mut change = json!({ "title": "changed" });
        change[field] = value;
        expect_refused(&user.patch(&resource, &change).await?, &[field])?;
    }
    expect_refused(&user.patch(&resource, &json!([])).await?, &["body"])?;
    assert_eq!(user.get(&resource).await?.json::<Value>()?, link);
    Ok(())
}
