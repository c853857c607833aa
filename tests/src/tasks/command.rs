//! Runs the programs that a task is made of.
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::sizes::workspace_root;

/// A program to be run at the workspace's root.
pub fn command(program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(workspace_root()?).args(arguments);
    Ok(command)
}

/// What `cargo run` tells the program that it runs about its package. A cargo that is told as well takes it for a change: build scripts
/// that look at their own package run again, and with `ring` half of the dependencies would be compiled anew by every second command.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Cargo at the workspace's root; its own messages go to standard error as always.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command("cargo", arguments)?;
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// Runs a command to its end; anything but success is an error that names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    ensure!(status.success(), "{} ended with {status}", shown(command));
    Ok(())
}

/// Runs a command to its end, shows each line of its standard output as it comes, and hands it to `see`.
/// Returns whether the command succeeded.
#[expect(clippy::print_stdout, reason = "passes on what the command prints")]
pub fn run_seeing(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", shown(command)))?;
    let output = child.stdout.take().context("the command's output is piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading the command's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        see(&line);
    }
    Ok(child.wait().with_context(|| format!("waiting for {}", shown(command)))?.success())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
