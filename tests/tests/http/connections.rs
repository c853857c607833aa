//! Connections by hand: when answers leave, what is said to heads that cannot be read, which host a request names, and what frames of
//! HTTP/2 are put up with.
#![expect(clippy::unwrap_used, reason = "a corpus that cannot be read is a fault of the test")]
#![expect(clippy::format_collect, reason = "texts of a test")]

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_tests::node::Node;
use shortener_tests::wire::{
    CONTINUATION, DATA, END_HEADERS, Frame, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, RawAnswer, SETTINGS,
    WINDOW_UPDATE, header_block, preface, read_answer, read_frame, read_to_end,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::scene::{Scene, create, path_of, unique};

/// An address that asks for many codes that are unknown.
const GUESSER: &str = "203.0.113.77";

/// Far above what it takes on a busy machine to cut somebody off.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// `\r`, `\n`, `\t` and `\xNN` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = String::from_utf8_lossy(&[*high, *low]).into_owned();
                (u8::from_str_radix(&digits, 16).unwrap(), after)
            }
            (other, after) => (*other, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// The cases of a corpus: a status, and what it is for.
fn cases(corpus: &'static str) -> impl Iterator<Item = (u16, &'static str)> {
    let lines = corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (status, case) = line.split_once(' ').unwrap();
        (status.parse().unwrap(), case)
    })
}

/// An answer to what was written to a new connection.
async fn answer_to(address: &str, bytes: &[u8]) -> Result<RawAnswer> {
    let mut stream = TcpStream::connect(address).await?;
    // It may be refused before all of it is taken.
    let _ = stream.write_all(bytes).await;
    read_answer(&mut stream).await?.context("the connection ends without an answer")
}

/// Holds an answer to be a problem with an ID.
fn expect_raw_problem(answer: &RawAnswer, status: u16) -> Result<()> {
    ensure!(answer.status == status, "wanted {status}, got {}", answer.head);
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{}", answer.head);
    let problem: Value = serde_json::from_slice(&answer.body)?;
    ensure!(problem["status"] == status, "{problem}");
    ensure!(problem["request_id"].as_str() == answer.header("x-request-id"), "{problem}");
    ensure!(answer.header("x-request-id").is_some_and(|id| id.len() >= 16), "{}", answer.head);
    ensure!(answer.header("x-content-type-options") == Some("nosniff"), "{}", answer.head);
    Ok(())
}

