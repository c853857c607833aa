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
use shortener_tests::tikv::{Layout, Tikv, TikvBuilder};
use shortener_tests::tikv_engine::Engine;
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

/// What came of an insert that may have lost its answer.
type Outcome = (String, Result<(), KvError>);

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_out_or_said_to_be() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    works_within(&kv, RECOVERY).await;
    // Two regions: half of the transactions below are committed in two phases.
    cluster.split(b"stest\0m").await.unwrap();
    cluster.drop_write_answers(0.3).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..8_u32 {
        let kv = kv.clone();
        writers.spawn(async move {
            let mut outcomes: Vec<Outcome> = Vec::new();
            for number in 0..sized(25, 1_000) {
                let name = format!("{writer}-{number}");
                let keys = [format!("a{name}"), if number % 2 == 0 { format!("b{name}") } else { format!("z{name}") }];
                let Ok(mut transaction) = kv.begin().await else { continue };
                for key in &keys {
                    transaction.insert(key.clone().into(), b"1".to_vec());
                }
                outcomes.push((name, transaction.commit().await));
            }
            outcomes
        });
    }
    let outcomes: Vec<Outcome> = writers.join_all().await.into_iter().flatten().collect();
    cluster.reset_faults().await.unwrap();
    works_within(&kv, RECOVERY).await;
    let (mut acknowledged, mut refused) = (0, 0);
    for (name, outcome) in outcomes {
        let found = kv.get(format!("a{name}").as_bytes()).await.unwrap().is_some();
        let other = [format!("b{name}"), format!("z{name}")].map(String::into_bytes);
        let others = kv.snapshot().await.unwrap().batch_get(&other).await.unwrap();
        assert_eq!(others.iter().flatten().count(), usize::from(found), "{name} is there in part");
        match outcome {
            Ok(()) => {
                acknowledged += 1;
                assert!(found, "{name} was acknowledged and is lost");
            }
            Err(KvError::Undetermined) => {}
            Err(error) => {
                refused += 1;
                assert!(!found, "{name} was refused with {error} and is there");
            }
        }
    }
    assert!(acknowledged > 0, "no answer came through; {refused} were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_declines_to_commit_in_one_phase_is_asked_for_two() {
    let Some((cluster, engine)) = cluster(Tikv::builder()).await else { return };
    let kv = engine.kv.clone();
    insert(&kv, "a").await.unwrap();
    // The first probe may have come before the first connection.
    let up = async || Ok(kv.condition().unwrap().is_up);
    wait_until("the cluster counts as up", RECOVERY, up).await.unwrap();
    cluster.decline_one_phase().await.unwrap();
    for number in 0..20_u32 {
        let key = format!("b{number}").into_bytes();
        let committed = kv.transact(async |mut transaction| {
            let counted = transaction.get(b"count").await?.unwrap_or_default();
            transaction.put(b"count".to_vec(), [counted, vec![0]].concat());
            transaction.insert(key.clone(), b"1".to_vec());
            Ok::<_, KvError>((transaction, ()))
        });
        within(WRITE_DEADLINE, committed).await.unwrap();
    }
    assert_eq!(kv.get(b"count").await.unwrap(), Some(vec![0; 20]), "each was committed once");
    let status = cluster.status().await.unwrap();
    assert!(status.declined > 0, "none was declined");
    assert!(status.declined < 5, "{} were asked for in vain", status.declined);
    assert!(kv.condition().unwrap().is_up, "to decline is to answer");
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
    let lock_lives = Duration::from_secs(3);
    let readable = async {
        for writer in 0..32 {
            let keys = [format!("a{writer}").into_bytes(), format!("z{writer}").into_bytes()];
            let values = loop {
                let snapshot = engine.kv.snapshot().await.unwrap();
                match snapshot.batch_get(&keys).await {
                    Ok(values) => break values,
                    Err(KvError::Unavailable { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            };
            assert_eq!(values[0], values[1], "half a transaction is seen");
        }
    };
    tokio::time::timeout(lock_lives + ELECTION, readable).await.expect("rows stay locked");
}
