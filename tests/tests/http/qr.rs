//! `GET /api/v1/qr/{short_code}`: an image that reads as the short URL.
use std::io::Cursor;

use anyhow::{Context, Result};
use reqwest::Method;
use rqrr::PreparedImage;
use serde_json::json;
use shortener_tests::client::Answer;

use super::scene::{DOMAINS, Scene, builder, caller, create, expect_problem, expect_refused, started, text, user};

#[tokio::test]
async fn a_png_reads_as_the_short_url_at_every_size_margin_and_correction() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let path = format!("/api/v1/qr/{}", text(&link, "short_code")?);
    for (query, side) in [
        ("", 256),
        ("?format=png&size=300", 300),
        ("?size=2048", 2_048),
        ("?margin=16&size=512&ec=H", 512),
        ("?ec=L&margin=4", 256),
        ("?ec=Q", 256),
    ] {
        let answer = scene.anyone.get(&format!("{path}{query}")).await?.expect_status(200)?;
        assert_eq!(answer.header("content-type"), Some("image/png"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=86400"));
        assert_eq!(read(&answer, side)?, text(&link, "short_url")?, "{query}");
    }
    let again = scene.anyone.get(&path).await?;
    assert_eq!(again.body, scene.anyone.get(&path).await?.body);
    let head = scene.anyone.send(Method::HEAD, &path, |request| request).await?.expect_status(200)?;
    assert!(head.body.is_empty() && head.header("content-type") == Some("image/png"));
    Ok(())
}

#[tokio::test]
async fn a_qr_code_is_that_of_its_domain() -> Result<()> {
    let scene = Scene::open().await?;
    let body = json!({ "original_url": "https://example.com/", "domain": DOMAINS[0] });
    let link = create(&scene.anyone, &body).await?;
    let path = format!("/api/v1/qr/{}?domain={}", text(&link, "short_code")?, DOMAINS[0]);
    let read = read(&scene.anyone.get(&path).await?.expect_status(200)?, 256)?;
    assert_eq!(read, text(&link, "short_url")?);
    assert!(read.starts_with("http://go.example.com/"));
    Ok(())
}

#[tokio::test]
async fn an_svg_is_a_whole_document_of_the_size_that_was_asked() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let path = format!("/api/v1/qr/{}?format=svg&size=333", text(&link, "short_code")?);
    let answer = scene.anyone.get(&path).await?.expect_status(200)?;
    assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=86400"));
    let svg = answer.text();
    let root = svg.find("<svg").context("an svg element")?;
    assert!(svg[root..].contains("xmlns=\"http://www.w3.org/2000/svg\"") && svg.contains("333"));
    assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("<script"));
    expect_balanced(&svg)
}