async fn answered_with(node: &Node, status: u16) -> Result<f64> {
    let client = shortener_tests::client::Client::new(node.admin_url())?;
    let metrics = client.get("/metrics").await?.expect_status(200)?.text();
    let series = format!("shortener_http_requests_total{{method=\"other\",route=\"none\",status=\"{status}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("0");
    value.parse().context("a number")
}

#[tokio::test]
async fn an_answer_leaves_when_it_is_made_whatever_stands_behind_its_request() -> Result<()> {
    let scene = Scene::open().await?;
    let host = scene.node.address();
    for behind in ["", "\r\n", "\r\n\r\n", "\n", "G", "GET", "GET / HTTP/1.1\r\nHos", "POST /x HTTP/1.1\r\nX: y\r\n"] {
        let body = json!({ "original_url": "https://example.com/", "custom_alias": unique("behind") }).to_string();
        let create = format!(
            "POST /api/v1/urls HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}{behind}",
            body.len()
        );
        let answer = answer_to(host, create.as_bytes()).await.with_context(|| format!("{behind:?}"))?;
        ensure!(answer.status == 201, "{behind:?}: {}", answer.head);
        let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n{behind}");
        let answer = answer_to(host, get.as_bytes()).await.with_context(|| format!("{behind:?}"))?;
        ensure!(answer.status == 200, "{behind:?}: {}", answer.head);
        let last = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n{behind}");
        ensure!(answer_to(host, last.as_bytes()).await?.status == 200, "{behind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_on_both_listeners() -> Result<()> {
    let scene = Scene::open().await?;
    let admin = scene.node.admin_url().trim_start_matches("http://").to_owned();
    let lines = |count: usize| (0..count).map(|line| format!("x-{line}: y\r\n")).collect::<String>();
    for (status, case) in cases(include_str!("../../corpora/heads.txt")) {
        for address in [scene.node.address(), &admin] {
            // The Host line is one of the header lines.
            let case = case.replace("{KIB}", &"x".repeat(1_024)).replace("{HOST}", &format!("Host: {address}\\r\\n"));
            let case = case.replace("{300 LINES}", &lines(300)).replace("{101 LINES}", &lines(100));
            let shown = case.chars().take(200).collect::<String>();
            let head = unescaped(&case);
            let answer = answer_to(address, &head).await.context(shown.clone())?;
            ensure!(answer.header("connection") == Some("close"), "{shown}: {}", answer.head);
            ensure!(answer.header("date").is_some(), "{shown}: {}", answer.head);
            if address == admin {
                // It answers one request of a connection, and says no more than the status.
                ensure!(matches!(answer.status, 400 | 414 | 431 | 505), "{shown}: {}", answer.head);
                continue;
            }
            expect_raw_problem(&answer, status).context(shown.clone())?;

            // Also as the second request of a connection, and as one that is sent ahead.
            let first = format!("GET /no/such/path HTTP/1.1\r\nHost: {address}\r\n\r\n");
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(first.as_bytes()).await?;
            ensure!(read_answer(&mut stream).await?.is_some_and(|answer| answer.status == 404));
            let _ = stream.write_all(&head).await;
            let answer = read_answer(&mut stream).await.context(shown.clone())?.context(shown.clone())?;
            expect_raw_problem(&answer, status).context(shown.clone())?;
            ensure!(read_to_end(&mut stream).await?.is_empty(), "{shown}: something follows");
            let mut stream = TcpStream::connect(address).await?;
            let _ = stream.write_all(&[first.as_bytes(), &head].concat()).await;
            ensure!(read_answer(&mut stream).await?.is_some_and(|answer| answer.status == 404), "{shown}");
            let answer = read_answer(&mut stream).await.context(shown.clone())?.context(shown.clone())?;
            ensure!(matches!(answer.status, 400 | 431 | 505), "{shown}: {}", answer.head);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_counted_and_logged_without_what_it_said() -> Result<()> {
    let scene = Scene::open().await?;
    let before = answered_with(&scene.node, 505).await?;
    let head = "GET /tell-nobody-4712 HTTP/9.9\r\nHost: localhost\r\nX-Secret: tell-nobody-4713\r\n\r\n";
    let answer = answer_to(scene.node.address(), head.as_bytes()).await?;
    let id = answer.header("x-request-id").context("an ID")?.to_owned();
    ensure!(answered_with(&scene.node, 505).await? >= before + 1.0, "it is not counted");
    let log = scene.node.log();
    ensure!(log.lines().any(|line| line.contains(&id) && line.contains("505")), "it is not logged");
    ensure!(!log.contains("tell-nobody-471"), "the log says what was sent");
    Ok(())
}

#[tokio::test]
async fn cookies_of_17_kb_and_100_headers_are_read() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let (path, host) = (path_of(&link)?, scene.node.address());
    let cookies = "a".repeat(17 * 1_024);
    let get = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n");
    ensure!(answer_to(host, get.as_bytes()).await?.status == 302);
    let lines: String = (0..99).map(|line| format!("x-{line}: y\r\n")).collect();
    let get = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    ensure!(answer_to(host, get.as_bytes()).await?.status == 302);
    let too_many = "a".repeat(33 * 1_024);
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path.as_str())];
    for (headers, status) in [
        (vec![("cookie", cookies.as_str())], 302),
        (vec![("cookie", too_many.as_str())], 431),
        (vec![("x", "y"); 101], 431),
        (vec![("x", "y"); 90], 302),
    ] {
        let (answer, body) = ask_http2(host, &[&pseudo[..], &headers].concat()).await?;
        ensure!(answer == status, "wanted {status}, got {answer}");
        ensure!(status == 302 || String::from_utf8_lossy(&body).contains("problem:head-too-large"));
    }
    Ok(())
}

/// What a request of HTTP/2 is answered with: its status, and its body.
async fn ask_http2(address: &str, headers: &[(&str, &str)]) -> Result<(u16, Vec<u8>)> {
    const CHUNK: usize = 16_000;
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = preface(1 << 20);
    let block = header_block(headers);
    let parts: Vec<&[u8]> = block.chunks(CHUNK).collect();
    for (number, part) in parts.iter().enumerate() {
        let (kind, ends) = if number == 0 { (HEADERS, 1) } else { (CONTINUATION, 0) };
        let last = if number + 1 == parts.len() { END_HEADERS } else { 0 };
        bytes.extend(Frame::new(kind, ends | last, 1, *part).bytes());
    }
    stream.write_all(&bytes).await?;
    let (mut status, mut body) = (None, Vec::new());
    while let Some(frame) = read_frame(&mut stream).await? {
        match frame.kind {
            HEADERS if frame.stream == 1 => status = Some(status_of(&frame.payload)?),
            DATA if frame.stream == 1 => body.extend(&frame.payload),
            RST_STREAM if frame.stream == 1 => return Ok((0, frame.payload)),
            GOAWAY => anyhow::bail!("{frame:?}"),
            _ => {}
        }
        if frame.stream == 1 && frame.flags & 1 == 1 {
            break;
        }
    }
    Ok((status.context("no answer")?, body))
}

/// The status is the first header of an answer. HPACK has some of them in its table, and others by the name in its table.
fn status_of(block: &[u8]) -> Result<u16> {
    Ok(match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        // A literal with the name of entry 8: three digits, by the code of Huffman or plain.
        [0x48 | 0x08, 0x03, digits @ ..] => std::str::from_utf8(digits.get(..3).context("short")?)?.parse()?,
        [0x48 | 0x08, 0x82 | 0x83, rest @ ..] => huffman_digits(rest)?,
        _ => anyhow::bail!("no status: {block:x?}"),
    })
}

/// Three digits by HPACK's code: 0, 1 and 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Result<u16> {
    let bits: String = bytes.iter().take(3).map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut digits) = (bits.as_str(), String::new());
    while digits.len() < 3 {
        let short = u8::from_str_radix(rest.get(..5).context("short")?, 2)?;
        let (digit, used) = match short {
            0..=2 => (short, 5),
            _ => (u8::from_str_radix(rest.get(..6).context("short")?, 2)?.saturating_sub(22), 6),
        };
        digits.push(char::from(b'0' + digit));
        rest = &rest[used..];
    }
    Ok(digits.parse()?)
}

