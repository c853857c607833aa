//! How many cores this process may use, which is what "full" means for it, and how long it has used one.

use std::path::Path;
use std::time::Duration;

use prometheus::Counter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

/// The quota of the process's control group as a container sees it, if it has one; else the cores of the machine.
pub fn limit() -> f64 {
    let read = |name: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok();
    let second = || Some(format!("{} {}", read("cpu/cpu.cfs_quota_us")?.trim(), read("cpu/cpu.cfs_period_us")?.trim()));
    let quota = read("cpu.max").or_else(second).and_then(|text| quota(&text));
    quota.unwrap_or_else(|| {
        std::thread::available_parallelism()
            .map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(u32::MAX)))
    })
}

/// Reads `quota period` in microseconds, as version 2 writes it; `max` and -1 are no quota.
fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u32>().ok());
    let (quota, period) = (words.next()??, words.next()??);
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

/// CPU time of all threads, to the nanosecond: the process collector's counts whole seconds, which for a node with a tenth of a core is
/// every tenth.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// `shortener_cpu_seconds_total`, read whenever it is asked for.
#[derive(Debug)]
pub struct CpuSeconds(Counter);

impl CpuSeconds {
    /// To be registered.
    pub fn new() -> Result<Self, prometheus::Error> {
        Counter::new("shortener_cpu_seconds_total", "CPU time that this process has used.").map(Self)
    }
}

impl Collector for CpuSeconds {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.inc_by((used().as_secs_f64() - self.0.get()).max(0.0));
        self.0.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_goes_on_in_parts_of_a_second() {
        let seconds = CpuSeconds::new().unwrap();
        let read = || {
            seconds.collect();
            seconds.0.get()
        };
        let before = read();
        // Far less than the hundredths that the kernel counts in elsewhere, and never so much as a second.
        let spent = used() + Duration::from_millis(5);
        while used() < spent {}
        let after = read();
        assert!(after - before >= 0.005 && after - before < 1.0, "{before} and then {after}");
    }

    #[test]
    fn a_quota_is_a_share_of_a_period() {
        assert_eq!(quota("50000 100000\n"), Some(0.5));
        assert_eq!(quota("300000 100000"), Some(3.0));
        for none in ["max 100000\n", "-1 100000", "", "100000", "1 0", "0 100000"] {
            assert_eq!(quota(none), None, "{none}");
        }
    }

    #[test]
    fn there_is_some_of_a_core() {
        assert!(limit() > 0.0);
    }
}
