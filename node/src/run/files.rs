//! How many files and connections this process may have open.
//!
//! The store opens files as it goes, and one that it cannot open is a failed write: connections must never take the last
//! descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shortener_probes::CONNECTIONS_MAX as ADMIN_CONNECTIONS_MAX;

use crate::http::serve::ConnectionLimits;
use crate::kv::embedded::FILES_KEPT_OPEN;

/// Most connections of the public at once.
const CONNECTIONS_MAX: u64 = ConnectionLimits::PUBLIC.connections_max as u64;
/// What is not for connections of the public: the store's files, twice for those that a compaction reads and writes, the
/// other listener's connections, and the odd file.
const RESERVED: u64 = 2 * FILES_KEPT_OPEN as u64 + ADMIN_CONNECTIONS_MAX as u64 + 64;
/// Connections that are taken however low the limit is: nobody runs a service on less.
const CONNECTIONS_MIN: u64 = 64;

/// Raises the limit of open files as far as it may be raised, and gives the connections of the public that fit under it.
pub fn connections_max() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    let connections = connections_within(files);
    if connections < CONNECTIONS_MAX {
        tracing::warn!(files, connections, "the limit of open files is low and bounds the connections");
    }
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// The connections that fit under a limit of open files; none is no limit.
fn connections_within(files: Option<u64>) -> u64 {
    files.map_or(CONNECTIONS_MAX, |files| files.saturating_sub(RESERVED).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_keeps_its_files_whatever_the_limit() {
        let checks =
            [(None, 16_384), (Some(1_048_576), 16_384), (Some(4_096), 3_264), (Some(1_024), 192), (Some(256), 64)];
        for (files, connections) in checks {
            assert_eq!(connections_within(files), connections, "{files:?}");
        }
    }
}
