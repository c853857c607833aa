//! The sweeper on the real embedded engine.

use tempfile::TempDir;

use super::*;
use crate::ambient::Clock;
use crate::kv::embedded::Embedded;
use crate::kv::prefix_range;
use crate::store::Key;
use crate::store::accounts::UserId;
use crate::store::format::Format;
use crate::store::idempotency::IdempotencyRow;
use crate::store::links::{LinkAddress, LinkRow};

const NOW: UnixMs = UnixMs(1_769_851_800_000);

fn store() -> (TempDir, Kv) {
    let dir = tempfile::tempdir().unwrap();
    let kv = Kv::Embedded(Embedded::open(dir.path(), Clock::manual(NOW)).unwrap());
    (dir, kv)
}

fn key(n: u64) -> Vec<u8> {
    Key::of(Kind::Idempotency).number(n).build()
}

async fn fill(kv: &Kv, rows: impl Iterator<Item = (u64, u64)>) {
    let mut transaction = kv.begin().await.unwrap();
    for (n, expires_at) in rows {
        transaction.put(key(n), expires_at.to_be_bytes().to_vec());
    }
    transaction.commit().await.unwrap();
}

/// Rows whose value is the moment of their expiry.
fn expiring() -> Expiring {
    Expiring::where_row(Kind::Idempotency, |_key, value, now| value <= now.0.to_be_bytes().as_slice())
}

async fn rows_left(kv: &Kv) -> usize {
    kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 10_000).await.unwrap().len()
}

#[tokio::test]
async fn expired_rows_go_and_all_others_stay_over_many_pages() {
    let (_dir, kv) = store();
    let pages = 3 * PAGE_ROWS as u64 + 7;
    // Whole pages with nothing to delete, with everything to delete, and mixed.
    let expires_at = |n: u64| match n / PAGE_ROWS as u64 {
        0 => NOW.0 + 1,
        1 => NOW.0,
        _ => NOW.0 + n % 2,
    };
    fill(&kv, (0..pages).map(|n| (n, expires_at(n)))).await;
    let mut other = kv.begin().await.unwrap();
    other.put(Key::of(Kind::User).number(1).build(), Vec::new());
    other.commit().await.unwrap();

    let sweeper = Sweeper::new(kv.clone(), Clock::manual(NOW), vec![expiring()]);
    let expired = (0..pages).filter(|&n| expires_at(n) <= NOW.0).count();
    assert_eq!(sweeper.walk().await.unwrap(), expired as u64);
    assert_eq!(rows_left(&kv).await, usize::try_from(pages).unwrap() - expired + 1);
    assert_eq!(sweeper.walk().await.unwrap(), 0);
}

#[tokio::test]
async fn a_kind_that_names_its_ranges_loses_just_those() {
    let (_dir, kv) = store();
    fill(&kv, (0..1_500).map(|n| (n, 0))).await;
    let table = vec![Expiring::within(Kind::Idempotency, |now| {
        assert_eq!(now, NOW, "the store's own clock");
        vec![key(10)..key(20), key(100)..key(1_200)]
    })];
    assert_eq!(Sweeper::new(kv.clone(), Clock::manual(NOW), table).walk().await.unwrap(), 10 + 1_100);
    let rows = kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 10_000).await.unwrap();
    let expected = (0..10).chain(20..100).chain(1_200..1_500).map(key);
    assert!(rows.into_iter().map(|(key, _)| key).eq(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_may_sweep_at_once() {
    let (_dir, kv) = store();
    fill(&kv, (0..2_000).map(|n| (n, NOW.0 + n % 4))).await;
    let walks = (0..8).map(|_| {
        let sweeper = Sweeper::new(kv.clone(), Clock::manual(NOW), vec![expiring()]);
        tokio::spawn(async move { sweeper.walk().await.unwrap() })
    });
    for walk in walks.collect::<Vec<_>>() {
        walk.await.unwrap();
    }
    // A page that conflicted was left to whoever wrote it first.
    Sweeper::new(kv.clone(), Clock::manual(NOW), vec![expiring()]).walk().await.unwrap();
    assert_eq!(rows_left(&kv).await, 1_500);
}

#[tokio::test]
async fn the_sweeper_sweeps_at_start_and_ends_at_the_shutdown() {
    let (_dir, kv) = store();
    fill(&kv, (0..10).map(|n| (n, NOW.0))).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(Sweeper::new(kv.clone(), Clock::manual(NOW), vec![expiring()]).run(shutdown.clone()));
    let swept = async {
        while rows_left(&kv).await > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), swept).await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
}

#[tokio::test]
async fn answers_and_refresh_tokens_go_when_their_time_is_up_and_what_cannot_be_read_stays() {
    let (_dir, kv) = store();
    let mut transaction = kv.begin().await.unwrap();
    let at = LinkAddress { domain: String::new(), code: "abc".to_owned() };
    for (n, expires_at) in [(1, NOW), (2, UnixMs(NOW.0 + 1))] {
        let row = IdempotencyRow { request: [0; 32], at: at.clone(), link: link(), expires_at };
        let answer = idempotency::former_hashes("caller", &format!("key {n}"), b"").0;
        idempotency::remember_answer(&mut transaction, answer, &row);
        let user = UserId(1.try_into().unwrap());
        let family = accounts::RefreshFamilyRow {
            user,
            current: [n; 32],
            expires_at,
            began_at: expires_at,
            current_since: expires_at,
            salt: [n; 16],
        };
        accounts::put_current_token(&mut transaction, Format::NEWEST, [n; 16], &family);
    }
    let damaged = Key::of(Kind::RefreshToken).bytes(&[3; 32]).build();
    transaction.put(damaged.clone(), b"\xff".to_vec());
    transaction.commit().await.unwrap();
    assert_eq!(rows_left(&kv).await, 7);

    let sweeper = Sweeper::new(kv.clone(), Clock::manual(NOW), table(90));
    assert_eq!(sweeper.walk().await.unwrap(), 3);
    assert_eq!(rows_left(&kv).await, 4);
    assert_eq!(kv.get(&damaged).await.unwrap(), Some(b"\xff".to_vec()));
    let later = kv.snapshot().await.unwrap().scan(Kind::RefreshFamily.rows(), 10).await.unwrap();
    assert!(later[0].0.ends_with(&[2; 16]), "{later:?}");
}

fn link() -> LinkRow {
    LinkRow {
        id: 1,
        owner: None,
        target: "https://example.org/".to_owned(),
        status: 302,
        title: None,
        tags: Vec::new(),
        is_active: true,
        expires_at: None,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
        is_alias: false,
        is_deleted: false,
    }
}
