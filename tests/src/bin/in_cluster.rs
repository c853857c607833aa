//! What the end-to-end suite runs in pods: load, a proxy that delays, and discovery. It is its image's one program.
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use shortener_tests::delay::{self, Delay};
use shortener_tests::discovery;
use shortener_tests::witness::{ANSWER_WITHIN, Ask, Second, Seconds, ask};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the end-to-end suite runs in pods.
#[derive(Parser)]
enum Command {
    /// Ask so often a second until SIGTERM; prints a line of JSON for each second, once all of it is known
    Load {
        /// How often a second
        #[arg(long)]
        per_second: u32,
        /// What, and how
        #[arg(long)]
        ask: What,
        /// Of links to follow, in turn, or the one to post to
        #[arg(long, required = true)]
        url: Vec<String>,
    },
    /// Tell the load that runs as this container's first process to stop
    Stop,
    /// Pass connections on to a server, as late as its control address was told last: `POST /delay/500` (milliseconds)
    Proxy {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
        /// The server
        #[arg(long)]
        to: SocketAddr,
        /// The control address
        #[arg(long, default_value = "0.0.0.0:20190")]
        control: SocketAddr,
    },
    /// Tell Prometheus where nodes and operators are: `GET /targets`
    Discover {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Kept,
    Fresh,
    Create,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Load { per_second, ask: what, url } => load(per_second, what, url).await,
        Command::Stop => rustix::process::kill_process(rustix::process::Pid::INIT, rustix::process::Signal::TERM)
            .context("signalling the load"),
        Command::Proxy { listen, to, control } => {
            let delay = Delay::default();
            let controlled = delay::control(control, delay.clone());
            tokio::select! {
                ended = delay::serve(listen, to, delay) => ended,
                ended = controlled => ended,
                ended = terminated() => ended,
            }
        }
        Command::Discover { listen } => tokio::select! {
            ended = discovery::serve(listen) => ended,
            ended = terminated() => ended,
        },
    }
}

async fn terminated() -> Result<()> {
    signal(SignalKind::terminate()).context("listening for SIGTERM")?.recv().await;
    Ok(())
}

async fn load(per_second: u32, what: What, urls: Vec<String>) -> Result<()> {
    let ask_for = match what {
        What::Kept => Ask::Kept(urls),
        What::Fresh => Ask::Fresh(urls),
        What::Create => Ask::Create(urls.into_iter().next().context("creates need a URL")?),
    };
    let (seconds, stop) = (Seconds::new(Mutex::new(BTreeMap::new())), CancellationToken::new());
    let asking = tokio::spawn(ask(ask_for, per_second, Arc::clone(&seconds), stop.clone()));
    tokio::spawn(async move {
        // A signal that cannot be had ends it as well: it could not be stopped otherwise.
        let _ = terminated().await;
        stop.cancel();
    });
    while !asking.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        print(&seconds, |second, newest| {
            second.is_complete() && newest - second.at > i64::try_from(ANSWER_WITHIN.as_secs()).unwrap_or(i64::MAX)
        })?;
    }
    print(&seconds, |_, _| true)?;
    asking.await.context("the load ended badly")?
}

/// Prints those of the seconds that are to be, in order, and forgets them.
fn print(seconds: &Seconds, is_due: impl Fn(&Second, i64) -> bool) -> Result<()> {
    let mut seconds = seconds.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = seconds.keys().next_back().copied().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    while let Some(first) = seconds.first_entry() {
        if !is_due(first.get(), newest) {
            break;
        }
        writeln!(out, "{}", serde_json::to_string(&first.remove())?).context("printing")?;
    }
    out.flush().context("printing")
}
