//! The `shortener-operator` program: parses the settings, sets up logging and the client, and calls the library.
//!
//! Exit codes: 0 after a shutdown that was asked for, 2 for a setting that makes no sense, 1 for anything else; with one line that says
//! why.

use std::process::ExitCode;

use clap::Parser;
use kube::Client;
use shortener_operator::check::check;
use shortener_operator::config::{Check, Command, LogFormat, LogLevel, Run, Settings};
use shortener_operator::observe::Scope;
use shortener_operator::{manifest, run};
use shortener_probes::core_dumps;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if let Err(error) = core_dumps::turn_off() {
        return complain(&format!("cannot turn core dumps off: {error}"));
    }
    let settings = Settings::parse();
    let done = match settings.command {
        Command::Run(settings) => reconcile(&settings),
        Command::Check(settings) => check_rights(settings),
        Command::Crd => print(manifest::definition()),
        Command::Rbac(settings) => print(manifest::rbac(&settings)),
        Command::Manifest(settings) => print(manifest::manifest(&settings)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}")),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print(yaml: Result<String, manifest::ManifestError>) -> anyhow::Result<()> {
    print!("{}", yaml?);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the last line of a program that cannot go on belongs to the terminal")]
fn complain(problem: &str) -> ExitCode {
    eprintln!("shortener-operator: {problem}");
    ExitCode::FAILURE
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what was asked for")]
async fn check_rights(settings: Check) -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    let scope = settings.watch_namespace.map_or(Scope::Cluster, Scope::Namespace);
    let own = settings.operator_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let rights = check(&client, &scope, &own).await?;
    println!("an operator can work here: ShortenerClusters are served, and all {rights} rights are there");
    Ok(())
}

#[tokio::main]
async fn reconcile(settings: &Run) -> anyhow::Result<()> {
    log_to_stdout(settings);
    let shutdown = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                // A terminal that closes ends nothing.
                Some(()) = hangup.recv() => {}
            }
        }
        asked.cancel();
    });
    let client = Client::try_default().await?;
    let listener = TcpListener::bind(settings.metrics_addr).await?;
    run(settings, client, listener, shutdown).await?;
    Ok(())
}

fn log_to_stdout(settings: &Run) {
    let level = match settings.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Libraries speak of connections, which is noise until something is wrong with them.
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(format!("warn,shortener_operator={level}")));
    match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        LogFormat::Text => lines.with_target(false).init(),
    }
}
