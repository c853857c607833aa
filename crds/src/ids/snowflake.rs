//! 64-bit Snowflake IDs: 41 bits of milliseconds, 12 of worker ID, 10 of sequence; the top bit is zero.
//!
//! The layout is the one that Twitter published as "Snowflake" in 2010. Milliseconds count from [`EPOCH_UNIX_MS`] and last
//! until September 2094. IDs of one boot strictly increase; those of several sort by time, to about a minute.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::WorkerId;

/// Where timestamps begin: 2025-01-01T00:00:00Z, in milliseconds since 1970.
pub const EPOCH_UNIX_MS: u64 = 1_735_689_600_000;

const WORKER_BITS: u32 = 12;
const SEQUENCE_BITS: u32 = 10;
const TIMESTAMP_BITS: u32 = 41;
/// The last sequence of a millisecond: there are 1,024.
const SEQUENCE_MAX: u16 = (1 << SEQUENCE_BITS) - 1;
/// The last millisecond that an ID can tell.
const LAST_UNIX_MS: u64 = EPOCH_UNIX_MS + (1 << TIMESTAMP_BITS) - 1;

const _: () = assert!(TIMESTAMP_BITS + WORKER_BITS + SEQUENCE_BITS == 63);
const _: () = assert!(crate::ids::worker_id::WORKERS == 1 << WORKER_BITS);

/// A 64-bit ID, below 2^63. JSON carries it as a decimal string, because JavaScript numbers stop at 2^53; rows carry the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnowflakeId(u64);

/// A text or number that is no Snowflake ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an ID is a decimal number below 2^63, without sign or leading zeros")]
pub struct SnowflakeIdError;

impl SnowflakeId {
    /// The ID's timestamp, in milliseconds since 1970. Up to a minute ahead of the time at which it was minted.
    pub fn timestamp_unix_ms(self) -> u64 {
        EPOCH_UNIX_MS + (self.0 >> (WORKER_BITS + SEQUENCE_BITS))
    }

    /// Who minted it.
    pub fn worker(self) -> WorkerId {
        let bits = (self.0 >> SEQUENCE_BITS) & ((1 << WORKER_BITS) - 1);
        // Twelve bits are always a worker ID.
        u16::try_from(bits).ok().and_then(|bits| WorkerId::try_from(bits).ok()).unwrap_or_default()
    }

    /// Its place within the millisecond: 0 to 1,023.
    pub fn sequence(self) -> u16 {
        u16::try_from(self.0 & u64::from(SEQUENCE_MAX)).unwrap_or_default()
    }
}

impl From<SnowflakeId> for u64 {
    fn from(id: SnowflakeId) -> Self {
        id.0
    }
}

impl TryFrom<u64> for SnowflakeId {
    type Error = SnowflakeIdError;

    fn try_from(number: u64) -> Result<Self, SnowflakeIdError> {
        if number >> 63 == 0 { Ok(Self(number)) } else { Err(SnowflakeIdError) }
    }
}

impl fmt::Display for SnowflakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SnowflakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnowflakeId({})", self.0)
    }
}

impl FromStr for SnowflakeId {
    type Err = SnowflakeIdError;

    /// Takes only what [`fmt::Display`] writes, so that one ID has one text.
    fn from_str(text: &str) -> Result<Self, SnowflakeIdError> {
        let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit()));
        if !canonical {
            return Err(SnowflakeIdError);
        }
        text.parse::<u64>().map_err(|_| SnowflakeIdError)?.try_into()
    }
}

impl Serialize for SnowflakeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for SnowflakeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
        }
    }
}

/// The timestamps that a boot may mint under a worker ID: `start_ms` up to, but not including, `end_ms`, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Under which worker ID.
    pub worker: WorkerId,
    /// The first timestamp.
    pub start_ms: u64,
    /// The timestamp after the last one.
    pub end_ms: u64,
}

/// Why no Snowflake ID could be minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnowflakeError {
    /// Every timestamp of the window up to its end is used, or the clock is past it. Extend the window or take another.
    #[error("the window of worker ID {} ended at {}", window.worker, window.end_ms)]
    WindowOver {
        /// The window that has ended.
        window: Window,
    },
    /// The next timestamp lies outside what 41 bits can tell.
    #[error("{timestamp_ms} ms lies outside the Snowflake epoch (2025 to 2094)")]
    OutsideEpoch {
        /// The timestamp, in milliseconds since 1970.
        timestamp_ms: u64,
    },
}

/// What a boot has minted last: the whole state of minting Snowflake IDs. One a boot, kept from window to window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snowflake {
    last: Option<(u64, u16)>,
}

