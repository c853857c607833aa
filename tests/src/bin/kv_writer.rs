//! Commits to the store in the directory of the first argument until it is killed, for the crash tests.
use std::path::PathBuf;

use anyhow::{Context, Result};
use shortener_tests::kv_writer::write_for_ever;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = PathBuf::from(arguments.next().context("the store's directory")?);
    let round = arguments.next().context("the name of the round")?;
    write_for_ever(&dir, &round.to_string_lossy(), say).await
}

#[expect(clippy::print_stdout, reason = "what the test reads")]
fn say(line: &str) {
    println!("{line}");
}
