//! The figures of all turns, and the table of them.
use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Load;
use crate::bench::load::Measured;
use crate::bench::machine::{Spread, described};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Asking Redis for a key, without a node.
    BareRedis,
    /// Asking the store for a key, without a node.
    BareStore,
    /// A redirect that the node answers from its own memory.
    Local,
    /// One that Redis answers.
    Redis,
    /// One that the store answers, after Redis did not have it.
    Store,
    /// Making a link.
    Create,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::BareRedis => "Redis alone: `GET`",
            Self::BareStore => "store alone: timestamp, point get",
            Self::Local => "redirect from the node's memory",
            Self::Redis => "redirect from Redis",
            Self::Store => "redirect from the store",
            Self::Create => "create",
        }
    }

    /// What it cannot be faster than, measured in the same round.
    fn bare(self) -> Option<Self> {
        match self {
            Self::Redis => Some(Self::BareRedis),
            Self::Store => Some(Self::BareStore),
            _ => None,
        }
    }
}

/// What one turn measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    p50_ms: f64,
    p99_ms: f64,
    /// The share of the answers that came from where they were to come from.
    from_there: f64,
}

impl Turn {
    /// Of all its latencies.
    pub fn of(measured: &Measured) -> Self {
        Self { p50_ms: measured.quantile_ms(0.5), p99_ms: measured.quantile_ms(0.99), from_there: 1.0 }
    }

    /// The same, of which only this share was answered from where it was to be.
    #[must_use]
    pub fn with_share(self, from_there: f64) -> Self {
        Self { from_there, ..self }
    }
}

/// The turns of all rounds, by what was asked and how many nodes.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<(What, usize), Vec<Turn>>);

impl Figures {
    /// Adds the turn of a round.
    pub fn add(&mut self, what: What, nodes: usize, turn: Turn) {
        self.0.entry((what, nodes)).or_default().push(turn);
    }

    /// One line of the round that is over, for whoever waits.
    #[expect(clippy::print_stderr, reason = "the benchmark's progress")]
    pub fn tell(&self, round: usize) {
        let last = self.0.iter().filter_map(|((what, nodes), turns)| Some((what, nodes, turns.get(round)?)));
        let told = last.map(|(what, nodes, turn)| {
            format!("{what:?} {nodes}: {:.2}/{:.2} ({:.3})", turn.p50_ms, turn.p99_ms, turn.from_there)
        });
        eprintln!("round {}, p50/p99 ms (share from there): {}", round + 1, told.collect::<Vec<_>>().join(", "));
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the benchmark's own output")]
    pub fn print(&self, load: Load) -> Result<()> {
        let Load { rounds, seconds, redirects, creates, connections } = load;
        println!(
            "{}; offered at a fixed rate: {redirects} redirects/s or {creates} creates/s over {connections} connections, whatever the \
             number of nodes; {rounds} rounds of {seconds} s each in turns; median (min–max)\n",
            described()?
        );
        println!("| | nodes | p50 ms | p99 ms | p50 ÷ one node | p99 ÷ one node | p50 ÷ alone | answered from there |");
        println!("|---|---:|---:|---:|---:|---:|---:|---:|");
        for ((what, nodes), turns) in &self.0 {
            let p50 = Spread::of(turns.iter().map(|turn| turn.p50_ms))?;
            let p99 = Spread::of(turns.iter().map(|turn| turn.p99_ms))?;
            let number = if *nodes == 0 { "–".to_owned() } else { nodes.to_string() };
            let one = self.0.get(&(*what, 1)).filter(|_| *nodes > 1);
            let bare = what.bare().and_then(|bare| self.0.get(&(bare, 0)));
            let ratios = [
                ratio(turns, one, |turn| turn.p50_ms)?,
                ratio(turns, one, |turn| turn.p99_ms)?,
                ratio(turns, bare, |turn| turn.p50_ms)?,
            ];
            let from_there = match what {
                What::Local | What::Redis | What::Store => {
                    let least = turns.iter().map(|turn| turn.from_there).fold(1.0, f64::min);
                    format!("≥ {:.1} %", least * 100.0)
                }
                What::BareRedis | What::BareStore | What::Create => "–".to_owned(),
            };
            let [p50_to_one, p99_to_one, to_bare] = ratios;
            println!(
                "| {} | {number} | {p50:.2} | {p99:.2} | {p50_to_one} | {p99_to_one} | {to_bare} | {from_there} |",
                what.name()
            );
        }
        Ok(())
    }
}

/// The ratios of the same rounds: what slowed a round down slowed both.
fn ratio(turns: &[Turn], to: Option<&Vec<Turn>>, figure: impl Fn(&Turn) -> f64) -> Result<String> {
    let Some(to) = to else { return Ok("–".to_owned()) };
    let ratios = turns.iter().zip(to).map(|(turn, to)| figure(turn) / figure(to));
    Ok(format!("{:.2}", Spread::of(ratios).context("comparing rounds")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let turns = |p50s: [f64; 3]| p50s.map(|p50_ms| Turn { p50_ms, p99_ms: 1.0, from_there: 1.0 }).to_vec();
        let (slow, fast) = (turns([2.0, 20.0, 6.0]), turns([1.0, 10.0, 2.0]));
        assert_eq!(ratio(&slow, Some(&fast), |turn| turn.p50_ms).unwrap(), "2.00 (2.00–3.00)");
        assert_eq!(ratio(&slow, None, |turn| turn.p50_ms).unwrap(), "–");
    }
}
