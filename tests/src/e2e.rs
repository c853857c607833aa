//! The end-to-end suite: the chart on a real cluster with a kubelet, containers, Services and DNS, under load that counts every answer, while
//! everything that happens to production happens to it. `docs/e2e.md` has the table that it writes.
mod evidence;
mod forward;
mod kind;
mod load;
mod logs;
mod nginx;
mod picture;
pub mod play;
mod record;
mod scenario;
mod scenarios;
mod sizes;
mod world;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use shortener_node::ambient::Clock;

use self::kind::{Found, Kind};
pub use self::scenario::Scenario;
use self::world::World;
use crate::sizes::workspace_root;
use crate::tasks::tiers::Ending;

/// Where the table goes: between these two lines.
const TABLE_BEGINS: &str = "<!-- written by cargo xtask e2e -->\n";
const TABLE_ENDS: &str = "<!-- until here -->\n";
const DOCUMENT: &str = "docs/e2e.md";
/// Next to it.
const PICTURE: &str = "docs/autoscaling.svg";

/// Of why a scenario failed, in the table; the whole of it is printed where it failed.
const REASON_MAX: usize = 300;

/// What one scenario came to.
#[derive(Debug)]
struct Row {
    scenario: Scenario,
    long: bool,
    took: Duration,
    seen: Result<String>,
}

/// Runs these scenarios in this order, prints the table of what was seen, and leaves what tells why in a folder for each that failed. With
/// `long` they are as large as the table says; with `write` the table and the picture go into `docs/`.
pub fn run(scenarios: &[Scenario], long: bool, write: bool) -> Result<Ending> {
    let runtime = tokio::runtime::Runtime::new().context("starting a runtime")?;
    let rows = runtime.block_on(async {
        let kind = match Kind::start().await? {
            Found::Cluster(kind) => *kind,
            Found::Missing(reason) => return Ok(Err(reason)),
        };
        let world = World::new(kind, long).await?;
        world.must_be_empty().await?;
        let rows = run_all(&world, scenarios, write).await;
        let cleaned = world.clean_up().await;
        let rows = rows?;
        cleaned?;
        anyhow::Ok(Ok(rows))
    })?;
    let rows = match rows {
        Ok(rows) => rows,
        Err(reason) => return Ok(Ending::NotRun { reason }),
    };
    let table = table(&rows);
    say(&table);
    let all = u64::try_from(rows.len()).context("counting")?;
    let failed = u64::try_from(rows.iter().filter(|row| row.seen.is_err()).count()).context("counting")?;
    let failures =
        rows.iter().filter_map(|row| Some(format!("{}: {:#}", row.scenario.name(), row.seen.as_ref().err()?)));
    let failures = failures.collect();
    Ok(Ending::Ran { passed: all - failed, failed, succeeded: failed == 0, failures })
}

