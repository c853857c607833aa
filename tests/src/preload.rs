//! Libraries of the tests' own that are preloaded into a process, to see or to change what it gets from the system.
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Compiles `tests/env/{name}.c` into `directory`. The C compiler is there: Rust links with it.
pub fn compile(name: &str, directory: &Path) -> Result<PathBuf> {
    let source = format!("{}/env/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let library = directory.join(format!("{name}.so"));
    let mut compile = Command::new("cc");
    let compiled = compile.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).status();
    ensure!(compiled.context("starting cc")?.success(), "{name}.c does not compile");
    Ok(library)
}

/// The wall clocks of some processes, each of which can be set apart from this machine's. Their monotonic clocks stay.
#[derive(Debug)]
pub struct WallClocks {
    library: PathBuf,
    directory: TempDir,
}

impl WallClocks {
    /// Of processes numbered from 0; all are right at first.
    pub fn new(processes: usize) -> Result<Self> {
        let directory = TempDir::new().context("making a directory for clocks")?;
        let clocks = Self { library: compile("clock", directory.path())?, directory };
        (0..processes).try_for_each(|process| clocks.shift(process, 0))?;
        Ok(clocks)
    }

    /// The environment that a process must be started with.
    pub fn environment(&self, process: usize) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![("LD_PRELOAD", text(&self.library)), ("CLOCK_SHIFT", text(&self.file(process)))]
    }

    /// Makes the clock of a process differ from this machine's by so many seconds, at once.
    pub fn shift(&self, process: usize, seconds: i64) -> Result<()> {
        // In place: a file that is cut off for a moment would end whoever has it mapped.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.file(process));
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).context("setting a clock")
    }

    fn file(&self, process: usize) -> PathBuf {
        self.directory.path().join(process.to_string())
    }
}
