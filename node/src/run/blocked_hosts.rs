//! The list of hosts that may not be shortened: read at start, and again when its file changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::links::BlockedHostsNow;
use crate::links::blocked_hosts::BlockedHosts;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest file that is read, in bytes: about a million hosts.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What tells one state of a file from another.
type Stamp = (SystemTime, u64);

/// Reads the file, if there is one. A file that cannot be used stops the start.
pub(super) fn load(path: Option<&Path>) -> Result<BlockedHostsNow, RunError> {
    let hosts = match path {
        Some(path) => read(path).map_err(|problem| RunError::File { setting: "BLOCKED_HOSTS_FILE", problem })?,
        None => BlockedHosts::default(),
    };
    Ok(Arc::new(RwLock::new(Arc::new(hosts))))
}

fn read(path: &Path) -> Result<BlockedHosts, String> {
    let at = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("cannot read {at}: {error}"))?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{at} has {length} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {at}: {error}"))?;
    BlockedHosts::parse(&text).map_err(|error| format!("{at}: {error}"))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Reads the file again whenever it changes. What cannot be used is logged, and the list stays as it was.
pub(super) async fn follow(path: PathBuf, hosts: BlockedHostsNow, shutdown: CancellationToken) {
    let mut seen = stamp(&path);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let path = path.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamp(&path);
            (now, (now != seen).then(|| read(&path)))
        });
        let Ok((now, changed)) = looked.await else { continue };
        seen = now;
        match changed {
            Some(Ok(list)) => {
                tracing::info!(hosts = list.len(), "read BLOCKED_HOSTS_FILE again");
                *hosts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
            }
            Some(Err(problem)) => tracing::warn!(problem, "BLOCKED_HOSTS_FILE is not used as it is now"),
            None => {}
        }
    }
}
