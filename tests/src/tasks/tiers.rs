//! The test tiers, cheapest first, and the table of what each took. A tier that fails does not hide those after it; a
//! tier that cannot run here says so in the table, and fails the run where it is somebody's gate.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shortener_node::ambient::Clock;

use super::command::{cargo, run, run_seeing};
use super::schemathesis;
use crate::e2e::{self, Scenario};
use crate::prepared::{Prepared, prepare};
use crate::sizes::{ON_SERVERS_VARIABLE, SOAK_VARIABLE, in_ci, workspace_root};
use crate::{kubernetes, prometheus, redis_cluster, tikv};

/// The test binary that needs a browser; of the others, some need [`SERVERS`].
const BROWSER: &str = "browser";
/// The scenarios of one node, which run twice: by itself, and on the servers that nodes share.
const HTTP: &str = "http";
/// Servers that several test binaries start: what they are, the script that provides them, and the variable that tells
/// the tests where they are, so that no test binary looks for them again.
const SERVERS: [(&str, &str, &str); 4] = [
    ("PD and the store (built once, which takes minutes)", tikv::SCRIPT, tikv::BINARIES_VARIABLE),
    ("Kubernetes and Helm (built once, which takes minutes)", kubernetes::SCRIPT, kubernetes::PROGRAMS_VARIABLE),
    ("prometheus", prometheus::SCRIPT, prometheus::PROGRAM_VARIABLE),
    ("redis-server", redis_cluster::SCRIPT, redis_cluster::SERVER_VARIABLE),
];

/// How one tier ended.
#[derive(Debug)]
pub enum Ending {
    /// It ran to its end.
    Ran {
        /// How many of its tests passed.
        passed: u64,
        /// How many of its tests failed.
        failed: u64,
        /// Whether the command itself ended well: a test binary that crashes counts nothing.
        succeeded: bool,
        /// The tests that failed, with the first line of what each said, so that the last lines of a long run tell why it failed.
        failures: Vec<String>,
    },
    /// What it needs is not here and could not be installed.
    NotRun {
        /// What is missing.
        reason: String,
    },
}

#[derive(Debug)]
struct Row {
    tier: String,
    took: Duration,
    ending: Ending,
}

/// Runs every tier. With `soak`, the same code with larger numbers.
pub fn run_all(soak: bool) -> Result<()> {
    let clock = Clock::system();
    let mut rows = Vec::new();
    let mut tier = |name: &str, body: &mut dyn FnMut() -> Result<Ending>| {
        announce(name);
        let start = clock.monotonic();
        let ending = body().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Ending::Ran { passed: 0, failed: 1, succeeded: false, failures: vec![format!("{error:#}")] }
        });
        rows.push(Row { tier: name.to_owned(), took: clock.monotonic().saturating_sub(start), ending });
    };

    tier("build", &mut build);
    let mut variables = vec![(SOAK_VARIABLE, if soak { "1" } else { "0" }.to_owned())];
    for (servers, script, variable) in SERVERS {
        tier(servers, &mut || match prepare(script)? {
            Prepared::Missing(reason) => Ok(Ending::NotRun { reason: format!("the tests on them: {reason}") }),
            Prepared::Ready(path) => {
                variables.push((variable, path));
                Ok(Ending::Ran { passed: 0, failed: 0, succeeded: true, failures: Vec::new() })
            }
        });
    }
    let cargo_test = |arguments: &[&str]| cargo_test_with(arguments, &variables);
    tier("unit and property", &mut || cargo_test(&["--lib", "--bins"]));
    tier("examples in the documentation", &mut || cargo_test(&["--doc"]));
    for name in test_binaries()? {
        tier(&name, &mut || cargo_test(&["--test", &name]));
    }
    let needed = [tikv::BINARIES_VARIABLE, redis_cluster::SERVER_VARIABLE];
    let has_servers = needed.iter().all(|needed| variables.iter().any(|(name, _)| name == needed));
    tier("http on TiKV and Redis Cluster", &mut || match has_servers {
        false => Ok(Ending::NotRun { reason: "its servers are not here".to_owned() }),
        true => {
            let variables = [&variables[..], &[(ON_SERVERS_VARIABLE, "1".to_owned())]].concat();
            cargo_test_with(&["--test", HTTP], &variables)
        }
    });
    tier("end to end, in kind", &mut || e2e::run(&Scenario::SHORT, soak, false));
    tier(BROWSER, &mut || match prepare("tests/env/browser.sh")? {
        Prepared::Missing(reason) => Ok(Ending::NotRun { reason }),
        Prepared::Ready(_) => cargo_test(&["--test", BROWSER]),
    });
    tier("schemathesis", &mut || match prepare("tests/env/schemathesis.sh")? {
        Prepared::Missing(reason) => Ok(Ending::NotRun { reason }),
        Prepared::Ready(program) => schemathesis::run(&program, soak),
    });
    report(&rows)
}