async fn run_all(world: &World, scenarios: &[Scenario], write: bool) -> Result<Vec<Row>> {
    if let Err(error) = world.start_servers().await {
        let kept = kept_evidence(world, "start").await;
        return Err(error.context(format!("starting the servers; {kept}")));
    }
    let mut rows = Vec::new();
    for scenario in scenarios {
        if scenario.harms_the_cluster() && !world.kind.is_ours() {
            say(&format!("\n{} is NOT RUN: the cluster is not the suite's own", scenario.name()));
            continue;
        }
        let row = run_one(world, *scenario).await;
        if write && row.seen.is_ok() {
            write_document(&row)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

async fn run_one(world: &World, scenario: Scenario) -> Row {
    let clock = Clock::system();
    say(&format!("\n--- {} ---", scenario.name()));
    let mut seen = scenario.run(world).await;
    let took = clock.monotonic();
    match &seen {
        Ok(seen) => say(&format!("{} passed in {:.0} s: {seen}", scenario.name(), took.as_secs_f64())),
        Err(error) => {
            say(&format!("{} FAILED after {:.0} s: {error:#}", scenario.name(), took.as_secs_f64()));
            say(&kept_evidence(world, scenario.name()).await);
        }
    }
    if let Err(error) = scenario.put_right(world).await {
        seen = seen.and(Err(error.context("putting things right for the next scenario")));
    }
    Row { scenario, long: world.long, took, seen }
}

async fn kept_evidence(world: &World, name: &str) -> String {
    match evidence::leave(world, name).await {
        Ok(folder) => format!("logs, events and the resource are in {}", folder.display()),
        Err(error) => format!("logs, events and the resource could not be kept: {error:?}"),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = "| scenario | must hold | seen | minutes |\n|---|---|---|---:|\n".to_owned();
    for Row { scenario, long, took, seen } in rows {
        let seen = match seen {
            Ok(seen) => seen.clone(),
            Err(error) => {
                let why: String = format!("{error:#}").chars().take(REASON_MAX).collect();
                format!("**failed**: {}", why.replace(['\n', '|'], " "))
            }
        };
        let minutes = took.as_secs_f64() / 60.0;
        let form = if *long { "" } else { ", short form" };
        // A string takes whatever is written to it.
        let _ = writeln!(table, "| {} | {} | {seen} | {minutes:.1}{form} |", scenario.title(), scenario.must_hold());
    }
    table
}

/// Puts a row into the document's table, in place of what an earlier run of the same scenario wrote, and the picture beside it.
fn write_document(row: &Row) -> Result<()> {
    let path = workspace_root()?.join(DOCUMENT);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    let (before, rest) = text.split_once(TABLE_BEGINS).context("the document has a place for the table")?;
    let (old, after) = rest.split_once(TABLE_ENDS).context("the document has a place for the table")?;
    let text = format!("{before}{TABLE_BEGINS}{}{TABLE_ENDS}{after}", merged(old, &table(std::slice::from_ref(row))));
    std::fs::write(&path, text).with_context(|| format!("writing {DOCUMENT}"))?;
    let drawn = results_folder()?.join(picture::FILE);
    if row.scenario == Scenario::Load {
        std::fs::copy(drawn, workspace_root()?.join(PICTURE)).with_context(|| format!("writing {PICTURE}"))?;
    }
    Ok(())
}

/// A table with the new row of each scenario that has one, else the old, in the order of the scenarios.
fn merged(old: &str, new: &str) -> String {
    let head = new.split_inclusive('\n').take(2).collect::<String>();
    let row = |table: &str, scenario: Scenario| {
        let begin = format!("| {} |", scenario.title());
        table.lines().find(|line| line.starts_with(&begin)).map(|line| format!("{line}\n"))
    };
    Scenario::ALL
        .iter()
        .filter_map(|scenario| row(new, *scenario).or_else(|| row(old, *scenario)))
        .fold(head, |table, row| table + &row)
}

/// A folder for what is to be looked at afterwards, beside this program.
fn results_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("asking for this program's path")?;
    let folder = program.parent().context("a program lies in a folder")?.join("e2e");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// A folder in that one, without what an earlier run left there.
fn empty_folder(name: &str) -> Result<PathBuf> {
    let folder = results_folder()?.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

#[expect(clippy::print_stdout, reason = "the suite's own output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: Scenario, seen: &str) -> Row {
        Row { scenario, long: true, took: Duration::from_secs(90), seen: Ok(seen.to_owned()) }
    }

    #[test]
    fn a_scenario_that_was_run_again_replaces_its_row_alone() {
        let old = table(&[row(Scenario::Install, "old"), row(Scenario::Store, "stays")]);
        let new = table(&[row(Scenario::Install, "new"), row(Scenario::Load, "more")]);
        let expected =
            table(&[row(Scenario::Install, "new"), row(Scenario::Load, "more"), row(Scenario::Store, "stays")]);
        assert_eq!(merged(&old, &new), expected);
        assert_eq!(merged("", &new), new);
    }

    #[test]
    fn a_row_of_a_scenario_that_failed_says_why_in_one_line() {
        let failed = Row {
            scenario: Scenario::Away,
            long: true,
            took: Duration::ZERO,
            seen: Err(anyhow::anyhow!("two\nlines | more")),
        };
        let table = table(&[failed]);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.contains("**failed**: two lines   more"), "{table}");
    }
}
