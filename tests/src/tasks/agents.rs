//! Writes the list of crawlers that the node counts as bots, from the package that `tests/env/agents.txt` pins.
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::command::command;
use crate::sizes::workspace_root;

const SCRIPT: &str = "tests/env/agents.sh";
/// The package, its version, and what it hashes to.
const PIN: &str = "tests/env/agents.txt";
const LIST: &str = "node/data/agents/crawlers.txt";
const LICENCE: &str = "node/data/agents/crawlers.LICENSE";

/// An entry of the package's list, which says more of each.
#[derive(Deserialize)]
struct Entry {
    pattern: String,
}

/// Writes the list anew from the pinned release; with `newest` the pin moves to the newest one first.
pub fn refresh(newest: bool) -> Result<()> {
    let root = workspace_root()?;
    let arguments: &[&str] = if newest { &[SCRIPT, "newest"] } else { &[SCRIPT] };
    let output = command("bash", arguments)?.output().with_context(|| format!("starting {SCRIPT}"))?;
    ensure!(output.status.success(), "{SCRIPT}: {}", String::from_utf8_lossy(&output.stderr));
    let package = String::from_utf8(output.stdout).context("reading the package's folder")?;
    let package = Path::new(package.trim());

    let json = package.join("crawleruseragents/crawler-user-agents.json");
    let json = fs::read_to_string(&json).with_context(|| format!("reading {}", json.display()))?;
    let pin = fs::read_to_string(root.join(PIN)).with_context(|| format!("reading {PIN}"))?;
    fs::write(root.join(LIST), list(&pin, &json)?).with_context(|| format!("writing {LIST}"))?;

    let (version, _) = pinned(&pin)?;
    let licence = package.join(format!("crawler_user_agents-{version}.dist-info/licenses/LICENSE"));
    fs::copy(&licence, root.join(LICENCE)).with_context(|| format!("copying {}", licence.display()))?;
    Ok(())
}

/// The version and the hash that a pin names.
fn pinned(pin: &str) -> Result<(&str, &str)> {
    let pinned = pin.trim().strip_prefix("crawler-user-agents==").and_then(|pin| pin.split_once(" --hash=sha256:"));
    pinned.with_context(|| format!("{PIN} is no pin of one package"))
}

/// The list as it is written: where it comes from, an empty line, and an entry a line.
fn list(pin: &str, json: &str) -> Result<String> {
    let (version, package_hash) = pinned(pin)?;
    let read: Vec<Entry> = serde_json::from_str(json).context("reading the package's list")?;
    let mut entries = String::new();
    for Entry { pattern } in read {
        if pattern.is_empty() || pattern.starts_with('#') || pattern.contains(['\n', '\r']) {
            bail!("{pattern:?} does not fit on a line of its own");
        }
        writeln!(entries, "{pattern}")?;
    }
    Ok(format!(
        "# Crawlers, link previews, monitors and libraries: one regular expression a line that their User-Agent matches.\n\
         # Written by `cargo xtask agents`. Edit programs.txt or browsers.txt instead.\n\
         # Source: crawler-user-agents {version} (PyPI), crawler-user-agents.json. Licence: MIT, see crawlers.LICENSE.\n\
         # SHA-256 of the package: {package_hash}\n\
         # SHA-256 of the entries: {}\n\n{entries}",
        hex::encode(Sha256::digest(&entries))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_repository_is_that_of_the_pinned_release() {
        let root = workspace_root().unwrap();
        let written = fs::read_to_string(root.join(LIST)).unwrap();
        let pin = fs::read_to_string(root.join(PIN)).unwrap();
        let (_, entries) = written.split_once("\n\n").unwrap();
        let patterns: Vec<_> = entries.lines().map(|pattern| serde_json::json!({ "pattern": pattern })).collect();
        let again = list(&pin, &serde_json::to_string(&patterns).unwrap()).unwrap();
        assert!(again == written, "run `cargo xtask agents`: {PIN} and {LIST} disagree");
        assert!(fs::read_to_string(root.join(LICENCE)).unwrap().contains("The MIT License"));
    }

    #[test]
    fn an_entry_that_would_change_the_list_is_refused() {
        let pin = "crawler-user-agents==1.0.0 --hash=sha256:00";
        for pattern in ["", "# a", "a\\nb"] {
            assert!(list(pin, &format!(r#"[{{"pattern":"{pattern}"}}]"#)).is_err(), "{pattern}");
        }
        let written =
            list(pin, r#"[{"pattern":"Googlebot\\/","url":"https://example.com"},{"pattern":"ds9 "}]"#).unwrap();
        assert!(written.ends_with("\n\nGooglebot\\/\nds9 \n"), "{written}");
        assert!(list("crawler-user-agents==1.0.0", "[]").is_err(), "a pin without a hash");
    }
}
