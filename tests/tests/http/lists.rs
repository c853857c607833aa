//! `GET /api/v1/urls`: one's own links, newest first, a page at a time.
use anyhow::{Context, Result};
use serde_json::{Value, json};
use shortener_tests::client::Client;

use super::scene::{
    Scene, builder, caller, create, expect_fields, expect_problem, expect_refused, resource_of, started, text,
};

const LINKS: usize = 47;
/// More than fit in two segments of the index.
const MANY_LINKS: usize = 360;

#[tokio::test]
async fn ones_own_links_come_newest_first_and_each_once_through_all_pages() -> Result<()> {
    let scene = Scene::open().await?;
    let (user, other) = (scene.user().await?, scene.user().await?);
    let mut made = Vec::new();
    for number in 0..LINKS {
        let target = format!("https://example.com/{number}");
        made.insert(0, text(&create(&user, &json!({ "original_url": target })).await?, "id")?);
        if number % 10 == 0 {
            create(&other, &json!({ "original_url": target })).await?;
        }
    }
    for (limit, sizes) in
        [("limit=20", vec![20, 20, 7]), ("", vec![20, 20, 7]), ("limit=47", vec![47]), ("limit=100", vec![47])]
    {
        let pages = pages(&user, limit).await?;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{limit}");
        assert_eq!(ids(&pages)?, made);
    }
    assert_eq!(ids(&pages(&user, "limit=1").await?)?, made);
    assert_eq!(ids(&pages(&other, "").await?)?.len(), 5);

    // A link that goes or comes between two pages moves no other one.
    let first: Value = user.get("/api/v1/urls?limit=10").await?.json()?;
    create(&user, &json!({ "original_url": "https://example.com/late" })).await?;
    user.delete(&resource_of(&first["items"][9])?).await?.expect_status(204)?;
    let next = user.get(&format!("/api/v1/urls?limit=10&cursor={}", text(&first, "next_cursor")?)).await?;
    assert_eq!(ids(&[items(&next.json()?)?])?, made[10..20]);
    Ok(())
}

#[tokio::test]
async fn a_list_is_narrowed_by_text_and_by_tag() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    for (target, title, tags) in [
        ("https://example.com/Apples", "fruit", vec!["red", "food"]),
        ("https://example.com/pears", "More FRUIT", vec!["green", "food"]),
        ("https://example.com/nails", "hardware", vec!["Food"]),
    ] {
        create(&user, &json!({ "original_url": target, "title": title, "tags": tags })).await?;
    }
    let alias: Value = create(
        &user,
        &json!({ "original_url": "https://example.org/", "custom_alias": super::scene::unique("needle") }),
    )
    .await?;
    for (filter, found) in [
        ("q=apples", 1),
        ("q=fruit", 2),
        ("q=example.com", 3),
        ("q=NEEDLE", 1),
        ("q=nothing-like-this", 0),
        ("q=%25", 0),
        ("tag=food", 2),
        ("tag=Food", 1),
        ("tag=foo", 0),
        ("tag=food&q=pears", 1),
        ("tag=red&q=pears", 0),
        ("q=&tag=", 4),
        ("q=fruit&limit=1", 2),
    ] {
        assert_eq!(ids(&pages(&user, filter).await?)?.len(), found, "{filter}");
    }
    assert_eq!(ids(&pages(&user, "q=needle").await?)?, [text(&alias, "id")?]);
    Ok(())
}

#[tokio::test]
async fn a_search_finds_what_was_typed_however_it_is_stored() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let mut made = Vec::new();
    for (target, title) in [
        ("https://münchen.example/biergarten", "Ausflug"),
        ("https://example.com/straße/5", "Umzug"),
        ("https://example.com/caf%C3%A9?table=4", "Lunch"),
        ("https://россия.рф/", "Москва"),
        ("https://example.com/5", "Das große Café"),
    ] {
        made.push(text(&create(&user, &json!({ "original_url": target, "title": title })).await?, "id")?);
    }
    for (typed, found) in [
        ("münchen", vec![0]),
        ("MU\u{308}NCHEN", vec![0]),
        ("xn--mnchen-3ya", vec![0]),
        ("straße", vec![1]),
        ("STRASSE", vec![1]),
        ("stra%C3%9Fe", vec![1]),
        ("café", vec![4, 2]),
        ("cafe\u{301}", vec![4, 2]),
        ("CAFÉ", vec![4, 2]),
        ("caf%c3%a9", vec![2]),
        ("россия", vec![3]),
        ("РОССИЯ.РФ", vec![3]),
        ("москва", vec![3]),
        ("GROSSE", vec![4]),
        ("grosse cafe", vec![]),
        ("example.com/straße", vec![1]),
        ("/5", vec![4, 1]),
    ] {
        let expected: Vec<String> = found.into_iter().filter_map(|number: usize| made.get(number).cloned()).collect();
        assert_eq!(ids(&pages(&user, &format!("q={}", encoded(typed))).await?)?, expected, "{typed}");
    }
    Ok(())
}

