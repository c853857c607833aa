//! The contract that every engine under `Kv` keeps: one suite of functions over `Kv`, run against each engine.
//!
//! Each function gets a store that nobody else uses and that is empty.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and so may what only tests call")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use shortener_node::ambient::{Clock, UnixMs};
use shortener_node::kv::embedded::Embedded;
use shortener_node::kv::{Kv, KvError, SCAN_ROWS_MAX, Snapshot, Transaction, prefix_range};
use shortener_tests::tikv::Tikv;
use shortener_tests::tikv_engine::Engine;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How many tasks race in the tests of contention.
const RACERS: u64 = 64;

mod contract {
    use super::*;

    fn row(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.into(), value.into())
    }

    async fn put(kv: &Kv, rows: &[(&str, &str)]) {
        let mut transaction = kv.begin().await.unwrap();
        for (key, value) in rows {
            transaction.put((*key).into(), (*value).into());
        }
        transaction.commit().await.unwrap();
    }

    pub(super) async fn a_snapshot_never_changes(kv: Kv) {
        put(&kv, &[("a", "1"), ("b", "1")]).await;
        let before = kv.snapshot().await.unwrap();
        put(&kv, &[("a", "2"), ("c", "2")]).await;
        let mut delete = kv.begin().await.unwrap();
        delete.delete("b".into());
        delete.commit().await.unwrap();
        // Twice: what was read once must not be remembered differently.
        for _ in 0..2 {
            assert_eq!(before.get(b"a").await.unwrap(), Some(b"1".to_vec()));
            assert_eq!(before.get(b"b").await.unwrap(), Some(b"1".to_vec()));
            assert_eq!(before.get(b"c").await.unwrap(), None);
            let all = before.scan(prefix_range(Vec::new()), 10).await.unwrap();
            assert_eq!(all, [row("a", "1"), row("b", "1")]);
        }
        let all = kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 10).await.unwrap();
        assert_eq!(all, [row("a", "2"), row("c", "2")]);
        assert_eq!(kv.get(b"c").await.unwrap(), Some(b"2".to_vec()));
    }

    pub(super) async fn a_transaction_sees_its_own_writes_and_nobody_elses(kv: Kv) {
        put(&kv, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
        let mut transaction = kv.begin().await.unwrap();
        transaction.put("aa".into(), "own".into());
        transaction.delete("b".into());
        transaction.insert("d".into(), "own".into());
        transaction.lock("c".into());
        put(&kv, &[("ab", "other")]).await;

        assert_eq!(transaction.get(b"b").await.unwrap(), None);
        assert_eq!(transaction.get(b"c").await.unwrap(), Some(b"1".to_vec()));
        assert_eq!(transaction.get(b"ab").await.unwrap(), None);
        let keys = ["d", "b", "a", "b", "x"].map(|key| key.as_bytes().to_vec());
        let values = transaction.batch_get(&keys).await.unwrap();
        assert_eq!(values, [Some(b"own".to_vec()), None, Some(b"1".to_vec()), None, None]);
        let first_three = transaction.scan(prefix_range(Vec::new()), 3).await.unwrap();
        assert_eq!(first_three, [row("a", "1"), row("aa", "own"), row("c", "1")]);
        assert_eq!(kv.get(b"aa").await.unwrap(), None, "nobody sees what is not committed");
        transaction.commit().await.unwrap();
        assert_eq!(kv.get(b"aa").await.unwrap(), Some(b"own".to_vec()));
    }

    pub(super) async fn a_dropped_transaction_writes_nothing(kv: Kv) {
        let mut transaction = kv.begin().await.unwrap();
        transaction.put("a".into(), "1".into());
        drop(transaction);
        assert_eq!(kv.get(b"a").await.unwrap(), None);
    }

    /// What the second of two transactions on one key gets, for each way of writing it.
    pub(super) async fn the_second_writer_of_a_key_conflicts(kv: Kv) {
        type Write = fn(&mut Transaction);
        let put: Write = |transaction| transaction.put("k".into(), "v".into());
        let delete: Write = |transaction| transaction.delete("k".into());
        let lock: Write = |transaction| transaction.lock("k".into());
        let other: Write = |transaction| transaction.put("other".into(), "v".into());
        let insert: Write = |transaction| transaction.insert("k".into(), "v".into());
        let undone: Write = |transaction| {
            transaction.insert("k".into(), "v".into());
            transaction.delete("k".into());
        };
        let cases: [(&str, Write, Write, Result<(), KvError>); 13] = [
            ("undone insert, insert", undone, insert, Err(KvError::Conflict)),
            ("undone insert, undone insert", undone, undone, Err(KvError::Conflict)),
            ("undone insert, put", undone, put, Err(KvError::Conflict)),
            ("delete, insert", delete, insert, Err(KvError::Conflict)),
            ("delete, undone insert", delete, undone, Err(KvError::Conflict)),
            ("put, put", put, put, Err(KvError::Conflict)),
            ("put, blind delete", put, delete, Err(KvError::Conflict)),
            ("delete, put", delete, put, Err(KvError::Conflict)),
            ("put, lock", put, lock, Err(KvError::Conflict)),
            ("delete, lock", delete, lock, Err(KvError::Conflict)),
            ("put, another key", put, other, Ok(())),
            ("lock, another key", lock, other, Ok(())),
            ("delete, another key", delete, other, Ok(())),
        ];
        for (name, first_write, second_write, expected) in cases {
            let (mut first, mut second) = (kv.begin().await.unwrap(), kv.begin().await.unwrap());
            first_write(&mut first);
            second_write(&mut second);
            first.commit().await.unwrap();
            assert_eq!(second.commit().await, expected, "{name}");
        }
    }

    /// What an insert that is deleted again leaves: nothing, whatever else its transaction does, unless the key was there.
    pub(super) async fn an_insert_that_is_deleted_again_leaves_nothing_but_must_find_nothing(kv: Kv) {
        type More = fn(&mut Transaction);
        let alone: More = |_| {};
        let before: More = |transaction| transaction.put("a".into(), "1".into());
        let after: More = |transaction| transaction.put("z".into(), "1".into());
        let locked: More = |transaction| transaction.lock("a".into());
        for (name, more) in [("alone", alone), ("before", before), ("after", after), ("locked", locked)] {
            for is_there in [false, true] {
                let mut transaction = kv.begin().await.unwrap();
                if is_there {
                    transaction.put("k".into(), "1".into());
                } else {
                    transaction.delete("k".into());
                }
                transaction.commit().await.unwrap();
                let mut transaction = kv.begin().await.unwrap();
                more(&mut transaction);
                transaction.insert("k".into(), "2".into());
                transaction.delete("k".into());
                let expected = if is_there { Err(KvError::AlreadyExists { key: b"k".to_vec() }) } else { Ok(()) };
                assert_eq!(transaction.commit().await, expected, "{name}, there: {is_there}");
                assert_eq!(kv.get(b"k").await.unwrap(), is_there.then(|| b"1".to_vec()), "{name}");
            }
        }
    }

    /// A snapshot that was taken before a commit never shows it, although nothing was read through it meanwhile.
    pub(super) async fn a_snapshot_shows_nothing_that_was_committed_after_it_was_taken(kv: Kv) {
        for round in 0..20_u8 {
            let mut transaction = kv.begin().await.unwrap();
            let snapshot = kv.snapshot().await.unwrap();
            transaction.put(vec![round], b"1".to_vec());
            transaction.commit().await.unwrap();
            let seen = snapshot.scan(vec![round]..vec![round + 1], 1).await.unwrap();
            assert!(seen.is_empty(), "round {round}: {seen:?}");
            assert_eq!(kv.get(&[round]).await.unwrap(), Some(b"1".to_vec()), "what is acknowledged is seen");
        }
    }

    pub(super) async fn reads_alone_never_conflict(kv: Kv) {
        put(&kv, &[("a", "1")]).await;
        let mut reader = kv.begin().await.unwrap();
        assert_eq!(reader.get(b"a").await.unwrap(), Some(b"1".to_vec()));
        reader.put("b".into(), "1".into());
        put(&kv, &[("a", "2")]).await;
        assert_eq!(reader.get(b"a").await.unwrap(), Some(b"1".to_vec()), "repeatable");
        reader.commit().await.unwrap();
    }

    pub(super) async fn one_after_another_nobody_conflicts(kv: Kv) {
        for round in 0..100 {
            put(&kv, &[("a", &format!("{round}"))]).await;
        }
        assert_eq!(kv.get(b"a").await.unwrap(), Some(b"99".to_vec()));
    }

    pub(super) async fn an_insert_finds_its_key_taken(kv: Kv) {
        put(&kv, &[("a", "1")]).await;
        let mut insert = kv.begin().await.unwrap();
        insert.put("b".into(), "2".into());
        insert.insert("a".into(), "2".into());
        assert_eq!(insert.commit().await, Err(KvError::AlreadyExists { key: b"a".to_vec() }));
        assert_eq!(kv.get(b"a").await.unwrap(), Some(b"1".to_vec()));
        assert_eq!(kv.get(b"b").await.unwrap(), None, "all or nothing");

        let mut again = kv.begin().await.unwrap();
        again.delete("a".into());
        again.insert("a".into(), "3".into());
        again.commit().await.unwrap();
        assert_eq!(kv.get(b"a").await.unwrap(), Some(b"3".to_vec()));
    }

    pub(super) async fn of_many_who_insert_one_key_one_wins(kv: Kv) {
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let kv = kv.clone();
            racers.spawn(async move {
                // Borrowed, as a handler borrows what it was sent: the future has to be `Send` all the same.
                let value = &racer.to_be_bytes();
                let insert = async |mut transaction: Transaction| {
                    transaction.insert("k".into(), value.to_vec());
                    // A second row, to see that losers leave nothing behind.
                    transaction.put(format!("by {racer}").into(), Vec::new());
                    Ok((transaction, ()))
                };
                (racer, kv.transact(insert).await)
            });
        }
        let results = racers.join_all().await;
        let winners: Vec<u64> = results.iter().filter(|(_, result)| result.is_ok()).map(|(racer, _)| *racer).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        for (racer, result) in results {
            if racer != winners[0] {
                assert_eq!(result, Err(KvError::AlreadyExists { key: b"k".to_vec() }));
            }
        }
        assert_eq!(kv.get(b"k").await.unwrap(), Some(winners[0].to_be_bytes().to_vec()));
        let left = kv.snapshot().await.unwrap().scan(prefix_range(b"by".to_vec()), 100).await.unwrap();
        assert_eq!(left, [row(&format!("by {}", winners[0]), "")]);
    }

    pub(super) async fn no_update_is_lost(kv: Kv) {
        let mut racers = JoinSet::new();
        for _ in 0..RACERS {
            let kv = kv.clone();
            racers.spawn(async move {
                kv.transact(async |mut transaction| {
                    let count = read_count(transaction.get(b"count").await?);
                    transaction.put("count".into(), (count + 1).to_be_bytes().to_vec());
                    Ok::<_, KvError>((transaction, ()))
                })
                .await
            });
        }
        let results = racers.join_all().await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(read_count(kv.get(b"count").await.unwrap()), RACERS);
    }

    fn read_count(row: Option<Vec<u8>>) -> u64 {
        row.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    }

    /// Two rows that only change together are never seen apart.
    pub(super) async fn a_transaction_is_seen_whole_or_not_at_all(kv: Kv) {
        put(&kv, &[("left", "0"), ("right", "0")]).await;
        let writer = {
            let kv = kv.clone();
            tokio::spawn(async move {
                for round in 1..=200 {
                    put(&kv, &[("left", &format!("{round}")), ("right", &format!("{round}"))]).await;
                }
            })
        };
        let keys = [b"right".to_vec(), b"left".to_vec()];
        let mut seen = 0;
        while !writer.is_finished() {
            let values = kv.snapshot().await.unwrap().batch_get(&keys).await.unwrap();
            assert_eq!(values[0], values[1]);
            seen += 1;
        }
        writer.await.unwrap();
        assert!(seen > 0);
    }

    pub(super) async fn scans_are_ordered_bounded_and_half_open(kv: Kv) {
        let mut transaction = kv.begin().await.unwrap();
        // Bytes above 0x7f, and a key that is another's prefix: the order is that of unsigned bytes.
        for key in [&b"b"[..], b"a\xff", b"a", b"ab", b"\xff", b"a\x00"] {
            transaction.put(key.to_vec(), key.to_vec());
        }
        transaction.commit().await.unwrap();
        let snapshot = kv.snapshot().await.unwrap();
        let scan = async |start: &[u8], end: &[u8], limit| {
            let rows = snapshot.scan(start.to_vec()..end.to_vec(), limit).await.unwrap();
            rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(scan(b"a", b"b", 10).await, [&b"a"[..], b"a\x00", b"ab", b"a\xff"]);
        assert_eq!(scan(b"a", b"b", 2).await, [&b"a"[..], b"a\x00"]);
        assert_eq!(scan(b"a", b"b", 0).await, [[0_u8; 0]; 0]);
        assert_eq!(scan(b"b", b"a", 10).await, [[0_u8; 0]; 0]);
        let too_many = snapshot.scan(prefix_range(Vec::new()), SCAN_ROWS_MAX + 1).await;
        assert!(matches!(too_many, Err(KvError::TooLarge { limit: SCAN_ROWS_MAX, .. })), "{too_many:?}");
        let too_many = snapshot.batch_get(&vec![Vec::new(); SCAN_ROWS_MAX + 1]).await;
        assert!(matches!(too_many, Err(KvError::TooLarge { limit: SCAN_ROWS_MAX, .. })), "{too_many:?}");
    }

    pub(super) async fn what_is_too_large_is_refused_and_nothing_is_written(kv: Kv) {
        let mut transaction = kv.begin().await.unwrap();
        transaction.put("fits".into(), Vec::new());
        transaction.put("k".into(), vec![0; shortener_node::kv::VALUE_BYTES_MAX + 1]);
        assert!(matches!(transaction.commit().await, Err(KvError::TooLarge { what: "a value", .. })));
        assert_eq!(kv.get(b"fits").await.unwrap(), None);

        let mut largest = kv.begin().await.unwrap();
        let key = vec![b'k'; shortener_node::kv::KEY_BYTES_MAX];
        largest.put(key.clone(), vec![7; shortener_node::kv::VALUE_BYTES_MAX]);
        largest.commit().await.unwrap();
        assert_eq!(kv.get(&key).await.unwrap(), Some(vec![7; shortener_node::kv::VALUE_BYTES_MAX]));
    }

    pub(super) async fn time_never_goes_back(kv: Kv) {
        let mut last = UnixMs(0);
        for _ in 0..100 {
            let now = kv.begin().await.unwrap().now();
            assert!(now >= last && now > UnixMs(0));
            last = now;
        }
    }

    #[derive(Clone, Debug)]
    pub(super) enum Op {
        Put(u8, u8),
        Insert(u8, u8),
        Delete(u8),
        Get(u8),
        Scan(u8, u8, usize),
        Commit,
        Forget,
        TakeSnapshot,
        CheckSnapshot,
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = || 0_u8..12;
        prop_oneof![
            4 => (key(), any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
            2 => (key(), any::<u8>()).prop_map(|(key, value)| Op::Insert(key, value)),
            2 => key().prop_map(Op::Delete),
            3 => key().prop_map(Op::Get),
            2 => (key(), key(), 0_usize..8).prop_map(|(start, end, limit)| Op::Scan(start, end, limit)),
            3 => Just(Op::Commit),
            1 => Just(Op::Forget),
            1 => Just(Op::TakeSnapshot),
            1 => Just(Op::CheckSnapshot),
        ]
    }

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn scan_model(model: &Model, start: u8, end: u8, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = model.iter().filter(|(key, _)| (&vec![start]..&vec![end]).contains(key));
        rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Any sequence of operations answers as a sorted map would.
    pub(super) async fn it_behaves_as_a_sorted_map(kv: Kv, ops: Vec<Op>) {
        let mut committed = Model::new();
        // What the open transaction makes of it, and whether one of its inserts has to fail.
        let (mut own, mut fails) = (Model::new(), false);
        let mut transaction = kv.begin().await.unwrap();
        let mut snapshot: Option<(Snapshot, Model)> = None;
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    transaction.put(vec![key], vec![value]);
                    own.insert(vec![key], vec![value]);
                }
                Op::Insert(key, value) => {
                    transaction.insert(vec![key], vec![value]);
                    fails |= own.insert(vec![key], vec![value]).is_some();
                }
                Op::Delete(key) => {
                    transaction.delete(vec![key]);
                    own.remove([key].as_slice());
                }
                // After a failed insert the transaction is lost, and what it reads means nothing.
                Op::Get(_) | Op::Scan(..) if fails => {}
                Op::Get(key) => assert_eq!(transaction.get(&[key]).await.unwrap().as_ref(), own.get([key].as_slice())),
                Op::Scan(start, end, limit) => {
                    let rows = transaction.scan(vec![start]..vec![end], limit).await.unwrap();
                    assert_eq!(rows, scan_model(&own, start, end, limit));
                }
                Op::Commit => {
                    let done = std::mem::replace(&mut transaction, kv.begin().await.unwrap());
                    match done.commit().await {
                        Ok(()) if !fails => committed = own,
                        Err(KvError::AlreadyExists { .. }) if fails => {}
                        other => panic!("{other:?}, but fails = {fails}"),
                    }
                    transaction = kv.begin().await.unwrap();
                    (own, fails) = (committed.clone(), false);
                }
                Op::Forget => {
                    transaction = kv.begin().await.unwrap();
                    (own, fails) = (committed.clone(), false);
                }
                Op::TakeSnapshot => snapshot = Some((kv.snapshot().await.unwrap(), committed.clone())),
                Op::CheckSnapshot => {
                    if let Some((snapshot, model)) = &snapshot {
                        let rows = snapshot.scan(prefix_range(Vec::new()), 100).await.unwrap();
                        assert_eq!(rows, model.clone().into_iter().collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
        proptest::collection::vec(op(), 1..60)
    }
}

/// Runs the contract on the engine that `$open` opens: an expression that gives a `Kv` on an empty store, and whatever has
/// to live as long as it does.
macro_rules! contract_suite {
    ($engine:ident, $open:expr, [$($test:ident),+ $(,)?]) => {
        mod $engine {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let (kv, _alive) = $open;
                    contract::$test(kv).await;
                }
            )+

            proptest! {
                #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
                #[test]
                fn it_behaves_as_a_sorted_map(ops in contract::ops()) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let (kv, _alive) = $open;
                        contract::it_behaves_as_a_sorted_map(kv, ops).await;
                    });
                }
            }
        }
    };
}

