//! The rows of clicks: one a click, which expires, and counts of all time, of a day and of an hour, which summaries read.
//!
//! Counts are kept once a *shard*, the number of the node that writes them, and summed when they are read: no two nodes
//! ever contend for a row. A click's row is what makes counting it exact: whoever finds it there has counted it before.
//! No row holds an IP address; a visitor is a hash under a salt that is deleted when its day is over.

mod counts;
mod hyperloglog;

use std::ops::Range;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

pub use self::counts::{CountingRow, Counts, DayRow, HourRow, Names};
pub use self::hyperloglog::HyperLogLog;
use super::{Key, Kind, StoreError, decode, encode, key_after};
use crate::ambient::UnixMs;
use crate::kv::{Kv, Row, Snapshot, prefix_range};

/// How long a day's salt is kept from its begin: the day itself, and one more for clicks that are written late.
pub const SALT_AGE_MAX: Duration = Duration::from_hours(48);
const VERSION: u8 = 1;
/// Rows that a scan asks for at once.
const SCAN_ROWS: usize = 256;
/// Links whose clicks are counted at the same time.
const COUNTS_CONCURRENT: usize = 16;

/// A day in UTC: whole days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u64);

/// An hour in UTC: whole hours since 1970-01-01T00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub u64);

impl Day {
    const MS: u64 = 24 * Hour::MS;

    /// The day that a moment lies in.
    pub fn of(at: UnixMs) -> Self {
        Self(at.0 / Self::MS)
    }

    /// The moment that the day begins.
    pub fn start(self) -> UnixMs {
        UnixMs(self.0.saturating_mul(Self::MS))
    }
}

impl Hour {
    const MS: u64 = 60 * 60 * 1_000;

    /// The hour that a moment lies in.
    pub fn of(at: UnixMs) -> Self {
        Self(at.0 / Self::MS)
    }
}

/// Which click: no two have the same, and a click keeps its own however often it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClickId {
    /// The process that took it.
    pub boot_id: u128,
    /// Its number in that process.
    pub counter: u64,
}

/// A click, as it is stored: what the counts are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Click {
    /// When the redirect was answered.
    pub at: UnixMs,
    /// The ID of the link's domain.
    pub domain: String,
    /// The link's short code.
    pub code: String,
    /// The host of the page that had the link.
    pub referrer: String,
    /// The browser's family.
    pub browser: String,
    /// The operating system's family.
    pub operating_system: String,
    /// The kind of device.
    pub device: String,
    /// The country, ISO 3166-1 alpha-2.
    pub country: String,
    /// Whether no person clicked.
    pub bot: bool,
    /// Who clicked: a hash that means nothing on another day or for another link.
    pub visitor: u64,
}

impl Click {
    /// The value of the click's own row.
    pub fn encode(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    /// Reads the value of a click's own row.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode(Kind::Click, VERSION, bytes)
    }
}

/// Where a click lies. Clicks of one process and day are neighbours, so a batch is one stretch of keys; processes are
/// spread by a byte of their random ID, so that no region takes the writes of all.
pub fn click_key(id: ClickId, at: UnixMs) -> Vec<u8> {
    let ClickId { boot_id, counter } = id;
    let [.., spread] = boot_id.to_be_bytes();
    Key::of(Kind::Click).bytes(&[spread]).number(Day::of(at).0).bytes(&boot_id.to_be_bytes()).number(counter).build()
}

/// Where a node counts a link's clicks of all time.
pub fn total_key(domain: &str, code: &str, shard: u16) -> Vec<u8> {
    Key::of(Kind::ClickTotal).text(domain).text(code).bytes(&shard.to_be_bytes()).build()
}

/// Where a node counts a link's clicks of a day.
pub fn day_key(domain: &str, code: &str, day: Day, shard: u16) -> Vec<u8> {
    days_from(domain, code, day).bytes(&shard.to_be_bytes()).build()
}

/// Where a node counts a link's clicks of an hour.
pub fn hour_key(domain: &str, code: &str, hour: Hour, shard: u16) -> Vec<u8> {
    Key::of(Kind::ClickHour).text(domain).text(code).number(hour.0).bytes(&shard.to_be_bytes()).build()
}

fn days_from(domain: &str, code: &str, day: Day) -> Key {
    Key::of(Kind::ClickDay).text(domain).text(code).number(day.0)
}

fn salt_key(day: Day) -> Vec<u8> {
    Key::of(Kind::VisitorSalt).number(day.0).build()
}

/// Where the clicks lie that are older than `kept`, in whole days: a range for each spread byte.
pub fn expired_clicks(now: UnixMs, kept: Duration) -> impl Iterator<Item = Range<Vec<u8>>> {
    let first_kept = Day::of(now.minus(kept));
    (0..=u8::MAX).map(move |spread| {
        let spread = Key::of(Kind::Click).bytes(&[spread]);
        spread.clone().number(0).build()..spread.number(first_kept.0).build()
    })
}

/// Where the salts lie that are older than [`SALT_AGE_MAX`].
pub fn expired_salts(now: UnixMs) -> Range<Vec<u8>> {
    let oldest = now.minus(SALT_AGE_MAX);
    let day = Day::of(oldest);
    let first_kept = if day.start() < oldest { Day(day.0 + 1) } else { day };
    salt_key(Day(0))..salt_key(first_kept)
}

