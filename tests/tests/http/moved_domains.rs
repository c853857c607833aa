//! Domains that change: nodes with other settings start on what earlier ones have left.
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shortener_tests::client::{Answer, Client};
use shortener_tests::node::{Node, NodeBuilder};
use tempfile::TempDir;

use super::qr;
use super::scene::{
    PASSWORD, builder, create, email, eventually, expect_problem, expect_refused, resource_of, send_with, started,
    text, unique, with_management_token,
};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// One store, on which nodes with other settings start one after another.
struct Store {
    builder: NodeBuilder,
    data: Option<Arc<TempDir>>,
}

impl Store {
    async fn new() -> Result<Self> {
        let builder = builder().await?.setting("ANALYTICS_FLUSH_INTERVAL", "100ms");
        Ok(Self { builder: builder.setting("LOG_FORMAT", "text"), data: None })
    }

    /// A node whose `BASE_URL` is `http://{base}`.
    async fn start(&mut self, base: &str, further: &str) -> Result<Node> {
        let builder = self.builder.clone().setting("BASE_URL", format!("http://{base}")).setting("DOMAINS", further);
        started(match self.data.take() {
            Some(data) => builder.data(data),
            None => builder,
        })
        .await
    }

    async fn stop(&mut self, node: Node) -> Result<()> {
        self.data = Some(node.stop().await?);
        Ok(())
    }
}

/// A caller who names `host` in each request.
fn at(node: &Node, host: &str) -> Result<Client> {
    Ok(node.client()?.with_header("host", host))
}

async fn from_host(node: &Node, host: &str, path: &str) -> Result<Answer> {
    send_with(&node.client()?.with_header("user-agent", FIREFOX), Method::GET, path, ("host", host)).await
}

/// Holds hosts to lead to a target, or nowhere.
async fn expect_leads(node: &Node, alias: &str, expected: &[(&str, Option<&str>)]) -> Result<()> {
    for (host, target) in expected {
        for (path, status) in [(format!("/{alias}"), 302), (format!("/shortener/url/{alias}"), 301)] {
            let answer = from_host(node, host, &path).await?;
            let wanted = if target.is_some() { status } else { 404 };
            ensure!(answer.status == wanted, "{host}{path}: {} instead of {wanted}: {}", answer.status, answer.text());
            ensure!(answer.header("location") == *target, "{host}{path}: {:?}", answer.header("location"));
        }
    }
    Ok(())
}

/// Signs in a user who has registered before.
async fn signed_in(client: &Client, email: &str) -> Result<Client> {
    let body = json!({ "email": email, "password": PASSWORD });
    let tokens: Value = client.post("/api/v1/auth/login", &body).await?.expect_status(200)?.json()?;
    Ok(client.with_token(&text(&tokens, "access_token")?))
}

fn warned(node: &Node, of: &[&str]) -> bool {
    node.log().lines().any(|line| line.contains("WARN") && of.iter().all(|part| line.contains(part)))
}

/// Whether nothing was said of hosts.
fn is_silent(node: &Node) -> bool {
    !warned(node, &["DOMAINS:"]) && !warned(node, &["BASE_URL:"])
}

