//! One phase on one engine, in a process of its own: prints its figures as JSON.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use shortener_node::ambient::{Clock, random};
use tokio::sync::{mpsc, oneshot};

use super::Figures;
use super::candidates::{Candidate, Engine, Row};

/// Rows in one commit while loading: large, as loading is not what is compared.
const LOAD_ROWS: u64 = 100_000;
const WARM_GETS: u64 = 500_000;
const COLD_GETS: u64 = 20_000;
const CLIENTS: u32 = 64;
const CREATE_SPAN: Duration = Duration::from_secs(10);
/// How many codes of 7 characters there are: 62^7.
const CODES: u64 = 3_521_614_606_208;
/// Multiplied by this modulo [`CODES`], numbers become codes: one to one, as it shares no divisor with 62, and scattered,
/// as it is near the golden section of the whole.
const SCATTER: u64 = 2_176_477_520_929;

/// Runs the phase that `what` names: engine, phase, number of links, directory.
pub(super) fn run(what: &str) -> Result<()> {
    let mut words = what.splitn(4, ' ');
    let mut word = || words.next().context("a phase has four words");
    let (candidate, phase) = (Candidate::named(word()?)?, word()?);
    let (links, dir) = (word()?.parse()?, PathBuf::from(word()?));
    let clock = Clock::system();
    let engine = candidate.open(&dir)?;
    let open_ms = clock.monotonic().as_secs_f64() * 1_000.0;
    let mut figures = match phase {
        "load" => load(&engine, links)?,
        "hits" => gets(&engine, WARM_GETS, |random| link_key(random % links), true)?,
        "misses" => gets(&engine, WARM_GETS, |random| link_key(links + random % links), false)?,
        "cold" => gets(&engine, COLD_GETS, |random| link_key(random % links), true)?,
        "creates" => creates(Arc::new(engine), links)?,
        _ => Figures::default(),
    };
    figures.open_ms = open_ms;
    figures.rss_mib = peak_resident_mib()?;
    figures.disk_mib = disk_mib(&dir)?;
    print(&serde_json::to_string(&figures)?);
    Ok(())
}

fn load(engine: &Engine, links: u64) -> Result<Figures> {
    let clock = Clock::system();
    let mut first = 0;
    while first < links {
        let end = links.min(first + LOAD_ROWS);
        let rows: Vec<Row> = (first..end).map(|link| (link_key(link), link_value(link))).collect();
        engine.commit(&rows)?;
        first = end;
    }
    engine.settle()?;
    Ok(Figures { seconds: clock.monotonic().as_secs_f64(), ..Figures::default() })
}

/// Gets random keys one after another. When the page cache is warm, a fifth more come first unmeasured, to warm the rest.
fn gets(engine: &Engine, count: u64, key: impl Fn(u64) -> Vec<u8>, is_there: bool) -> Result<Figures> {
    let seed = u64::from_be_bytes(random());
    let warm_up = if count == COLD_GETS { 0 } else { count / 5 };
    for get in 0..warm_up {
        engine.get(&key(mix(seed ^ (get << 32))))?;
    }
    let clock = Clock::system();
    let mut took = Vec::new();
    for get in 0..count {
        let key = key(mix(seed.wrapping_add(get)));
        let start = clock.monotonic();
        let found = engine.get(&key)?;
        took.push(clock.monotonic().saturating_sub(start));
        ensure!(found.is_some() == is_there, "a key is there that should not be, or the other way round");
    }
    Ok(figures(took, clock.monotonic()))
}

/// The rows of one link, and where its client waits.
type Create = (Vec<Row>, oneshot::Sender<()>);

/// Clients that each create one link after another, and one committer that takes all that is queued as one commit: what
/// the embedded store does. Ends as a crash would: the engine is not closed.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn creates(engine: Arc<Engine>, links: u64) -> Result<Figures> {
    let (queue, requests) = mpsc::channel(CLIENTS as usize);
    let committing = Arc::clone(&engine);
    let committer = std::thread::spawn(move || commit_groups(&committing, requests));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clock = Clock::system();
    // Above the links that were loaded and those that are asked for as missing, and other ones each time.
    let first = 2 * links + u64::from_be_bytes(random()) % (CODES / 2);
    let took = runtime.block_on(async {
        let client = |client| tokio::spawn(create(first + u64::from(client), queue.clone(), clock.clone()));
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        drop(queue);
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await?);
        }
        anyhow::Ok(took)
    })?;
    let span = clock.monotonic();
    let commits = committer.join().map_err(|_| anyhow!("the committer panicked"))??;
    std::mem::forget(engine);
    let group = took.len() as f64 / commits as f64;
    Ok(Figures { group, ..figures(took, span) })
}