fn embedded() -> (Kv, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Kv::Embedded(Embedded::open(dir.path(), Clock::system()).unwrap()), dir)
}

/// A keyspace of its own in the cluster that the tests of this file share; none where no cluster can be had.
async fn tikv() -> Option<(Kv, Engine)> {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    let cluster = Tikv::shared().await.unwrap()?;
    // A cluster that is not ours may have seen other runs.
    let keyspace = format!("contract-{}-{}", std::process::id(), KEYSPACES.fetch_add(1, Ordering::Relaxed));
    let engine = Engine::open(cluster.pd_endpoints(), &keyspace).await.unwrap();
    Some((engine.kv.clone(), engine))
}

/// Both engines keep the same contract.
macro_rules! on_every_engine {
    ($contract:tt) => {
        contract_suite!(embedded_engine, embedded(), $contract);
        contract_suite!(
            tikv_engine,
            match tikv().await {
                Some(opened) => opened,
                None => return,
            },
            $contract
        );
    };
}

on_every_engine!([
    a_snapshot_never_changes,
    a_transaction_sees_its_own_writes_and_nobody_elses,
    a_dropped_transaction_writes_nothing,
    the_second_writer_of_a_key_conflicts,
    an_insert_that_is_deleted_again_leaves_nothing_but_must_find_nothing,
    a_snapshot_shows_nothing_that_was_committed_after_it_was_taken,
    reads_alone_never_conflict,
    one_after_another_nobody_conflicts,
    an_insert_finds_its_key_taken,
    of_many_who_insert_one_key_one_wins,
    no_update_is_lost,
    a_transaction_is_seen_whole_or_not_at_all,
    scans_are_ordered_bounded_and_half_open,
    what_is_too_large_is_refused_and_nothing_is_written,
    time_never_goes_back,
]);

