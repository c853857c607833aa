//! What the embedded store keeps when it is not closed: killed in the middle of commits, its power cut, its journal cut or
//! overwritten, its disk full. Nothing acknowledged may be lost, and no transaction may be there in part.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, and so may what only tests call"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use shortener_node::ambient::{Clock, random};
use shortener_node::kv::embedded::Embedded;
use shortener_node::kv::{Kv, Row, SCAN_ROWS_MAX, prefix_range};
use shortener_tests::kv_writer::{COUNTERS, ROWS_MAX, rows_of};
use shortener_tests::preload::compile;
use shortener_tests::sizes::sized;

fn open(dir: &Path) -> Kv {
    Kv::Embedded(Embedded::open(dir, Clock::system()).unwrap())
}

async fn scan_all(kv: &Kv, prefix: &str) -> Vec<Row> {
    let snapshot = kv.snapshot().await.unwrap();
    let (mut rows, mut range) = (Vec::<Row>::new(), prefix_range(prefix.into()));
    loop {
        let page = snapshot.scan(range.clone(), SCAN_ROWS_MAX).await.unwrap();
        let Some((last, _)) = page.last() else { return rows };
        range.start = [last.as_slice(), &[0]].concat();
        rows.extend(page);
    }
}

/// A number below `bound`.
fn below(bound: u64) -> u64 {
    u64::from_be_bytes(random()) % bound
}

/// A process that commits under load to the store in `dir`.
fn writer(dir: &Path, round: u64) -> Command {
    let mut writer = Command::new(env!("CARGO_BIN_EXE_kv_writer"));
    writer.args([dir.as_os_str(), format!("{round:04}").as_ref()]);
    writer
}

/// Starts it, kills it after it has acknowledged `kill_after` transactions, and gives all that it acknowledged.
fn commit_until_killed(writer: &mut Command, kill_after: u64) -> Vec<String> {
    let mut writer = writer.stdout(Stdio::piped()).spawn().unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        acknowledged.push(line.unwrap());
        if acknowledged.len() as u64 == kill_after + 1 {
            // SIGKILL. What it had printed by then is read to the end.
            writer.kill().unwrap();
        }
    }
    assert!(!writer.wait().unwrap().success());
    assert_eq!(acknowledged.remove(0), "open");
    assert!(acknowledged.len() as u64 >= kill_after, "it ended by itself");
    acknowledged
}

#[tokio::test]
async fn killed_under_load_it_keeps_everything_acknowledged_and_every_transaction_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..sized(12, 200) {
        // The first rounds are killed right after the start; later ones anywhere, through flushes and new journals.
        let kill_after = if round < 2 { below(3) } else { below(2_000) };
        acknowledged.extend(commit_until_killed(&mut writer(dir.path(), round), kill_after));
        check_everything(&open(dir.path()), &acknowledged).await;
    }
    assert!(acknowledged.len() > 1_000, "{}", acknowledged.len());
}

async fn check_everything(kv: &Kv, acknowledged: &BTreeSet<String>) {
    let mut found = BTreeMap::<String, BTreeMap<Vec<u8>, Vec<u8>>>::new();
    for (key, value) in scan_all(kv, "row/").await {
        let text = String::from_utf8(key.clone()).unwrap();
        let (id, _) = text.strip_prefix("row/").unwrap().rsplit_once('/').unwrap();
        found.entry(id.to_owned()).or_default().insert(key, value);
    }
    let mut counts = [0; COUNTERS];
    for (id, rows) in &found {
        let (counter, expected) = rows_of(id);
        assert_eq!(*rows, expected.into_iter().collect(), "{id} is there in part");
        counts[counter] += 1;
    }
    let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {:?}", lost.len(), acknowledged.len(), lost.first());
    for (counter, expected) in counts.iter().enumerate() {
        let stored = kv.get(format!("count/{counter}").as_bytes()).await.unwrap();
        let stored = stored.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        assert_eq!(stored, *expected, "an update of counter {counter} was lost or is there twice");
    }
    assert!(found.values().all(|rows| rows.len() <= ROWS_MAX));
}

/// A kill leaves what was written to the system, synced or not; only a power cut shows that a commit is synced before it is
/// acknowledged.
mod power_cut {
    use super::*;
    use std::collections::HashMap;
    use std::fs::{self, OpenOptions};
    use std::path::PathBuf;

