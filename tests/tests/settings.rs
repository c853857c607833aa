//! Settings that name files, on real nodes: each is read, and read again where the contract says so.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_tests::certificates::{Authority, Certificates};
use shortener_tests::client::Client;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::tikv::Tikv;
use tempfile::TempDir;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const SECRET: &str = "a secret of tests alone, 32 bytes";
const PASSWORD: &str = "correct horse battery staple";
/// What is waited for takes far less.
const PATIENCE: Duration = Duration::from_secs(30);
/// A database in MaxMind's format that says DE of 0.0.0.0/1 and nothing of the rest.
const COUNTRIES: &str = "00001100000100000000000000000000000000000000e147636f756e747279e14869736f5f636f6465424445abcdef4d6178\
     4d696e642e636f6de95b62696e6172795f666f726d61745f6d616a6f725f76657273696f6ea200025b62696e6172795f666f\
     726d61745f6d696e6f725f76657273696f6ea200004b6275696c645f65706f63680102014a6e6f64655f636f756e74c20001\
     4b7265636f72645f73697a65a200184a69705f76657273696f6ea200044d64617461626173655f747970654c546573742d43\
     6f756e7472794b6465736372697074696f6ee0496c616e6775616765730004";

/// Writes a file of this test.
fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = folder.path().join(name);
    std::fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn naming(node: NodeBuilder, setting: &str, path: &Path) -> NodeBuilder {
    node.setting(setting, path.display().to_string())
}

/// What shortening a page of `host` is answered with.
async fn shortened(client: &Client, host: &str) -> Result<u16> {
    Ok(client.post("/api/v1/urls", &json!({ "original_url": format!("https://{host}/") })).await?.status)
}

#[tokio::test]
async fn blocked_hosts_are_those_that_stand_in_the_file_now() -> Result<()> {
    let folder = TempDir::new()?;
    let file = write(&folder, "blocked", "bad.example.com\n")?;
    let node = naming(Node::builder(), "BLOCKED_HOSTS_FILE", &file).start().await?;
    let client = node.client()?;
    ensure!(
        shortened(&client, "bad.example.com").await? == 422 && shortened(&client, "worse.example.com").await? == 201
    );
    write(&folder, "blocked", "# the other one\nworse.example.com\n")?;
    wait_until("the new list holds", PATIENCE, async || Ok(shortened(&client, "worse.example.com").await? == 422))
        .await?;
    ensure!(shortened(&client, "bad.example.com").await? == 201, "what is not in the file any more is still blocked");
    // What is no list changes nothing, and the log says where and why, and not what.
    write(&folder, "blocked", "fine.example.com\nhttps://secret.example.com/path\n")?;
    wait_until("the node says so", PATIENCE, async || Ok(node.log().contains("is not used as it is now"))).await?;
    let log = node.log();
    let said = log.lines().find(|line| line.contains("is not used as it is now")).context("a line")?;
    let names_it = said.contains("BLOCKED_HOSTS_FILE") && said.contains(&file.display().to_string());
    ensure!(names_it && said.contains("line 2: is a URL") && !log.contains("secret.example.com"), "{said}");
    ensure!(shortened(&client, "worse.example.com").await? == 422, "the list is gone");
    ensure!(shortened(&client, "fine.example.com").await? == 201, "half of a list is used");
    Ok(())
}

