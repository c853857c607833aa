//! `POST /api/v1/urls`: what a link may be made of, what it then is, and what is refused.
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use url::Url;

use super::scene::{
    Scene, create, create_alias, expect_fields, expect_problem, expect_refused, expect_time, path_of, resource_of,
    text, unique, with_management_token, without_management_token,
};

const URLS: &str = "/api/v1/urls";

#[tokio::test]
async fn a_link_needs_nothing_but_a_url_and_comes_with_all_that_is_promised() -> Result<()> {
    let scene = Scene::open().await?;
    let body = json!({ "original_url": "https://EXAMPLE.com:443/a path/../ü?q=ä#f".replace(' ', "%20") });
    let answer = scene.anyone.post(URLS, &body).await?.expect_status(201)?;
    let link: Value = answer.json()?;
    let fields = ["id", "domain", "short_code", "short_url", "original_url", "redirect_status", "title", "tags"];
    let rest = ["is_active", "expires_at", "click_count", "created_at", "updated_at", "management_token"];
    expect_fields(&link, &[&fields[..], &rest[..]].concat())?;
    let id = text(&link, "id")?;
    assert_eq!(id.parse::<u64>()?.to_string(), id, "an ID that JavaScript would round is text");
    assert_eq!(answer.header("location"), Some(resource_of(&link)?.as_str()));
    let code = text(&link, "short_code")?;
    assert!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{code}");
    assert_eq!(link["short_url"], json!(format!("{}/{code}", scene.node.base_url())));
    assert_eq!(link["original_url"], json!("https://example.com/%C3%BC?q=%C3%A4#f"));
    let defaults = json!([link["domain"], link["redirect_status"], link["title"], link["tags"], link["is_active"]]);
    assert_eq!(defaults, json!(["", 302, null, [], true]));
    assert_eq!((&link["expires_at"], &link["click_count"]), (&Value::Null, &json!(0)));
    expect_time(&link["created_at"])?;
    assert_eq!(link["created_at"], link["updated_at"]);
    let manager = with_management_token(&scene.anyone, &link)?;
    let read: Value = manager.get(&resource_of(&link)?).await?.expect_status(200)?.json()?;
    assert_eq!(read, without_management_token(&link));
    Ok(())
}