/// Whether `key` is that of an hour older than `kept`.
pub fn hour_has_expired(key: &[u8], now: UnixMs, kept: Duration) -> bool {
    hour_of_key(key).is_some_and(|hour| hour < Hour::of(now.minus(kept)))
}

fn hour_of_key(key: &[u8]) -> Option<Hour> {
    let (before, _shard) = key.split_last_chunk::<2>()?;
    let (_link, hour) = before.split_last_chunk::<8>()?;
    (key.first() == Some(&(Kind::ClickHour as u8))).then_some(Hour(u64::from_be_bytes(*hour)))
}

/// The salt that a day's visitors are hashed with: the one in the store, or `fresh`, which is then the one in the store.
pub async fn salt_or_insert(kv: &Kv, day: Day, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
    let key = salt_key(day);
    let mut transaction = kv.begin().await?;
    if let Some(row) = transaction.get(&key).await? {
        return decode(Kind::VisitorSalt, VERSION, &row);
    }
    transaction.put(key, encode(VERSION, &fresh));
    transaction.commit().await?;
    Ok(fresh)
}

/// The rows of a link's days in `days`, one a day and shard, oldest first.
pub async fn days(
    snapshot: &Snapshot,
    domain: &str,
    code: &str,
    days: Range<Day>,
) -> Result<Vec<(Day, DayRow)>, StoreError> {
    let range = days_from(domain, code, days.start).build()..days_from(domain, code, days.end).build();
    let day_at = range.start.len().saturating_sub(size_of::<u64>());
    let rows = scan_all(snapshot, range).await?;
    let day_of = |key: &[u8]| {
        let (day, _shard) = key.get(day_at..)?.split_first_chunk::<8>()?;
        Some(Day(u64::from_be_bytes(*day)))
    };
    rows.iter()
        .map(|(key, value)| {
            let damaged = || StoreError::Decode { kind: Kind::ClickDay, version: value.first().copied() };
            Ok((day_of(key).ok_or_else(damaged)?, <DayRow as CountingRow>::decode(Some(value))?))
        })
        .collect()
}

/// How often people clicked on a link, ever.
pub async fn click_count(kv: &Kv, domain: &str, code: &str) -> Result<u64, StoreError> {
    count_in(&kv.snapshot().await?, domain, code).await
}

/// How often people clicked on each of `links` (domain, code), ever; in the same order.
pub async fn click_counts(kv: &Kv, links: &[(&str, &str)]) -> Result<Vec<u64>, StoreError> {
    let snapshot = kv.snapshot().await?;
    let counts = links.iter().map(|(domain, code)| count_in(&snapshot, domain, code));
    // Collected before they are awaited: a stream over borrowed closures is not `Send` for every lifetime.
    let counts: Vec<_> = counts.collect();
    stream::iter(counts).buffered(COUNTS_CONCURRENT).try_collect().await
}

async fn count_in(snapshot: &Snapshot, domain: &str, code: &str) -> Result<u64, StoreError> {
    let shards = prefix_range(Key::of(Kind::ClickTotal).text(domain).text(code).build());
    let rows = scan_all(snapshot, shards).await?;
    rows.iter().map(|(_, value)| Ok(Counts::decode(Some(value))?.people)).sum()
}

/// All rows of a range, a page at a time.
async fn scan_all(snapshot: &Snapshot, mut range: Range<Vec<u8>>) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    loop {
        let page = snapshot.scan(range.clone(), SCAN_ROWS).await?;
        let full = page.len() >= SCAN_ROWS;
        rows.extend(page);
        match rows.last() {
            Some((last, _)) if full => range.start = key_after(last),
            _ => return Ok(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_of_a_day_and_process_are_neighbours_and_the_expired_ranges_hold_just_the_older_days() {
        let day = |day: u64| UnixMs(day * Day::MS + 5);
        for boot_id in [0, 1, 0xff, u128::MAX, 0x1234_5678] {
            let key = |counter, at| click_key(ClickId { boot_id, counter }, at);
            assert!(key(1, day(9)) < key(2, day(9)) && key(u64::MAX, day(9)) < key(0, day(10)));
            let (now, kept) = (day(13), Duration::from_hours(3 * 24));
            let expired = |key: &Vec<u8>| expired_clicks(now, kept).filter(|range| range.contains(key)).count();
            assert_eq!(
                (expired(&key(u64::MAX, day(9))), expired(&key(0, day(0))), expired(&key(0, day(10)))),
                (1, 1, 0)
            );
        }
    }

    #[test]
    fn the_hour_is_read_from_the_key_of_an_hour_alone() {
        let key = hour_key("go.example", "abc", Hour(491_000), 7);
        assert_eq!(hour_of_key(&key), Some(Hour(491_000)));
        assert_eq!(hour_of_key(&day_key("", "abc", Day(20_000), 7)), None);
        assert_eq!(hour_of_key(b"p"), None);
    }

    #[test]
    fn the_days_and_totals_of_one_link_are_not_among_those_of_another() {
        let days = |code: &str| days_from("", code, Day(0)).build()..days_from("", code, Day(100)).build();
        assert!(days("ab").contains(&day_key("", "ab", Day(99), u16::MAX)));
        assert!(!days("ab").contains(&day_key("", "abc", Day(1), 0)));
        assert!(!days("ab").contains(&day_key("ab", "", Day(1), 0)));
        assert!(!days("ab").contains(&day_key("", "ab", Day(100), 0)));
    }
}
