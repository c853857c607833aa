//! The summary of a link's last thirty days, from its daily rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ambient::UnixMs;
use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::clicks::{Day, DayRow, HyperLogLog, Names, days};

/// Days that a summary covers, today among them.
pub const PERIOD_DAYS: u64 = 30;
/// Names that a list of a summary shows.
const NAMES_SHOWN_MAX: usize = 10;
/// What stands for the names that a row had no room for.
const OTHERS: &str = "other";

/// Who clicked on a link in the last thirty days (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// The link's short code.
    pub short_code: String,
    /// The days that are summed, today among them.
    pub period_days: u64,
    /// Clicks by people.
    pub total_clicks: u64,
    /// About how many people, each counted once a day.
    pub unique_visitors: u64,
    /// Clicks by crawlers, link previews and programs; they are in no other figure.
    pub bot_clicks: u64,
    /// Every day of the period, oldest first.
    pub daily: Vec<DailyClicks>,
    /// The hosts people came from most; `direct` for none.
    pub referrers: Vec<NamedClicks>,
    /// The browsers most used.
    pub browsers: Vec<NamedClicks>,
    /// The operating systems most used.
    pub operating_systems: Vec<NamedClicks>,
    /// The kinds of devices most used.
    pub devices: Vec<NamedClicks>,
    /// The countries that people came from most, ISO 3166-1 alpha-2; `unknown` where that is not known.
    pub countries: Vec<NamedClicks>,
}

/// The clicks of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DailyClicks {
    /// The day, in UTC.
    #[schema(format = "date", value_type = String, example = "2026-01-31")]
    pub date: String,
    /// Clicks by people.
    pub clicks: u64,
}

/// The clicks of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedClicks {
    /// Whose.
    pub name: String,
    /// Clicks by people.
    pub clicks: u64,
}

/// The summary of a link's days up to and with the one of `now`.
pub async fn summary(kv: &Kv, domain: &str, code: &str, now: UnixMs) -> Result<Summary, StoreError> {
    let today = Day::of(now);
    let (first, end) = (Day(today.0.saturating_sub(PERIOD_DAYS - 1)), Day(today.0 + 1));
    let rows = days(&kv.snapshot().await?, domain, code, first..end).await?;
    Ok(summarise(code, first, &rows))
}

/// Sums the rows of the days from `first` on.
fn summarise(code: &str, first: Day, rows: &[(Day, DayRow)]) -> Summary {
    let people_on = |day| rows.iter().filter(|(of, _)| *of == day).map(|(_, row)| row.clicks.counts.people).sum();
    let days = (first.0..).take(usize::try_from(PERIOD_DAYS).unwrap_or(usize::MAX)).map(Day);
    let daily: Vec<_> = days.map(|day| DailyClicks { date: date(day), clicks: people_on(day) }).collect();
    Summary {
        short_code: code.to_owned(),
        period_days: PERIOD_DAYS,
        total_clicks: daily.iter().map(|day| day.clicks).sum(),
        unique_visitors: unique_visitors(rows),
        bot_clicks: rows.iter().map(|(_, row)| row.clicks.counts.bots).sum(),
        daily,
        referrers: most(rows.iter().map(|(_, row)| &row.clicks.referrers)),
        browsers: most(rows.iter().map(|(_, row)| &row.clicks.browsers)),
        operating_systems: most(rows.iter().map(|(_, row)| &row.clicks.operating_systems)),
        devices: most(rows.iter().map(|(_, row)| &row.clicks.devices)),
        countries: most(rows.iter().map(|(_, row)| &row.clicks.countries)),
    }
}

/// A day's shards saw some of the same people, so they are merged; no two days did, as each has a salt of its own.
fn unique_visitors(rows: &[(Day, DayRow)]) -> u64 {
    let mut of_days: BTreeMap<Day, HyperLogLog> = BTreeMap::new();
    for (day, row) in rows {
        of_days.entry(*day).or_default().merge(&row.visitors);
    }
    of_days.values().map(HyperLogLog::estimate).sum()
}

