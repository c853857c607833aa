//! The rows that count clicks, and how each counts one more.

use serde::{Deserialize, Serialize};

use super::{Click, HyperLogLog, VERSION};
use crate::store::{Kind, StoreError, decode, decode_own, encode};

/// Names that a row counts by themselves; further ones count as others. It bounds a row, whatever visitors send.
const NAMES_MAX: usize = 64;

/// How often: the row of all time, and the head of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Clicks of people.
    pub people: u64,
    /// Clicks of bots; they are in no other figure.
    pub bots: u64,
}

/// Counts by name, of the first [`NAMES_MAX`] names that came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Each name with its count, in the order in which they came.
    pub counts: Vec<(String, u64)>,
    /// Clicks whose names came when the list was full.
    pub others: u64,
}

/// The clicks of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourRow {
    /// How often.
    pub counts: Counts,
    /// People by referrer host.
    pub referrers: Names,
    /// People by browser.
    pub browsers: Names,
    /// People by operating system.
    pub operating_systems: Names,
    /// People by device.
    pub devices: Names,
    /// People by country.
    pub countries: Names,
}

/// The clicks of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayRow {
    /// What an hour has, too.
    pub clicks: HourRow,
    /// The people that clicked.
    pub visitors: HyperLogLog,
}

/// A row that counts clicks.
pub trait CountingRow: Default + Serialize + for<'a> Deserialize<'a> {
    /// Its kind.
    const KIND: Kind;

    /// Counts one click more.
    fn add(&mut self, click: &Click);

    /// Reads a row that is going to be written back; one that is not there has counted nothing.
    fn decode_own(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| decode_own(Self::KIND, VERSION, bytes))
    }

    /// Reads a row; one that is not there has counted nothing.
    fn decode(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| decode(Self::KIND, VERSION, bytes))
    }

    /// The row's value.
    fn encode(&self) -> Vec<u8> {
        encode(VERSION, self)
    }
}

impl CountingRow for Counts {
    const KIND: Kind = Kind::ClickTotal;

    fn add(&mut self, click: &Click) {
        *if click.bot { &mut self.bots } else { &mut self.people } += 1;
    }
}

impl CountingRow for HourRow {
    const KIND: Kind = Kind::ClickHour;

    fn add(&mut self, click: &Click) {
        self.counts.add(click);
        if !click.bot {
            self.referrers.add(&click.referrer);
            self.browsers.add(&click.browser);
            self.operating_systems.add(&click.operating_system);
            self.devices.add(&click.device);
            self.countries.add(&click.country);
        }
    }
}

impl CountingRow for DayRow {
    const KIND: Kind = Kind::ClickDay;

    fn add(&mut self, click: &Click) {
        self.clicks.add(click);
        if !click.bot {
            self.visitors.insert(click.visitor);
        }
    }
}

impl Names {
    fn add(&mut self, name: &str) {
        let is_full = self.counts.len() >= NAMES_MAX;
        match self.counts.iter_mut().find(|(held, _)| held == name) {
            Some((_, count)) => *count += 1,
            None if is_full => self.others += 1,
            None => self.counts.push((name.to_owned(), 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;

    fn click(at: u64, referrer: &str, bot: bool, visitor: u64) -> Click {
        let name = |name: &str| name.to_owned();
        Click {
            at: UnixMs(at),
            domain: name(""),
            code: name("abc"),
            referrer: name(referrer),
            browser: name("Chrome"),
            operating_system: name("Linux"),
            device: name("desktop"),
            country: name("DE"),
            bot,
            visitor,
        }
    }

    #[test]
    fn a_bot_counts_as_a_bot_and_nowhere_else() {
        let mut row = DayRow::default();
        row.add(&click(0, "example.org", true, 1));
        let expected = DayRow {
            clicks: HourRow { counts: Counts { people: 0, bots: 1 }, ..HourRow::default() },
            ..DayRow::default()
        };
        assert_eq!(row, expected);
        row.add(&click(0, "example.org", false, 2));
        assert_eq!(row.clicks.counts, Counts { people: 1, bots: 1 });
        assert_eq!(row.clicks.referrers.counts, [("example.org".to_owned(), 1)]);
        assert_eq!(row.visitors.estimate(), 1);
    }

    #[test]
    fn names_beyond_the_limit_count_as_others_and_a_row_stays_small() {
        let mut row = HourRow::default();
        for n in 0..1_000 {
            row.add(&click(0, &format!("{n}.{}", "x".repeat(240)), false, n));
        }
        row.add(&click(0, &format!("7.{}", "x".repeat(240)), false, 0));
        assert_eq!((row.referrers.counts.len(), row.referrers.others), (NAMES_MAX, 1_000 - NAMES_MAX as u64));
        assert_eq!(row.referrers.counts[7].1, 2, "a name that is in the list goes on counting");
        assert!(CountingRow::encode(&row).len() < 20_000, "{}", CountingRow::encode(&row).len());
    }
}