#[tokio::test]
async fn links_that_are_printed_with_the_former_host_of_the_default_domain_go_on() -> Result<()> {
    let mut store = Store::new().await?;
    let (alias, email) = (unique("printed"), email());
    let node = store.start("old.example", "").await?;
    let owner = at(&node, "old.example")?.register_and_login(&email, PASSWORD).await?;
    let link = create(&owner, &json!({ "original_url": "https://example.com/", "custom_alias": alias })).await?;
    assert_eq!(link["short_url"], json!(format!("http://old.example/{alias}")));
    expect_leads(&node, &alias, &[("old.example", Some("https://example.com/"))]).await?;
    ensure!(is_silent(&node), "{}", node.log());
    store.stop(node).await?;

    let node = store.start("new.example", "old.example").await?;
    ensure!(warned(&node, &["renamed from old.example to new.example", "DOMAINS"]), "{}", node.log());
    ensure!(warned(&node, &["old.example is another name of new.example"]), "{}", node.log());
    let both = [("new.example", Some("https://example.com/")), ("OLD.example.", Some("https://example.com/"))];
    expect_leads(&node, &alias, &both).await?;
    expect_leads(&node, &alias, &[("unknown.example", None)]).await?;
    // Answers, images and figures are those of one domain, which has the new host.
    let owner = signed_in(&at(&node, "new.example")?, &email).await?;
    let listed: Value = owner.get("/api/v1/urls").await?.expect_status(200)?.json()?;
    let short_url = format!("http://new.example/{alias}");
    assert_eq!((&listed["items"][0]["short_url"], &listed["items"][0]["domain"]), (&json!(short_url), &json!("")));
    for named in ["", "?domain=old.example", "?domain=new.example"] {
        let image = owner.get(&format!("/api/v1/qr/{alias}{named}")).await?.expect_status(200)?;
        assert_eq!(qr::read(&image, 256)?, short_url, "{named}");
        eventually("the clicks before and after are counted together", async || {
            let fresh = ("cache-control", "no-cache");
            let path = format!("/api/v1/analytics/{alias}/summary{named}");
            let summary: Value = send_with(&owner, Method::GET, &path, fresh).await?.expect_status(200)?.json()?;
            Ok(summary["total_clicks"] == 6)
        })
        .await?;
    }
    let again = json!({ "original_url": "https://example.com/2", "custom_alias": alias, "domain": "old.example" });
    expect_problem(&owner.post("/api/v1/urls", &again).await?, 409)?;
    let by_old_name = json!({ "original_url": "https://example.com/3", "domain": "old.example" });
    let by_old_name = create(&owner, &by_old_name).await?;
    ensure!(text(&by_old_name, "short_url")?.starts_with("http://new.example/"), "{by_old_name}");
    // A change is seen by both names at once.
    let change = json!({ "original_url": "https://example.com/moved" });
    owner.patch(&resource_of(&link)?, &change).await?.expect_status(200)?;
    let moved = Some("https://example.com/moved");
    expect_leads(&node, &alias, &[("new.example", moved), ("old.example", moved)]).await?;
    store.stop(node).await?;

    // And back.
    let node = store.start("old.example", "new.example").await?;
    expect_leads(&node, &alias, &[("new.example", moved), ("old.example", moved)]).await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_taken_out_is_never_answered_with_another_domains_links() -> Result<()> {
    let mut store = Store::new().await?;
    let (alias, email) = (unique("same"), email());
    let node = store.start("sho.rt", "go.example.com,unused.example").await?;
    let owner = at(&node, "sho.rt")?.register_and_login(&email, PASSWORD).await?;
    let mut links = Vec::new();
    for domain in ["", "go.example.com"] {
        let target = if domain.is_empty() { "https://example.com/ours" } else { "https://example.com/theirs" };
        links.push(create(&owner, &json!({ "original_url": target, "custom_alias": alias, "domain": domain })).await?);
    }
    store.stop(node).await?;

    // Any host that is not known means the default domain.
    let node = store.start("sho.rt", "").await?;
    let ours = Some("https://example.com/ours");
    expect_leads(&node, &alias, &[("sho.rt", ours), ("unknown.example", ours), ("10.1.2.3", ours)]).await?;
    expect_leads(&node, &alias, &[("go.example.com", None), ("GO.example.com.:80", None), ("unused.example", None)])
        .await?;
    expect_problem(&from_host(&node, "go.example.com", "/").await?, 404)?;
    ensure!(warned(&node, &["go.example.com has links", "DOMAINS"]), "{}", node.log());
    ensure!(!warned(&node, &["unused.example"]), "it has no links: {}", node.log());
    // Who has links there still sees and changes them; no new ones are made there, and none leads there.
    let owner = signed_in(&at(&node, "sho.rt")?, &email).await?;
    let listed: Value = owner.get("/api/v1/urls").await?.expect_status(200)?.json()?;
    assert_eq!(listed["items"][0]["domain"], json!("go.example.com"));
    assert_eq!(listed["items"][0]["short_url"], links[1]["short_url"]);
    owner.get(&format!("/api/v1/analytics/{alias}/summary?domain=go.example.com")).await?.expect_status(200)?;
    let change = json!({ "original_url": "https://example.com/changed" });
    owner.patch(&resource_of(&links[1])?, &change).await?.expect_status(200)?;
    let on_it = json!({ "original_url": "https://example.com/", "domain": "go.example.com" });
    expect_refused(&owner.post("/api/v1/urls", &on_it).await?, &["domain"])?;
    let to_it = json!({ "original_url": format!("https://go.example.com/{alias}") });
    expect_refused(&owner.post("/api/v1/urls", &to_it).await?, &["original_url"])?;
    store.stop(node).await?;

    let node = store.start("sho.rt", "go.example.com").await?;
    let changed = Some("https://example.com/changed");
    expect_leads(&node, &alias, &[("sho.rt", ours), ("go.example.com", changed), ("unknown.example", None)]).await?;
    ensure!(is_silent(&node), "{}", node.log());
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn two_domains_that_change_places_keep_their_links() -> Result<()> {
    let mut store = Store::new().await?;
    let alias = unique("places");
    let node = store.start("a.example", "b.example").await?;
    let client = at(&node, "a.example")?;
    for host in ["a.example", "b.example"] {
        let target = format!("https://example.com/{host}");
        create(&client, &json!({ "original_url": target, "custom_alias": alias, "domain": host })).await?;
    }
    store.stop(node).await?;
    let node = store.start("b.example", "a.example").await?;
    ensure!(warned(&node, &["b.example was a domain of its own", "a.example"]), "{}", node.log());
    let own =
        [("a.example", Some("https://example.com/a.example")), ("b.example", Some("https://example.com/b.example"))];
    expect_leads(&node, &alias, &own).await?;
    let client = at(&node, "b.example")?;
    let new = create(&client, &json!({ "original_url": "https://example.com/new" })).await?;
    let code = text(&new, "short_code")?;
    assert_eq!((&new["domain"], &new["short_url"]), (&json!(""), &json!(format!("http://b.example/{code}"))));
    expect_leads(&node, &code, &[("b.example", Some("https://example.com/new")), ("a.example", None)]).await?;
    let link: Value =
        with_management_token(&client, &new)?.get(&resource_of(&new)?).await?.expect_status(200)?.json()?;
    assert_eq!(link["domain"], json!(""));
    store.stop(node).await?;
    let node = store.start("a.example", "").await?;
    expect_leads(&node, &alias, &[own[0], ("b.example", None)]).await?;
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn links_that_lead_to_a_host_that_became_ours_end_there() -> Result<()> {
    let mut store = Store::new().await?;
    let [one, two, out] = ["one", "two", "out"].map(unique);
    let node = store.start("old.example", "retired.example").await?;
    let client = at(&node, "old.example")?;
    let shorten = async |alias: &str, target: String, status: u16| {
        create(&client, &json!({ "original_url": target, "custom_alias": alias, "redirect_status": status })).await
    };
    let circle = shorten(&one, format!("https://New.example:8443/{two}"), 302).await?;
    shorten(&two, format!("http://new.example/{one}"), 307).await?;
    shorten(&out, "https://x.new.example/".to_owned(), 302).await?;
    store.stop(node).await?;

    let node = store.start("new.example", "old.example").await?;
    for host in ["new.example", "old.example"] {
        for path in [format!("/{one}"), format!("/{two}"), format!("/shortener/url/{one}")] {
            let answer = from_host(&node, host, &path).await?;
            ensure!(answer.header("location").is_none(), "{host}{path}");
            assert_eq!(expect_problem(&answer, 410)?["type"], "urn:shortener:problem:loop");
            assert_eq!(answer.header("cache-control"), Some("private, max-age=0"));
        }
        expect_leads(&node, &out, &[(host, Some("https://x.new.example/"))]).await?;
    }
    let client = at(&node, "new.example")?;
    let page =
        send_with(&client, Method::GET, &format!("/{one}"), ("accept", "text/html")).await?.expect_status(410)?;
    ensure!(page.text().contains("leads back to this service"), "{}", page.text());
    // The link's own status decides which methods are answered.
    expect_problem(&client.send(Method::POST, &format!("/{two}"), |request| request).await?, 410)?;
    expect_problem(&client.send(Method::POST, &format!("/{one}"), |request| request).await?, 405)?;
    let metrics = Client::new(node.admin_url())?.get("/metrics").await?.text();
    ensure!(metrics.contains("\nshortener_redirect_loops_total 9\n"), "{metrics}");
    // Its owner may mend it, and no other is made.
    let manager = with_management_token(&client, &circle)?;
    let mended = json!({ "original_url": "https://example.com/mended" });
    manager.patch(&resource_of(&circle)?, &mended).await?.expect_status(200)?;
    expect_leads(&node, &one, &[("new.example", Some("https://example.com/mended"))]).await?;
    for own in ["new.example", "NEW.example.", "new.example:8443", "old.example", "retired.example", "%6Eew.example"] {
        let body = json!({ "original_url": format!("https://{own}/{out}") });
        expect_refused(&client.post("/api/v1/urls", &body).await?, &["original_url"])?;
        expect_refused(&manager.patch(&resource_of(&circle)?, &body).await?, &["original_url"])?;
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn where_any_host_is_ours_no_link_leads_to_the_host_that_it_is_asked_for_at() -> Result<()> {
    let mut store = Store::new().await?;
    let alias = unique("itself");
    let node = store.start("sho.rt", "").await?;
    let target = format!("https://Any.example:8443/{alias}");
    create(&at(&node, "sho.rt")?, &json!({ "original_url": target, "custom_alias": alias })).await?;
    let target = target.to_lowercase();
    expect_leads(&node, &alias, &[("sho.rt", Some(&target)), ("x.any.example", Some(&target))]).await?;
    for host in ["any.example", "ANY.example", "any.example.", "any.example:80", "any.example.:8443"] {
        for path in [format!("/{alias}"), format!("/shortener/url/{alias}")] {
            let problem = expect_problem(&from_host(&node, host, &path).await?, 410)?;
            assert_eq!(problem["type"], "urn:shortener:problem:loop", "{host}{path}");
        }
    }
    node.stop().await?;
    Ok(())
}

/// A rollout: nodes with old and new settings beside each other.
#[tokio::test]
async fn a_node_learns_of_hosts_that_another_registers() -> Result<()> {
    if !shortener_tests::sizes::on_servers() {
        return Ok(());
    }
    let (mut store, alias) = (Store::new().await?, unique("beside"));
    let old = store.start("sho.rt", "").await?;
    let client = at(&old, "sho.rt")?;
    create(&client, &json!({ "original_url": "https://other.example/", "custom_alias": alias })).await?;
    let target = Some("https://other.example/");
    expect_leads(&old, &alias, &[("sho.rt", target), ("unknown.example", target)]).await?;
    expect_problem(&from_host(&old, "other.example", &format!("/{alias}")).await?, 410)?;
    let new = store.start("new.example", "sho.rt,other.example").await.context("the second node")?;
    expect_leads(&new, &alias, &[("other.example", None)]).await?;
    eventually("the first node knows the host", async || {
        Ok(from_host(&old, "other.example", &format!("/{alias}")).await?.status == 404)
    })
    .await?;
    expect_leads(&old, &alias, &[("sho.rt", target), ("new.example", target), ("unknown.example", target)]).await?;
    for (node, base) in [(&old, "sho.rt"), (&new, "new.example")] {
        let to_it = json!({ "original_url": "https://other.example/x" });
        expect_refused(&at(node, base)?.post("/api/v1/urls", &to_it).await?, &["original_url"])?;
    }
    // Where it is answered, the link would lead back here.
    for host in ["sho.rt", "new.example"] {
        expect_problem(&from_host(&new, host, &format!("/{alias}")).await?, 410)?;
    }
    Ok(())
}