/// The names with the most clicks, most first; equal ones by name, so that a summary does not change by itself.
fn most<'a>(lists: impl Iterator<Item = &'a Names>) -> Vec<NamedClicks> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for Names { counts, others } in lists {
        for (name, clicks) in counts {
            *sums.entry(name).or_default() += clicks;
        }
        if *others > 0 {
            *sums.entry(OTHERS).or_default() += others;
        }
    }
    let mut sums: Vec<_> =
        sums.into_iter().map(|(name, clicks)| NamedClicks { name: name.to_owned(), clicks }).collect();
    sums.sort_by_key(|named| std::cmp::Reverse(named.clicks));
    sums.truncate(NAMES_SHOWN_MAX);
    sums
}

/// `2026-01-31`: the first ten characters of RFC 3339.
fn date(day: Day) -> String {
    day.start().to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::clicks::{Click, CountingRow};

    const TODAY: Day = Day(20_484);
    const FIRST: Day = Day(20_484 - 29);

    fn row(day: Day, visitors: std::ops::Range<u64>, referrer: &str, bots: u64) -> (Day, DayRow) {
        let mut row = DayRow::default();
        let name = |name: &str| name.to_owned();
        let people = visitors.map(|visitor| (visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15), false));
        for (visitor, bot) in people.chain((0..bots).map(|visitor| (visitor, true))) {
            row.add(&Click {
                at: day.start(),
                domain: name(""),
                code: name("abc"),
                referrer: name(referrer),
                browser: name("Chrome"),
                operating_system: name("Linux"),
                device: name("desktop"),
                country: name("DE"),
                bot,
                visitor,
            });
        }
        (day, row)
    }

    #[test]
    fn days_and_shards_are_summed_and_a_visitor_seen_by_two_shards_is_one() {
        let rows =
            [row(FIRST, 0..2, "a.example", 0), row(TODAY, 0..5, "b.example", 1), row(TODAY, 3..6, "a.example", 2)];
        let Summary { total_clicks, unique_visitors, bot_clicks, daily, referrers, browsers, .. } =
            summarise("abc", FIRST, &rows);
        assert_eq!((total_clicks, unique_visitors, bot_clicks), (10, 2 + 6, 3));
        let named = |name: &str, clicks| NamedClicks { name: name.to_owned(), clicks };
        assert_eq!(referrers, [named("a.example", 5), named("b.example", 5)]);
        assert_eq!(browsers, [named("Chrome", 10)]);
        assert_eq!(daily.len(), 30);
        assert_eq!((daily[0].clicks, daily[1].clicks, daily[29].clicks), (2, 0, 8));
        assert_eq!((daily[0].date.as_str(), daily[29].date.as_str()), ("2026-01-02", "2026-01-31"));
    }

    #[test]
    fn lists_show_the_ten_most_and_those_without_a_place_together() {
        let names = |counts: &[(String, u64)], others| Names { counts: counts.to_vec(), others };
        let counts: Vec<_> = (1..=20).map(|n| (format!("{n:02}.example"), n)).collect();
        let shown = most([names(&counts, 3), names(&counts[..1], 12)].iter());
        assert_eq!(shown.len(), 10);
        assert_eq!((shown[0].name.as_str(), shown[0].clicks), ("20.example", 20));
        assert!(shown.contains(&NamedClicks { name: OTHERS.to_owned(), clicks: 15 }), "{shown:?}");
    }

    #[test]
    fn a_link_that_nobody_clicked_has_thirty_days_of_zero_in_the_words_of_the_interface() {
        let json = serde_json::to_value(summarise("abc", FIRST, &[])).unwrap();
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields.join(" "),
            "bot_clicks browsers countries daily devices operating_systems period_days referrers short_code \
             total_clicks unique_visitors"
        );
        assert_eq!(json["daily"].as_array().unwrap().len(), 30);
        assert_eq!(json["daily"][29], serde_json::json!({"date": "2026-01-31", "clicks": 0}));
    }
}
