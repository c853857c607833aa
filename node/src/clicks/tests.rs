//! The pipeline on the real embedded engine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, Method};
use prometheus::Registry;
use tempfile::TempDir;

use super::user_agent::Agents;
use super::*;
use crate::ambient::{Clock, UnixMs};
use crate::kv::embedded::Embedded;
use crate::kv::{KvError, prefix_range};
use crate::store::Kind;
use crate::store::clicks::{Click, CountingRow, Counts, total_key};
use crate::sweeper::{self, Sweeper};

const NOW: UnixMs = UnixMs(1_769_851_800_000);
const HOUR: Duration = Duration::from_hours(1);
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";
/// How long a test waits for what must happen; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn store() -> (TempDir, Kv, Clock) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW));
    let kv = Kv::Embedded(Embedded::open(dir.path(), clock.clone()).unwrap());
    (dir, kv, clock)
}

fn settings() -> ClickSettings {
    ClickSettings { batch_size: 100, flush_interval: HOUR, retention_days: 90, queue_events_max: 1_000 }
}

fn metrics() -> ClickMetrics {
    ClickMetrics::register(&Registry::new()).unwrap()
}

fn click_store(kv: &Kv, shard: u16) -> ClickStore {
    ClickStore::new(ClickReader::new(kv.clone(), CountriesNow::default()), ClickRows::new(kv.clone(), move || shard))
}

