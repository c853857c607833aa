//! Signing in and registering go on while others flood them, guess at an account, or share an address.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use shortener_tests::client::{Answer, Client};
use shortener_tests::node::Node;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::scene::{PASSWORD, builder, email, eventually, expect_problem, expect_refused, started, text};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
/// Logins a second of a flood.
const FLOOD_A_SECOND: u32 = 15;
/// How many sign in during each flood, one after the other.
const RIGHT_LOGINS: usize = 10;
/// How many of a flood's logins are sent before the first of them.
const FLOODED_BEFORE: usize = 20;

/// A node with the limits that it has unless told otherwise, which takes this machine's word on addresses.
async fn node() -> Result<Node> {
    let node = builder().await?.setting("RATE_LIMIT_REGISTER", "").setting("RATE_LIMIT_LOGIN", "");
    started(node.setting("TRUSTED_PROXIES", "127.0.0.1")).await
}

fn from(node: &Node, address: &str) -> Result<Client> {
    Ok(node.client()?.with_header("x-forwarded-for", address))
}

async fn log_in(client: &Client, email: &str, password: &str) -> Result<Answer> {
    client.post(LOGIN, &json!({ "email": email, "password": password })).await
}

/// Tries logins from each of the addresses in turn, until it is dropped.
fn flood(node: &Node, addresses: Vec<String>, asked: Arc<AtomicUsize>) -> Result<JoinSet<()>> {
    let client = node.client()?;
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let mut pace = interval(Duration::from_secs(1) / FLOOD_A_SECOND);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tries = JoinSet::new();
        for address in addresses.iter().cycle() {
            pace.tick().await;
            let client = client.with_header("x-forwarded-for", address);
            let email = format!("nobody-{}@example.com", asked.fetch_add(1, Ordering::SeqCst));
            tries.spawn(async move { log_in(&client, &email, "a password of nobody").await.map(drop) });
            // What became of the earlier ones does not matter.
            while tries.try_join_next().is_some() {}
        }
    });
    Ok(flood)
}

