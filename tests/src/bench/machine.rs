//! What a figure is worth depends on where it was seen: the machine in one line, the spread of rounds, memory of a process.
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The unit in which Linux tells programs of time on a core, whatever it counts by itself: the same on all that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Median, smallest and largest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value; of an even number of rounds, the lower of the two.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// Of at least one round.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = rounds.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len().saturating_sub(1) / 2).context("a spread has at least one round")?;
        Ok(Self { median: *median, min: values[0], max: values[values.len() - 1] })
    }
}

impl fmt::Display for Spread {
    /// `12.3 (11.9–12.8)`, with the formatter's precision.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}

/// Cores, memory and system of this machine.
pub fn described() -> Result<String> {
    let cores = std::thread::available_parallelism().context("counting the cores")?;
    let memory_kib = field("/proc/meminfo", "MemTotal:")?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("\"Linux\"");
    Ok(format!("{cores} cores, {:.0} GiB, {}", memory_kib / 1_048_576.0, name.trim_matches('"')))
}

/// Resident memory of a process in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? / 1_024.0)
}

/// Time that a process has been on a core since it started, in its own code and in the kernel for it.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The second word is the program's name in parentheses, which may itself have spaces; the times are words 14 and 15.
    let words = stat.rsplit_once(") ").map(|(_, words)| words.split(' ').skip(11).take(2));
    let ticks: Vec<u64> =
        words.into_iter().flatten().map(str::parse).collect::<Result<_, _>>().context("reading times")?;
    ensure!(ticks.len() == 2, "{path} is not as expected: {stat}");
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / TICKS_PER_SECOND))
}

/// A number in KiB from one of the kernel's tables.
fn field(path: &str, name: &str) -> Result<f64> {
    let table = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let line = table.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {path}"))?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("reading {name} of {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(format!("{spread:.1}"), "2.0 (1.0–3.0)");
        assert!(Spread::of([]).is_err());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_mib(std::process::id()).unwrap() > 0.1);
        assert!(cpu_time(std::process::id()).unwrap() < Duration::from_hours(24));
    }
}