fn event_from(address: impl Into<IpAddr>, code: &str, at: UnixMs, headers: &[(&'static str, &str)]) -> ClickEvent {
    let link = Arc::new(ClickedLink { domain: "".into(), code: code.into() });
    let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
    ClickEvent::new(at, link, address.into(), &Method::GET, &headers.collect::<HeaderMap>())
}

fn event(code: &str) -> ClickEvent {
    event_from([192, 0, 2, 1], code, NOW, &[("user-agent", FIREFOX)])
}

fn click(code: &str, n: u64) -> (ClickId, Click) {
    let visitor = [192, 0, 2, u8::try_from(n % 200).unwrap()];
    let event = event_from(visitor, code, NOW, &[("user-agent", FIREFOX)]);
    (ClickId { boot_id: 7, counter: n }, event.read(&Countries::unknown(), &mut Agents::default(), &[1; 32]))
}

async fn all_rows(kv: &Kv) -> BTreeMap<Vec<u8>, Vec<u8>> {
    kv.snapshot().await.unwrap().scan(prefix_range(Vec::new()), 10_000).await.unwrap().into_iter().collect()
}

async fn rows_of(kv: &Kv, kind: Kind) -> usize {
    all_rows(kv).await.keys().filter(|key| key.first() == Some(&(kind as u8))).count()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Runs a consumer that is told to stop at once: it writes what is in its queue.
async fn drain<W: WriteClicks<ClickEvent>>(consumer: ClickConsumer<W>, deadline: Duration) {
    let stopped = CancellationToken::new();
    stopped.cancel();
    tokio::time::timeout(PATIENCE, consumer.run(stopped, deadline)).await.expect("the consumer ends");
}

#[tokio::test]
async fn a_batch_written_again_changes_nothing() {
    let (_dir, kv, _) = store();
    let batch: Vec<_> = (0..100).map(|n| click(if n % 3 == 0 { "a" } else { "b" }, n)).collect();
    assert_eq!(rollup::write(&kv, 1, &batch).await.unwrap(), 100);
    let rows = all_rows(&kv).await;
    assert_eq!(rollup::write(&kv, 1, &batch).await.unwrap(), 0);
    assert_eq!(rollup::write(&kv, 2, &batch).await.unwrap(), 0, "in another shard, too");
    assert_eq!(all_rows(&kv).await, rows);
    assert_eq!(click_counts(&kv, &[("", "b"), ("", "nobody's"), ("", "a")]).await.unwrap(), [66, 0, 34]);

    let overlapping: Vec<_> = (50..150).map(|n| click("b", n)).collect();
    assert_eq!(rollup::write(&kv, 1, &overlapping).await.unwrap(), 50);
    assert_eq!(click_count(&kv, "", "b").await.unwrap(), 66 + 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_written_by_many_at_once_counts_once() {
    let (_dir, kv, _) = store();
    let writers = (0..16).map(|shard| {
        let kv = kv.clone();
        tokio::spawn(async move {
            let batch: Vec<_> = (0..50).map(|n| click("a", n)).collect();
            loop {
                match rollup::write(&kv, shard, &batch).await {
                    Err(StoreError::Kv(KvError::Conflict)) => {}
                    written => return written.unwrap(),
                }
            }
        })
    });
    let written = futures::future::join_all(writers).await.into_iter().map(Result::unwrap);
    assert_eq!(written.sum::<usize>(), 50);
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_nodes_that_count_one_link_never_conflict_and_sum_exactly() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let nodes = (0..64_u16).map(|shard| {
        let (clicks, consumer) = pipeline(&settings(), u128::from(shard), click_store(&kv, shard), &metrics);
        // Every node sees the same ten visitors, and one bot.
        for n in 0..150_u8 {
            clicks.record(event_from([192, 0, 2, n % 10], "hot", NOW, &[("user-agent", FIREFOX)]));
        }
        clicks.record(event_from([192, 0, 2, 99], "hot", NOW, &[]));
        tokio::spawn(drain(consumer, PATIENCE))
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap();
    }
    assert_eq!(click_count(&kv, "", "hot").await.unwrap(), 64 * 150);
    let summary = summary(&kv, "", "hot", NOW).await.unwrap();
    let Summary { total_clicks, unique_visitors, bot_clicks, daily, browsers, .. } = summary;
    assert_eq!((total_clicks, unique_visitors, bot_clicks), (64 * 150, 10, 64));
    assert_eq!((daily[29].clicks, daily[28].clicks, browsers[0].clicks), (64 * 150, 0, 64 * 150));
    assert_eq!(metrics.written.get(), 64 * 151);
    assert_eq!(rows_of(&kv, Kind::VisitorSalt).await, 1, "the nodes share the day's salt");
}

#[tokio::test]
async fn a_link_counted_by_more_nodes_than_a_page_has_rows_is_summed_whole() {
    let (_dir, kv, _) = store();
    let mut transaction = kv.begin().await.unwrap();
    for shard in 0..600 {
        transaction.put(total_key("", "a", shard), Counts { people: 2, bots: 1 }.encode());
    }
    transaction.commit().await.unwrap();
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 1_200);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_keeps_what_it_took() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let few = ClickSettings { queue_events_max: 10, ..settings() };
    let (clicks, consumer) = pipeline(&few, 1, click_store(&kv, 1), &metrics);
    (0..25).for_each(|_| clicks.record(event("a")));
    assert_eq!((metrics.recorded.get(), metrics.dropped.get()), (10, 15));
    drain(consumer, PATIENCE).await;
    assert_eq!((click_count(&kv, "", "a").await.unwrap(), metrics.written.get()), (10, 10));
    clicks.record(event("a"));
    assert_eq!(metrics.dropped.get(), 16, "nobody takes it any more");
}

#[tokio::test]
async fn a_batch_is_written_when_it_is_full_or_when_its_time_is_up() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let stop = CancellationToken::new();
    let (clicks, consumer) = pipeline(&settings(), 1, click_store(&kv, 1), &metrics);
    let running = tokio::spawn(consumer.run(stop.clone(), PATIENCE));
    (0..250).for_each(|_| clicks.record(event("a")));
    until("two full batches", || metrics.written.get() == 200).await;
    assert_eq!(metrics.batch_seconds.get_sample_count(), 2);
    stop.cancel();
    running.await.unwrap();
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (250, 0), "the rest was written at the shutdown");

    let soon = ClickSettings { flush_interval: Duration::from_millis(10), ..settings() };
    let (clicks, consumer) = pipeline(&soon, 2, click_store(&kv, 1), &metrics);
    let running = tokio::spawn(consumer.run(CancellationToken::new(), PATIENCE));
    clicks.record(event("a"));
    until("a batch of one", || metrics.written.get() == 251).await;
    running.abort();
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 251);
}

/// The store behind a fault: each call answers the next of `answers`, and succeeds when there are no more.
struct Faulty {
    store: ClickStore,
    answers: Vec<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    Away,
    Conflict,
    /// The commit's answer is lost; the commit is not.
    AnswerLost,
}

impl WriteClicks<ClickEvent> for Faulty {
    async fn write(&mut self, batch: &[(ClickId, ClickEvent)]) -> Result<usize, ClickWriteError> {
        match self.answers.pop() {
            None => self.store.write(batch).await,
            Some(Fault::Away) => Err(KvError::Unavailable { reason: "the test says so".to_owned() }.into()),
            Some(Fault::Conflict) => Err(KvError::Conflict.into()),
            Some(Fault::AnswerLost) => {
                self.store.write(batch).await?;
                Err(KvError::Undetermined.into())
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_was_away_gets_every_click_that_was_taken_once() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let answers = vec![Fault::AnswerLost, Fault::Conflict, Fault::Away, Fault::AnswerLost, Fault::Away];
    let few = ClickSettings { queue_events_max: 300, ..settings() };
    let (clicks, consumer) = pipeline(&few, 1, Faulty { store: click_store(&kv, 1), answers }, &metrics);
    let running = tokio::spawn(consumer.run(CancellationToken::new(), PATIENCE));
    // A first batch is held by the consumer, three more wait in the queue, and there is no room for the last.
    (0..100).for_each(|_| clicks.record(event("a")));
    until("the first attempt", || metrics.batch_seconds.get_sample_count() >= 1).await;
    (0..400).for_each(|_| clicks.record(event("a")));
    assert_eq!((metrics.recorded.get(), metrics.dropped.get()), (400, 100));
    until("all that was taken", || metrics.written.get() == 400).await;
    running.abort();
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 400, "an answer that was lost has not counted clicks twice");
}

#[tokio::test]
async fn a_shutdown_with_the_store_away_ends_in_time_and_counts_what_it_drops() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let answers = vec![Fault::Away; 1_000];
    let (clicks, consumer) = pipeline(&settings(), 1, Faulty { store: click_store(&kv, 1), answers }, &metrics);
    (0..150).for_each(|_| clicks.record(event("a")));
    drain(consumer, Duration::from_millis(200)).await;
    assert_eq!((metrics.dropped.get(), metrics.written.get()), (150, 0));
}

#[tokio::test]
async fn a_damaged_row_costs_its_own_batch_and_no_other() {
    let (_dir, kv, _) = store();
    let mut transaction = kv.begin().await.unwrap();
    transaction.put(total_key("", "damaged", 1), b"\xff".to_vec());
    transaction.commit().await.unwrap();
    let metrics = metrics();
    let (clicks, consumer) = pipeline(&ClickSettings { batch_size: 5, ..settings() }, 1, click_store(&kv, 1), &metrics);
    (0..5).for_each(|_| clicks.record(event("damaged")));
    (0..10).for_each(|_| clicks.record(event("a")));
    drain(consumer, PATIENCE).await;
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (10, 5));
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 10);
    let error = click_count(&kv, "", "damaged").await.unwrap_err();
    assert!(matches!(error, StoreError::Decode { kind: Kind::ClickTotal, version: Some(0xff) }), "{error}");
}

/// Takes few clicks at once.
struct Narrow(ClickStore);

impl WriteClicks<ClickEvent> for Narrow {
    async fn write(&mut self, batch: &[(ClickId, ClickEvent)]) -> Result<usize, ClickWriteError> {
        if batch.len() > 3 {
            return Err(KvError::TooLarge { what: "a transaction's bytes", limit: 3 }.into());
        }
        self.0.write(batch).await
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_written_in_parts() {
    let (_dir, kv, _) = store();
    let metrics = metrics();
    let (clicks, consumer) = pipeline(&settings(), 1, Narrow(click_store(&kv, 1)), &metrics);
    (0..101).for_each(|_| clicks.record(event("a")));
    drain(consumer, PATIENCE).await;
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (101, 0));
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 101);
}

#[tokio::test]
async fn no_row_holds_the_address_of_a_visitor() {
    let (_dir, kv, _) = store();
    let addresses = ["203.0.113.77", "2001:db8:1234:5678:9abc:def0:1357:2468", "::ffff:198.51.100.23"];
    let (clicks, consumer) = pipeline(&settings(), 1, click_store(&kv, 1), &metrics());
    for address in addresses {
        let address: IpAddr = address.parse().unwrap();
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let referrer = format!("http://{host}/from?ip={address}");
        clicks.record(event_from(address, "a", NOW, &[("user-agent", FIREFOX), ("referer", &referrer)]));
    }
    drain(consumer, PATIENCE).await;
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 3);
    assert_eq!(rows_of(&kv, Kind::Click).await, 3);

    let forms = addresses.iter().flat_map(|text| {
        let address: IpAddr = text.parse().unwrap();
        let binary = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let canonical = address.to_canonical();
        [text.as_bytes().to_vec(), canonical.to_string().into_bytes(), binary(address), binary(canonical)]
    });
    let forms: Vec<_> = forms.collect();
    for (key, value) in all_rows(&kv).await {
        for form in &forms {
            let holds = |bytes: &[u8]| bytes.windows(form.len()).any(|window| window == form);
            assert!(!holds(&key) && !holds(&value), "{form:?} is in {key:?} {value:?}");
        }
    }
}

