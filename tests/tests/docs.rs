//! The documents keep to the code: the tests they name exist, the settings they list are the node's, their links lead
//! somewhere.
//!
//! In ARCHITECTURE.md, docs/security.md and docs/faults.md a table with the column "Held by" is a promise. Each code span in that column is
//! the name of a test; a row without one says why, in one of the words of [`WITHOUT_A_TEST`].
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::Value;
use shortener_crds::conditions::ConditionType;
use shortener_node::config::Settings;
use shortener_tests::e2e::Scenario;
use shortener_tests::sizes::workspace_root;

const WITH_PROMISES: [&str; 3] = ["ARCHITECTURE.md", "docs/security.md", "docs/faults.md"];
const ALL: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "docs/security.md",
    "docs/faults.md",
    "docs/e2e.md",
    "docs/runbooks.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "charts/shortener-operator/README.md",
];
const MEMBERS: [&str; 5] = ["crds", "node", "node/probes", "operator", "tests"];
/// How a cell begins that names no test.
const WITHOUT_A_TEST: [&str; 3] = ["Not yet held:", "By construction:", "By the gate:"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    workspace_root().expect("the workspace has a root")
}

/// A row of a table: its cells by the names of their columns.
type Cells = BTreeMap<String, String>;

/// The rows of all tables that have `column`.
fn rows_with(text: &str, column: &str) -> Vec<Cells> {
    let mut header: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some(line) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            header = None;
            continue;
        };
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        match &header {
            None => header = Some(cells),
            Some(_) if cells.iter().all(|cell| cell.trim_matches([':', '-']).is_empty()) => {}
            Some(names) if names.iter().any(|name| name == column) => {
                assert_eq!(names.len(), cells.len(), "a row has as many cells as its header: {line}");
                rows.push(names.iter().cloned().zip(cells).collect());
            }
            Some(_) => {}
        }
    }
    rows
}

/// What stands between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of the tests in a file: functions under `#[test]` or `#[tokio::test]`, and those that a contract suite lists.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        match name {
            Some(name) if is_test => {
                tests.insert(name.to_owned());
                is_test = false;
            }
            None if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => is_test = true,
            None if line.starts_with("#[") || line.starts_with("//") => {}
            _ => is_test = false,
        }
    }
    for suite in source.split("contract_suite!(").skip(1) {
        let list = suite.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
        tests.extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    tests
}

fn all_tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for directory in MEMBERS.iter().flat_map(|member| [format!("{member}/src"), format!("{member}/tests")]) {
        rust_files(&root().join(directory), &mut files);
    }
    let sources = files.iter().map(|path| fs::read_to_string(path).expect("a source can be read"));
    // The end-to-end suite has scenarios instead.
    let scenarios = Scenario::ALL.map(|scenario| format!("e2e {}", scenario.name()));
    sources.flat_map(|source| tests_in(&source)).chain(scenarios).collect()
}

