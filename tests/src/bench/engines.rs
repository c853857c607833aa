//! `fjall` against `redb` on the shortener's access pattern: random point gets among many links, and durable creates by
//! 64 clients through a group commit. Shows which engine the embedded store should stand on.
//!
//! Each phase of each engine is a process of its own, so that its memory is its own, and the engines take turns, so that
//! what else the machine does falls on both. Both get the same cache; what does not fit there comes from the system's
//! page cache, which holds everything until it is emptied for the cold gets (as root only). Creates end without closing
//! the store, so that the next opening is one after a crash.

mod candidates;
mod phases;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::sizes::environment;
use candidates::Candidate;

/// Tells a child process which phase to run: engine, phase, directory and number of links.
const PHASE_VARIABLE: &str = "SHORTENER_BENCH_ENGINES_PHASE";
/// How often each phase is run on each engine; the median counts.
const ROUNDS: usize = 3;

/// What one phase of one engine measured. What it does not measure is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Figures {
    open_ms: f64,
    seconds: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    rss_mib: f64,
    disk_mib: f64,
    group: f64,
}

/// Compares the engines at this many links and prints the table.
pub fn run(links: u64) -> Result<()> {
    if let Some(phase) = environment(PHASE_VARIABLE) {
        return phases::run(&phase);
    }
    let dir = tempfile::Builder::new().prefix("engines-").tempdir_in(target_dir()?)?;
    let run_both = |phase: &str| -> Result<[Figures; 2]> {
        let each = Candidate::ALL.map(|candidate| child(candidate, phase, dir.path(), links));
        let [first, second] = each;
        Ok([first?, second?])
    };
    let median_of = |phase: &str| -> Result<[Figures; 2]> {
        let rounds = (0..ROUNDS).map(|_| run_both(phase)).collect::<Result<Vec<_>>>()?;
        Ok([0, 1].map(|engine| median(rounds.iter().map(|round| round[engine]).collect())))
    };
    let loaded = run_both("load")?;
    let hits = median_of("hits")?;
    let misses = median_of("misses")?;
    let creates = median_of("creates")?;
    let crashed = run_both("reopen")?;
    let cold = if empty_page_cache() { Some(median_of("cold")?) } else { None };
    let cold_note = if cold.is_some() { "" } else { "(no cold gets: emptying the page cache takes root)\n" };
    report(
        links,
        &[
            row("load, seconds", loaded, |figures| figures.seconds),
            row("disk after loading, MiB", loaded, |figures| figures.disk_mib),
            row("gets that hit, per second, one thread", hits, |figures| figures.per_second),
            row("· p50, µs", hits, |figures| figures.p50_us),
            row("· p99, µs", hits, |figures| figures.p99_us),
            row("· resident memory, MiB", hits, |figures| figures.rss_mib),
            row("gets that miss, per second, one thread", misses, |figures| figures.per_second),
            row("· p99, µs", misses, |figures| figures.p99_us),
            row("durable creates per second, 64 clients", creates, |figures| figures.per_second),
            row("· p50, µs", creates, |figures| figures.p50_us),
            row("· p99, µs", creates, |figures| figures.p99_us),
            row("· creates in one commit", creates, |figures| figures.group),
            row("· resident memory, MiB", creates, |figures| figures.rss_mib),
            row("opening after a crash, ms", crashed, |figures| figures.open_ms),
            row("disk after the creates, MiB", crashed, |figures| figures.disk_mib),
        ],
    );
    if let Some(cold) = cold {
        report(
            links,
            &[
                row("cold gets per second, one thread", cold, |figures| figures.per_second),
                row("· p50, µs", cold, |figures| figures.p50_us),
                row("· p99, µs", cold, |figures| figures.p99_us),
            ],
        );
    }
    print(cold_note);
    Ok(())
}

/// Runs one phase in a process of its own.
fn child(candidate: Candidate, phase: &str, dir: &Path, links: u64) -> Result<Figures> {
    if phase == "cold" {
        empty_page_cache();
    }
    let dir = dir.join(candidate.name());
    let what = format!("{} {phase} {links} {}", candidate.name(), dir.display());
    // The same arguments lead the child to the same benchmark.
    let arguments = std::env::args_os().skip(1);
    let program = std::env::current_exe().context("finding the benchmark's own program")?;
    let output =
        Command::new(program).args(arguments).env(PHASE_VARIABLE, &what).output().context("starting a phase")?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let figures = serde_json::from_slice(&output.stdout).with_context(|| format!("reading what {what} printed"))?;
    eprintln!("{what}: {figures:?}");
    Ok(figures)
}

/// Where builds go has room, and is a real disk; the system's folder for temporary files may be memory.
fn target_dir() -> Result<std::path::PathBuf> {
    let program = std::env::current_exe().context("finding the benchmark's own program")?;
    Ok(program.parent().context("the program lies in a folder")?.to_path_buf())
}

fn empty_page_cache() -> bool {
    let synced = Command::new("sync").status().is_ok_and(|status| status.success());
    synced && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// The round whose rate is in the middle.
fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

struct Row {
    name: &'static str,
    values: [f64; 2],
}

fn row(name: &'static str, figures: [Figures; 2], value: fn(&Figures) -> f64) -> Row {
    Row { name, values: figures.map(|figures| value(&figures)) }
}

fn report(links: u64, rows: &[Row]) {
    let [first, second] = Candidate::ALL.map(Candidate::name);
    print(&format!("| {links} links | {first} | {second} | {first} / {second} |\n|---|---:|---:|---:|\n"));
    for Row { name, values: [first, second] } in rows {
        print(&format!("| {name} | {first:.0} | {second:.0} | {:.2} |\n", first / second));
    }
}

#[expect(clippy::print_stdout, reason = "the benchmark's own output")]
fn print(text: &str) {
    print!("{text}");
}