#[tokio::test]
async fn clicks_hours_and_salts_expire_and_the_days_and_totals_stay() {
    let (_dir, kv, clock) = store();
    let day = Duration::from_hours(24);
    let (clicks, consumer) = pipeline(&settings(), 1, click_store(&kv, 1), &metrics());
    for days_ago in [0, 1, 2, 29] {
        clicks.record(event_from([192, 0, 2, 1], "a", NOW.minus(day * days_ago), &[("user-agent", FIREFOX)]));
    }
    drain(consumer, PATIENCE).await;
    let sweeper = Sweeper::new(kv.clone(), clock.clone(), sweeper::table(2));
    let left = async || {
        let mut left = Vec::new();
        for kind in [Kind::Click, Kind::ClickHour, Kind::VisitorSalt, Kind::ClickDay, Kind::ClickTotal] {
            left.push(rows_of(&kv, kind).await);
        }
        left
    };
    assert_eq!(left().await, [4, 4, 4, 4, 1]);
    // The click of 29 days ago goes, with its hour; of the salts those of today and of yesterday are left.
    assert_eq!(sweeper.walk().await.unwrap(), 2 + 2);
    assert_eq!(left().await, [3, 3, 2, 4, 1]);
    assert_eq!(sweeper.walk().await.unwrap(), 0);
    clock.advance(day);
    assert_eq!(sweeper.walk().await.unwrap(), 2 + 1);
    assert_eq!(left().await, [2, 2, 1, 4, 1]);
    clock.advance(day * 100);
    sweeper.walk().await.unwrap();
    assert_eq!(left().await, [0, 0, 0, 4, 1]);
    let summary = summary(&kv, "", "a", NOW).await.unwrap();
    assert_eq!((summary.total_clicks, summary.unique_visitors), (4, 4), "a visitor counts once a day");
    assert_eq!(click_count(&kv, "", "a").await.unwrap(), 4);
}