/// From the first search on an index is made in the background, which no answer may show.
#[tokio::test]
async fn a_search_over_many_links_is_right_while_they_are_made_changed_and_deleted() -> Result<()> {
    let builder = builder().await?.setting("RATE_LIMIT_REQUESTS", "100000");
    let node = started(builder.setting("TRUSTED_PROXIES", "127.0.0.1")).await?;
    let user = super::scene::user(&caller(&node)?).await?;
    let (mut red, mut made) = (Vec::new(), Vec::new());
    for number in 0..MANY_LINKS {
        let tags = if number % 40 == 1 { ["red"] } else { ["blue"] };
        let body = json!({ "original_url": format!("https://example.com/{number}"), "title": "plain", "tags": tags });
        let link = create(&user, &body).await?;
        made.push(resource_of(&link)?);
        if tags == ["red"] {
            red.insert(0, text(&link, "id")?);
        }
        if number % 50 == 0 {
            assert_eq!(ids(&pages(&user, "tag=red").await?)?, red, "after {number}");
            assert_eq!(ids(&pages(&user, "q=example.com/0").await?)?.len(), 1);
        }
    }
    for round in 0..3_usize {
        for resource in made.iter().skip(round).step_by(MANY_LINKS / 40) {
            user.patch(resource, &json!({ "title": "Große Änderung" })).await?.expect_status(200)?;
        }
        assert_eq!(ids(&pages(&user, "q=grosse").await?)?.len(), made.iter().step_by(MANY_LINKS / 40).len());
        for resource in made.iter().skip(round).step_by(MANY_LINKS / 40) {
            user.patch(resource, &json!({ "title": "plain" })).await?.expect_status(200)?;
        }
        assert_eq!(ids(&pages(&user, "q=grosse").await?)?, Vec::<String>::new());
    }
    assert_eq!(ids(&pages(&user, "q=PLAIN&limit=100").await?)?.len(), MANY_LINKS);
    // The oldest is found by itself, with no empty page before it, and not once it is deleted.
    let oldest: Value = user.get("/api/v1/urls?q=example.com/0").await?.json()?;
    assert_eq!((items(&oldest)?.len(), &oldest["next_cursor"]), (1, &Value::Null));
    let [first, ..] = made.as_slice() else { anyhow::bail!("links were made") };
    user.delete(first).await?.expect_status(204)?;
    assert_eq!(ids(&pages(&user, "q=example.com/0").await?)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_list_wants_a_token_and_parameters_that_make_sense() -> Result<()> {
    let scene = Scene::open().await?;
    expect_problem(&scene.anyone.get("/api/v1/urls").await?, 401)?;
    let user = scene.user().await?;
    let empty: Value = user.get("/api/v1/urls").await?.expect_status(200)?.json()?;
    assert_eq!(empty, json!({ "items": [], "next_cursor": null }));
    let long = "x".repeat(201);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=%00%FF", "cursor"),
        (&format!("q={long}"), "q"),
        (&format!("tag={long}"), "tag"),
        ("offset=20", "offset"),
    ] {
        expect_refused(&user.get(&format!("/api/v1/urls?{query}")).await?, &[field]).context(query.to_owned())?;
    }
    Ok(())
}

/// Follows `next_cursor` to the end.
async fn pages(user: &Client, query: &str) -> Result<Vec<Vec<Value>>> {
    let mut pages = Vec::new();
    let mut path = format!("/api/v1/urls?{query}");
    loop {
        let page: Value = user.get(&path).await?.expect_status(200)?.json()?;
        expect_fields(&page, &["items", "next_cursor"])?;
        pages.push(items(&page)?);
        assert!(page["next_cursor"].is_null() || pages.last().is_some_and(|page| !page.is_empty()), "{query}");
        let Some(cursor) = page["next_cursor"].as_str() else { return Ok(pages) };
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')));
        path = format!("/api/v1/urls?{query}&cursor={cursor}");
    }
}

fn items(page: &Value) -> Result<Vec<Value>> {
    page["items"].as_array().cloned().context("a page has items")
}

/// Text as it stands in a query.
fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or_default()
}

fn ids(pages: &[Vec<Value>]) -> Result<Vec<String>> {
    pages.iter().flatten().map(|link| text(link, "id")).collect()
}
