//! A real Chromium, driven through its own driver: a session with an empty profile that reaches nothing but this
//! machine. The browser is closed whatever the test does, since a driver that is killed leaves its browser behind.
use std::panic::AssertUnwindSafe;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use futures::FutureExt;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::node::free_ports;

/// A cold Chromium on two busy cores takes seconds; a hang is not waited for longer than this.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Above anything that one test does in the browser.
const SESSION_DEADLINE: Duration = Duration::from_mins(2);
/// How long a page may take to show what it promises.
const PAGE_DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Opens a browser, runs `body` with it, and closes it. `hosts` are names that resolve to a local port; all other names
/// resolve to nothing.
///
/// # Panics
/// As `body` does, after the browser is closed.
pub async fn with_browser<T>(hosts: &[(&str, u16)], body: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
    let profile = TempDir::new().context("making a browser profile")?;
    let [port] = free_ports()?;
    let mut driver = Command::new("chromedriver")
        .arg(format!("--port={port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting chromedriver (Debian's chromium-driver; tests/env/browser.sh installs it)")?;
    let mut builder = ClientBuilder::new(HttpConnector::new());
    builder.capabilities(capabilities(profile.path().to_str().context("the profile's path is UTF-8")?, hosts));
    let url = format!("http://127.0.0.1:{port}");
    let client = timeout(START_DEADLINE, connect(&builder, &url)).await.context("the browser does not start")??;
    let outcome = timeout(SESSION_DEADLINE, AssertUnwindSafe(body(&client)).catch_unwind()).await;
    let closed = client.close().await;
    driver.kill().await.context("ending chromedriver")?;
    match outcome.context("the test takes too long in the browser")? {
        Ok(result) => {
            closed.context("closing the browser")?;
            result
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Connects as soon as the driver listens; a driver that answers with an error is not asked again.
async fn connect(builder: &ClientBuilder<HttpConnector>, url: &str) -> Result<Client> {
    use fantoccini::error::NewSessionError;
    loop {
        match builder.connect(url).await {
            Ok(client) => return Ok(client),
            Err(NewSessionError::FailedC(_)) => sleep(POLL_INTERVAL).await,
            Err(error) => return Err(error).context("opening a browser session"),
        }
    }
}

fn capabilities(profile: &str, hosts: &[(&str, u16)]) -> Capabilities {
    let mut rules: Vec<_> = hosts.iter().map(|(name, port)| format!("MAP {name} 127.0.0.1:{port}")).collect();
    rules.extend(["MAP * ~NOTFOUND".to_owned(), "EXCLUDE 127.0.0.1".to_owned()]);
    let arguments = json!([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable", // short links of http stay http
        "--window-size=1100,900",
        "--lang=en-US",
        format!("--user-data-dir={profile}"),
        format!("--host-resolver-rules={}", rules.join(",")),
    ]);
    Capabilities::from_iter([
        ("browserName".to_owned(), json!("chrome")),
        ("goog:chromeOptions".to_owned(), json!({ "args": arguments })),
        ("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" })),
    ])
}

/// Waits until a JavaScript expression is true in the page.
pub async fn wait_for(browser: &Client, expression: &str) -> Result<()> {
    let script = format!("return Boolean({expression});");
    let holds = async {
        while browser.execute(&script, vec![]).await? != json!(true) {
            sleep(POLL_INTERVAL).await;
        }
        Ok::<_, fantoccini::error::CmdError>(())
    };
    Ok(timeout(PAGE_DEADLINE, holds).await.with_context(|| format!("waiting for {expression}"))??)
}

/// A command of the Chrome `DevTools` protocol, such as `Browser.grantPermissions`.
pub async fn devtools(browser: &Client, command: &str, parameters: Value) -> Result<Value> {
    let body = json!({ "cmd": command, "params": parameters }).to_string();
    let command = DriverCommand { path: "goog/cdp/execute", body };
    browser.issue_cmd(command).await.context("sending a DevTools command")
}

/// What the page and the browser wrote to the console, without the lines for answers that the page asked for and that
/// were errors: those are not the page's fault.
pub async fn console(browser: &Client) -> Result<Vec<String>> {
    let command = DriverCommand { path: "se/log", body: json!({ "type": "browser" }).to_string() };
    let log = browser.issue_cmd(command).await.context("reading the browser's console")?;
    let entries = log.as_array().context("the console is a list")?;
    let own = entries.iter().filter(|entry| entry["source"] != "network");
    Ok(own.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Fails unless the page is free of errors: no exception, and nothing that its content security policy had to stop.
pub async fn expect_quiet_console(browser: &Client) -> Result<()> {
    let lines = console(browser).await?;
    ensure!(lines.is_empty(), "the console is not empty: {lines:#?}");
    Ok(())
}

/// A POST to an endpoint of Chromium's driver that the `WebDriver` standard does not have.
#[derive(Debug)]
struct DriverCommand {
    path: &'static str,
    body: String,
}

impl WebDriverCompatibleCommand for DriverCommand {
    fn endpoint(&self, base_url: &url::Url, session_id: Option<&str>) -> Result<url::Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _request_url: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.clone()))
    }
}
