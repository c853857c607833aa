//! Minting on an embedded store with a clock that is moved by hand.

use std::collections::HashSet;

use shortener_crds::ids::claim::WINDOW_MS;

use super::*;
use crate::kv::embedded::Embedded;
use crate::store::format::Format;

pub(super) const START: UnixMs = UnixMs(1_790_000_000_000);

pub(super) fn metrics() -> MinterMetrics {
    MinterMetrics::register(&prometheus::Registry::new()).unwrap()
}

pub(super) fn formats() -> Formats {
    Formats::up_to(Format::NEWEST)
}

pub(super) async fn minter(kv: &Kv, clock: &Clock) -> Minter {
    Minter::start(kv.clone(), clock.clone(), CodeLength::DEFAULT, Authority::Own, formats(), metrics()).await.unwrap()
}

/// Mints until it succeeds: a fresh window grows with the clock, which a test moves by hand.
pub(super) async fn id(minter: &Minter, clock: &Clock) -> SnowflakeId {
    loop {
        match minter.next_id() {
            Ok(id) => return id,
            Err(_) => {
                // One step at a time: a clock that runs away from the keeper would lose it its window.
                let end_ms = window_end(minter);
                clock.advance(Duration::from_millis(20));
                until(minter, || window_end(minter) > end_ms).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minters_that_race_on_one_store_never_mint_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
    let racing = (0..8).map(|_| {
        let (kv, clock) = (kv.clone(), clock.clone());
        tokio::spawn(async move {
            let minter = minter(&kv, &clock).await;
            let mut minted = Vec::new();
            for _ in 0..2_000 {
                minted.push((minter.next_code().unwrap(), id(&minter, &clock).await));
            }
            minter.stop().await;
            minted
        })
    });
    let minted: Vec<_> = futures::future::try_join_all(racing).await.unwrap().into_iter().flatten().collect();
    let codes: HashSet<_> = minted.iter().map(|(code, _)| code.as_str().to_owned()).collect();
    let ids: HashSet<u64> = minted.iter().map(|(_, id)| u64::from(*id)).collect();
    assert_eq!((codes.len(), ids.len()), (16_000, 16_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_clock_that_jumps_by_an_hour_never_bring_back_what_was_minted() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let (mut codes, mut ids) = (HashSet::new(), HashSet::new());
    let hour = Duration::from_hours(1);
    for wall in [START, START.minus(hour), START.plus(hour), START.minus(hour)] {
        clock.jump_to(wall);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let minter = minter(&kv, &clock).await;
        for _ in 0..500 {
            assert!(codes.insert(minter.next_code().unwrap().as_str().to_owned()));
            assert!(ids.insert(u64::from(id(&minter, &clock).await)));
        }
        minter.stop().await;
        assert!(kv.close(Duration::from_secs(10)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spare_is_there_before_the_current_grant_is_used_up() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
    let minter = minter(&kv, &clock).await;
    let held = minter.remaining();
    for _ in 0..=(held / 10) {
        minter.next_code().unwrap();
    }
    let more = async {
        while minter.remaining() <= held {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), more).await.unwrap();
}

/// Waits for `condition` while the keeper is at work.
pub(super) async fn until(minter: &Minter, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            minter.shared.wanted.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.unwrap();
}

fn window_end(minter: &Minter) -> u64 {
    minter.shared.state().worker.map_or(0, |worker| worker.window.end_ms)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_extended_before_it_runs_out_and_replaced_when_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
    let minter = minter(&kv, &clock).await;
    let mut last = id(&minter, &clock).await;
    let worker = minter.worker_id();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(31));
        let end_ms = clock.now().0 + WINDOW_MS;
        until(&minter, || window_end(&minter) == end_ms).await;
        let next = minter.next_id().expect("extended ahead of need");
        assert!(last < next && minter.worker_id() == worker, "{last:?} then {next:?}");
        last = next;
    }
    // Longer than W without a look: another boot may have it by now.
    clock.advance(Duration::from_millis(WINDOW_MS + 1));
    until(&minter, || minter.worker_id().is_some_and(|now| Some(now) != worker)).await;
    assert!(last < id(&minter, &clock).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_minter_goes_on_when_its_clock_jumps_by_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
    let minter = minter(&kv, &clock).await;
    let mut last = id(&minter, &clock).await;
    for wall in [START.minus(Duration::from_hours(1)), START.plus(Duration::from_hours(1)), START] {
        clock.jump_to(wall);
        for _ in 0..100 {
            clock.advance(Duration::from_secs(1));
            for _ in 0..2_000 {
                let next = id(&minter, &clock).await;
                assert!(last < next, "{last:?} then {next:?}");
                last = next;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_above_a_mark_that_was_rolled_back_are_passed_over_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
    let first = minter(&kv, &clock).await;
    let second = minter(&kv, &clock).await;
    let rolled_back = kv.transact(async |mut txn| {
        crate::store::allocation::put_high_water_mark(&mut txn, CodeLength::DEFAULT, 0);
        Ok::<_, StoreError>((txn, ()))
    });
    rolled_back.await.unwrap();
    let third = minter(&kv, &clock).await;
    assert_eq!(third.shared.metrics.claims_burnt.get(), 2);
    let codes = [&first, &second, &third].map(|minter| minter.next_code().unwrap().to_string());
    assert_eq!(HashSet::from(codes).len(), 3);
    assert_eq!((first.shared.metrics.claims_burnt.get(), second.shared.metrics.claims_burnt.get()), (0, 0));
}