#[tokio::test]
async fn a_request_names_one_valid_host_and_a_strange_one_is_not_served() -> Result<()> {
    let scene = Scene::open().await?;
    let link = create(&scene.anyone, &json!({ "original_url": "https://example.com/" })).await?;
    let (path, own) = (path_of(&link)?, scene.node.address());
    for (status, case) in cases(include_str!("../../corpora/hosts.txt")) {
        let head = case.replace("{CODE}", &path).replace("{OWN}", own).replace("\\n", "\\r\\n");
        // An address of its own: codes that are unknown on other hosts count as guesses.
        let head = format!("{head}\\r\\nX-Forwarded-For: {GUESSER}\\r\\n\\r\\n");
        let answer = answer_to(own, &unescaped(&head)).await.context(case)?;
        ensure!(answer.status == status, "{case}: wanted {status}, got {}", answer.head);
        if answer.status == 400 {
            expect_raw_problem(&answer, 400).context(case)?;
        }
    }
    let http2 = |authority: Option<&'static str>, hosts: &[&'static str]| {
        let mut headers = vec![(":method", "GET"), (":scheme", "http"), (":path", path.as_str())];
        headers.extend(authority.map(|authority| (":authority", authority)));
        headers.push(("x-forwarded-for", GUESSER));
        headers.extend(hosts.iter().map(|host| ("host", *host)));
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    for (headers, status) in [
        (http2(Some("go.example.com"), &[]), 404),
        (http2(Some("unknown.example"), &[]), 404),
        (http2(None, &["go.example.com"]), 404),
        (http2(Some("go.example.com"), &["GO.example.com:80"]), 404),
        (http2(None, &[]), 400),
        (http2(Some("go.example.com"), &["x.test:8080"]), 400),
        (http2(Some("go.example.com"), &["go.example.com", "go.example.com"]), 400),
        (http2(Some("x@go.example.com"), &[]), 400),
        (http2(Some("%67o.example.com"), &[]), 400),
        (http2(Some("go.example.com:65536"), &[]), 400),
        (http2(None, &["a b"]), 400),
    ] {
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (answer, _) = ask_http2(own, &borrowed).await.with_context(|| format!("{headers:?}"))?;
        // What is no URI at all is a malformed request of HTTP/2, whose stream is reset (RFC 9113, section 8.1.1).
        ensure!(answer == status || (status == 400 && answer == 0), "{headers:?}: wanted {status}, got {answer}");
    }
    let (answer, _) = {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", own), (":path", path.as_str())];
        ask_http2(own, &[&pseudo[..], &[("x-forwarded-for", GUESSER)]].concat()).await?
    };
    ensure!(answer == 302, "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_strange_host_means_the_default_domain_where_the_setting_says_so() -> Result<()> {
    for (domains, unknown, status) in [
        ("", None, 302),
        ("go.example.com", None, 404),
        ("go.example.com", Some("default"), 302),
        ("", Some("404"), 404),
    ] {
        let mut builder = super::scene::builder().await?.setting("DOMAINS", domains);
        if let Some(unknown) = unknown {
            builder = builder.setting("UNKNOWN_HOSTS", unknown);
        }
        let node = super::scene::started(builder).await?;
        let link = node.client()?.create("https://example.com/").await?;
        for host in ["unknown.example", "10.0.0.7:8000"] {
            let get = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", path_of(&link)?);
            let answer = answer_to(node.address(), get.as_bytes()).await?;
            ensure!(answer.status == status, "{domains:?} {unknown:?} {host}: {}", answer.head);
            let short = format!("GET /shortener/url{} HTTP/1.1\r\nHost: {host}\r\n\r\n", path_of(&link)?);
            let answer = answer_to(node.address(), short.as_bytes()).await?;
            ensure!(answer.status == if status == 302 { 301 } else { 404 }, "{domains:?} {unknown:?}: {}", answer.head);
            let health = format!("GET /api/v1/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
            ensure!(
                answer_to(node.address(), health.as_bytes()).await?.status == 200,
                "{domains:?} {unknown:?} {host}"
            );
        }
        node.stop().await?;
    }
    Ok(())
}

const FLOODS: [&str; 8] =
    ["ping", "settings", "window update", "priority", "unknown", "request and reset", "empty data", "continuation"];

/// What a flood sends in its round of this number.
fn round_of(flood: &str, number: usize, host: &str) -> Vec<u8> {
    let stream = u32::try_from(number * 2 + 1).unwrap();
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", "/api/v1/urls")];
    let frame = match flood {
        "ping" => Frame::new(PING, 0, 0, [7; 8]),
        "settings" => Frame::new(SETTINGS, 0, 0, []),
        "window update" => Frame::new(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes()),
        "priority" => Frame::new(PRIORITY, 0, stream, [0, 0, 0, 0, 9]),
        "unknown" => Frame::new(0xbb, 0, 0, [1, 2, 3]),
        "request and reset" => {
            let reset = Frame::new(RST_STREAM, 0, stream, 8_u32.to_be_bytes());
            return [Frame::get(stream, host, "/robots.txt").bytes(), reset.bytes()].concat();
        }
        "empty data" if number == 0 => Frame::new(HEADERS, END_HEADERS, 1, header_block(&pseudo)),
        "empty data" => Frame::new(DATA, 0, 1, []),
        "continuation" if number == 0 => Frame::new(HEADERS, 0, 1, header_block(&pseudo)),
        _ => Frame::new(CONTINUATION, 0, 1, []),
    };
    frame.bytes()
}

#[tokio::test]
async fn frames_of_http_2_that_ask_for_nothing_are_cut_off() -> Result<()> {
    /// Far more than what is put up with.
    const ROUNDS: usize = 20_000;
    let scene = Scene::open().await?;
    let host = scene.node.address();
    let admin = scene.node.admin_url().trim_start_matches("http://").to_owned();
    for address in [host, &admin] {
        for flood in FLOODS {
            let stream = TcpStream::connect(address).await?;
            let (mut reader, mut writer) = stream.into_split();
            let reading = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
            let mut bytes = [PREFACE, &Frame::new(SETTINGS, 0, 0, []).bytes()].concat();
            bytes.extend((0..ROUNDS).flat_map(|number| round_of(flood, number, host)));
            // In parts, so that it is noticed when the rest is not taken.
            let written = async {
                for part in bytes.chunks(1_024) {
                    writer.write_all(part).await?;
                }
                std::io::Result::Ok(())
            };
            let written = timeout(ENDED_WITHIN, written).await;
            let ended = timeout(ENDED_WITHIN, reading).await;
            ensure!(ended.is_ok(), "{flood} on {address}: the connection stays open: {written:?}");
        }
    }
    scene.anyone.get("/").await?.expect_status(200)?;
    Ok(())
}

#[tokio::test]
async fn a_client_of_http_2_that_works_is_not_cut_off() -> Result<()> {
    /// Ten times as many frames as a connection has credits.
    const REQUESTS: u32 = 2_000;
    let scene = Scene::open().await?;
    let host = scene.node.address();
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(&preface(1 << 20)).await?;
    for number in 0..REQUESTS {
        let id = number * 2 + 1;
        let update = |stream: u32| Frame::new(WINDOW_UPDATE, 0, stream, 100_u32.to_be_bytes()).bytes();
        let priority = Frame::new(PRIORITY, 0, id, [0, 0, 0, 0, 9]).bytes();
        let round =
            [priority, Frame::get(id, host, "/robots.txt").bytes(), update(id), update(id), update(id)].concat();
        stream.write_all(&round).await?;
        loop {
            let frame = read_frame(&mut stream).await?.with_context(|| format!("cut off after {number} requests"))?;
            ensure!(frame.kind != GOAWAY, "{frame:?} after {number} requests");
            if frame.stream == id && frame.flags & 1 == 1 && matches!(frame.kind, HEADERS | DATA) {
                break;
            }
        }
    }
    Ok(())
}
