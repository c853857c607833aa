//! The project's tasks: `cargo xtask --help`.
use anyhow::Result;
use clap::Parser;
use shortener_tests::e2e::Scenario;
use shortener_tests::tasks::{agents, bench, checks, cluster, end_to_end, tiers};

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Check the formatting
    Fmt,
    /// Run the lints, warnings denied
    Clippy,
    /// Build the documentation, warnings denied
    Docs,
    /// Check licences, sources and bans of all dependencies
    Deny,
    /// Compare all dependencies with the database of known faults, which is fetched from the internet
    Advisories,
    /// Run every test tier in its short form; prints the minutes of each
    Test,
    /// Run the same tiers with larger numbers: minutes of outage, kill loops, millions of creates
    Soak,
    /// Run the end-to-end scenarios in a kind cluster, or in the one that KUBECONFIG leads to
    E2e {
        /// Which; all unless named
        #[arg(value_enum)]
        scenarios: Vec<Scenario>,
        /// With the numbers of the short form
        #[arg(long)]
        short: bool,
        /// Write the table and the picture into docs/
        #[arg(long)]
        write: bool,
    },
    /// Make a kind cluster with TiKV, Redis Cluster, Prometheus and the image on this machine, to install the operator in; Ctrl-C removes it
    Kind,
    /// Start three nodes behind one port, with all that they need, on this machine, to play with; Ctrl-C ends them
    Cluster {
        /// The port that the nodes are behind
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Write the list of crawlers that count as bots anew, from the pinned release of its package
    Agents {
        /// Move the pin to the newest release first
        #[arg(long)]
        newest: bool,
    },
    /// Run a benchmark on this machine and print its table
    Bench {
        /// The benchmark and its arguments; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Fmt => checks::fmt(),
        Task::Clippy => checks::clippy(),
        Task::Docs => checks::docs(),
        Task::Deny => checks::deny(),
        Task::Advisories => checks::advisories(),
        Task::Test => tiers::run_all(false),
        Task::Soak => tiers::run_all(true),
        Task::E2e { scenarios, short, write } => end_to_end::run(&scenarios, short, write),
        Task::Kind => end_to_end::cluster_to_play_with(),
        Task::Cluster { port } => cluster::run(port),
        Task::Agents { newest } => agents::refresh(newest),
        Task::Bench { arguments } => bench::bench(&arguments),
    }
}
