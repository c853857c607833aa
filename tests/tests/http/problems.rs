//! What holds for every answer: how a request that is wrong is refused, and how an answer is told from all others.
use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::{BodyExt, Full};
use reqwest::Method;
use serde_json::json;
use shortener_tests::bench::load;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::scene::{DOMAINS, Scene, create, expect_problem, expect_refused, path_of, post_bytes, send_with};

const URLS: &str = "/api/v1/urls";
const JSON: Option<&str> = Some("application/json");

/// How a POST of JSON begins, for those that are written by hand.
const HEAD: &str = "POST /api/v1/urls HTTP/1.1\r\nhost: go.example.com\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_as_what_it_is() -> Result<()> {
    let scene = Scene::open().await?;
    let whole = r#"{"original_url":"https://example.com/"}"#;
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        expect_problem(&post_bytes(&scene.anyone, URLS, kind, whole).await?, 415)?;
    }
    for kind in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"] {
        post_bytes(&scene.anyone, URLS, Some(kind), whole).await?.expect_status(201)?;
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_field = format!(r#"{{"tags":{deep}}}"#);
    for malformed in [
        "",
        " ",
        "{",
        "{\"original_url\":",
        "nonsense",
        "[1,",
        "{\"original_url\":\"https://example.com/\"} trailing",
        "{'original_url':'https://example.com/'}",
        "{\"original_url\":\"\\ud800\"}",
        "\u{feff}{}",
    ] {
        expect_problem(&post_bytes(&scene.anyone, URLS, JSON, malformed).await?, 400).context(malformed.to_owned())?;
    }
    expect_problem(&post_bytes(&scene.anyone, URLS, JSON, b"{\"original_url\":\"\xff\"}".to_vec()).await?, 400)?;
    for no_object in [
        "null",
        "7",
        "\"https://example.com/\"",
        "[]",
        r#"["https://example.com/",null,null,null,null,null,null,null]"#,
        &deep,
    ] {
        expect_refused(&post_bytes(&scene.anyone, URLS, JSON, no_object).await?, &["body"])?;
    }
    expect_problem(&post_bytes(&scene.anyone, URLS, JSON, deep_field).await?, 422)?;
    let twice = r#"{"original_url":"https://example.com/","original_url":"https://example.org/"}"#;
    expect_refused(&post_bytes(&scene.anyone, URLS, JSON, twice).await?, &["original_url"])
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_and_one_of_64_kib_is_read() -> Result<()> {
    let scene = Scene::open().await?;
    let padded = |bytes: usize| {
        let body = r#"{"original_url":"https://example.com/"}"#;
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    post_bytes(&scene.anyone, URLS, JSON, padded(64 * 1024)).await?.expect_status(201)?;
    for path in [URLS, "/shortener/url/", "/api/v1/auth/login", "/api/v1/auth/register"] {
        expect_problem(&post_bytes(&scene.anyone, path, JSON, padded(64 * 1024 + 1)).await?, 413)?;
    }
    expect_problem(&post_bytes(&scene.anyone, URLS, JSON, padded(1_000_000)).await?, 413)?;
    Ok(())
}

#[tokio::test]
async fn who_is_refused_while_still_sending_is_answered_and_keeps_the_connection() -> Result<()> {
    let scene = Scene::open().await?;
    let mut connection = load::connect(scene.node.address().parse()?).await?;
    for (method, path, token, bytes, status) in [
        ("POST", URLS, None, 1_000_000, 413),
        ("POST", URLS, Some("Bearer none"), 60_000, 401),
        ("PUT", URLS, None, 60_000, 405),
        ("POST", "/no/such/path", None, 60_000, 404),
        ("GET", "/api/v1/health", None, 0, 200),
    ] {
        let mut request = Request::builder().method(method).uri(path).header("host", DOMAINS[0]);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.header("content-type", "application/json").body(Full::from(vec![b' '; bytes]))?;
        let asked = async {
            connection.ready().await?;
            let answer = connection.send_request(request).await?;
            anyhow::Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
        };
        let (seen, body) =
            asked.await.with_context(|| format!("{method} {path} with {bytes} bytes, wanted {status}"))?;
        assert_eq!(seen, status, "{method} {path}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

#[tokio::test]
async fn who_asks_whether_to_send_a_body_is_refused_before_it_is_sent() -> Result<()> {
    let scene = Scene::open().await?;
    for (token, first_line) in [("", "HTTP/1.1 100 "), ("authorization: Bearer none\r\n", "HTTP/1.1 401 ")] {
        let mut stream = TcpStream::connect(scene.node.address()).await?;
        let asks = format!("{HEAD}{token}expect: 100-continue\r\ncontent-length: 60000\r\n\r\n");
        stream.write_all(asks.as_bytes()).await?;
        let mut answer = vec![0; first_line.len()];
        timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.context("no answer")??;
        assert_eq!(String::from_utf8_lossy(&answer), first_line);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_without_end_is_not_read_for_long() -> Result<()> {
    let scene = Scene::open().await?;
    let mut stream = TcpStream::connect(scene.node.address()).await?;
    stream.write_all(format!("{HEAD}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
    // Far more than what systems keep for a reader that does not come.
    let mib = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let sent = async {
        for _ in 0..64 {
            stream.write_all(mib.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let sent = timeout(Duration::from_secs(30), sent).await.context("the connection is neither read nor closed")?;
    ensure!(sent.is_err(), "64 MiB were read");
    Ok(())
}

#[tokio::test]
async fn every_answer_carries_a_request_id_the_callers_own_if_it_is_harmless() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let longest = "x".repeat(128);
    for path in [
        &path_of(&link)?,
        "/",
        "/docs",
        "/openapi.json",
        "/assets/app.js",
        "/none",
        "/no/such/path",
        URLS,
        "/api/v1/health",
    ] {
        for own in ["a", "Trace-42.x_y", &longest] {
            let answer = send_with(&scene.anyone, Method::GET, path, ("x-request-id", own)).await?;
            assert_eq!(answer.header("x-request-id"), Some(own), "{path}");
        }
        for harmful in ["", "two words", "semi;colon", "ü", "<script>", &format!("{longest}x")] {
            let answer = send_with(&scene.anyone, Method::GET, path, ("x-request-id", harmful)).await?;
            let id = answer.header("x-request-id").context("an ID")?.to_owned();
            assert!(id != harmful && (16..=128).contains(&id.len()), "{path}: {id}");
            assert_ne!(scene.anyone.get(path).await?.header("x-request-id"), Some(id.as_str()));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_refused_with_those_it_does() -> Result<()> {
    let scene = Scene::open().await?;
    for (method, path, allowed) in [
        (Method::PUT, URLS, &["GET", "HEAD", "POST"][..]),
        (Method::DELETE, URLS, &["GET", "HEAD", "POST"]),
        (Method::POST, "/api/v1/urls/1", &["DELETE", "GET", "HEAD", "PATCH"]),
        (Method::PUT, "/api/v1/urls/1", &["DELETE", "GET", "HEAD", "PATCH"]),
        (Method::GET, "/api/v1/auth/login", &["POST"]),
        (Method::POST, "/api/v1/auth/me", &["GET", "HEAD"]),
        (Method::POST, "/api/v1/qr/abc", &["GET", "HEAD"]),
        (Method::POST, "/api/v1/analytics/abc/summary", &["GET", "HEAD"]),
        (Method::POST, "/api/v1/health", &["GET", "HEAD"]),
        (Method::POST, "/openapi.json", &["GET", "HEAD"]),
        (Method::TRACE, "/", &["GET", "HEAD"]),
    ] {
        let answer = scene.anyone.send(method, path, |request| request).await?;
        expect_problem(&answer, 405).context(path)?;
        let mut allow: Vec<_> = answer.header("allow").context("Allow")?.split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{path}");
    }
    for path in [
        "/no/such/path",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/urls",
        "/assets/none.js",
        "/docs/none",
        "/shortener/url",
        "/livez/",
        "//",
    ] {
        expect_problem(&scene.anyone.get(path).await?, 404).context(path)?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_that_are_sent_ahead_on_one_connection_are_answered_in_order() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let address = scene.node.address().to_owned();
    let mut stream = TcpStream::connect(&address).await?;
    let get = |path: &str, id: usize, last: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Request-ID: id-{id}\r\n{last}\r\n")
    };
    for round in 0..2 {
        let close = if round == 1 { "Connection: close\r\n" } else { "" };
        let requests: String =
            (0..20).map(|id| get(&path_of(&link).unwrap(), id, if id == 19 { close } else { "" })).collect();
        stream.write_all(requests.as_bytes()).await?;
        let mut seen = String::new();
        let mut buffer = vec![0; 64 * 1024];
        while seen.matches("HTTP/1.1 302").count() < 20 || !seen.ends_with("\r\n\r\n") {
            let read = timeout(Duration::from_secs(10), stream.read(&mut buffer)).await??;
            anyhow::ensure!(read > 0, "the connection ends early: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let ids: Vec<_> =
            seen.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).map(str::to_owned).collect();
        assert_eq!(ids, (0..20).map(|id| format!("id-{id}")).collect::<Vec<_>>());
    }
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await??;
    assert!(rest.is_empty(), "after Connection: close nothing follows");
    Ok(())
}

#[tokio::test]
async fn what_is_no_http_does_not_disturb_the_others() -> Result<()> {
    let scene = Scene::open().await?;
    let address = scene.node.address().to_owned();
    let huge = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &huge,
    ] {
        let mut stream = TcpStream::connect(&address).await?;
        let _ = stream.write_all(garbage.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await?;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505 "), "{garbage:?}: {answer}");
    }
    scene.anyone.get("/api/v1/health").await?.expect_status(200)?;
    Ok(())
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up_as_the_callers_affair() -> Result<()> {
    let scene = Scene::open().await?;
    let mut stream = TcpStream::connect(scene.node.address()).await?;
    stream
        .write_all(format!("{HEAD}connection: close\r\ncontent-length: 50\r\n\r\n{{\"original_url\":").as_bytes())
        .await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(15), stream.read_to_string(&mut answer)).await.context("no answer")??;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    Ok(())
}
