//! The measuring program behind `cargo xtask bench`.
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use shortener_tests::bench::{creates, engines, fleet, memory, operator, redirect, unread};

/// Benchmarks on this machine; each prints its table.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
enum Bench {
    /// The cached redirect beside nginx and beside a bare hyper server
    Redirect(redirect::Load),
    /// Durable creates a second, beside the synced appends of the same disk
    Creates(creates::Load),
    /// Latencies of one, two and four nodes on TiKV and Redis Cluster: redirects by where they are answered from, and creates
    Fleet(fleet::Load),
    /// The operator with many clusters: reconcile times, and memory and CPU while nothing changes
    Operator(operator::Load),
    /// The embedded engine beside the one it was chosen over: point gets, durable creates
    Engines {
        /// How many links lie in the store
        #[arg(long, default_value_t = 10_000_000)]
        links: u64,
    },
    /// Resident memory of the node at many links, or while clients do not read their answers
    Memory {
        /// How many links are created
        #[arg(long, default_value_t = 1_000_000)]
        links: u64,
        /// Draws this picture of clients that do not read instead
        #[arg(long, value_name = "PICTURE")]
        unread: Option<PathBuf>,
        /// With `--unread`: an older node to compare with
        #[arg(long, value_name = "BINARY", requires = "unread")]
        before: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Bench::parse() {
        Bench::Redirect(load) => redirect::run(load).await,
        Bench::Creates(load) => creates::run(load).await,
        Bench::Fleet(load) => fleet::run(load).await,
        Bench::Operator(load) => operator::run(load).await,
        Bench::Engines { links } => tokio::task::spawn_blocking(move || engines::run(links)).await?,
        Bench::Memory { unread: Some(picture), before, .. } => unread::run(before, &picture).await,
        Bench::Memory { links, .. } => memory::run(links).await,
    }
}
