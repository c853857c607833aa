//! How many cores this process may use: what "full" means for it.

use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;

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