#[test]
fn every_promise_names_a_test_that_exists_or_says_why_none_does() {
    let tests = all_tests();
    assert!(tests.contains("every_promise_names_a_test_that_exists_or_says_why_none_does"), "this file was read");
    assert!(tests.contains("no_update_is_lost"), "the contract suite was read");
    let mut broken = Vec::new();
    for document in WITH_PROMISES {
        let rows = rows_with(&read(document), "Held by");
        assert!(rows.len() >= 10, "{document} has its tables");
        for row in rows {
            let held_by = &row["Held by"];
            let named: Vec<_> = code_spans(held_by).collect();
            let explained = WITHOUT_A_TEST.iter().any(|words| held_by.starts_with(words));
            if !explained && named.is_empty() {
                broken.push(format!("{document}: no test and no reason in {row:?}"));
            }
            let missing = named.into_iter().filter(|name| !tests.contains(*name));
            broken.extend(missing.map(|name| format!("{document}: there is no test {name}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The paths of all values of a chart; a map without entries is a value, and so is one whose keys are the user's.
fn values_in(values: &Value, path: &str, found: &mut BTreeSet<String>) {
    let of_the_user = path.ends_with("labels") || path.ends_with("resources");
    match values.as_object().filter(|values| !values.is_empty() && !of_the_user) {
        None => {
            found.insert(path.to_owned());
        }
        Some(values) => {
            for (name, value) in values {
                values_in(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
    }
}

#[test]
fn every_alert_and_every_condition_has_its_runbook() {
    let (runbooks, rules) = (read("docs/runbooks.md"), read("operator/src/plan/resources/prometheus_rule.rs"));
    let alerts: Vec<_> = rules.split("name: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(runbooks.contains(&format!("### {alert}\n")), "docs/runbooks.md says nothing of {alert}");
    }
    for condition in ConditionType::ALL {
        let name = condition.as_str();
        assert!(runbooks.lines().any(|line| line.starts_with('|') && line.contains(name)), "nothing of {name}");
    }
}

#[test]
fn the_charts_readme_lists_its_values_and_no_others() {
    let values: Value = serde_saphyr::from_str(&read("charts/shortener-operator/values.yaml")).expect("it is YAML");
    let mut known = BTreeSet::new();
    values_in(&values, "", &mut known);
    assert!(known.len() > 25, "{known:?}");
    let rows = rows_with(&read("charts/shortener-operator/README.md"), "Value");
    let shown: BTreeSet<String> =
        rows.iter().flat_map(|row| code_spans(&row["Value"]).map(str::to_owned).collect::<Vec<_>>()).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_settings_in_the_readme_are_those_of_the_node_with_their_defaults() {
    let readme = read("README.md");
    let shown: BTreeMap<String, String> = rows_with(&readme, "Variable")
        .into_iter()
        .map(|row| (row["Variable"].trim_matches('`').to_owned(), row["Default"].trim_matches('`').to_owned()))
        .collect();
    let command = Settings::command();
    let known: BTreeMap<String, String> = command
        .get_arguments()
        .filter_map(|argument| {
            let name = argument.get_env()?.to_string_lossy().into_owned();
            let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy());
            Some((name, defaults.collect::<Vec<_>>().join(",")))
        })
        .collect();
    assert!(known.len() > 30, "the settings were read: {known:?}");
    for (name, default) in &shown {
        let known = known.get(name).unwrap_or_else(|| panic!("README.md lists {name}, which is no setting"));
        let known = if known.is_empty() { "–" } else { known };
        assert_eq!(default, known, "the default of {name}");
    }
    let named: BTreeSet<_> = code_spans(&readme).collect();
    let unnamed: Vec<_> = known.keys().filter(|name| !named.contains(name.as_str())).collect();
    assert!(unnamed.is_empty(), "README.md says nothing of {unnamed:?}");
}

#[test]
fn links_and_paths_in_the_documents_lead_somewhere() {
    let mut dead = Vec::new();
    for document in ALL {
        let text = read(document);
        let folder = root().join(document).parent().map(Path::to_path_buf).expect("a document lies in a folder");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|link| !link.is_empty() && !link.contains("://"));
        dead.extend(links.filter(|link| !folder.join(link).exists()).map(|link| format!("{document}: {link}")));
        let is_path = |span: &&str| MEMBERS.iter().any(|member| span.starts_with(&format!("{member}/")));
        let paths = code_spans(&text).filter(is_path).filter(|path| !path.contains([' ', '*']));
        dead.extend(paths.filter(|path| !root().join(path).exists()).map(|path| format!("{document}: {path}")));
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_workspace_and_names_what_it_is_made_from() {
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.split('"').nth(1).expect("the toolchain has a version");
    let dockerfile = read("Dockerfile");
    let images: Vec<_> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(images.iter().all(|image| image.contains(':')), "an image without a tag is another every day: {images:?}");
    assert!(images.iter().any(|image| image.starts_with(&format!("rust:{version}-"))), "{images:?}");
    assert!(dockerfile.contains(&format!("ENV RUSTUP_TOOLCHAIN={version}\n")), "rustup would fetch another");
}
