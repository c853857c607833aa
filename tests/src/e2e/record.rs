//! What a load saw, second by second.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::witness::Second;

/// All of its seconds.
#[derive(Clone, Debug)]
pub struct Record(Vec<Second>);

impl Record {
    /// Reads what a load prints.
    pub fn read(printed: &str) -> Result<Self> {
        let line = |line: &str| serde_json::from_str(line).with_context(|| format!("reading {line}"));
        Ok(Self(printed.lines().map(line).collect::<Result<_>>()?))
    }

    /// The seconds from one on, up to another.
    #[must_use]
    pub fn between(&self, from: i64, to: i64) -> Self {
        Self(self.0.iter().filter(|second| (from..to).contains(&second.at)).cloned().collect())
    }

    /// Of two loads that ran beside each other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.sort_by_key(|second| second.at);
        self
    }

    /// Answers by status, failures by reason.
    pub fn outcomes(&self) -> BTreeMap<&str, u64> {
        let mut sum = BTreeMap::new();
        for (outcome, count) in self.0.iter().flat_map(|second| &second.outcomes) {
            *sum.entry(outcome.as_str()).or_default() += count;
        }
        sum
    }

    /// How many requests there were.
    pub fn total(&self) -> u64 {
        self.outcomes().values().sum()
    }

    /// How many had another outcome than these.
    pub fn other_than(&self, wanted: &[&str]) -> u64 {
        self.outcomes().iter().filter(|(outcome, _)| !wanted.contains(outcome)).map(|(_, count)| count).sum()
    }

    /// An error that tells what there was instead, unless all outcomes are these, and there are at least so many of them.
    pub fn expect_only(&self, what: &str, wanted: &[&str], at_least: u64) -> Result<()> {
        let outcomes = self.outcomes();
        ensure!(
            self.other_than(wanted) == 0,
            "{what}: {outcomes:?}; in these seconds: {:?}",
            self.seconds_with_others(wanted)
        );
        ensure!(self.total() >= at_least, "{what}: only {outcomes:?}, not {at_least}");
        Ok(())
    }

    /// The time that a share of the requests stayed within, in milliseconds; 0 of no request.
    pub fn quantile_ms(&self, share: f64) -> u64 {
        let mut all: BTreeMap<u64, u64> = BTreeMap::new();
        for (latency, count) in self.0.iter().flat_map(|second| &second.latencies_ms) {
            *all.entry(*latency).or_default() += count;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
        let enough = all.values().sum::<u64>() as f64 * share;
        let mut so_far = 0_u64;
        for (latency, count) in all {
            so_far += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if so_far as f64 >= enough {
                return latency;
            }
        }
        0
    }

    /// The codes of the links that were made.
    pub fn created(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|second| &second.created).map(String::as_str)
    }

    /// How many of those codes were made twice.
    pub fn twice(&self) -> usize {
        self.created().count() - self.created().collect::<BTreeSet<_>>().len()
    }

    /// Each second: its number, how many requests, and the 99th percentile in milliseconds.
    pub fn by_second(&self) -> BTreeMap<i64, (u64, u64)> {
        let seconds: BTreeSet<i64> = self.0.iter().map(|second| second.at).collect();
        let each = |at: i64| {
            let record = self.between(at, at + 1);
            (at, (record.total(), record.quantile_ms(0.99)))
        };
        seconds.into_iter().map(each).collect()
    }

    fn seconds_with_others(&self, wanted: &[&str]) -> Vec<(i64, Vec<&String>)> {
        let others =
            |second: &Second| second.outcomes.keys().filter(|outcome| !wanted.contains(&outcome.as_str())).count() > 0;
        self.0
            .iter()
            .filter(|second| others(second))
            .map(|second| (second.at, second.outcomes.keys().collect()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let lines = [
            r#"{"at":10,"due":3,"outcomes":{"302":3},"latencies_ms":{"1":2,"40":1},"created":[]}"#,
            r#"{"at":11,"due":2,"outcomes":{"201":1,"201 after 503":1},"latencies_ms":{"2":1,"900":1},"created":["a","a"]}"#,
        ];
        Record::read(&lines.join("\n")).unwrap()
    }

    #[test]
    fn outcomes_and_times_are_summed_over_seconds() {
        let record = record();
        assert_eq!(record.total(), 5);
        assert_eq!(record.outcomes(), BTreeMap::from([("201", 1), ("201 after 503", 1), ("302", 3)]));
        assert_eq!(record.quantile_ms(0.5), 2);
        assert_eq!(record.quantile_ms(0.99), 900);
        assert_eq!(record.between(10, 11).quantile_ms(0.99), 40);
        assert_eq!(record.between(20, 30).quantile_ms(0.99), 0);
        assert_eq!(record.by_second(), BTreeMap::from([(10, (3, 40)), (11, (2, 900))]));
    }

    #[test]
    fn another_outcome_than_the_wanted_is_an_error_that_names_it_and_its_second() {
        let error = record().expect_only("creates", &["302", "201"], 1).unwrap_err().to_string();
        assert!(error.contains("201 after 503") && error.contains("11"), "{error}");
        assert!(record().expect_only("all", &["302", "201", "201 after 503"], 5).is_ok());
        assert!(record().expect_only("all", &["302", "201", "201 after 503"], 6).is_err());
    }

    #[test]
    fn a_code_that_was_made_twice_is_counted() {
        assert_eq!(record().twice(), 1);
    }
}
