//! The servers that other tests need: they come up, fail as they are told to, come back, and leave nothing behind.
use anyhow::Result;
use shortener_tests::redis_cluster::RedisCluster;
use shortener_tests::tikv::{Layout, Tikv};

#[tokio::test]
async fn every_layout_of_stores_comes_up_and_a_killed_store_comes_back() -> Result<()> {
    for layout in [Layout::Single, Layout::Replicas, Layout::Shards([b"k".to_vec(), b"\x80".to_vec()])] {
        let Some(tikv) = Tikv::builder().layout(layout.clone()).start().await? else { return Ok(()) };
        let regions = tikv.status().await?.regions.len();
        assert_eq!(regions, if matches!(layout, Layout::Shards(_)) { 3 } else { 1 });
        tikv.split(b"some\0key").await?;
        tikv.kill_store(0)?;
        tikv.restart_store(0).await?;
        assert_eq!(tikv.status().await?.regions.len(), regions + 1, "{layout:?} has forgotten the split");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() -> Result<()> {
    let Some(redis) = RedisCluster::builder().start().await? else { return Ok(()) };
    let killed = redis.kill_primary_of("a key").await?;
    redis.wait_until_serving().await?;
    assert_ne!(redis.primary_of("a key").await?, killed);
    redis.restart(killed).await
}

#[tokio::test]
async fn three_members_of_pd_outlive_the_loss_of_their_leader() -> Result<()> {
    let Some(tikv) = Tikv::builder().pd_members(3).start().await? else { return Ok(()) };
    let leader = tikv.pd_leader().await?;
    tikv.kill_pd(leader)?;
    tikv.wait_until_serving().await?;
    assert_ne!(tikv.pd_leader().await?, leader);
    tikv.restart_pd(leader).await
}

#[tokio::test]
async fn redis_with_tls_and_a_user_forms_a_cluster_and_can_be_wiped_and_stopped() -> Result<()> {
    let builder = RedisCluster::builder().tls().user("node", "a-password").require_full_coverage();
    let Some(redis) = builder.start().await? else { return Ok(()) };
    assert!(redis.url().starts_with("rediss-cluster://node:a-password@127.0.0.1:"), "{}", redis.url());
    assert_eq!(redis.keys().await?, 0);
    redis.wipe().await?;
    redis.stop_all()?;
    redis.start_all().await
}