#[tokio::test]
async fn what_cannot_be_drawn_is_refused() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let path = format!("/api/v1/qr/{}", text(&link, "short_code")?);
    for (query, field) in [
        ("size=63", "size"),
        ("size=2049", "size"),
        ("size=0", "size"),
        ("size=-1", "size"),
        ("size=big", "size"),
        ("size=4294967296", "size"),
        ("margin=17", "margin"),
        ("margin=-1", "margin"),
        ("format=gif", "format"),
        ("format=PNG", "format"),
        ("ec=X", "ec"),
        ("colour=red", "colour"),
        ("size=100&size=200", "size"),
    ] {
        let answer = scene.anyone.get(&format!("{path}?{query}")).await?;
        expect_refused(&answer, &[field]).context(query)?;
    }
    expect_problem(&scene.anyone.get(&format!("{path}?domain=evil.example")).await?, 404)?;
    for unknown in ["never-made", "%FF", "a%2Fb", "%00", "ab"] {
        expect_problem(&scene.anyone.get(&format!("/api/v1/qr/{unknown}")).await?, 404)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_images_is_shown_and_posters_have_a_price() -> Result<()> {
    let node = builder().await?.setting("RATE_LIMIT_ANONYMOUS", "20").setting("TRUSTED_PROXIES", "127.0.0.1");
    let node = started(node).await?;
    let ada = user(&caller(&node)?).await?;
    let mut paths = Vec::new();
    for _ in 0..40 {
        let link = create(&ada, &json!({ "original_url": "https://example.com/" })).await?;
        paths.push(format!("/api/v1/qr/{}", text(&link, "short_code")?));
    }
    let visitor = caller(&node)?;
    for round in ["drawn", "kept"] {
        for path in &paths {
            let answer = visitor.get(path).await?.expect_status(200).context(round)?;
            assert_eq!(answer.header("ratelimit-limit"), Some("20"));
        }
    }
    // 80 of them cost ten requests.
    let left = visitor.get(&paths[0]).await?;
    assert_eq!(left.header("ratelimit-remaining"), Some("9"));
    let printer = caller(&node)?;
    let mut drawn = 0;
    for path in &paths {
        let answer = printer.get(&format!("{path}?size=2048")).await?;
        if answer.status == 429 {
            expect_problem(&answer, 429)?;
            break;
        }
        answer.expect_status(200)?;
        drawn += 1;
    }
    assert_eq!(drawn, 10, "a poster costs two requests");
    for _ in 0..drawn {
        // Those that are kept cost little, but there is nothing left.
        expect_problem(&printer.get(&paths[39]).await?, 429)?;
    }
    caller(&node)?.get(&format!("{}?size=2048", paths[0])).await?.expect_status(200)?;
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_images_than_can_be_drawn_are_refused_and_redirects_go_on() -> Result<()> {
    let node = started(builder().await?).await?;
    let client = node.client()?;
    let link = create(&client, &json!({ "original_url": "https://example.com/" })).await?;
    let code = text(&link, "short_code")?;
    // Each is another image: nothing is kept of it.
    let images = (0..600_u32).map(|n| {
        let path = format!("/api/v1/qr/{code}?size={}&margin={}", 2_048 - n / 17, n % 17);
        let client = client.clone();
        tokio::spawn(async move { client.get(&path).await })
    });
    let images: Vec<_> = images.collect();
    while !images.iter().all(tokio::task::JoinHandle::is_finished) {
        client.get(&format!("/{code}")).await?.expect_status(302)?;
    }
    let mut refused = 0;
    for image in images {
        let image = image.await??;
        if image.status == 503 {
            expect_problem(&image, 503)?;
            refused += 1;
        } else {
            image.expect_status(200)?;
        }
    }
    assert!((1..600).contains(&refused), "{refused} of 600 were refused");
    node.stop().await?;
    Ok(())
}

/// What a phone's camera would read from a PNG, which must be a square of this side.
pub fn read(answer: &Answer, side: u32) -> Result<String> {
    let mut decoder = png::Decoder::new(Cursor::new(&answer.body));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("the image is too large")?];
    let frame = reader.next_frame(&mut pixels)?;
    assert_eq!((frame.width, frame.height), (side, side));
    let (row, step) = (frame.line_size, frame.color_type.samples());
    let side = usize::try_from(side)?;
    let mut image = PreparedImage::prepare_from_greyscale(side, side, |x, y| pixels[y * row + x * step]);
    let grids = image.detect_grids();
    let (_, content) = grids.first().context("the image holds a QR code")?.decode()?;
    Ok(content)
}

/// Every element that begins, ends, and in order: well-formed as far as a document without text can go wrong.
fn expect_balanced(xml: &str) -> Result<()> {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1).filter(|tag| !tag.starts_with(['?', '!'])) {
        let (tag, text) = tag.split_once('>').context("a tag ends")?;
        assert!(text.trim().is_empty(), "text in a drawing: {text}");
        assert!(tag.matches('"').count() % 2 == 0 && !tag.contains('&'));
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (false, true) => {}
            (false, false) => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} never end");
    Ok(())
}