impl Snowflake {
    /// The next ID: later than every earlier one of this boot, inside `window`, and at `now_ms` where that is both.
    ///
    /// A clock that has gone back does not matter: the last timestamp is kept and its sequence counted on. After 1,024 IDs in
    /// one millisecond the next millisecond is used, ahead of the clock. Where the window starts later than now, its start is used.
    pub fn next(&mut self, now_ms: u64, window: Window) -> Result<SnowflakeId, SnowflakeError> {
        let earliest = now_ms.max(window.start_ms);
        let (timestamp_ms, sequence) = match self.last {
            Some((last_ms, last)) if last_ms >= earliest && last < SEQUENCE_MAX => (last_ms, last + 1),
            Some((last_ms, _)) if last_ms >= earliest => (last_ms.saturating_add(1), 0),
            _ => (earliest, 0),
        };
        if timestamp_ms >= window.end_ms {
            return Err(SnowflakeError::WindowOver { window });
        }
        if !(EPOCH_UNIX_MS..=LAST_UNIX_MS).contains(&timestamp_ms) {
            return Err(SnowflakeError::OutsideEpoch { timestamp_ms });
        }
        self.last = Some((timestamp_ms, sequence));
        let timestamp = (timestamp_ms - EPOCH_UNIX_MS) << (WORKER_BITS + SEQUENCE_BITS);
        Ok(SnowflakeId(timestamp | (u64::from(window.worker) << SEQUENCE_BITS) | u64::from(sequence)))
    }

    /// How much of `window` is left for minting at `now_ms`, in milliseconds.
    pub fn remaining_ms(&self, now_ms: u64, window: Window) -> u64 {
        let last_ms = self.last.map_or(0, |(last_ms, _)| last_ms);
        window.end_ms.saturating_sub(now_ms.max(window.start_ms).max(last_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = EPOCH_UNIX_MS + 1_000;

    fn window(start_ms: u64, end_ms: u64) -> Window {
        Window { worker: WorkerId::try_from(7).expect("a worker ID"), start_ms, end_ms }
    }

    #[test]
    fn an_id_tells_its_time_worker_and_sequence() {
        let mut state = Snowflake::default();
        let window = window(NOW, NOW + 10);
        state.next(NOW + 3, window).expect("in the window");
        let id = state.next(NOW + 3, window).expect("in the window");
        assert_eq!((id.timestamp_unix_ms(), id.worker(), id.sequence()), (NOW + 3, window.worker, 1));
    }

    #[test]
    fn a_window_yields_exactly_its_milliseconds_times_1024_and_nothing_after() {
        let mut state = Snowflake::default();
        let window = window(NOW, NOW + 3);
        assert_eq!((0..).map_while(|_| state.next(0, window).ok()).count(), 3 * 1024);
        assert_eq!(state.next(0, window), Err(SnowflakeError::WindowOver { window }));
        assert_eq!(state.remaining_ms(0, window), 1, "the last millisecond counts until it is known to be full");
    }

    #[test]
    fn a_window_that_starts_later_is_minted_from_its_start() {
        let mut state = Snowflake::default();
        let id = state.next(NOW, window(NOW + 60_000, NOW + 60_001)).expect("in the window");
        assert_eq!(id.timestamp_unix_ms(), NOW + 60_000);
    }

    #[test]
    fn a_clock_past_the_window_mints_nothing_and_changes_nothing() {
        let mut state = Snowflake::default();
        assert!(state.next(NOW + 5, window(NOW, NOW + 5)).is_err());
        assert_eq!(state, Snowflake::default());
    }

    #[test]
    fn times_outside_41_bits_are_refused() {
        let all = window(0, u64::MAX);
        assert!(matches!(Snowflake::default().next(EPOCH_UNIX_MS - 1, all), Err(SnowflakeError::OutsideEpoch { .. })));
        assert!(matches!(Snowflake::default().next(LAST_UNIX_MS + 1, all), Err(SnowflakeError::OutsideEpoch { .. })));
        let last = Snowflake::default().next(LAST_UNIX_MS, all).expect("the last millisecond");
        assert_eq!((u64::from(last) >> 63, last.timestamp_unix_ms()), (0, LAST_UNIX_MS));
    }

    #[test]
    fn one_id_has_one_text() {
        for text in ["", "+5", "-1", "05", "00", " 5", "9223372036854775808", "18446744073709551616", "5a"] {
            assert_eq!(text.parse::<SnowflakeId>(), Err(SnowflakeIdError), "{text}");
        }
        for number in [0, 5, (1 << 63) - 1] {
            assert_eq!(number.to_string().parse(), Ok(SnowflakeId(number)));
        }
    }
}