/// How right logins are answered during a flood: half of them from where the account was made, half from an address that
/// nobody knows. One at a time, so that they are no flood themselves where a hash takes seconds.
async fn right_logins_during(node: &Node, flooders: Vec<String>, kind: u8) -> Result<Vec<(u16, Duration)>> {
    let owners: Vec<String> = (0..RIGHT_LOGINS / 2).map(|_| email()).collect();
    let home = |n: usize| format!("198.{kind}.{n}.1");
    for (n, email) in owners.iter().enumerate() {
        let body = json!({ "email": email, "password": PASSWORD });
        from(node, &home(n))?.post(REGISTER, &body).await?.expect_status(201)?;
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let flood = flood(node, flooders, asked.clone())?;
    eventually("the flood has begun", async || Ok(asked.load(Ordering::SeqCst) >= FLOODED_BEFORE)).await?;
    let mut answers = Vec::new();
    for n in 0..RIGHT_LOGINS {
        let address = if n % 2 == 0 { home(n / 2) } else { format!("203.{kind}.{n}.1") };
        let (client, clock) = (from(node, &address)?, Clock::system());
        let answer = log_in(&client, &owners[n / 2], PASSWORD).await?;
        answers.push((answer.status, clock.monotonic()));
    }
    drop(flood);
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_from_one_network_shuts_out_nobody_elsewhere() -> Result<()> {
    // With limits that are out of the way: what holds is the queue alone.
    let node = started(builder().await?.setting("TRUSTED_PROXIES", "127.0.0.1")).await?;
    let of_56 = (0..256).map(|n| format!("2001:db8:56:{n:x}::1")).collect();
    let of_48 = (0..256).map(|n| format!("2001:db8:48:{:x}::1", n << 8)).collect();
    let ipv4 = (0..60).map(|n| format!("192.0.2.{n}")).collect();
    let mut answers = Vec::new();
    for (name, flooders, kind) in
        [("256 /64s of one /56", of_56, 18), ("256 /64s of one /48", of_48, 19), ("60 IPv4 addresses", ipv4, 20)]
    {
        let answered = right_logins_during(&node, flooders, kind).await?;
        println!("{name}: {answered:?}");
        answers.extend(answered);
    }
    // Slack for a busy machine: the node itself answers within 8 s or gives up.
    let right = answers.iter().filter(|(status, _)| *status == 200).count();
    ensure!(right * 100 >= answers.len() * 95, "{right} of {} signed in: {answers:?}", answers.len());
    let refused = Client::new(node.admin_url())?.get("/metrics").await?.text();
    let refused = refused.lines().find_map(|line| {
        line.strip_prefix("shortener_password_jobs_total{lane=\"login\",outcome=\"refused\"} ")?.parse::<u64>().ok()
    });
    ensure!(refused.context("the metric is there")? > 0, "that was no flood: {refused:?}");
    // Nor from registering.
    let body = json!({ "email": email(), "password": PASSWORD });
    from(&node, "203.99.0.1")?.post(REGISTER, &body).await?.expect_status(201)?;
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_has_a_limit_beside_that_of_each_address_in_it() -> Result<()> {
    let node = builder().await?.setting("RATE_LIMIT_LOGIN", "1/86400").setting("RATE_LIMIT_REGISTER", "1/86400");
    let node = started(node.setting("TRUSTED_PROXIES", "127.0.0.1")).await?;
    for path in [LOGIN, REGISTER] {
        let ask = async |address: String| {
            // Refused before a password is hashed, but counted.
            let body = json!({ "email": "nobody", "password": 1 });
            from(&node, &address)?.post(path, &body).await
        };
        let mut statuses = BTreeMap::new();
        for n in 0..8 {
            // Each /64 asks once, and all of them are of one /56.
            *statuses.entry(ask(format!("2001:db8:0:{n:x}::1")).await?.status).or_insert(0) += 1;
        }
        assert_eq!(statuses, BTreeMap::from([(422, 4), (429, 4)]), "{path}: a /56 may use as much as four of its /64s");
        expect_problem(&ask("2001:db8:0:ff::1".to_owned()).await?, 429)?;
        assert_eq!(ask("2001:db8:0:100::1".to_owned()).await?.status, 422, "{path}: the next /56");
        assert_eq!(ask("2001:db8:0:100::2".to_owned()).await?.status, 429, "{path}: the same /64");
    }
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_one_account_from_many_addresses_are_slowed_and_its_owner_signs_in() -> Result<()> {
    let node = node().await?;
    let (owner, nobody) = (email(), "nobody-at-all@example.com".to_owned());
    let home = from(&node, "198.51.100.1")?;
    home.post(REGISTER, &json!({ "email": owner, "password": PASSWORD })).await?.expect_status(201)?;
    let guess = async |email: &str| {
        let mut statuses = BTreeMap::new();
        for n in 0..120 {
            let answer = log_in(&from(&node, &format!("203.0.{n}.1"))?, email, "a wrong guess").await?;
            if answer.status == 429 {
                expect_problem(&answer, 429)?;
                let wait: u64 = answer.header("retry-after").context("Retry-After")?.parse()?;
                ensure!((1..=30).contains(&wait), "{wait}");
            }
            *statuses.entry(answer.status).or_insert(0_u32) += 1;
        }
        Ok(statuses)
    };
    for email in [&owner, &nobody] {
        let statuses = guess(email).await?;
        let looked_at = statuses.get(&401).copied().unwrap_or_default();
        // The pace begins with seconds, which pass while passwords are checked.
        ensure!((10..=20).contains(&looked_at) && statuses.len() == 2, "{email}: {statuses:?}");
    }
    log_in(&home, &owner, PASSWORD).await?.expect_status(200)?;
    let metrics = Client::new(node.admin_url())?.get("/metrics").await?.text();
    let slowed = metrics.lines().find_map(|line| line.strip_prefix("shortener_password_guesses_slowed_total "));
    let slowed: u32 = slowed.context("the metric is there")?.parse()?;
    ensure!(slowed >= 200, "{slowed}");
    let log = node.log();
    ensure!(log.contains("guesses at an account's password are slowed"), "no line says so");
    ensure!(!log.contains(&owner) && !log.contains(&nobody) && !log.contains("203.0."), "the log names somebody");
    node.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_people_of_one_office_register_and_sign_in() -> Result<()> {
    let node = node().await?;
    let office = from(&node, "198.51.100.1")?;
    for n in 0..25 {
        let email = email();
        let body = json!({ "email": email, "password": PASSWORD });
        office.post(REGISTER, &body).await?.expect_status(201).with_context(|| format!("person {n}"))?;
        log_in(&office, &email, PASSWORD).await?.expect_status(200).with_context(|| format!("person {n}"))?;
    }
    // Who guesses there is limited all the same.
    let mut statuses = Vec::new();
    for n in 0..21 {
        statuses.push(log_in(&office, &format!("nobody-{n}@example.com"), "a wrong guess").await?.status);
    }
    assert_eq!((statuses.iter().filter(|status| **status == 401).count(), statuses[20]), (20, 429), "{statuses:?}");
    node.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_password_that_others_would_try_first_is_refused() -> Result<()> {
    let node = builder().await?.setting("DOMAINS", "links.example.com");
    let node = started(node).await?;
    let client = node.client()?;
    for password in
        ["Ada.Lovelace1!", "ada.lovelace@example.com", "Password123!", "        ", "localhost", "links.example.com"]
    {
        let body = json!({ "email": "ada.lovelace@example.com", "password": password });
        expect_refused(&client.post(REGISTER, &body).await?, &["password"]).context(password)?;
    }
    let body = json!({ "email": "ada.lovelace@example.com", "password": PASSWORD });
    let user: Value = client.post(REGISTER, &body).await?.expect_status(201)?.json()?;
    assert_eq!(text(&user, "email")?, "ada.lovelace@example.com");
    node.stop().await?;
    Ok(())
}