mod embedded_only {
    use super::*;

    #[tokio::test]
    async fn the_stores_clock_never_goes_back_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let start = UnixMs(1_800_000_000_000);
        let clock = Clock::manual(start);
        let open = || Kv::Embedded(Embedded::open(dir.path(), clock.clone()).unwrap());
        let kv = open();
        let mut transaction = kv.begin().await.unwrap();
        assert_eq!(transaction.now(), start);
        transaction.put("a".into(), "1".into());
        transaction.commit().await.unwrap();
        drop(kv);

        let hour_ms = 3_600_000;
        clock.jump_to(UnixMs(start.0 - hour_ms));
        let kv = open();
        assert_eq!(kv.begin().await.unwrap().now(), start, "the clock was set back while the store was closed");
        clock.jump_to(UnixMs(start.0 + 5));
        assert_eq!(kv.begin().await.unwrap().now(), UnixMs(start.0 + 5));
        clock.jump_to(UnixMs(start.0 + 1));
        assert_eq!(kv.begin().await.unwrap().now(), UnixMs(start.0 + 5), "the clock was set back while it was open");
    }

    #[tokio::test]
    async fn a_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Embedded::open(dir.path(), Clock::system()).unwrap();
        let message = Embedded::open(dir.path(), Clock::system()).unwrap_err().to_string();
        assert!(
            message.contains("in use by another node") && message.contains(dir.path().to_str().unwrap()),
            "{message}"
        );
        drop(first);
        Embedded::open(dir.path(), Clock::system()).unwrap();
    }

    #[tokio::test]
    async fn after_closing_everything_is_refused_and_all_that_was_acknowledged_is_there() {
        let (kv, dir) = embedded();
        let Kv::Embedded(engine) = kv.clone() else { unreachable!("it was opened as one") };
        let mut transaction = kv.begin().await.unwrap();
        transaction.put("a".into(), "1".into());
        transaction.commit().await.unwrap();
        let begun_before = kv.begin().await.unwrap();
        assert!(engine.close(std::time::Duration::from_secs(10)).await);
        assert_eq!(engine.failed().await, "it was closed");
        assert!(matches!(kv.get(b"a").await, Err(KvError::Unavailable { .. })));
        assert!(matches!(kv.begin().await, Err(KvError::Unavailable { .. })));
        assert!(matches!(begun_before.get(b"a").await, Err(KvError::Unavailable { .. })));
        drop((kv, engine, begun_before));
        let kv = Kv::Embedded(Embedded::open(dir.path(), Clock::system()).unwrap());
        assert_eq!(kv.get(b"a").await.unwrap(), Some(b"1".to_vec()));
    }
}
