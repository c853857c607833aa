//! The web page in a real Chromium against a real node: what a person does at `/`, by mouse and by keyboard.
use anyhow::{Context, Result, ensure};
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::{Client, Locator};
use rqrr::PreparedImage;
use serde_json::{Value, json};
use shortener_tests::browser::{devtools, expect_quiet_console, wait_for, with_browser};
use shortener_tests::node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const TARGET: &str = "https://landing.example.com/a/long/path?with=a&query=1";
const RESULT_SHOWN: &str = "!document.getElementById('result').hidden";

#[tokio::test]
async fn shortening_shows_the_link_its_target_and_a_qr_code_that_reads_as_the_link() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        let short_url = shorten(browser, &node, TARGET).await?;
        ensure!(short_url.starts_with(node.base_url()), "{short_url} is not one of the node's");
        ensure!(text(browser, "short_url").await? == short_url.trim_start_matches("http://"));
        ensure!(text(browser, "target").await?.contains(TARGET));
        wait_for(browser, "document.getElementById('qr').naturalWidth > 0").await?;
        ensure!(qr_code_shown(browser).await? == short_url, "the QR code reads as something else");
        expect_quiet_console(browser).await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn following_the_short_link_lands_at_the_target() -> Result<()> {
    let node = Node::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (seen, mut requests) = mpsc::channel(16);
    let landing = tokio::spawn(serve_landing_page(listener, seen));
    with_browser(&[("landing.example.com", port)], async |browser| {
        shorten(browser, &node, "http://landing.example.com/spring?x=1").await?;
        browser.find(Locator::Id("short_url")).await?.click().await?;
        let windows = browser.windows().await?;
        let opened = windows.into_iter().next_back().context("the link opens a window")?;
        browser.switch_to_window(opened).await?;
        wait_for(browser, "document.title === 'Landed'").await?;
        ensure!(browser.current_url().await?.as_str() == "http://landing.example.com/spring?x=1");
        Ok(())
    })
    .await?;
    landing.abort();
    let first = requests.recv().await.context("the target was asked")?;
    ensure!(first.starts_with("GET /spring?x=1 HTTP/1.1\r\n"), "the target was asked for {first}");
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn the_copy_button_copies_with_the_clipboard_api_and_without_it() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        let permissions =
            json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": node.base_url() });
        devtools(browser, "Browser.grantPermissions", permissions).await?;
        let short_url = shorten(browser, &node, TARGET).await?;
        press_copy(browser).await?;
        ensure!(clipboard(browser).await? == short_url);

        // A page on plain http elsewhere than localhost has no clipboard API.
        browser.execute_async(CLEAR_AND_TAKE_CLIPBOARD_AWAY, vec![]).await?;
        ensure!(clipboard(browser).await? == "cleared");
        press_copy(browser).await?;
        ensure!(clipboard(browser).await? == short_url);
        expect_quiet_console(browser).await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_address_is_told_at_its_field() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        open(browser, &node).await?;
        for refused in ["", "javascript:alert(1)", "http://127.0.0.1/", "http://user:pass@example.com/"] {
            set(browser, "original_url", refused).await?;
            browser.find(Locator::Id("submit")).await?.click().await?;
            expect_error_at(browser, "original_url").await.with_context(|| format!("submitting {refused:?}"))?;
        }
        set(browser, "original_url", TARGET).await?;
        browser.find(Locator::Id("submit")).await?.click().await?;
        wait_for(browser, RESULT_SHOWN).await?;
        wait_for(browser, "document.getElementById('original_url-error').hidden").await?;
        expect_quiet_console(browser).await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_alias_and_an_expiry_are_used_and_a_taken_alias_is_told_at_its_field() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        open(browser, &node).await?;
        browser.find(Locator::Css("#options summary")).await?.click().await?;
        for attempt in ["first", "second"] {
            set(browser, "original_url", TARGET).await?;
            set(browser, "custom_alias", "spring-sale").await?;
            browser.find(Locator::Id("expires_in")).await?.select_by_value("86400").await?;
            browser.find(Locator::Id("submit")).await?.click().await?;
            if attempt == "first" {
                wait_for(browser, RESULT_SHOWN).await?;
                ensure!(text(browser, "short_url").await?.ends_with("/spring-sale"));
                ensure!(text(browser, "expiry").await?.starts_with("Expires "));
            }
        }
        expect_error_at(browser, "custom_alias").await?;
        // What the API refuses in a field that is folded away must unfold it.
        browser.find(Locator::Css("#options summary")).await?.click().await?;
        set(browser, "original_url", TARGET).await?;
        browser.execute("document.getElementById('custom_alias').value = 'no good';", vec![]).await?;
        browser.find(Locator::Id("submit")).await?.click().await?;
        expect_error_at(browser, "custom_alias").await?;
        expect_quiet_console(browser).await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn the_keyboard_alone_is_enough() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        open(browser, &node).await?;
        tab_to(browser, "original_url").await?;
        // The scheme that people leave out is filled in.
        browser.active_element().await?.send_keys("landing.example.com/typed").await?;
        tab_to(browser, "submit").await?;
        press(browser, Key::Enter).await?;
        wait_for(browser, RESULT_SHOWN).await?;
        ensure!(text(browser, "target").await?.contains("https://landing.example.com/typed"));
        ensure!(focused(browser).await? == "copy", "the focus goes to the copy button");
        press(browser, Key::Enter).await?;
        wait_for(browser, "document.getElementById('status').textContent === 'Copied to the clipboard.'").await?;
        tab_to(browser, "qr-download").await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn unknown_and_expired_links_are_told_on_a_page_of_their_own() -> Result<()> {
    let node = Node::start().await?;
    let body = json!({ "original_url": TARGET, "custom_alias": "brief", "expires_in": 1 });
    let client = node.client()?;
    client.post("/api/v1/urls", &body).await?.expect_status(201)?;
    with_browser(&[], async |browser| {
        browser.goto(&format!("{}/nothing", node.base_url())).await?;
        ensure!(browser.title().await? == "Link not found");
        while client.get("/brief").await?.status != 410 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        browser.goto(&format!("{}/brief", node.base_url())).await?;
        ensure!(browser.title().await? == "Link expired");
        browser.find(Locator::Css("a.primary")).await?.click().await?;
        wait_for(browser, "document.getElementById('shorten')").await?;
        expect_quiet_console(browser).await
    })
    .await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn the_page_is_readable_in_both_colour_schemes_and_fits_a_narrow_screen() -> Result<()> {
    let node = Node::start().await?;
    with_browser(&[], async |browser| {
        for scheme in ["light", "dark"] {
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            devtools(browser, "Emulation.setEmulatedMedia", media).await?;
            let size = json!({ "width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": false });
            devtools(browser, "Emulation.setDeviceMetricsOverride", size).await?;
            shorten(browser, &node, TARGET).await?;
            browser.execute("document.getElementById('options').open = true;", vec![]).await?;
            let poor = browser.execute(POOR_CONTRAST, vec![]).await?;
            ensure!(poor == json!([]), "text below 4.5:1 in the {scheme} scheme: {poor}");
            wait_for(browser, "document.documentElement.scrollWidth <= 320").await?;
            let outside = "return performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => !name.startsWith(location.origin));";
            let outside = browser.execute(outside, vec![]).await?;
            ensure!(outside == json!([]), "the page loads from elsewhere: {outside}");
        }
        Ok(())
    })
    .await?;
    node.stop().await?;
    Ok(())
}

/// Answers each request with a page titled "Landed", and passes on the head of each that asked for one.
async fn serve_landing_page(listener: TcpListener, seen: mpsc::Sender<String>) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut head = vec![0; 8_192];
        let length = stream.read(&mut head).await?;
        if length == 0 {
            continue; // a connection that the browser opened ahead and did not need
        }
        let page = "<!doctype html><title>Landed</title><link rel=icon href=data:,>";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
            page.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        let _ = seen.try_send(String::from_utf8_lossy(&head[..length]).into_owned());
    }
}