/// A list as ad blockers publish it, mounted as the kubelet mounts a ConfigMap, and replaced as it does.
#[tokio::test]
async fn a_hosts_file_that_is_mounted_and_swapped_is_used() -> Result<()> {
    let folder = TempDir::new()?;
    for (version, list) in [
        ("one", "# hosts\r\n127.0.0.1 localhost\r\n0.0.0.0 ads.example.com tracker.example.com # both\r\n"),
        ("two", "\u{feff}! an ad blocker's\n||Ads.Example.Org^\n:: m\u{fc}nchen.example\n"),
    ] {
        std::fs::create_dir(folder.path().join(version))?;
        std::fs::write(folder.path().join(version).join("blocked"), list)?;
    }
    symlink("one", folder.path().join("..data"))?;
    symlink("..data/blocked", folder.path().join("blocked"))?;
    let node = naming(Node::builder(), "BLOCKED_HOSTS_FILE", &folder.path().join("blocked")).start().await?;
    let client = node.client()?;
    for (host, status) in [("ads.example.com", 422), ("a.tracker.example.com", 422), ("ads.example.org", 201)] {
        ensure!(shortened(&client, host).await? == status, "{host} by the first list");
    }
    symlink("two", folder.path().join("..data_tmp"))?;
    std::fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"))?;
    wait_until("the new list holds", PATIENCE, async || Ok(shortened(&client, "ads.example.org").await? == 422))
        .await?;
    for (host, status) in [("ads.example.com", 201), ("xn--mnchen-3ya.example", 422)] {
        ensure!(shortened(&client, host).await? == status, "{host} by the second list");
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_in_a_file_is_the_same_secret_with_a_newline_behind_it() -> Result<()> {
    let folder = TempDir::new()?;
    let named = || Node::builder().setting("BASE_URL", "http://sho.rt");
    let file = write(&folder, "key", format!("{SECRET}\n"))?;
    let node = naming(named(), "SECRET_KEY_FILE", &file).start().await?;
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    let node = named().setting("SECRET_KEY", SECRET).data(node.stop().await?).start().await?;
    let ada = node.client()?.with_token(ada.token().context("she is signed in")?);
    ada.get("/api/v1/auth/me").await?.expect_status(200)?;
    // The next key, with the old one in a file of its own.
    let other = write(&folder, "other", "another secret of tests, 32 bytes\n")?;
    let node = naming(named(), "SECRET_KEY_FILE", &other).data(node.stop().await?);
    let node = naming(node, "SECRET_KEY_PREVIOUS_FILE", &file).start().await?;
    let ada = node.client()?.with_token(ada.token().context("she is signed in")?);
    ada.get("/api/v1/auth/me").await?.expect_status(200)?;
    Ok(())
}

#[tokio::test]
async fn clicks_are_told_apart_by_the_countries_of_the_file() -> Result<()> {
    let folder = TempDir::new()?;
    let file = write(&folder, "countries.mmdb", hex::decode(COUNTRIES)?)?;
    let node = naming(Node::builder(), "GEOIP_DATABASE", &file).setting("TRUSTED_PROXIES", "127.0.0.1");
    let node = node.setting("ANALYTICS_FLUSH_INTERVAL", "100ms").start().await?;
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    let link = ada.create("https://www.example.com/").await?;
    let code = link["short_code"].as_str().context("a link has a code")?;
    for address in ["100.0.2.1", "100.0.2.2", "203.0.113.1"] {
        let visitor = node.client()?.with_header("user-agent", FIREFOX).with_header("x-forwarded-for", address);
        visitor.get(&format!("/{code}")).await?.expect_status(302)?;
    }
    let expected = json!([{ "name": "DE", "clicks": 2 }, { "name": "unknown", "clicks": 1 }]);
    wait_until("the clicks are told apart", PATIENCE, async || {
        let fresh = ada.with_header("cache-control", "no-cache");
        let summary: Value =
            fresh.get(&format!("/api/v1/analytics/{code}/summary")).await?.expect_status(200)?.json()?;
        Ok(summary["countries"] == expected)
    })
    .await
}

#[tokio::test]
async fn countries_are_those_of_the_file_that_is_there_now_and_a_damaged_one_changes_nothing() -> Result<()> {
    let folder = TempDir::new()?;
    let database = hex::decode(COUNTRIES)?;
    let file = write(&folder, "countries.mmdb", &database)?;
    let node = naming(Node::builder(), "GEOIP_DATABASE", &file).setting("TRUSTED_PROXIES", "127.0.0.1");
    let node = node.setting("ANALYTICS_FLUSH_INTERVAL", "100ms").start().await?;
    let ada = node.client()?.register_and_login("ada@example.com", PASSWORD).await?;
    // The code of the country stands in it once.
    let at = database.windows(2).position(|bytes| bytes == b"DE").context("the file says DE")?;
    let of = |country: &[u8; 2]| [&database[..at], country, &database[at + 2..]].concat();
    let replaced = |bytes: &[u8]| -> Result<()> {
        let next = write(&folder, "next", bytes)?;
        Ok(std::fs::rename(next, &file)?)
    };
    replaced(&of(b"FR"))?;
    wait_until("a click is from the new country", PATIENCE, async || Ok(country(&node, &ada).await? == "FR")).await?;
    for damaged in [&b"no database"[..], &database[..database.len() / 2]] {
        let complaints = || node.log().matches("is not used as it is now").count();
        let before = complaints();
        replaced(damaged)?;
        wait_until("the node says so", PATIENCE, async || Ok(complaints() > before)).await?;
        ensure!(country(&node, &ada).await? == "FR", "the database is gone");
    }
    let log = node.log();
    ensure!(log.contains("GEOIP_DATABASE") && log.contains(&file.display().to_string()), "{log}");
    Ok(())
}

/// The country that a visitor's click is counted for now.
async fn country(node: &Node, ada: &Client) -> Result<String> {
    let link = ada.create("https://www.example.com/").await?;
    let code = link["short_code"].as_str().context("a link has a code")?;
    let visitor = node.client()?.with_header("user-agent", FIREFOX).with_header("x-forwarded-for", "100.0.2.1");
    visitor.get(&format!("/{code}")).await?.expect_status(302)?;
    let mut found = String::new();
    wait_until("the click is counted", PATIENCE, async || {
        let fresh = ada.with_header("cache-control", "no-cache");
        let summary: Value =
            fresh.get(&format!("/api/v1/analytics/{code}/summary")).await?.expect_status(200)?.json()?;
        summary["countries"][0]["name"].as_str().unwrap_or_default().clone_into(&mut found);
        Ok(!found.is_empty())
    })
    .await?;
    Ok(found)
}

/// Replaces a file by one that is whole.
fn replace(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, contents)?;
    Ok(std::fs::rename(next, path)?)
}

/// A node that was started with the files of another authority, and with the password before the last.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_keys_and_passwords_that_are_replaced_are_used_and_bad_ones_change_nothing() -> Result<()> {
    let Some(tikv) = Tikv::builder().tls().start().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::builder().tls().user("node", "correct-horse").start().await? else { return Ok(()) };
    let (of_tikv, of_redis) = (tikv.certificates().context("TLS")?, redis.certificates().context("TLS")?);
    let (folder, stranger) = (TempDir::new()?, Authority::new()?);
    let strange = stranger.sign("stranger", None, &["localhost".to_owned()])?;
    let mut node = Node::builder()
        .setting("DATABASE_URL", tikv.database_url(&fresh_name("replaced")))
        .setting("SECRET_KEY", SECRET)
        .setting("REDIS_USERNAME", "node");
    // Without the password.
    let (scheme, seeds) =
        redis.url().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned())).context("a URL")?;
    let seeds = seeds.rsplit_once('@').map_or(seeds.clone(), |(_, seeds)| seeds.to_owned());
    node = node.setting("REDIS_URL", format!("{scheme}://{seeds}"));
    node = naming(node, "REDIS_PASSWORD_FILE", &write(&folder, "password", "an older one\n")?);
    let mut files = Vec::new();
    for (server, Certificates { ca, cert, key }) in [("TIKV", of_tikv), ("REDIS", of_redis)] {
        let strange = [stranger.itself().cert, strange.cert.clone(), strange.key.clone()];
        for ((file, right), wrong) in [("CA", ca), ("CERT", cert), ("KEY", key)].into_iter().zip(strange) {
            let path = write(&folder, &format!("{server}_{file}"), wrong)?;
            node = naming(node, &format!("{server}_{file}"), &path);
            files.push((path, std::fs::read(right)?));
        }
    }
    let node = node.start().await?;
    let client = node.client()?;
    client.until_health_is("unavailable").await?;
    for (path, right) in &files {
        replace(path, right)?;
    }
    replace(&folder.path().join("password"), "correct-horse\n")?;
    client.until_health_is("ok").await?;

    // One that does not fit its certificate: the clients of the moment go on.
    for key in ["TIKV_KEY", "REDIS_KEY"] {
        replace(&folder.path().join(key), &strange.key)?;
    }
    wait_until("the node says so", PATIENCE, async || Ok(node.log().matches("is not used as it is now").count() >= 2))
        .await?;
    client.create("https://www.example.com/").await?;
    ensure!(client.health().await?["status"] == "ok", "{}", client.health().await?);
    // The right one again: both connect anew, although nothing was wrong with their connections.
    let connected = |to: &str| node.log().matches(&format!("connected to {to}")).count();
    let before = [connected("TiKV"), connected("Redis Cluster")];
    for (path, right) in &files {
        replace(path, right)?;
    }
    wait_until("both connect anew", PATIENCE, async || {
        Ok(connected("TiKV") > before[0] && connected("Redis Cluster") > before[1])
    })
    .await?;
    client.create("https://www.example.com/").await?;
    ensure!(!node.log().contains("correct-horse") && !node.log().contains("PRIVATE KEY"), "a secret is in the log");
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_certificates_that_it_is_told_of_a_node_uses_servers_with_tls() -> Result<()> {
    let Some(tikv) = Tikv::builder().tls().start().await? else { return Ok(()) };
    let Some(redis) = RedisCluster::builder().tls().user("node", "correct-horse").start().await? else { return Ok(()) };
    let (of_tikv, of_redis) = (tikv.certificates().context("TLS")?, redis.certificates().context("TLS")?);
    let folder = TempDir::new()?;
    let redis_url = write(&folder, "redis-url", format!("{}\n", redis.url()))?;
    let mut node = naming(Node::builder(), "REDIS_URL_FILE", &redis_url)
        .setting("DATABASE_URL", tikv.database_url(&fresh_name("tls")))
        .setting("SECRET_KEY", SECRET);
    for (server, Certificates { ca, cert, key }) in [("TIKV", of_tikv), ("REDIS", of_redis)] {
        for (file, path) in [("CA", ca), ("CERT", cert), ("KEY", key)] {
            node = naming(node, &format!("{server}_{file}"), path);
        }
    }
    let node = node.start().await?;
    wait_until("the node is well", PATIENCE, async || {
        let health = node.client()?.health().await?;
        Ok(health["status"] == "ok"
            && health["cache"]["engine"] == "redis-cluster"
            && health["store"]["engine"] == "tikv")
    })
    .await?;
    let client = node.client()?;
    let link = client.create("https://www.example.com/").await?;
    let path = format!("/{}", link["short_code"].as_str().context("a link has a code")?);
    node.client()?.get(&path).await?.expect_status(302)?;
    let data: Arc<TempDir> = node.stop().await?;
    ensure!(!data.path().join("store").exists(), "it kept a store of its own");
    Ok(())
}
