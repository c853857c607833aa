//! From clicks to counts: which rows a batch of clicks changes, what they become, and the transaction that does it.
//!
//! A batch may be written more than once: when a commit's fate is not known it is written again. The clicks' own rows say
//! which ones were counted, and lie in the same transaction as the counts.

use std::collections::BTreeMap;

use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::clicks::{
    Click, ClickId, CountingRow, Counts, Day, DayRow, Hour, HourRow, click_key, day_key, hour_key, total_key,
};

/// Rows that one click writes: its own, and those of all time, its day and its hour.
pub const ROWS_PER_CLICK_MAX: usize = 4;

/// A row that counts clicks, in whichever shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket<'a> {
    domain: &'a str,
    code: &'a str,
    period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Period {
    AllTime,
    Day(Day),
    Hour(Hour),
}

/// The clicks by the rows that count them, in the order in which they came: what a batch changes, one row at a time.
pub fn aggregate<'a>(clicks: impl IntoIterator<Item = &'a Click>) -> BTreeMap<Bucket<'a>, Vec<&'a Click>> {
    let mut deltas: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for click in clicks {
        for period in [Period::AllTime, Period::Day(Day::of(click.at)), Period::Hour(Hour::of(click.at))] {
            let bucket = Bucket { domain: &click.domain, code: &click.code, period };
            deltas.entry(bucket).or_default().push(click);
        }
    }
    deltas
}

impl Bucket<'_> {
    /// The key of the row in a shard.
    pub fn key(&self, shard: u16) -> Vec<u8> {
        let Self { domain, code, period } = *self;
        match period {
            Period::AllTime => total_key(domain, code, shard),
            Period::Day(day) => day_key(domain, code, day, shard),
            Period::Hour(hour) => hour_key(domain, code, hour, shard),
        }
    }

    /// What the row becomes when it has counted `clicks`, too; `row` is its value if it is there.
    pub fn apply(&self, row: Option<&[u8]>, clicks: &[&Click]) -> Result<Vec<u8>, StoreError> {
        match self.period {
            Period::AllTime => apply::<Counts>(row, clicks),
            Period::Day(_) => apply::<DayRow>(row, clicks),
            Period::Hour(_) => apply::<HourRow>(row, clicks),
        }
    }
}

fn apply<R: CountingRow>(row: Option<&[u8]>, clicks: &[&Click]) -> Result<Vec<u8>, StoreError> {
    let mut row = R::decode_own(row)?;
    for click in clicks {
        row.add(click);
    }
    Ok(row.encode())
}

/// Writes and counts, in one transaction, those of `batch` that are not yet in the store. Answers how many they were.
/// A conflict is left to the caller, who tries again anyway when the store is away: in a shard of one's own there is none.
pub async fn write(kv: &Kv, shard: u16, batch: &[(ClickId, Click)]) -> Result<usize, StoreError> {
    let mut transaction = kv.begin().await?;
    let keys: Vec<_> = batch.iter().map(|(id, click)| click_key(*id, click.at)).collect();
    let found = transaction.batch_get(&keys).await?;
    let (new_keys, new): (Vec<_>, Vec<_>) = keys
        .into_iter()
        .zip(batch)
        .zip(found)
        .filter(|(_, found)| found.is_none())
        .map(|((key, (_, click)), _)| (key, click))
        .unzip();
    let deltas = aggregate(new.iter().copied());
    let counting: Vec<_> = deltas.keys().map(|bucket| bucket.key(shard)).collect();
    let rows = transaction.batch_get(&counting).await?;
    for ((key, row), (bucket, clicks)) in counting.into_iter().zip(rows).zip(deltas) {
        transaction.put(key, bucket.apply(row.as_deref(), &clicks)?);
    }
    for (key, click) in new_keys.into_iter().zip(&new) {
        transaction.put(key, click.encode());
    }
    transaction.commit().await?;
    Ok(new.len())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ambient::UnixMs;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn count(rows: &mut Rows, clicks: &[Click]) {
        for (bucket, clicks) in aggregate(clicks) {
            let key = bucket.key(3);
            let row = bucket.apply(rows.get(&key).map(Vec::as_slice), &clicks).unwrap();
            rows.insert(key, row);
        }
    }

    /// Clicks on two links in three days by few visitors, from more sites than a row has room for.
    fn any_click() -> impl Strategy<Value = Click> {
        let hour_ms = 60 * 60 * 1_000;
        (0..72_u64, 0..2_u8, 0..100_u8, 0..3_u8, any::<bool>(), 0..9_u64).prop_map(
            move |(hour, link, referrer, browser, bot, visitor)| Click {
                at: UnixMs(20_000 * 24 * hour_ms + hour * hour_ms),
                domain: String::new(),
                code: format!("link{link}"),
                referrer: format!("{referrer}.example"),
                browser: format!("browser {browser}"),
                operating_system: "Linux".to_owned(),
                device: "desktop".to_owned(),
                country: "DE".to_owned(),
                bot,
                visitor: visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However clicks are split into batches, the rows become the same, byte for byte, as click by click.
        #[test]
        fn batches_count_as_their_clicks_do_one_by_one(batches in vec(vec(any_click(), 0..60), 0..8)) {
            let (mut batched, mut one_by_one) = (Rows::new(), Rows::new());
            for batch in &batches {
                count(&mut batched, batch);
                for click in batch {
                    count(&mut one_by_one, std::slice::from_ref(click));
                }
            }
            prop_assert_eq!(&batched, &one_by_one);

            let clicks = || batches.iter().flatten();
            let people: u64 = ["link0", "link1"]
                .iter()
                .filter_map(|code| batched.get(&total_key("", code, 3)))
                .map(|row| Counts::decode(Some(row)).unwrap().people)
                .sum();
            prop_assert_eq!(people, clicks().filter(|click| !click.bot).count() as u64);
        }
    }

    #[test]
    fn a_batch_on_one_link_in_one_hour_changes_three_rows() {
        let click = Click {
            at: UnixMs(1),
            domain: String::new(),
            code: "abc".to_owned(),
            referrer: String::new(),
            browser: String::new(),
            operating_system: String::new(),
            device: String::new(),
            country: String::new(),
            bot: false,
            visitor: 1,
        };
        let deltas = aggregate([&click; 100]);
        assert_eq!(deltas.values().map(Vec::len).collect::<Vec<_>>(), [100, 100, 100]);
    }
}