async fn open(browser: &Client, node: &Node) -> Result<()> {
    browser.goto(&format!("{}/", node.base_url())).await?;
    wait_for(browser, "document.readyState === 'complete'").await
}

/// Shortens an address by mouse on a fresh page, and returns the short URL that is shown.
async fn shorten(browser: &Client, node: &Node, target: &str) -> Result<String> {
    open(browser, node).await?;
    set(browser, "original_url", target).await?;
    browser.find(Locator::Id("submit")).await?.click().await?;
    wait_for(browser, RESULT_SHOWN).await?;
    let link = browser.find(Locator::Id("short_url")).await?;
    link.prop("href").await?.context("the short link has an address")
}

async fn set(browser: &Client, id: &str, value: &str) -> Result<()> {
    let input = browser.find(Locator::Id(id)).await?;
    input.clear().await?;
    Ok(input.send_keys(value).await?)
}

/// The text of an element, once it is to be seen.
async fn text(browser: &Client, id: &str) -> Result<String> {
    wait_for(browser, &format!("document.getElementById('{id}').checkVisibility({{ opacityProperty: true }})")).await?;
    browser.find(Locator::Id(id)).await?.prop("textContent").await?.context("an element has text")
}

/// The error is shown, tied to its field for assistive technology, and the field has the focus.
async fn expect_error_at(browser: &Client, id: &str) -> Result<()> {
    wait_for(browser, &format!("document.getElementById('{id}').getAttribute('aria-invalid') === 'true'")).await?;
    wait_for(browser, &format!("document.activeElement.id === '{id}'")).await?;
    ensure!(!text(browser, &format!("{id}-error")).await?.is_empty(), "the error says nothing");
    let described = browser.find(Locator::Id(id)).await?.attr("aria-describedby").await?.unwrap_or_default();
    ensure!(described.split(' ').any(|by| by == format!("{id}-error")));
    wait_for(browser, "document.getElementById('result').hidden").await
}

