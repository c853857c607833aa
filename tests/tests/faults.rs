//! Several nodes on shared servers while something fails: what was acknowledged stays, no code is given out twice, nobody
//! is told that a link is not there which is, nobody waits beyond the deadlines, and all recovers by itself.
mod faults {
    pub mod bounds;
    pub mod clicks;
    pub mod scene;
}

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::Clock;
use shortener_tests::fleet::Metrics;
use shortener_tests::sizes::sized;
use shortener_tests::tikv::{Layout, StoreStatus, Tikv};
use tokio::task::JoinSet;

use faults::clicks::expect_each_click_once;
use faults::scene::{
    CREATORS, ELECTION, LOCKS_GONE, NODES, PATIENCE, RECOVERY, Scene, chance, is_well, lasts, report, until,
};

/// How long the regions of a store that dies have no leader, as was seen on TiKV with its own settings.
const STORE_ELECTION: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_lose_nothing_that_was_acknowledged() -> Result<()> {
    let Some(mut scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let (clock, mut of_the_dead, mut kills) = (Clock::system(), Metrics::default(), 0);
    while clock.monotonic() < sized(Duration::from_secs(15), Duration::from_mins(2)) {
        let victim = chance(NODES);
        of_the_dead.add(&scene.fleet.kill(victim).await?);
        scene.fleet.replace(victim).await?;
        kills += 1;
    }
    scene.recovers(LOCKS_GONE).await?;
    ensure!(of_the_dead.sum("shortener_mint_clashes_total") == 0.0, "minted codes clashed");
    ensure!(of_the_dead.sum("shortener_claims_burnt_total") == 0.0, "claims were burnt");
    ensure!(scene.history.count("redirect 5") == 0, "redirects failed: {}", scene.history.summary());
    scene.load.stop().await?;
    expect_each_click_once(&scene, &of_the_dead, kills).await?;
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_primary_may_die_and_all_of_redis_be_wiped_or_away() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let killed = scene.servers.redis.kill_primary_of("any key").await?;
    lasts(Duration::from_secs(4)).await;
    scene.servers.redis.restart(killed).await?;
    scene.servers.redis.wait_until_whole().await?;
    scene.servers.redis.wipe().await?;
    lasts(Duration::from_secs(2)).await;
    scene.servers.redis.stop_all()?;
    lasts(sized(Duration::from_secs(6), Duration::from_mins(1))).await;
    let away = scene.fleet.client(0).await.get("/api/v1/health").await?.expect_status(200)?;
    ensure!(away.text().contains("degraded"), "health does not tell that Redis is away: {}", away.text());
    scene.servers.redis.start_all().await?;
    scene.servers.redis.wait_until_serving().await?;
    let client = scene.fleet.client(0).await;
    until("health is well again", RECOVERY, async || is_well(&client).await).await?;
    ensure!(scene.bad() == 0, "Redis cost answers: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_or_hangs_costs_no_cached_redirect_and_comes_back() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    for hangs in [false, true] {
        // A link whose way into Redis was too slow when it was made is not a cached one.
        scene.follow_only_what_redis_has().await?;
        if hangs {
            scene.servers.tikv.pause_store(0)?;
        } else {
            scene.servers.tikv.kill_store(0)?;
        }
        lasts(sized(Duration::from_secs(6), Duration::from_secs(20))).await;
        let health = scene.fleet.client(0).await.get("/api/v1/health").await?;
        ensure!(health.status == 503, "health does not tell that the store is away: {}", health.text());
        if hangs {
            scene.servers.tikv.resume_store(0)?;
        } else {
            scene.servers.tikv.restart_store(0).await?;
        }
        scene.recovers(RECOVERY).await?;
        scene.history.follow_only(None);
    }
    // No redirect needed the store.
    ensure!(scene.failed_redirects() == 0, "cached redirects failed: {}", scene.history.summary());
    ensure!(scene.history.count("create 5") > 0, "no create noticed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_of_20_s_in_the_store_costs_no_cached_redirect() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder().layout(Layout::Replicas)).await? else { return Ok(()) };
    scene.follow_only_what_redis_has().await?;
    let (clock, followed) = (Clock::system(), scene.history.count("redirect 302"));
    scene.servers.tikv.stop_address_for_an_election_of(0, STORE_ELECTION).await?;
    until("creates fail", PATIENCE, async || scene.history.count("create 5") > 0).await?;
    // A few were on their way when it died.
    let created = scene.history.count("create 201") + 2 * u64::try_from(CREATORS)?;
    until("creates work again", PATIENCE, async || scene.history.count("create 201") > created).await?;
    let away = clock.monotonic();
    scene.recovers(RECOVERY).await?;
    report(&format!("no create for {away:?}"));
    ensure!(away >= STORE_ELECTION, "the store was back after {away:?}");
    ensure!(scene.history.count("redirect 302") >= followed + 1_000, "few followed: {}", scene.history.summary());
    ensure!(scene.failed_redirects() == 0, "cached redirects failed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_placement_drivers_may_die() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder().pd_members(3)).await? else { return Ok(()) };
    let leader = scene.servers.tikv.pd_leader().await?;
    scene.servers.tikv.kill_pd(leader)?;
    scene.recovers(ELECTION).await?;
    ensure!(scene.failed_redirects() == 0, "cached redirects failed: {}", scene.history.summary());
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_lost_answers_of_the_store_multiply_nothing() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    // What the clients of the store do by themselves, which no metric of ours shows, the store sees: its requests for a hundred links.
    let (links_each, patience) = (sized(300, 10_000), sized(PATIENCE, 10 * PATIENCE));
    let requests_of_links = async || {
        let (requests, links) = (scene.servers.tikv.status().await?.all_requests(), scene.history.links());
        until("creates go on", patience, async || scene.history.links() >= links + links_each).await?;
        let requests = scene.servers.tikv.status().await?.all_requests() - requests;
        Ok::<_, anyhow::Error>(requests * 100 / u64::try_from(scene.history.links() - links)?)
    };
    let well = requests_of_links().await?;
    scene.servers.tikv.delay_answers(0.05, Duration::from_millis(200)).await?;
    scene.servers.tikv.drop_write_answers(0.1).await?;
    let faulty = requests_of_links().await?;
    let StoreStatus { delayed, dropped, .. } = scene.servers.tikv.status().await?;
    scene.servers.tikv.reset_faults().await?;
    scene.recovers(RECOVERY).await?;
    ensure!(scene.history.count("create replayed 201") > 0, "no create was replayed: {}", scene.history.summary());
    let metrics = scene.end().await?;
    ensure!(delayed > 0 && dropped > 0, "{delayed} answers were late and {dropped} lost");
    let requests = format!("the store's requests for 100 links: {well} without faults, {faulty} with them");
    report(&requests);
    // One of ten writes is asked about, taken back and made again; beyond that nothing may multiply.
    ensure!(10 * faulty <= 13 * well, "{requests}");
    // Of the store alone: the many calls of Redis, which is well, would hide how it fares.
    let of = |outcome: &str| {
        metrics.sum(&format!("shortener_backend_calls_total{{backend=\"tikv\",outcome=\"{outcome}\"}}"))
    };
    let (calls, failed) = (of("succeeded") + of("failed"), of("failed"));
    let retries = metrics.sum("shortener_backend_retries_total{backend=\"tikv\"}");
    report(&format!("{calls} calls of the store, {failed} failed, {retries} retries"));
    ensure!(retries <= 0.2 * calls, "{retries} retries of {calls} calls");
    Ok(())
}

/// How often a refresh is sent that is answered with 503: each takes 3 s and a pause of 1 s, and all of them less than the token's 30 s of grace.
const ASKED_AGAIN_MAX: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn of_many_refreshes_of_one_token_at_once_all_get_one_successor() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    let credentials = json!({ "email": "ada@example.com", "password": "correct horse battery staple" });
    let client = scene.fleet.client(0).await;
    client.post("/api/v1/auth/register", &credentials).await?.expect_status(201)?;
    for _ in 0..sized(3, 50) {
        let pair: serde_json::Value =
            client.post("/api/v1/auth/login", &credentials).await?.expect_status(200)?.json()?;
        let body = json!({ "refresh_token": pair["refresh_token"] });
        let mut refreshes = JoinSet::new();
        for turn in 0..100 {
            let (client, body) = (scene.fleet.client(turn).await, body.clone());
            refreshes.spawn(async move {
                // Whoever finds no time in the deadline of a request asks again, as Retry-After says, with the same token.
                for _ in 0..ASKED_AGAIN_MAX {
                    let answer = client.post("/api/v1/auth/refresh", &body).await?;
                    if answer.status != 503 {
                        return anyhow::Ok(answer);
                    }
                    let after_s = answer.header("retry-after").context("a 503 says when to come back")?.parse()?;
                    tokio::time::sleep(Duration::from_secs(after_s)).await;
                }
                anyhow::bail!("a refresh was answered with 503 {ASKED_AGAIN_MAX} times")
            });
        }
        let mut successors = std::collections::BTreeSet::new();
        for answer in refreshes.join_all().await {
            let pair: serde_json::Value = answer?.expect_status(200)?.json()?;
            successors.insert(pair["refresh_token"].to_string());
        }
        ensure!(successors.len() == 1, "one token has {} successors", successors.len());
    }
    scene.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_given_out_once_whatever_node_is_asked() -> Result<()> {
    let Some(scene) = Scene::start(Tikv::builder()).await? else { return Ok(()) };
    for round in 0..sized(50, 1_000) {
        let mut creates = JoinSet::new();
        for node in 0..NODES {
            let client = scene.fleet.client(node).await;
            let body = json!({ "original_url": format!("https://www.example.com/{node}"), "custom_alias": format!("alias-{round}") });
            creates.spawn(async move { client.post("/api/v1/urls", &body).await });
        }
        let mut statuses = Vec::new();
        for answer in creates.join_all().await {
            statuses.push(answer?.status);
        }
        statuses.sort_unstable();
        ensure!(statuses == [201, 409, 409, 409], "round {round}: {statuses:?}");
    }
    scene.end().await?;
    Ok(())
}
