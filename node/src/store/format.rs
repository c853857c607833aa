//! The format of a keyspace: which version of each kind of row may be written in it.
//!
//! A program reads the rows of every format up to its newest, and of the one after. It writes the format that the keyspace's record
//! names, and none that is newer. The record is raised once every running node knows the newer format. Until then an older program may
//! come back; after that it refuses to start. A row of a newer format proves that the record was raised.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A format. Each is the one before with some kinds of rows in their next version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(u16);

impl Format {
    /// What keyspaces have whose record names none.
    pub const FIRST: Self = Self(1);
    /// The newest that this release writes. Since 2, families of refresh tokens have version 3, and every change of a link's text
    /// says that it is unindexed.
    pub const NEWEST: Self = Self(2);
    /// From this one on links may be searched by an index. What is unindexed is said in older formats too, as nodes learn of a
    /// newer one at different times.
    pub const SEARCH_INDEX: Self = Self(2);
    /// The one after, of which only the tests have a program. Its rows are one version further and one field longer.
    pub const NEXT: Self = Self(Self::NEWEST.0 + 1);

    /// Its number, as Leases and logs show it.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The format with this number; 0 is none.
    pub fn of_number(number: u16) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The keyspace has rows that this program does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the keyspace is in format {found}, and this program knows formats up to {newest}: run the release that raised it, or a later one"
)]
pub struct NewerFormat {
    /// What the keyspace is in, or will be.
    pub found: Format,
    /// What the program knows.
    pub newest: Format,
}

/// The formats that matter to a running program; clones tell the same.
#[derive(Clone, Debug)]
pub struct Formats {
    newest: Format,
    seen: Arc<watch::Sender<Seen>>,
}

/// What a running program has learned of formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// What may be written.
    written: Format,
    /// What the record is to be raised to, as the operator has said.
    wanted: Format,
    /// That the program is too old.
    newer: Option<NewerFormat>,
}

impl Formats {
    /// Of a program whose newest format is `newest`, before it has read a record.
    pub fn up_to(newest: Format) -> Self {
        let seen = Seen { written: Format::FIRST, wanted: Format::FIRST, newer: None };
        Self { newest, seen: Arc::new(watch::Sender::new(seen)) }
    }

    /// The newest format that the program knows.
    pub fn newest(&self) -> Format {
        self.newest
    }

    /// The format to write.
    pub fn written(&self) -> Format {
        self.seen.borrow().written
    }

    /// The keyspace is in format `found`. From now on that is written, if the program knows it.
    pub fn see(&self, found: Format) -> Result<(), NewerFormat> {
        let newer = (found > self.newest).then_some(NewerFormat { found, newest: self.newest });
        self.seen.send_if_modified(|seen| {
            let before = *seen;
            seen.newer = seen.newer.or(newer);
            if newer.is_none() {
                seen.written = seen.written.max(found);
            }
            *seen != before
        });
        newer.map_or(Ok(()), Err)
    }

    /// Every running node knows `format`, so that the record may be raised to it.
    pub fn want(&self, format: Format) {
        let format = format.min(self.newest);
        self.seen.send_if_modified(|seen| {
            let before = seen.wanted;
            seen.wanted = before.max(format);
            seen.wanted != before
        });
    }

    /// The format that the record is to be raised to, if it is below that.
    pub fn due(&self) -> Option<Format> {
        let seen = *self.seen.borrow();
        (seen.wanted > seen.written).then_some(seen.wanted)
    }

    /// Waits until the keyspace is found to be in a format that the program does not know.
    pub async fn outdated(&self) -> NewerFormat {
        let mut seen = self.seen.subscribe();
        loop {
            if let Some(newer) = seen.borrow_and_update().newer {
                return newer;
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_follows_the_keyspace_and_never_goes_back() {
        let formats = Formats::up_to(Format::NEXT);
        assert_eq!(formats.written(), Format::FIRST);
        for (found, written) in [(1, 1), (2, 2), (1, 2), (3, 3), (2, 3)] {
            assert_eq!(formats.see(Format(found)), Ok(()));
            assert_eq!(formats.written(), Format(written));
        }
    }

    #[tokio::test]
    async fn a_program_that_is_too_old_is_told_so_and_goes_on_as_it_wrote() {
        let formats = Formats::up_to(Format(2));
        formats.see(Format(2)).unwrap();
        let newer = formats.see(Format(3)).unwrap_err();
        assert_eq!((newer.found, newer.newest, formats.written()), (Format(3), Format(2), Format(2)));
        assert!(newer.to_string().contains("in format 3") && newer.to_string().contains("up to 2"), "{newer}");
        assert_eq!(formats.outdated().await, newer);
    }

    #[test]
    fn a_record_is_raised_only_as_far_as_the_program_knows_and_only_up() {
        let formats = Formats::up_to(Format(2));
        assert_eq!(formats.due(), None);
        formats.want(Format(9));
        assert_eq!(formats.due(), Some(Format(2)));
        formats.see(Format(2)).unwrap();
        assert_eq!(formats.due(), None);
        formats.want(Format(1));
        assert_eq!(formats.due(), None);
    }
}