/// Compiles the node and every test first, so that the tiers' times are those of the tests. Every call of cargo names the
/// whole workspace: another selection would unify other features and compile the dependencies again.
fn build() -> Result<Ending> {
    run(&mut cargo(&["build", "--workspace", "--all-targets"])?)?;
    Ok(Ending::Ran { passed: 0, failed: 0, succeeded: true, failures: Vec::new() })
}

/// The test binaries of all members but the browser's, one tier each.
fn test_binaries() -> Result<Vec<String>> {
    let root = workspace_root()?;
    let mut names = Vec::new();
    for member in ["crds", "operator", "node", "tests"] {
        // A member without such a directory has unit tests alone.
        let Ok(directory) = std::fs::read_dir(root.join(member).join("tests")) else { continue };
        for entry in directory {
            let path = entry.with_context(|| format!("listing the test binaries of {member}"))?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.retain(|name| name != BROWSER);
    names.sort();
    Ok(names)
}

fn cargo_test_with(arguments: &[&str], variables: &[(&str, String)]) -> Result<Ending> {
    let mut test: Command = cargo(&["test", "--workspace", "--no-fail-fast"])?;
    test.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    let (mut passed, mut failed, mut failures) = (0, 0, Failures::default());
    let succeeded = run_seeing(&mut test, |line| {
        if let Some((more_passed, more_failed)) = counts(line) {
            passed += more_passed;
            failed += more_failed;
        }
        failures.see(line);
    })?;
    Ok(Ending::Ran { passed, failed, succeeded, failures: failures.told })
}

/// What failing tests have said, read line by line from the output of test binaries.
#[derive(Debug, Default)]
struct Failures {
    told: Vec<String>,
    /// The test whose output is being read, until it has told why it failed.
    of: Option<String>,
}

impl Failures {
    fn see(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.of = Some(test.to_owned());
            return;
        }
        let tells = line.starts_with("Error: ") || line.contains("' panicked at ") || line.contains(") panicked at ");
        if let Some(test) = self.of.take_if(|_| tells) {
            self.told.push(format!("{test}: {line}"));
        }
    }
}

/// Passed and failed of the line that ends each test binary: `test result: ok. 3 passed; 0 failed; …`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number_before = |word: &str| {
        let words: Vec<_> = rest.split([' ', ';', '.']).filter(|text| !text.is_empty()).collect();
        words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok())
    };
    Some((number_before("passed")?, number_before("failed")?))
}

#[expect(clippy::print_stdout, reason = "the task's own output")]
fn announce(tier: &str) {
    println!("\n=== {tier} ===");
}

#[expect(clippy::print_stdout, reason = "the task's own output")]
fn report(rows: &[Row]) -> Result<()> {
    println!("\n| tier | minutes | passed | failed | |\n|---|---:|---:|---:|---|");
    let (mut all_passed, mut all_failed, mut not_run, mut broken) = (0, 0, 0, 0);
    for Row { tier, took, ending } in rows {
        let minutes = took.as_secs_f64() / 60.0;
        match ending {
            Ending::Ran { passed, failed, succeeded, failures: _ } => {
                let verdict = if *succeeded { "ok" } else { "FAILED" };
                println!("| {tier} | {minutes:.1} | {passed} | {failed} | {verdict} |");
                all_passed += passed;
                all_failed += failed;
                broken += u32::from(!succeeded);
            }
            Ending::NotRun { reason } => {
                println!("| {tier} | {minutes:.1} | | | NOT RUN: {reason} |");
                not_run += 1;
            }
        }
    }
    for Row { tier, ending, .. } in rows {
        if let Ending::Ran { failures, .. } = ending {
            for failure in failures {
                println!("\n{tier}: {failure}");
            }
        }
    }
    let minutes = rows.iter().map(|row| row.took).sum::<Duration>().as_secs_f64() / 60.0;
    println!("\n{all_passed} passed, {all_failed} failed, {not_run} tiers not run, in {minutes:.1} minutes");
    ensure!(broken == 0, "{broken} tiers failed");
    ensure!(not_run == 0 || !in_ci(), "{not_run} tiers were not run");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_the_line_that_ends_a_test_binary() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("test links::tests::an_alias ... ok"), None);
    }

    #[test]
    fn each_failing_test_tells_its_first_reason() {
        let mut failures = Failures::default();
        for line in [
            "test one ... FAILED",
            "Error: not of a test",
            "---- one stdout ----",
            "Error: it was 503",
            "Error: once more",
            "---- two stdout ----",
            "thread 'two' (7) panicked at tests/x.rs:1:2:",
        ] {
            failures.see(line);
        }
        assert_eq!(failures.told, ["one: Error: it was 503", "two: thread 'two' (7) panicked at tests/x.rs:1:2:"]);
    }

    #[test]
    fn a_tier_that_failed_fails_the_run_and_one_that_passed_does_not() {
        let row = |succeeded| Row {
            tier: "unit".to_owned(),
            took: Duration::ZERO,
            ending: Ending::Ran { passed: 1, failed: 0, succeeded, failures: Vec::new() },
        };
        assert!(report(&[row(true)]).is_ok());
        assert!(report(&[row(true), row(false)]).is_err());
    }
}