/// What is no URL of the RFC, what nobody sees, and what means never: as it is answered, and as it is sent to visitors.
#[tokio::test]
async fn a_target_leaves_as_the_rfc_writes_urls_and_a_moment_in_the_last_year_is_never() -> Result<()> {
    let scene = Scene::open().await?;
    let cases = include_str!("../../corpora/targets.txt").lines().filter(|line| !line.starts_with('#'));
    for (sent, expected) in cases.filter_map(|line| line.split_once('\t')) {
        let sent: String = serde_json::from_str(&format!("\"{sent}\"")).context(sent.to_owned())?;
        let answer = scene.anyone.post(URLS, &json!({ "original_url": sent })).await?;
        if let Some(reason) = expected.strip_prefix("refused: ") {
            expect_refused(&answer, &["original_url"]).with_context(|| format!("{sent:?}"))?;
            ensure!(answer.text().contains(reason), "{sent:?}: {}", answer.text());
            continue;
        }
        let link: Value = answer.expect_status(201).with_context(|| format!("{sent:?}"))?.json()?;
        assert_eq!(link["original_url"], expected, "{sent:?}");
        assert_eq!(scene.anyone.get(&path_of(&link)?).await?.header("location"), Some(expected), "{sent:?}");
    }
    let never = json!({ "original_url": "https://example.com/", "expires_at": "9999-12-31T23:59:59Z" });
    let link = create(&scene.anyone, &never).await?;
    assert_eq!(link["expires_at"], Value::Null);
    let manager = with_management_token(&scene.anyone, &link)?;
    let soon = manager.patch(&resource_of(&link)?, &json!({ "expires_at": "2099-01-01T00:00:00Z" })).await?;
    assert_eq!(soon.expect_status(200)?.json::<Value>()?["expires_at"], "2099-01-01T00:00:00.000Z");
    let again = manager.patch(&resource_of(&link)?, &json!({ "expires_at": never["expires_at"] })).await?;
    assert_eq!(again.expect_status(200)?.json::<Value>()?["expires_at"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn tags_are_trimmed_and_each_is_kept_once() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let tags = json!([" food", "food\u{200b}", "gru\u{308}n", "grün", "Food"]);
    let link = create(&user, &json!({ "original_url": "https://example.com/", "tags": tags })).await?;
    assert_eq!(link["tags"], json!(["food", "grün", "Food"]));
    for query in ["tag=food", "tag=%20food%E2%80%8B", "tag=gru%CC%88n"] {
        let found: Value = user.get(&format!("{URLS}?{query}")).await?.expect_status(200)?.json()?;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{query}");
    }
    for invisible in [" ", "\u{200b}", "\u{2060}\u{feff}", "fo\u{200b}od"] {
        let body = json!({ "original_url": "https://example.com/", "tags": [invisible] });
        expect_refused(&user.post(URLS, &body).await?, &["tags"])?;
    }
    Ok(())
}

#[tokio::test]
async fn an_alias_that_somebody_has_is_told_apart_from_one_that_was_used_before() -> Result<()> {
    let scene = Scene::open().await?;
    let user = scene.user().await?;
    let link = create_alias(&user, "fleeting", json!({ "original_url": "https://example.com/" })).await?;
    let again = json!({ "original_url": "https://example.com/", "custom_alias": link["short_code"] });
    let refused = async |kind: &str, word: &str| {
        let problem = expect_problem(&scene.anyone.post(URLS, &again).await?, 409)?;
        ensure!(problem["type"] == format!("urn:shortener:problem:{kind}"), "{problem}");
        ensure!(text(&problem, "detail")?.contains(word), "{problem}");
        Ok(())
    };
    refused("alias-taken", "Somebody has this alias").await?;
    user.delete(&resource_of(&link)?).await?.expect_status(204)?;
    refused("alias-used", "was used before").await
}

#[tokio::test]
async fn every_option_of_a_link_is_kept() -> Result<()> {
    let scene = Scene::open().await?;
    let body = json!({
        "original_url": "https://example.com/launch",
        "custom_alias": unique("Launch_2026"),
        "expires_at": "2099-12-31T23:59:59.5+02:00",
        "redirect_status": 308,
        "title": "Launch 🚀",
        "tags": ["spring", "größe"],
        "domain": "go.example.com",
    });
    let link = create(&scene.user().await?, &body).await?;
    for field in ["original_url", "redirect_status", "title", "tags", "domain"] {
        assert_eq!(link[field], body[field]);
    }
    assert_eq!(link["short_code"], body["custom_alias"]);
    assert_eq!(link["expires_at"], json!("2099-12-31T21:59:59.500Z"));
    let within = create(&scene.anyone, &json!({ "original_url": "https://example.com/", "expires_in": 3_600 })).await?;
    expect_time(&within["expires_at"])?;
    let nulls = json!({ "original_url": "https://example.com/", "custom_alias": null, "expires_at": null, "expires_in": null,
        "redirect_status": null, "title": null, "tags": null, "domain": null });
    create(&scene.anyone, &nulls).await?;
    Ok(())
}

#[tokio::test]
async fn an_alias_is_given_out_once_even_to_many_at_a_time() -> Result<()> {
    let scene = Scene::open().await?;
    let alias = unique("popular");
    let body = json!({ "original_url": "https://example.com/", "custom_alias": alias });
    let answers = futures::future::try_join_all((0..32).map(|_| scene.anyone.post(URLS, &body))).await?;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        expect_problem(answer, 409)?;
    }
    expect_problem(&scene.user().await?.post(URLS, &body).await?, 409)?;
    let shouted = json!({ "original_url": "https://example.com/upper", "custom_alias": alias.to_uppercase() });
    let shouted = create(&scene.anyone, &shouted).await?;
    assert_eq!(scene.anyone.get(&path_of(&shouted)?).await?.header("location"), Some("https://example.com/upper"));
    Ok(())
}

#[tokio::test]
async fn a_refused_option_is_named() -> Result<()> {
    let scene = Scene::open().await?;
    let long = "x".repeat(65);
    for (option, value) in [
        ("custom_alias", json!("ab")),
        ("custom_alias", json!(long)),
        ("custom_alias", json!("with space")),
        ("custom_alias", json!("a/b")),
        ("custom_alias", json!("süß")),
        ("custom_alias", json!("api")),
        ("custom_alias", json!("Docs")),
        ("custom_alias", json!("")),
        ("custom_alias", json!(7)),
        ("expires_at", json!("2020-01-01T00:00:00Z")),
        ("expires_at", json!("tomorrow")),
        ("expires_at", json!("2099-13-01T00:00:00Z")),
        ("expires_at", json!(4_102_444_800_u64)),
        ("expires_in", json!(0)),
        ("expires_in", json!(-5)),
        ("expires_in", json!(1.5)),
        ("expires_in", json!("60")),
        ("expires_in", json!(u64::MAX)),
        ("redirect_status", json!(200)),
        ("redirect_status", json!(303)),
        ("redirect_status", json!(100_000)),
        ("redirect_status", json!("302")),
        ("title", json!("x".repeat(201))),
        ("title", json!("two\nlines")),
        ("title", json!({ "text": "x" })),
        ("tags", json!("spring")),
        ("tags", json!(vec!["x"; 11])),
        ("tags", json!([""])),
        ("tags", json!(["x".repeat(51)])),
        ("tags", json!([["nested"]])),
        ("domain", json!("evil.example")),
        ("domain", json!(1)),
        ("owner", json!("1")),
        ("short_code", json!("abcdefg")),
        ("is_active", json!(false)),
    ] {
        let answer = scene.anyone.post(URLS, &json!({ "original_url": "https://example.com/", option: value })).await?;
        let field = if value == json!([["nested"]]) { "tags[0]" } else { option };
        expect_refused(&answer, &[field])?;
    }
    let both =
        json!({ "original_url": "https://example.com/", "expires_at": "2099-01-01T00:00:00Z", "expires_in": 60 });
    expect_refused(&scene.anyone.post(URLS, &both).await?, &["expires_in"])?;
    let many = json!({ "original_url": "ftp://example.com/", "custom_alias": "x", "expires_in": 0, "tags": [""] });
    expect_refused(&scene.anyone.post(URLS, &many).await?, &["original_url", "custom_alias", "expires_in", "tags"])?;
    Ok(())
}

#[tokio::test]
async fn every_kind_of_refused_url_is_refused_and_not_repeated() -> Result<()> {
    let scene = Scene::open().await?;
    let own = Url::parse(scene.node.base_url())?.port().unwrap_or_default();
    let too_long = format!("https://example.com/{}", "x".repeat(8_192));
    for url in [
        "",
        "example.com",
        "//example.com/",
        "javascript:alert(1)",
        "data:text/html,hello",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com/a b",
        " https://example.com/",
        "https://example.com/\t",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://exa\u{0}mple.com/",
        &too_long,
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a00:1]/",
        "http://１２７.０.０.１/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://[fd00::1]/",
        "http://100.64.0.1/",
        "http://169.254.1.1/",
        "http://[fe80::1]/",
        "http://224.0.0.1/",
        "http://[ff02::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "http://printer/",
        "http://printer.local/",
        "http://db.internal/",
        "http://app.localhost/",
        "https://go.example.com/loop",
        "https://GO.example.com.:8443/loop",
        "http://x.test/loop",
        &format!("http://127.0.0.1:{own}/loop"),
    ] {
        let answer = scene.anyone.post(URLS, &json!({ "original_url": url })).await?;
        expect_refused(&answer, &["original_url"])?;
        let link = answer.text();
        assert!(!link.contains("secret"), "a refusal does not repeat the URL: {link}");
    }
    Ok(())
}

#[tokio::test]
async fn public_urls_are_shortened_up_to_the_longest() -> Result<()> {
    let scene = Scene::open().await?;
    for url in [
        "http://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://bücher.example.com/",
        "https://example.com:8443/?a=b#c",
    ] {
        create(&scene.anyone, &json!({ "original_url": url })).await?;
    }
    let longest = format!("https://example.com/{}", "x".repeat(8_192 - 20));
    let link = create(&scene.anyone, &json!({ "original_url": longest })).await?;
    assert_eq!(scene.anyone.get(&path_of(&link)?).await?.header("location"), Some(longest.as_str()));
    Ok(())
}