    /// The journals of a store, and how much of each is written; behind that they are zeros set aside.
    fn journals(dir: &Path) -> HashMap<PathBuf, usize> {
        let Ok(files) = fs::read_dir(dir.join("engine")) else { return HashMap::new() };
        let paths = files.map(|file| file.unwrap().path().canonicalize().unwrap());
        let journals = paths.filter(|path| path.extension().is_some_and(|end| end == "jnl"));
        let written =
            |path: &PathBuf| fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        journals.map(|path| (path.clone(), written(&path))).collect()
    }

    /// Zeroes what lies in the journals behind what was synced, and tells how many bytes that were.
    fn cut_power(dir: &Path, synced: &HashMap<PathBuf, usize>) -> usize {
        let mut lost = 0;
        for (path, written) in journals(dir) {
            let kept = synced.get(&path).copied().unwrap_or(0);
            if kept < written {
                lost += written - kept;
                let (length, file) =
                    (fs::metadata(&path).unwrap().len(), OpenOptions::new().write(true).open(&path).unwrap());
                file.set_len(kept as u64).unwrap();
                file.set_len(length).unwrap();
            }
        }
        lost
    }

    #[tokio::test]
    async fn after_a_power_cut_everything_acknowledged_is_there() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (library, log) = (compile("power_cut", outside.path()).unwrap(), outside.path().join("synced"));
        let (mut acknowledged, mut lost, mut noted) = (BTreeSet::new(), 0, 0);
        for round in 0..sized(8, 100) {
            let mut synced = journals(dir.path());
            fs::write(&log, "").unwrap();
            let mut writer = writer(dir.path(), round);
            writer.env("LD_PRELOAD", &library).env("POWER_CUT_LOG", &log);
            acknowledged.extend(commit_until_killed(&mut writer, below(400)));
            for line in fs::read_to_string(&log).unwrap().lines() {
                let (bytes, path) = line.split_once(' ').unwrap();
                let synced = synced.entry(path.into()).or_default();
                *synced = (*synced).max(bytes.parse().unwrap());
                noted += 1;
            }
            lost += cut_power(dir.path(), &synced);
            check_everything(&open(dir.path()), &acknowledged).await;
        }
        assert!(
            lost > 0 && noted > 0,
            "no kill fell between a write and its sync: {lost} bytes lost, {noted} syncs noted"
        );
    }
}

mod journal {
    use super::*;
    use shortener_node::kv::embedded::OpenError;
    use std::fs;
    use std::ops::Range;
    use std::path::PathBuf;

    const COMMITS: u64 = 150;

    /// Commits one after another, the `number`th of them: a row of its own, one that all write, and one that it deletes.
    async fn commit(kv: &Kv, number: u64) {
        let mut transaction = kv.begin().await.unwrap();
        for (key, value) in changes_of(number) {
            match value {
                Some(value) => transaction.put(key, value),
                None => transaction.delete(key),
            }
        }
        transaction.commit().await.unwrap();
    }

    /// A key and its new value; none when it is deleted.
    type KeyChange = (Vec<u8>, Option<Vec<u8>>);

    /// What the `number`th commit changes.
    fn changes_of(number: u64) -> Vec<KeyChange> {
        let own = |number: u64| format!("own/{number:04}").into_bytes();
        let value = format!("{number};").repeat(usize::try_from(number).unwrap() % 50 + 1).into_bytes();
        let mut changes = vec![(own(number), Some(value)), (b"last".to_vec(), Some(number.to_be_bytes().to_vec()))];
        if number >= 3 {
            changes.push((own(number - 3), None));
        }
        changes
    }

    /// The store's whole content after the first commits, by how many they are.
    fn contents_by_commits() -> Vec<Vec<Row>> {
        let mut content = BTreeMap::new();
        let mut contents = vec![Vec::new()];
        for number in 0..COMMITS {
            for (key, value) in changes_of(number) {
                match value {
                    Some(value) => content.insert(key, value),
                    None => content.remove(&key),
                };
            }
            contents.push(content.clone().into_iter().collect());
        }
        contents
    }

    /// A closed store's files, to be written elsewhere again and again.
    struct Image {
        /// Without COMMITS, unless a test adds it: a power cut may leave that file behind the journal, or empty.
        files: Vec<(PathBuf, Vec<u8>)>,
        /// What COMMITS held.
        tally: Vec<u8>,
        dirs: Vec<PathBuf>,
        journal: PathBuf,
        /// How much of the journal is written; the rest is zeros set aside.
        written: usize,
    }

