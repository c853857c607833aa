//! Files that settings name and that may be replaced while the node runs: each is read again, and one that cannot be used
//! changes nothing but a line in the log.
//!
//! A file is replaced by renaming another over it, by changing a link on the way to it (Kubernetes' `..data`), or by being
//! written anew in place. In each case what `stat` says of it changes. A file that is being written changes from one look to
//! the next, so it is read once it has stayed the same for two looks, and read again if it changed meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often files are looked at. Two looks and the reading take less than the 5 s in which a blocked host has to be blocked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; none of a file that is not there.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn stamp(path: &Path) -> Stamp {
    // Follows links: what counts is the file that is read.
    let found = std::fs::metadata(path).ok()?;
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.size(), modified, changed))
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// Files that belong together, such as a certificate and its key, and what is done with them.
pub(super) struct Followed {
    /// The setting, for the log.
    setting: &'static str,
    paths: Vec<PathBuf>,
    states: States,
    /// Reads them and uses what it read; else says which file is wrong, where and why.
    read: Box<dyn Fn() -> Result<(), String> + Send>,
}

impl Followed {
    /// Whatever changes from now on is read again.
    pub(super) fn new(
        setting: &'static str,
        paths: impl IntoIterator<Item = PathBuf>,
        read: impl Fn() -> Result<(), String> + Send + 'static,
    ) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        let states = States::new(stamps(&paths));
        Self { setting, paths, states, read: Box::new(read) }
    }

    /// Looks at the files, and reads them if they are news or `is_told`.
    fn look(&mut self, is_told: bool) {
        if self.states.are_news(stamps(&self.paths)) || is_told {
            self.states.reading();
            self.read_again();
        }
    }

    fn read_again(&self) {
        let setting = self.setting;
        match (self.read)() {
            Ok(()) => tracing::info!(setting, "read again"),
            Err(problem) => tracing::warn!(setting, problem, "is not used as it is now; what was read before stays"),
        }
    }
}

/// What is known of the states of files.
#[derive(Debug)]
struct States {
    /// When they were read.
    read: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
}

impl States {
    fn new(now: Vec<Stamp>) -> Self {
        Self { read: now.clone(), seen: now }
    }

    /// Whether the files are to be read, given how they are now: they differ from what was read, and stay as they are.
    fn are_news(&mut self, now: Vec<Stamp>) -> bool {
        let stay = now == self.seen;
        self.seen = now;
        stay && self.seen != self.read
    }

    /// They are being read as they were at the last look.
    fn reading(&mut self) {
        self.read.clone_from(&self.seen);
    }
}

/// Follows all of `files` until `shutdown`, and reads them at once whenever `now` says so.
pub(super) async fn follow(mut files: Vec<Followed>, mut now: watch::Receiver<u64>, shutdown: CancellationToken) {
    if files.is_empty() {
        return;
    }
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        let is_told = tokio::select! {
            _ = looks.tick() => false,
            // An error is that nobody is left to say so, at the end of the program.
            Ok(()) = now.changed() => true,
            () = shutdown.cancelled() => return,
        };
        // Files may lie on a disk that hangs.
        let looking = tokio::task::spawn_blocking(move || {
            for file in &mut files {
                file.look(is_told);
            }
            files
        });
        match looking.await {
            Ok(looked_at) => files = looked_at,
            // The panic itself is on standard error, with its place.
            Err(error) => return tracing::error!(%error, "files are not followed any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;

    use super::*;

    /// Far longer than a few looks take.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct Scene {
        folder: TempDir,
        /// What was read, in order.
        reads: Arc<Mutex<Vec<String>>>,
        read_now: watch::Sender<u64>,
    }

    impl Scene {
        /// Follows a file that `prepare` makes in a fresh folder.
        fn of(prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = prepare(folder.path());
            let (reads, read_now) = (Arc::<Mutex<Vec<String>>>::default(), watch::Sender::new(0));
            let (into, at) = (reads.clone(), path.clone());
            let file = Followed::new("A_FILE", [path], move || {
                let text = std::fs::read_to_string(&at).map_err(|error| error.to_string())?;
                into.lock().unwrap().push(text);
                Ok(())
            });
            tokio::spawn(follow(vec![file], read_now.subscribe(), CancellationToken::new()));
            Self { folder, reads, read_now }
        }

        async fn until_read(&self, expected: &[&str]) {
            let read = async {
                while *self.reads.lock().unwrap() != expected {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let in_time = tokio::time::timeout(PATIENCE, read).await;
            in_time.unwrap_or_else(|_| panic!("{:?} instead of {expected:?}", self.reads.lock().unwrap()));
        }
    }

    fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_written_renamed_over_or_gone_for_a_while_is_read_again() {
        let scene = Scene::of(|folder| written(folder, "file", "one"));
        let folder = scene.folder.path();
        // Of the same length: the time alone tells.
        written(folder, "file", "two");
        scene.until_read(&["two"]).await;
        std::fs::rename(written(folder, "next", "six"), folder.join("file")).unwrap();
        scene.until_read(&["two", "six"]).await;
        std::fs::remove_file(folder.join("file")).unwrap();
        written(folder, "file", "ten");
        scene.until_read(&["two", "six", "ten"]).await;
    }

    /// As the kubelet does it: `file` → `..data/file`, and `..data` → a folder of its own for each version.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_behind_a_link_that_is_swapped_is_read_again() {
        let scene = Scene::of(|folder| {
            for version in ["one", "two"] {
                std::fs::create_dir(folder.join(version)).unwrap();
                written(&folder.join(version), "file", version);
            }
            symlink("one", folder.join("..data")).unwrap();
            symlink("..data/file", folder.join("file")).unwrap();
            folder.join("file")
        });
        let folder = scene.folder.path();
        symlink("two", folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        scene.until_read(&["two"]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_is_read_at_once_when_somebody_says_so() {
        let scene = Scene::of(|folder| written(folder, "file", "one"));
        scene.read_now.send_modify(|times| *times += 1);
        scene.until_read(&["one"]).await;
    }

    #[test]
    fn a_file_that_is_still_being_written_is_not_read_yet() {
        let state = |bytes| vec![Some((1, 1, bytes, (0, 0), (0, 0)))];
        let mut states = States::new(state(10));
        let looks = [(10, false), (20, false), (30, false), (30, true)];
        for (bytes, expected) in looks {
            assert_eq!(states.are_news(state(bytes)), expected, "{bytes}");
        }
        states.reading();
        assert!(!states.are_news(state(30)), "it was read");
        // It was changed while it was read.
        assert!(!states.are_news(state(40)) && states.are_news(state(40)));
        // One that is gone is looked at once, to say so.
        states.reading();
        assert!(!states.are_news(vec![None]) && states.are_news(vec![None]));
    }
}