/// Commits until no client is left; answers how many commits it took.
fn commit_groups(engine: &Engine, mut requests: mpsc::Receiver<Create>) -> Result<u64> {
    let mut commits = 0;
    while let Some(first) = requests.blocking_recv() {
        let (mut rows, mut answers, mut next) = (Vec::new(), Vec::new(), Some(first));
        while let Some((new_rows, answer)) = next {
            // Insert if absent: the link's key, which leads its rows, is looked up.
            let (key, _) = new_rows.first().context("a create has rows")?;
            ensure!(engine.get(key)?.is_none(), "a code was minted twice");
            rows.extend(new_rows);
            answers.push(answer);
            next = requests.try_recv().ok();
        }
        engine.commit(&rows)?;
        commits += 1;
        for answer in answers {
            // A client that has stopped does not wait.
            let _ = answer.send(());
        }
    }
    Ok(commits)
}

async fn create(mut link: u64, queue: mpsc::Sender<Create>, clock: Clock) -> Vec<Duration> {
    let mut took = Vec::new();
    while clock.monotonic() < CREATE_SPAN {
        let start = clock.monotonic();
        let id = mix(!link);
        let by_id = [b"f", id.to_be_bytes().as_slice()].concat();
        let by_owner = [b"g", mix(id % 1_000).to_be_bytes().as_slice(), &(!link).to_be_bytes()].concat();
        let key = link_key(link);
        let rows = vec![(key.clone(), link_value(link)), (by_id, key.clone()), (by_owner, key)];
        let (answer, answered) = oneshot::channel();
        if queue.send((rows, answer)).await.is_err() || answered.await.is_err() {
            break;
        }
        took.push(clock.monotonic().saturating_sub(start));
        link += u64::from(CLIENTS);
    }
    took
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(mut took: Vec<Duration>, span: Duration) -> Figures {
    took.sort_unstable();
    let percentile = |percent: usize| {
        let at = took.get(took.len() * percent / 100);
        at.copied().unwrap_or_default().as_secs_f64() * 1e6
    };
    let seconds = span.as_secs_f64();
    let per_second = took.len() as f64 / seconds;
    Figures { seconds, per_second, p50_us: percentile(50), p99_us: percentile(99), ..Figures::default() }
}

/// The key of a link: its kind, the end of the default domain, and a code of 7 characters that tells nothing of its number.
fn link_key(link: u64) -> Vec<u8> {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut code = u128::from(link) * u128::from(SCATTER) % u128::from(CODES);
    let mut key = vec![b'e', 0];
    for _ in 0..7 {
        key.extend(usize::try_from(code % 62).ok().and_then(|digit| DIGITS.get(digit)));
        code /= 62;
    }
    key
}

/// What a link's row holds: about 150 bytes, half of them alike in all links.
fn link_value(link: u64) -> Vec<u8> {
    let [first, second, third, fourth] = [0_u64, 1, 2, 3].map(|part| mix(link ^ (part << 56)));
    let path = format!("{first:016x}{second:016x}{third:016x}{fourth:016x}");
    let mut value = vec![1];
    value.extend(mix(link).to_be_bytes());
    value.extend(format!("https://www.example.com/articles/2026/{path}?utm_source=newsletter&utm_id=").into_bytes());
    value.truncate(150);
    value
}

/// `SplitMix64`: a bijection that scatters.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What the folder takes of the disk: files with holes count as what they fill.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn disk_mib(dir: &Path) -> Result<f64> {
    let (mut blocks, mut dirs) = (0, vec![dir.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else {
                blocks += metadata.blocks();
            }
        }
    }
    Ok(blocks as f64 / 2_048.0)
}

fn peak_resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading this process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the peak of resident memory")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1_024.0)
}

#[expect(clippy::print_stdout, reason = "what the parent process reads")]
fn print(text: &str) {
    println!("{text}");
}