    impl Image {
        fn of(root: &Path) -> Self {
            let (mut files, mut dirs, mut rest) = (Vec::new(), Vec::new(), vec![root.to_path_buf()]);
            while let Some(dir) = rest.pop() {
                for entry in fs::read_dir(&dir).unwrap() {
                    let path = entry.unwrap().path();
                    let below = path.strip_prefix(root).unwrap().to_path_buf();
                    if path.is_dir() {
                        dirs.push(below);
                        rest.push(path);
                    } else {
                        files.push((below, fs::read(&path).unwrap()));
                    }
                }
            }
            dirs.sort();
            let tally = files.iter().position(|(path, _)| path.ends_with("COMMITS")).unwrap();
            let (_, tally) = files.swap_remove(tally);
            let is_journal = |(path, _): &&(PathBuf, Vec<u8>)| path.extension().is_some_and(|end| end == "jnl");
            let (journal, bytes) = files.iter().find(is_journal).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            Self { journal: journal.clone(), written, files, tally, dirs }
        }

        /// As the files are after a crash of the process, of which the system has lost nothing.
        fn with_tally(mut self) -> Self {
            self.files.push(("COMMITS".into(), self.tally.clone()));
            self
        }

        /// Writes the files to an empty folder, the journal as `spoil` makes it, holes for its zeros at the end.
        fn restore(&self, root: &Path, spoil: &dyn Fn(&mut Vec<u8>)) {
            for dir in &self.dirs {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for (path, bytes) in &self.files {
                if *path == self.journal {
                    let mut bytes = bytes.clone();
                    spoil(&mut bytes);
                    let filled = bytes.len().min(self.written + 64);
                    fs::write(root.join(path), &bytes[..filled]).unwrap();
                    let file = fs::OpenOptions::new().write(true).open(root.join(path)).unwrap();
                    file.set_len(bytes.len() as u64).unwrap();
                } else {
                    fs::write(root.join(path), bytes).unwrap();
                }
            }
        }
    }

    async fn image() -> Image {
        let dir = tempfile::tempdir().unwrap();
        let kv = open(dir.path());
        for number in 0..COMMITS {
            commit(&kv, number).await;
        }
        drop(kv);
        Image::of(dir.path())
    }

