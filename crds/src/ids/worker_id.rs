//! The 12 bits of a Snowflake ID that tell its minter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many worker IDs there are.
pub const WORKERS: u16 = 4096;

/// A worker ID: 0 to 4,095. Used again when its window has run out; see [`claim`](crate::ids::claim).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct WorkerId(u16);

/// A number that is no worker ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker ID is at most 4095, not {0}")]
pub struct WorkerIdError(u16);

impl WorkerId {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The worker ID after this one; after the last comes the first.
    #[must_use]
    pub fn following(self) -> Self {
        Self((self.0 + 1) % WORKERS)
    }

    /// Every worker ID once, beginning with this one.
    pub fn round(self) -> impl Iterator<Item = Self> {
        (0..WORKERS).map(move |step| Self((self.0 + step) % WORKERS))
    }
}

impl TryFrom<u16> for WorkerId {
    type Error = WorkerIdError;

    fn try_from(number: u16) -> Result<Self, WorkerIdError> {
        if number < WORKERS { Ok(Self(number)) } else { Err(WorkerIdError(number)) }
    }
}

impl From<WorkerId> for u16 {
    fn from(worker: WorkerId) -> Self {
        worker.0
    }
}

impl From<WorkerId> for u64 {
    fn from(worker: WorkerId) -> Self {
        Self::from(worker.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_has_twelve_bits() {
        assert_eq!(WorkerId::try_from(4095).map(u16::from), Ok(4095));
        assert_eq!(WorkerId::try_from(4096), Err(WorkerIdError(4096)));
    }

    #[test]
    fn a_round_meets_each_once_and_ends_before_its_start() {
        let start = WorkerId(4000);
        let round: Vec<_> = start.round().collect();
        assert_eq!((round[0], round[95], round[96], round[4095]), (start, WorkerId(4095), WorkerId(0), WorkerId(3999)));
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 4096);
        assert_eq!(WorkerId(4095).following(), WorkerId(0));
    }
}