async fn press(browser: &Client, key: Key) -> Result<()> {
    let value = char::from(key);
    let keys = KeyActions::new("keyboard".to_owned()).then(KeyAction::Down { value }).then(KeyAction::Up { value });
    Ok(browser.perform_actions(keys).await?)
}

async fn focused(browser: &Client) -> Result<String> {
    Ok(browser.execute("return document.activeElement.id;", vec![]).await?.as_str().unwrap_or_default().to_owned())
}

/// Presses Tab until the element has the focus; a page of this size has no more than ten stops.
async fn tab_to(browser: &Client, id: &str) -> Result<()> {
    for _ in 0..10 {
        press(browser, Key::Tab).await?;
        if focused(browser).await? == id {
            return Ok(());
        }
    }
    anyhow::bail!("Tab does not reach {id}")
}

async fn press_copy(browser: &Client) -> Result<()> {
    browser.find(Locator::Id("copy")).await?.click().await?;
    wait_for(browser, "document.getElementById('copy').textContent === 'Copied'").await
}

async fn clipboard(browser: &Client) -> Result<String> {
    let read = "const done = arguments[0]; (window.kept ?? navigator.clipboard).readText().then(done, (error) => done(`refused: ${error}`));";
    Ok(browser.execute_async(read, vec![]).await?.as_str().unwrap_or_default().to_owned())
}

/// What a phone's camera would read from the image as it is drawn.
async fn qr_code_shown(browser: &Client) -> Result<String> {
    let pixels: Value = browser.execute(LUMA_OF_QR_CODE, vec![]).await?;
    let luma: Vec<u8> = serde_json::from_value(pixels)?;
    let mut image = PreparedImage::prepare_from_greyscale(300, 300, |x, y| luma[y * 300 + x]);
    let grids = image.detect_grids();
    let (_, content) = grids.first().context("the image holds a QR code")?.decode()?;
    Ok(content)
}

const LUMA_OF_QR_CODE: &str = "
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 300;
    const context = canvas.getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, 300, 300);
    context.drawImage(document.getElementById('qr'), 10, 10, 280, 280);
    const { data } = context.getImageData(0, 0, 300, 300);
    return Array.from({ length: 90000 }, (_, at) => data[4 * at]);";

const CLEAR_AND_TAKE_CLIPBOARD_AWAY: &str = "
    const done = arguments[0];
    window.kept = navigator.clipboard;
    window.kept.writeText('cleared').then(() => {
      Object.defineProperty(navigator, 'clipboard', { value: undefined });
      document.getElementById('copy').textContent = 'Copy link';
      done(true);
    }, done);";

/// Every element with text of its own whose contrast with the nearest painted background is below WCAG's 4.5:1.
const POOR_CONTRAST: &str = "
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
    const linear = (value) => { const part = value / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; };
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour.a === 1) return colour.rgb;
      }
      return [255, 255, 255];
    };
    const own = (element) => [...element.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    return [...document.body.querySelectorAll('*')].filter((element) => own(element) && element.checkVisibility()).map((element) => {
      const [high, low] = [luminance(parse(getComputedStyle(element).color).rgb), luminance(ground(element))].sort((a, b) => b - a);
      return { text: element.textContent.trim().slice(0, 40), ratio: (high + 0.05) / (low + 0.05) };
    }).filter(({ ratio }) => ratio < 4.5);";
