//! The engine on TiKV against servers that fail: it answers in time, comes back by itself, and never says that it
//! committed what it did not, nor the other way round. Each trap of the client has its test here.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests; clippy knows them by their attribute alone, and misses what they call"
)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shortener_node::kv::tikv::{TikvSettings, Tls};
use shortener_node::kv::{Kv, KvError, READ_DEADLINE, WRITE_DEADLINE};
use shortener_tests::certificates::Certificates;
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::sizes::sized;
use shortener_tests::tikv::{Layout, Refused, Tikv, TikvBuilder};
use shortener_tests::tikv_engine::Engine;
use tikv_client::transaction::HeartbeatOption;
use tikv_client::{CheckLevel, TimestampExt, Transaction, TransactionClient, TransactionOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What a call may take beyond its deadline on a busy machine.
const SLACK: Duration = Duration::from_millis(750);
/// How soon the engine works again once its back end does: the promise of the design.
const RECOVERY: Duration = Duration::from_secs(5);
/// The same for PD, which first has to elect a leader.
const ELECTION: Duration = Duration::from_secs(15);

/// How long a row stays locked by a transaction that nobody ends.
const LOCK_LIVES: Duration = Duration::from_secs(3);

/// A cluster of its own for a test that harms it, and an engine on it; none where none can be had.
async fn cluster(builder: TikvBuilder) -> Option<(Tikv, Engine)> {
    let cluster = builder.start().await.unwrap()?;
    let engine = Engine::open(cluster.pd_endpoints(), "test").await.unwrap();
    Some((cluster, engine))
}

async fn insert(kv: &Kv, key: &str) -> Result<(), KvError> {
    let mut transaction = kv.begin().await?;
    transaction.insert(key.into(), b"1".to_vec());
    transaction.commit().await
}

/// The time that `call` took, held to `deadline`.
async fn within<T>(deadline: Duration, call: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(deadline + SLACK, call).await;
    answer.unwrap_or_else(|_| panic!("no answer within {deadline:?}"))
}

/// Waits until reads and writes work again.
async fn works_within(kv: &Kv, deadline: Duration) {
    let works = async {
        for attempt in 0_u32.. {
            if kv.get(b"a").await.is_ok() && insert(kv, &format!("again {attempt}")).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(deadline, works).await.is_ok(), "it does not work after {deadline:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_dropped_harms_nobody() {
    let Some(cluster) = Tikv::shared().await.unwrap() else { return };
    let engine = Engine::open(cluster.pd_endpoints(), &fresh_name("dropped")).await.unwrap();
    let mut transaction = engine.kv.begin().await.unwrap();
    transaction.put("a".into(), b"1".to_vec());
    drop(transaction);
    assert_eq!(engine.kv.get(b"a").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_drivers_that_are_down_are_passed_over() {
    let Some(cluster) = Tikv::shared().await.unwrap() else { return };
    let [dead] = shortener_tests::node::free_ports().unwrap();
    let keyspace = fresh_name("endpoints");
    for dead_first in [true, false] {
        let mut endpoints = cluster.pd_endpoints();
        endpoints.insert(if dead_first { 0 } else { endpoints.len() }, format!("127.0.0.1:{dead}"));
        let engine = Engine::open(endpoints, &keyspace).await.unwrap();
        insert(&engine.kv, &format!("dead first: {dead_first}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keyspaces_in_one_cluster_see_nothing_of_each_other() {
    let Some(cluster) = Tikv::shared().await.unwrap() else { return };
    let keyspace = fresh_name("one");
    let one = Engine::open(cluster.pd_endpoints(), &keyspace).await.unwrap();
    let other = Engine::open(cluster.pd_endpoints(), &format!("{keyspace}-more")).await.unwrap();
    insert(&one.kv, "a").await.unwrap();
    assert_eq!(other.kv.get(b"a").await.unwrap(), None);
    let all = shortener_node::kv::prefix_range(Vec::new());
    assert!(other.kv.snapshot().await.unwrap().scan(all, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_it_was_told_of_and_cannot_reach_is_left() {
    let Some((cluster, engine)) = cluster(Tikv::builder().layout(Layout::Replicas)).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    // The client is told of the new leader by the old one, and finds it dead before it ever talked to it.
    cluster.move_leaders(1).await.unwrap();
    cluster.stop_address(1).await.unwrap();
    works_within(&kv, Duration::from_secs(1) + RECOVERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn such_a_leader_is_left_also_when_it_is_asked_for_writes_alone() {
    let Some((cluster, engine)) = cluster(Tikv::builder().layout(Layout::Replicas)).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    // The right part keeps the region's number. The probes of the engine read in the left one, whose leader lives.
    let right = cluster.status().await.unwrap().regions[0].id;
    cluster.split(b"stest\0m").await.unwrap();
    let mut number = 0;
    let mut writes_work = async || {
        let works = async {
            loop {
                number += 1;
                if insert(&kv, &format!("z{number}")).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1) + RECOVERY, works).await.is_ok()
    };
    assert!(writes_work().await, "nothing can be written");
    cluster.move_leader(right, 1).await.unwrap();
    cluster.stop_address(1).await.unwrap();
    assert!(writes_work().await, "nothing can be written any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placement_driver_that_hangs_is_not_waited_for() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    insert(&kv, "a").await.unwrap();
    cluster.pause_pd(0).unwrap();
    // What was on its way when the signal came is still answered.
    while within(READ_DEADLINE, kv.get(b"a")).await.is_ok() {}
    for _ in 0..3 {
        assert!(matches!(within(READ_DEADLINE, kv.get(b"a")).await, Err(KvError::Unavailable { .. })));
        assert!(matches!(within(WRITE_DEADLINE, insert(&kv, "b")).await, Err(KvError::Unavailable { .. })));
    }
    cluster.resume_pd(0).unwrap();
    works_within(&kv, RECOVERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_not_waited_for() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    insert(&kv, "a").await.unwrap();
    let mut begun = kv.begin().await.unwrap();
    begun.insert("b".into(), b"1".to_vec());
    cluster.pause_store(0).unwrap();
    let read = within(READ_DEADLINE, kv.get(b"a")).await;
    assert!(matches!(read, Err(KvError::Unavailable { .. })), "{read:?}");
    let committed = within(WRITE_DEADLINE, begun.commit()).await;
    assert!(matches!(committed, Err(KvError::Undetermined)), "nobody can say: {committed:?}");
    cluster.resume_store(0).unwrap();
    works_within(&kv, RECOVERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_is_gone_answers_are_quick_and_afterwards_it_works_by_itself() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    insert(&kv, "a").await.unwrap();
    cluster.kill_store(0).unwrap();
    // The breaker opens within seconds; then nobody waits for anything.
    let quick = async {
        loop {
            let read = tokio::time::timeout(Duration::from_millis(50), kv.get(b"a")).await;
            if matches!(read, Ok(Err(KvError::Unavailable { .. }))) {
                return;
            }
        }
    };
    tokio::time::timeout(ELECTION, quick).await.expect("reads of a store that is gone still wait");
    assert!(!kv.condition().unwrap().is_up);
    cluster.restart_store(0).await.unwrap();
    works_within(&kv, RECOVERY).await;
    assert!(kv.condition().unwrap().is_up);
    assert_eq!(kv.get(b"a").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_placement_drivers_may_die() {
    let Some((cluster, engine)) = cluster(Tikv::builder().pd_members(3)).await else { return };
    let kv = engine.kv.clone();
    insert(&kv, "a").await.unwrap();
    let leader = cluster.pd_leader().await.unwrap();
    cluster.kill_pd(leader).unwrap();
    works_within(&kv, ELECTION).await;
}

/// What a client sends first over HTTP/2: the preface and its settings, all of them the defaults.
const HTTP2_GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Opens HTTP/2 over TLS as a client that trusts `authority` and may show a certificate. An error when it is refused,
/// which the client sees at its first read: its own half of the handshake is over before the server has looked.
async fn greet(endpoint: &str, authority: &Certificates, shown: Option<&Certificates>) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.ca)?)?;
    let config =
        ClientConfig::builder_with_provider(default_provider().into()).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let mut config = match shown {
        Some(Certificates { cert, key, .. }) => {
            let chain = vec![CertificateDer::from_pem_file(cert)?];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (host, _) = endpoint.split_once(':').context("an endpoint has a port")?;
    let stream = TcpStream::connect(endpoint).await?;
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
    stream.write_all(HTTP2_GREETING).await?;
    ensure!(stream.read(&mut [0; 9]).await? > 0, "the server ended the connection");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mutual_tls_it_works_and_without_a_certificate_it_is_refused() {
    let Some(cluster) = Tikv::builder().tls().start().await.unwrap() else { return };
    let certificates = cluster.certificates().unwrap();
    let Certificates { ca, cert, key } = certificates.clone();
    let tls = Tls { ca, cert, key };
    let settings = TikvSettings { pd_endpoints: cluster.pd_endpoints(), keyspace: "test".to_owned(), tls: Some(tls) };
    let engine = Engine::with_settings(&settings).await.unwrap();
    insert(&engine.kv, "a").await.unwrap();
    assert_eq!(engine.kv.get(b"a").await.unwrap(), Some(b"1".to_vec()));

    let folder = tempfile::tempdir().unwrap();
    let strangers = Certificates::write(folder.path()).unwrap();
    let endpoints = cluster.tls_endpoints();
    assert_eq!(endpoints.len(), 2, "PD and the proxy before the store: {endpoints:?}");
    for endpoint in endpoints {
        greet(&endpoint, certificates, Some(certificates)).await.unwrap();
        for shown in [None, Some(&strangers)] {
            let greeted = greet(&endpoint, certificates, shown).await;
            assert!(greeted.is_err(), "{endpoint} takes a client that shows {shown:?}");
        }
    }
    let refused = async |tls: Option<Tls>| {
        let settings = TikvSettings { tls, ..settings.clone() };
        let opened = Engine::within(RECOVERY, &settings).await;
        assert!(opened.is_err(), "an engine with {:?} works", settings.tls);
    };
    let stranger = Tls { ca: certificates.ca.clone(), cert: strangers.cert, key: strangers.key };
    tokio::join!(refused(None), refused(Some(stranger)));
}

/// What goes wrong while transactions are committed.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Answers to prewrites and commits are lost.
    LostAnswers,
    /// Requests are refused, in the words of TiKV.
    Refusals(&'static str, Refused),
    /// Regions are cut in two.
    Splits,
    /// Leaders move.
    MovingLeaders,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::LostAnswers,
    Trouble::Refusals("server_is_busy", Refused::Unexecuted),
    Trouble::Refusals("server_is_busy", Refused::SecondaryCommits),
    // A leader that steps down says so to whoever waits for it, whatever becomes of what it was asked.
    Trouble::Refusals("stale_command", Refused::Executed),
    Trouble::Refusals("data_is_not_ready", Refused::Unexecuted),
    Trouble::Refusals("epoch_not_match", Refused::Executed),
    Trouble::Refusals("not_leader", Refused::Unexecuted),
    Trouble::Refusals("memory_quota", Refused::Executed),
    Trouble::Splits,
    Trouble::MovingLeaders,
];

/// How often a region is cut while transactions are committed, and what lies between two such events.
const SPLITS: usize = 20;
const BETWEEN_TROUBLES: Duration = Duration::from_millis(20);

impl Trouble {
    async fn begin(self, cluster: &Tikv) -> Result<()> {
        match self {
            Self::LostAnswers => cluster.drop_write_answers(0.3).await,
            Self::Refusals(kind, what) => cluster.refuse(kind, 0.2, what).await,
            Self::Splits | Self::MovingLeaders => Ok(()),
        }
    }

    /// One more of those that happen again and again.
    async fn happen(self, cluster: &Tikv, round: usize) -> Result<()> {
        match self {
            Self::Splits if round < SPLITS => cluster.split(format!("stest\0a{round:02}").as_bytes()).await,
            Self::MovingLeaders => cluster.move_leaders(round % 3).await,
            Self::Splits | Self::LostAnswers | Self::Refusals(..) => std::future::pending().await,
        }
    }
}

/// What came of a transaction of two rows.
type Outcome = ([String; 2], Result<(), KvError>);

/// Commits transactions of two rows each, half of them in one region and half in two.
async fn commit_pairs(kv: &Kv, trouble: usize) -> Vec<Outcome> {
    let mut writers = JoinSet::new();
    for writer in 0..8_u32 {
        let kv = kv.clone();
        writers.spawn(async move {
            let mut outcomes: Vec<Outcome> = Vec::new();
            for number in 0..sized(25, 1_000) {
                let name = format!("{:02}-{trouble}-{writer}", number % 100);
                let other = if number % 2 == 0 { 'a' } else { 'z' };
                let keys = [format!("a{name}-{number}"), format!("{other}{name}-{number}-other")];
                let Ok(mut transaction) = kv.begin().await else { continue };
                for key in &keys {
                    transaction.insert(key.clone().into(), b"1".to_vec());
                }
                outcomes.push((keys, transaction.commit().await));
            }
            outcomes
        });
    }
    writers.join_all().await.into_iter().flatten().collect()
}

/// Reads rows, and again while one of them is locked by a transaction that was left half-way.
async fn read_settled(kv: &Kv, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
    let settled = async {
        loop {
            match kv.snapshot().await.unwrap().batch_get(keys).await {
                Ok(values) => return values,
                Err(KvError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(LOCK_LIVES + ELECTION, settled).await.unwrap_or_else(|_| panic!("rows stay locked"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_in_a_commit_it_is_whole_and_what_is_said_of_it_is_true() {
    let Some((cluster, engine)) = cluster(Tikv::builder().layout(Layout::Replicas)).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    cluster.split(b"stest\0m").await.unwrap();
    for (number, trouble) in TROUBLES.into_iter().enumerate() {
        trouble.begin(&cluster).await.unwrap();
        let happening = async {
            for round in 0.. {
                trouble.happen(&cluster, round).await.unwrap();
                tokio::time::sleep(BETWEEN_TROUBLES).await;
            }
        };
        let outcomes = tokio::select! {
            outcomes = commit_pairs(&kv, number) => outcomes,
            () = happening => unreachable!("it happens for ever"),
        };
        let seen = cluster.status().await.unwrap();
        cluster.reset_faults().await.unwrap();
        works_within(&kv, RECOVERY).await;
        expect_true(&kv, trouble, outcomes).await;
        if let Trouble::Refusals(..) = trouble {
            assert!(seen.refused > 0, "{trouble:?}: nothing was refused");
        }
    }
}

/// Checks outcomes against the rows that are there.
async fn expect_true(kv: &Kv, trouble: Trouble, outcomes: Vec<Outcome>) {
    let keys: Vec<Vec<u8>> = outcomes.iter().flat_map(|(keys, _)| keys.clone()).map(String::into_bytes).collect();
    let found = read_settled(kv, &keys).await;
    let (mut acknowledged, mut refused) = (0, 0);
    for ((keys, outcome), found) in outcomes.into_iter().zip(found.chunks_exact(2)) {
        assert_eq!(found[0], found[1], "{trouble:?}: {keys:?} are there in part");
        let is_there = found[0].is_some();
        match outcome {
            Ok(()) => {
                acknowledged += 1;
                assert!(is_there, "{trouble:?}: {keys:?} were acknowledged and are lost");
            }
            Err(KvError::Undetermined) => {}
            Err(error) => {
                refused += 1;
                assert!(!is_there, "{trouble:?}: {keys:?} were refused with {error} and are there");
            }
        }
    }
    assert!(acknowledged > 0, "{trouble:?}: no answer came through; {refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_commit_left_locked_are_readable_at_once() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    cluster.refuse("server_is_busy", 1.0, Refused::SecondaryCommits).await.unwrap();
    for round in 0..5_u8 {
        let mut transaction = kv.begin().await.unwrap();
        for row in ["a", "b", "z"] {
            transaction.put(row.into(), vec![round]);
        }
        transaction.commit().await.unwrap();
        for row in ["z", "b", "a"] {
            assert_eq!(kv.get(row.as_bytes()).await.unwrap(), Some(vec![round]), "{row}");
        }
    }
    assert!(cluster.status().await.unwrap().refused > 0, "no row was left locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_64_writers_of_one_row_has_its_turn_at_30_ms_a_commit() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    // A commit is a prewrite and a commit.
    cluster.delay_answers(1.0, Duration::from_millis(15)).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        let kv = kv.clone();
        writers.spawn(async move {
            kv.transact(async |mut transaction| {
                let counted = transaction.get(b"count").await?.unwrap_or_default();
                transaction.put(b"count".to_vec(), [counted, vec![0]].concat());
                Ok::<_, KvError>((transaction, ()))
            })
            .await
        });
    }
    let results = writers.join_all().await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(kv.get(b"count").await.unwrap(), Some(vec![0; 64]), "each was committed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_one_prewrite_a_region_and_one_commit_that_its_caller_waits_for() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    cluster.split(b"stest\0m").await.unwrap();
    // The client has to learn of the second region.
    let mut both = kv.begin().await.unwrap();
    both.put("a".into(), Vec::new());
    both.put("z".into(), Vec::new());
    both.commit().await.unwrap();
    for (rows, prewrites, commits) in [(vec!["a"], 1, 1), (vec!["a", "b", "c", "d"], 1, 2), (vec!["a", "b", "z"], 2, 3)]
    {
        let settled = async || Ok::<_, anyhow::Error>(cluster.status().await?.requests("KvCommit") >= commits);
        cluster.reset_faults().await.unwrap();
        let mut transaction = kv.begin().await.unwrap();
        for row in &rows {
            transaction.put((*row).into(), b"1".to_vec());
        }
        transaction.commit().await.unwrap();
        wait_until("the other rows are committed too", RECOVERY, settled).await.unwrap();
        let status = cluster.status().await.unwrap();
        let count = |method| status.requests(method);
        assert_eq!((count("KvPrewrite"), count("KvCommit")), (prewrites, commits), "{rows:?}");
    }
}

/// What a transaction of the bare client commits at, in one phase.
async fn commit_in_one_phase(mut transaction: Transaction) -> Result<u64, tikv_client::Error> {
    transaction.put("k".to_owned(), "v".to_owned()).await?;
    Ok(transaction.commit().await?.map_or(0, |at| at.version()))
}

/// The store of the tests is to be no kinder than TiKV, which commits in one phase just above what it has seen.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_commits_in_one_phase_at_the_highest_timestamp_that_it_has_seen() {
    let Some(cluster) = Tikv::builder().layout(Layout::Replicas).start().await.unwrap() else { return };
    let client = TransactionClient::new(cluster.pd_endpoints()).await.unwrap();
    let options = || {
        let options = TransactionOptions::new_optimistic().try_one_pc().drop_check(CheckLevel::None);
        options.heartbeat_option(HeartbeatOption::NoHeartbeat)
    };
    let two = async || {
        let first = client.begin_with_options(options()).await.unwrap();
        (first, client.begin_with_options(options()).await.unwrap())
    };
    let (first, second) = two().await;
    let began = second.start_timestamp().version();
    assert!(commit_in_one_phase(first).await.unwrap() <= began, "it has seen nothing later");
    commit_in_one_phase(second).await.expect("the second writer misses the conflict");
    let status = cluster.status().await.unwrap();
    assert_eq!((status.requests("KvPrewrite"), status.requests("KvCommit")), (2, 0), "one request each");

    let (first, second) = two().await;
    let began = second.start_timestamp().version();
    let now = client.current_timestamp().await.unwrap();
    client.snapshot(now, options()).get("another".to_owned()).await.unwrap();
    assert!(commit_in_one_phase(first).await.unwrap() > began, "it has seen a later read");
    commit_in_one_phase(second).await.unwrap_err();

    let (first, second) = two().await;
    let began = second.start_timestamp().version();
    cluster.move_leaders(1).await.unwrap();
    assert!(commit_in_one_phase(first).await.unwrap() > began, "a new leader asks PD");
    commit_in_one_phase(second).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_writer_left_locked_is_readable_again() {
    let Some(cluster) = Tikv::builder().start().await.unwrap() else { return };
    let engine = Engine::open(cluster.pd_endpoints(), "test").await.unwrap();
    works_within(&engine.kv, RECOVERY).await;
    cluster.split(b"stest\0m").await.unwrap();
    let endpoints = cluster.pd_endpoints();
    // The writer's runtime ends in the middle of commits over two regions, as a killed process does.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::open(endpoints, "test").await.unwrap();
            let kv = engine.kv.clone();
            for writer in 0..32_u32 {
                let kv = kv.clone();
                tokio::spawn(async move {
                    for number in 0_u32.. {
                        let Ok(mut transaction) = kv.begin().await else { continue };
                        transaction.put(format!("a{writer}").into(), number.to_be_bytes().to_vec());
                        transaction.put(format!("z{writer}").into(), number.to_be_bytes().to_vec());
                        let _ = transaction.commit().await;
                    }
                });
            }
            while kv.get(b"a31").await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        });
        runtime.shutdown_background();
    })
    .join()
    .unwrap();
    let readable = async {
        for writer in 0..32 {
            let keys = [format!("a{writer}").into_bytes(), format!("z{writer}").into_bytes()];
            let values = read_settled(&engine.kv, &keys).await;
            assert_eq!(values[0], values[1], "half a transaction is seen");
        }
    };
    tokio::time::timeout(LOCK_LIVES + ELECTION, readable).await.expect("rows stay locked");
}