    /// How many commits a spoilt store shows; none when it refuses to open with one clear line.
    async fn commits_left(image: &Image, spoil: &dyn Fn(&mut Vec<u8>), contents: &[Vec<Row>]) -> Option<usize> {
        let dir = tempfile::tempdir().unwrap();
        image.restore(dir.path(), spoil);
        match Embedded::open(dir.path(), Clock::system()) {
            Ok(embedded) => {
                let found = scan_all(&Kv::Embedded(embedded), "").await;
                let commits = contents.iter().position(|content| *content == found);
                Some(commits.expect("what is there is the content after some whole commits"))
            }
            Err(error @ OpenError::Damaged { .. }) => {
                let message = error.to_string();
                assert!(message.contains(dir.path().to_str().unwrap()) && !message.contains('\n'), "{message}");
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn cut_anywhere_it_opens_with_the_commits_before_the_cut() {
        let (image, contents) = (image().await, contents_by_commits());
        let written = u64::try_from(image.written).unwrap();
        assert_eq!(commits_left(&image, &|_| (), &contents).await, Some(contents.len() - 1), "nothing spoilt");
        for _ in 0..sized(60, 1_000) {
            let cut = usize::try_from(below(written)).unwrap();
            // A file that ends early, and one whose end was set aside and never written.
            let ends = commits_left(&image, &|journal| journal.truncate(cut), &contents).await;
            let zeros = commits_left(&image, &|journal| journal[cut..].fill(0), &contents).await;
            assert!(ends.is_some() && ends == zeros, "cut at {cut}: {ends:?}, {zeros:?}");
        }
    }

    #[tokio::test]
    async fn cut_before_what_was_acknowledged_it_refuses_to_open_instead_of_going_on_without() {
        let (image, contents) = (image().await.with_tally(), contents_by_commits());
        assert_eq!(commits_left(&image, &|_| (), &contents).await, Some(contents.len() - 1), "nothing spoilt");
        let written = u64::try_from(image.written).unwrap();
        // From the last batch on the cut may lie behind all that matters.
        for _ in 0..sized(20, 300) {
            let cut = usize::try_from(below(written / 2)).unwrap();
            assert_eq!(commits_left(&image, &|journal| journal[cut..].fill(0), &contents).await, None, "cut at {cut}");
        }
    }

    /// Where the number lies that orders a batch among the others: after the trailer of the one before it, a tag and a count.
    /// The engine's checksum leaves it out, so that damage to just these 8 bytes goes unnoticed; all else must be noticed.
    fn batch_numbers(journal: &[u8]) -> Vec<Range<usize>> {
        const TRAILER: &[u8] = b"FJL\x03";
        let after_trailers =
            (0..journal.len()).filter(|at| journal[*at..].starts_with(TRAILER)).map(|at| at + TRAILER.len());
        std::iter::once(0).chain(after_trailers).map(|start| start + 5..start + 13).collect()
    }

    #[tokio::test]
    async fn overwritten_anywhere_it_opens_with_whole_commits_or_says_that_it_is_damaged() {
        let (image, contents) = (image().await, contents_by_commits());
        let (_, journal) = image.files.iter().find(|(path, _)| *path == image.journal).unwrap();
        let numbers = batch_numbers(&journal[..image.written]);
        assert!(numbers.len() >= contents.len(), "one for each commit and one at the end");
        let written = u64::try_from(image.written).unwrap();
        let (mut refused, mut opened) = (0, 0);
        while refused + opened < sized(150, 2_000) {
            let at = usize::try_from(below(written)).unwrap();
            let end = (at + 1 + usize::try_from(below(4)).unwrap()).min(image.written);
            if numbers.iter().any(|number| at < number.end && number.start < end) {
                continue;
            }
            let noise: [u8; 4] = random();
            let spoil = |journal: &mut Vec<u8>| {
                for (byte, noise) in journal[at..end].iter_mut().zip(noise) {
                    *byte ^= noise.max(1);
                }
            };
            match commits_left(&image, &spoil, &contents).await {
                None => refused += 1,
                // All of them when the damage is to what nothing depends on, such as a length that is there twice.
                Some(_) => opened += 1,
            }
        }
        assert!(refused > 0 && opened > 0, "{refused} refused, {opened} opened");
    }
}

/// What happens when the disk is full.
mod full_disk {
    use super::*;
    use shortener_node::kv::KvError;
    use shortener_node::kv::embedded::OpenError;
    use shortener_tests::full_disk::FullDisk;
    use tokio_util::sync::CancellationToken;

    /// Commits from several tasks until the store refuses; gives the keys it acknowledged and those it left in doubt.
    async fn commit_until_refused(kv: &Kv) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let kv = kv.clone();
            writers.spawn(async move {
                let (mut acknowledged, mut in_doubt) = (Vec::new(), Vec::new());
                for number in 0.. {
                    let key = format!("{writer}/{number}").into_bytes();
                    let Ok(mut transaction) = kv.begin().await else { break };
                    // Noise, so that compression does not make room.
                    let noise: [u8; 16_384] = random();
                    transaction.put(key.clone(), noise.to_vec());
                    match transaction.commit().await {
                        Ok(()) => acknowledged.push(key),
                        Err(KvError::Undetermined) => in_doubt.push(key),
                        Err(KvError::Unavailable { .. }) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                (acknowledged, in_doubt)
            });
        }
        let (acknowledged, in_doubt): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().unzip();
        (acknowledged.concat(), in_doubt.concat())
    }

    /// Commits one row, or several of them, without a pattern, so that compression does not make room.
    async fn commit_rows(kv: &Kv, keys: &[Vec<u8>], bytes_each: usize) -> Result<(), KvError> {
        let mut transaction = kv.begin().await?;
        for key in keys {
            let noise: Vec<u8> = std::iter::repeat_with(random::<1_024>).flatten().take(bytes_each).collect();
            transaction.put(key.clone(), noise);
        }
        transaction.commit().await
    }

    async fn commit(kv: &Kv, key: &[u8], bytes: usize) -> Result<(), KvError> {
        commit_rows(kv, &[key.to_vec()], bytes).await
    }

    /// Waits until a commit succeeds.
    async fn until_committed(kv: &Kv, key: &[u8]) {
        let committed = async {
            while commit(kv, key, 10).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_mins(1), committed).await;
        in_time.expect("commits go on once there is room");
    }

    /// Everything acknowledged is there, and nothing that was refused.
    async fn expect_kept(kv: &Kv, acknowledged: &[Vec<u8>], in_doubt: &[Vec<u8>]) {
        let found: BTreeSet<_> = scan_all(kv, "").await.into_iter().map(|(key, _)| key).collect();
        let lost = acknowledged.iter().filter(|key| !found.contains(*key)).count();
        assert_eq!(lost, 0, "of {}", acknowledged.len());
        let unasked = found.iter().filter(|key| !acknowledged.contains(key) && !in_doubt.contains(key)).count();
        assert_eq!(unasked, 0, "what was refused is there");
    }

    /// At the smaller size there is too little room for a commit, at the larger one for what sorts the journal into tables, so that
    /// the engine fails and is opened again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_the_disk_is_full_commits_are_refused_and_reads_go_on_and_both_do_once_there_is_room() {
        for size_mib in [12, 48] {
            let Some(disk) = FullDisk::mount(size_mib) else { return };
            let kv = open(disk.path());
            let Kv::Embedded(engine) = kv.clone() else { unreachable!("it was opened as one") };
            let kept = tokio::spawn(engine.keep(CancellationToken::new()));
            let (mut acknowledged, in_doubt) = commit_until_refused(&kv).await;
            println!("{size_mib} MiB: {} acknowledged, {} in doubt", acknowledged.len(), in_doubt.len());
            assert!(acknowledged.len() > 300, "{size_mib} MiB: {}", acknowledged.len());
            assert!(kv.is_full(), "{size_mib} MiB");
            assert!(matches!(commit(&kv, b"refused", 10).await, Err(KvError::Unavailable { .. })));
            for key in &acknowledged {
                assert!(kv.get(key).await.unwrap().is_some(), "{size_mib} MiB: a read of a full disk");
            }

            disk.remount("size=512m");
            until_committed(&kv, b"after").await;
            acknowledged.push(b"after".to_vec());
            assert!(!kv.is_full());
            expect_kept(&kv, &acknowledged, &in_doubt).await;
            kept.abort();
            let _ = kept.await;
            drop(kv);
            expect_kept(&open(disk.path()), &acknowledged, &in_doubt).await;
        }
    }

    /// Somebody else takes the room between the look and the write: the journal ends in the middle of a commit.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_that_finds_the_disk_full_is_in_doubt_and_the_store_is_opened_again() {
        let Some(disk) = FullDisk::mount(32) else { return };
        let kv = open(disk.path());
        let Kv::Embedded(engine) = kv.clone() else { unreachable!("it was opened as one") };
        let kept = tokio::spawn(engine.keep(CancellationToken::new()));
        commit(&kv, b"before", 100_000).await.unwrap();
        let before = kv.snapshot().await.unwrap();
        // Enough for the look, and not for the commit.
        let filler = disk.path().join("filler");
        fill(&filler, disk.path(), 2_200_000);
        let torn = ["torn 1", "torn 2", "torn 3"].map(|key| key.as_bytes().to_vec());
        assert_eq!(commit_rows(&kv, &torn, 1_000_000).await, Err(KvError::Undetermined));
        assert!(kv.is_full() && matches!(commit(&kv, b"refused", 10).await, Err(KvError::Unavailable { .. })));
        assert!(kv.get(b"before").await.unwrap().is_some(), "a read of a full disk");
        let asked = kv.begin().await;
        assert!(asked.is_err(), "nothing begins that could not commit");

        // A snapshot that somebody holds keeps the old engine there, and nothing is lost for that.
        std::fs::remove_file(&filler).unwrap();
        assert!(before.get(b"before").await.unwrap().is_some());
        drop(before);
        until_committed(&kv, b"after").await;
        expect_kept(&kv, &[b"before".to_vec(), b"after".to_vec()], &torn).await;
        kept.abort();
        let _ = kept.await;
        drop(kv);
        expect_kept(&open(disk.path()), &[b"before".to_vec(), b"after".to_vec()], &torn).await;
    }

    /// Writes a file that leaves this much room on the disk.
    fn fill(filler: &std::path::Path, disk: &std::path::Path, bytes_left: u64) {
        let space = rustix::fs::statvfs(disk).unwrap();
        let free = space.f_bavail * space.f_frsize;
        std::fs::write(filler, vec![1; usize::try_from(free - bytes_left).unwrap()]).unwrap();
    }

    #[tokio::test]
    async fn a_full_or_read_only_disk_is_named_when_the_store_is_opened() {
        let Some(disk) = FullDisk::mount(8) else { return };
        let full = std::fs::write(disk.path().join("everything"), vec![1; 9 << 20]);
        assert!(full.is_err());
        let error = Embedded::open(&disk.path().join("data"), Clock::system()).unwrap_err();
        assert!(matches!(error, OpenError::DiskFull { .. }), "{error}");
        disk.remount("ro");
        let error = Embedded::open(&disk.path().join("other"), Clock::system()).unwrap_err();
        assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
    }
}
