//! A node's beginnings and ends: killed or stopped under load it loses nothing that it acknowledged, and what it cannot
//! start with it refuses in one line.
mod lifecycle {
    mod admin_port;
    mod formats;
    mod process;
}

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use shortener_tests::client::Client;
use shortener_tests::full_disk::FullDisk;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::sized;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CLIENTS: u64 = 32;
const LOAD_DEADLINE: Duration = Duration::from_mins(2);

/// A link whose creation was answered with 201.
#[derive(Clone, Debug)]
struct Acknowledged {
    path: String,
    target: String,
}

/// How a node ends in a scenario.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Stop,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_loses_nothing_that_it_acknowledged() -> Result<()> {
    end_under_load(End::Kill, sized(3, 50), sized(500, 20_000)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stopped_under_load_exits_cleanly_and_keeps_what_it_acknowledged() -> Result<()> {
    end_under_load(End::Stop, sized(2, 20), sized(500, 20_000)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_refuses_creates_redirects_and_creates_again_once_there_is_room() -> Result<()> {
    let Some(disk) = FullDisk::mount(24) else { return Ok(()) };
    // Whatever is asked for is read from the store.
    let on_disk = || Node::builder().data(disk.directory()).setting("LOCAL_CACHE_TTL", "0");
    let node = on_disk().start().await?;
    let (acknowledge, mut acknowledgements) = mpsc::channel(1_024);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        // Digits without a pattern, so that compression does not make room.
        let digits = |n: u64| format!("{:x}", (n * (number + 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let noise = (1..500).map(digits).collect::<Vec<_>>().concat();
        clients.spawn(create_until_refused(node.client()?, noise, acknowledge.clone()));
    }
    drop(acknowledge);
    let mut all = Vec::new();
    let filled = timeout(LOAD_DEADLINE, async {
        while let Some(link) = acknowledgements.recv().await {
            all.push(link);
        }
    });
    filled.await.context("the disk does not fill up")?;
    ensure!(all.len() > 300, "only {} links fit", all.len());

    let client = node.client()?;
    let refused =
        client.post("/api/v1/urls", &serde_json::json!({ "original_url": "https://www.example.com/" })).await?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{}: {}", refused.status, refused.text());
    expect_redirects(&node, &all).await.context("while the disk is full")?;
    client.get("/not-there").await?.expect_status(404)?;
    let health = client.health().await?;
    ensure!(health["status"] == "degraded" && health["store"]["status"] == "read_only", "{health}");
    Client::new(node.admin_url())?.get("/readyz").await?.expect_status(200)?;

    disk.remount("size=512m");
    wait_until("links are made again", LOAD_DEADLINE, async || {
        let made = client.create("https://www.example.com/again").await;
        all.extend(made.as_ref().ok().map(acknowledged).transpose()?);
        Ok(made.is_ok())
    })
    .await?;
    client.until_health_is("ok").await?;
    expect_redirects(&node, &all).await.context("once there is space again")?;
    ensure!(!node.log().contains("panicked"), "the node panicked:\n{}", node.log());
    node.kill().await?;
    let node = on_disk().start().await?;
    expect_redirects(&node, &all).await.context("after the next start")?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_in_one_line_and_stays_in_use() -> Result<()> {
    let first = Node::start().await?;
    let link = first.client()?.create("https://www.example.com/first").await?;
    expect_refusal(Node::builder().data(first.data()), "in use").await?;
    expect_redirect(&first.client()?, &acknowledged(&link)?).await?;
    first.stop().await?;
    Ok(())
}

/// Both go on from where the copy was made: without care they would mint the same.
#[tokio::test]
async fn a_restored_copy_never_gives_out_a_code_that_was_given_out_after_it_was_made() -> Result<()> {
    let node = Node::start().await?;
    let kept = node.client()?.create("https://www.example.com/before").await?;
    let data = node.stop().await?;
    let copy = Arc::new(TempDir::new()?);
    copy_directory(data.path(), copy.path())?;
    let mut codes = HashSet::new();
    for (data, expects_warning) in [(data.clone(), false), (copy.clone(), true), (data, false), (copy, false)] {
        let node = Node::builder().data(data).start().await?;
        expect_redirect(&node.client()?, &acknowledged(&kept)?).await?;
        for number in 0..50 {
            let link = node.client()?.create(&format!("https://www.example.com/{number}")).await?;
            let code = acknowledged(&link)?.path;
            ensure!(codes.insert(code.clone()), "{code} was given out twice");
        }
        let warns = node.log().contains("restored from one");
        ensure!(warns == expects_warning, "warned: {warns}, expected: {expects_warning}\n{}", node.log());
        node.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_data_directory_is_refused_in_one_line() -> Result<()> {
    let node = Node::start().await?;
    for number in 0..100 {
        node.client()?.create(&format!("https://www.example.com/{number}")).await?;
    }
    let data = node.stop().await?;
    damage(data.path())?;
    let store = data.path().join("store").display().to_string();
    expect_refusal(Node::builder().data(data), &store).await
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_is_not_ready_and_answers_what_it_has_begun_to_take() -> Result<()> {
    let mut node = Node::start().await?;
    let admin = Client::new(node.admin_url())?;
    let address = node.address().to_owned();
    let body = r#"{"original_url":"https://www.example.com/late","custom_alias":"late"}"#;
    let (first, rest) = body.split_at(20);
    let mut stream = TcpStream::connect(&address).await?;
    let head = format!(
        "POST /api/v1/urls HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{first}").as_bytes()).await?;
    wait_until("the request is in flight", LOAD_DEADLINE, async || {
        let metrics = admin.get("/metrics").await?.text();
        Ok(metrics.lines().any(|line| line == "shortener_in_flight_requests 1"))
    })
    .await?;
    node.terminate()?;
    wait_until("it is not ready", LOAD_DEADLINE, async || Ok(admin.get("/readyz").await?.status == 503)).await?;
    wait_until("it takes no connection", LOAD_DEADLINE, async || Ok(TcpStream::connect(&address).await.is_err()))
        .await?;
    stream.write_all(rest.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 201 "), "answered with {answer}");
    let status = node.wait_for_exit().await?;
    ensure!(status.success(), "exited with {status}:\n{}", node.log());
    let node = start(Some(node.data())).await?;
    node.client()?.get("/late").await?.expect_status(302)?;
    node.stop().await?;
    Ok(())
}

/// Asks on a connection that is kept, and gives the answer's head; empty when the node has closed it.
async fn ask_on(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            break;
        }
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}

/// Asks until an answer says that the connection will be closed. Idle for most of the time: a node that closes it without a word nearly
/// always does so between two requests.
async fn until_told_to_close(stream: &mut TcpStream) -> Result<()> {
    loop {
        sleep(Duration::from_millis(50)).await;
        let answer = ask_on(stream).await?;
        ensure!(answer.starts_with("http/1.1 200 "), "a request was lost: {answer:?}");
        if answer.contains("connection: close") {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_connection_in_use_is_told_to_close_before_a_node_that_stops_closes_it() -> Result<()> {
    // Several times, because a node's tasks do not always run in the same order.
    for _ in 0..8 {
        let mut node = Node::start().await?;
        let address = node.address().to_owned();
        let mut stream = TcpStream::connect(&address).await?;
        let answer = ask_on(&mut stream).await?;
        ensure!(answer.starts_with("http/1.1 200 ") && !answer.contains("connection: close"), "answered with {answer}");
        node.terminate()?;
        timeout(LOAD_DEADLINE, until_told_to_close(&mut stream)).await.context("it never says goodbye")??;
        let status = node.wait_for_exit().await?;
        ensure!(status.success(), "exited with {status}:\n{}", node.log());
    }
    Ok(())
}

#[tokio::test]
async fn clicks_that_wait_to_be_written_are_written_before_a_node_ends() -> Result<()> {
    // A token names it, and has to be good after the restart.
    let with_one_name = || Node::builder().setting("BASE_URL", "http://sho.rt");
    let node = with_one_name().start().await?;
    let ada = node.client()?.register_and_login("ada@example.com", "correct horse battery staple").await?;
    let link = ada.create("https://www.example.com/").await?;
    let person = node.client()?.with_header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0");
    let path = acknowledged(&link)?.path;
    // Fewer than a batch, which would wait for five seconds.
    for _ in 0..37 {
        person.get(&path).await?.expect_status(302)?;
    }
    let node = with_one_name().data(node.stop().await?).start().await?;
    let resource = format!("/api/v1/urls/{}", link["id"].as_str().context("a link has an ID")?);
    let ada = node.client()?.with_token(ada.token().context("she is signed in")?);
    let found = ada.get(&resource).await?.expect_status(200)?;
    ensure!(found.json::<Value>()?["click_count"] == 37, "{}", found.text());
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_is_named() -> Result<()> {
    for (name, value) in [
        ("LISTEN_ADDR", "nowhere"),
        ("BASE_URL", "ftp://example.com"),
        ("DATABASE_URL", "postgres://localhost/links"),
        ("SHORT_CODE_LENGTH", "5"),
        ("REDIRECT_STATUS", "200"),
        ("RATE_LIMIT_LOGIN", "often"),
        ("ALLOCATION", "guess"),
    ] {
        expect_refusal(Node::builder().setting(name, value), name).await.with_context(|| format!("{name}={value}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_setting_is_named_without_its_value() -> Result<()> {
    const PASSWORD: &str = "hunter2-hunter2";
    for (name, value) in [
        ("DATABASE_URL", format!("tikv://ada:{PASSWORD}@pd-0:2379/links")),
        ("DATABASE_URL", format!("postgres://ada:{PASSWORD}@db/links")),
        ("BASE_URL", format!("https://ada:{PASSWORD}@sho.rt")),
        ("DOMAINS", format!("ada:{PASSWORD}@sho.rt")),
        ("REDIS_URL", format!("redis://ada:{PASSWORD}@redis:6379")),
        ("OTLP_ENDPOINT", format!("http://ada:{PASSWORD}@collector:4318")),
        ("LOG_LEVEL", PASSWORD.to_owned()),
        ("SECRET_KEY", PASSWORD.to_owned()),
        ("SECRET_KEY", PASSWORD.repeat(4)),
    ] {
        let mut node = Node::builder().setting(name, &value).spawn()?;
        let status = node.wait_for_exit().await?;
        ensure!(status.code() == Some(2) && node.log().contains(name), "{name}: {status}: {}", node.log());
        ensure!(!node.log().contains("hunter2"), "{name}: {}", node.log());
    }
    Ok(())
}

/// Ends nodes on the same data again and again, each in the middle of creates, and looks for every link that was ever
/// acknowledged after each start.
async fn end_under_load(end: End, rounds: usize, creates_a_round: usize) -> Result<()> {
    let mut data: Option<Arc<TempDir>> = None;
    let mut all: Vec<Acknowledged> = Vec::new();
    for round in 0..rounds {
        let node = start(data.take()).await?;
        expect_redirects(&node, &all).await.with_context(|| format!("after {round} ends"))?;
        let (acknowledge, mut acknowledgements) = mpsc::channel(1_024);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(create_until_refused(node.client()?, format!("{round}/{number}"), acknowledge.clone()));
        }
        drop(acknowledge);
        let enough = all.len() + creates_a_round;
        let load = async {
            while all.len() < enough {
                all.push(acknowledgements.recv().await.context("the clients stopped early")?);
            }
            Ok::<_, anyhow::Error>(())
        };
        timeout(LOAD_DEADLINE, load).await.context("creating takes too long")??;
        let ended = tokio::spawn(async move {
            match end {
                End::Kill => node.kill().await,
                End::Stop => node.stop().await,
            }
        });
        // What is acknowledged while the node goes down counts as well.
        while let Some(last) = acknowledgements.recv().await {
            all.push(last);
        }
        data = Some(ended.await??);
    }
    let node = start(data).await?;
    expect_redirects(&node, &all).await.context("after the last end")?;
    node.stop().await?;
    Ok(())
}

async fn start(data: Option<Arc<TempDir>>) -> Result<Node> {
    match data {
        Some(data) => Node::builder().data(data).start().await,
        None => Node::start().await,
    }
}

async fn create_until_refused(client: Client, name: String, acknowledge: mpsc::Sender<Acknowledged>) {
    for number in 0_u64.. {
        let Ok(link) = client.create(&format!("https://www.example.com/{name}/{number}")).await else { return };
        let Ok(link) = acknowledged(&link) else { return };
        if acknowledge.send(link).await.is_err() {
            return;
        }
    }
}

fn acknowledged(link: &Value) -> Result<Acknowledged> {
    let text = |name: &str| link[name].as_str().map(str::to_owned).with_context(|| format!("a link has {name}"));
    Ok(Acknowledged { path: format!("/{}", text("short_code")?), target: text("original_url")? })
}

async fn expect_redirects(node: &Node, links: &[Acknowledged]) -> Result<()> {
    let client = node.client()?;
    let asked = stream::iter(links).map(|link| expect_redirect(&client, link));
    asked.buffer_unordered(usize::try_from(CLIENTS)?).try_for_each(|()| async { Ok(()) }).await
}

async fn expect_redirect(client: &Client, link: &Acknowledged) -> Result<()> {
    let answer = client.get(&link.path).await?.expect_status(302)?;
    ensure!(
        answer.header("location") == Some(link.target.as_str()),
        "{link:?} leads to {:?}",
        answer.header("location")
    );
    Ok(())
}

/// The node exits by itself, not with 0, and writes one line that says why: no panic, no backtrace.
async fn expect_refusal(builder: NodeBuilder, reason: &str) -> Result<()> {
    let mut node = builder.spawn()?;
    let status = node.wait_for_exit().await?;
    let log = node.log();
    ensure!(!status.success(), "the node exited with {status}:\n{log}");
    ensure!(!log.contains("panicked"), "the node panicked:\n{log}");
    ensure!(log.lines().count() == 1 && log.contains(reason), "this is not one line that says {reason:?}:\n{log}");
    Ok(())
}

/// Copies all files, as a backup does.
fn copy_directory(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let (path, copy) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            std::fs::create_dir(&copy)?;
            copy_directory(&path, &copy)?;
        } else {
            std::fs::copy(&path, &copy)?;
        }
    }
    Ok(())
}

/// Overwrites the beginning of every file: no format survives that.
fn damage(directory: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            damage(&path)?;
        } else {
            let mut bytes = std::fs::read(&path)?;
            let end = bytes.len().min(4_096);
            bytes[..end].fill(0xa5);
            std::fs::write(&path, bytes)?;
        }
    }
    Ok(())
}
