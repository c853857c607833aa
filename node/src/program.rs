//! The program: parses the settings, sets up logging, and runs what they ask for.
//!
//! Exit codes: 0 after a shutdown that was asked for, 2 for a setting that makes no sense, 1 for anything else that
//! keeps the node from running; the last two with one line that says why.

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use shortener_probes::core_dumps;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::ambient::Clock;
use crate::config::{Config, Settings, Task};
use crate::logging;
use crate::run::once::{raise_format, run_once, take_down};
use crate::run::{Listeners, Orders, run};
use crate::store::format::{Format, Formats};
use crate::traces::{Traces, TracesError};

/// How long reads of the disk have to end after everything else has.
const STUCK_READS: Duration = Duration::from_millis(200);

/// Runs the program, whose newest format of rows is `newest_format`.
pub fn program(newest_format: Format) -> ExitCode {
    // Before any secret is read.
    if let Err(error) = core_dumps::turn_off() {
        return complain(&format!("cannot turn core dumps off: {error}"), 1);
    }
    let task = match task() {
        Ok(task) => task,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}"), 1),
    };
    let traces = match &task {
        Task::Serve(config) => match listen(config, runtime.handle()) {
            Ok(traces) => traces,
            Err(error) => return complain(&error.to_string(), 1),
        },
        Task::Once(..) | Task::TakeDown(..) | Task::RaiseFormat(..) => None,
    };
    let ended = runtime.block_on(async {
        match task {
            Task::Serve(config) => serve(*config, newest_format).await,
            Task::Once(command, database) => Ok(run_once(command, &database, Clock::system()).await?),
            Task::TakeDown(order, database) => Ok(take_down(&order, &database, Clock::system()).await?),
            Task::RaiseFormat(database) => Ok(raise_format(newest_format, &database, Clock::system()).await?),
        }
    });
    if let Some(traces) = traces {
        traces.stop();
    }
    // A read that a disk does not answer must not keep the process.
    runtime.shutdown_timeout(STUCK_READS);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

/// Sets up the log, and traces if they are asked for.
fn listen(config: &Config, runtime: &Handle) -> Result<Option<Traces>, TracesError> {
    let traces = config.traces.as_ref().map(|settings| Traces::start(settings, runtime.clone(), Clock::system()));
    let traces = traces.transpose()?;
    logging::init(config.log, traces.as_ref().map(Traces::layer));
    Ok(traces)
}

fn task() -> Result<Task, ExitCode> {
    let settings = Settings::read().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // The text is what was asked for; if nobody reads it there is no one to complain to.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => complain(&first_paragraph(&error.to_string()), 2),
    })?;
    settings.task().map_err(|error| complain(&error.to_string(), 2))
}

/// The first paragraph of a message as one line: what is wrong and which values there are, without the hints on usage.
fn first_paragraph(message: &str) -> String {
    let lines = message.trim_start_matches("error: ").lines().map(str::trim);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::print_stderr, reason = "the last line of a program that cannot go on belongs to the terminal")]
fn complain(problem: &str, code: u8) -> ExitCode {
    eprintln!("shortener-node: {problem}");
    ExitCode::from(code)
}

async fn serve(config: Config, newest_format: Format) -> anyhow::Result<()> {
    let orders = Orders::default();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let given = orders.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                // A terminal that closes, or an administrator who has replaced a file.
                Some(()) = hangup.recv() => given.read_files_again(),
            }
        }
        given.shutdown.cancel();
    });
    let listeners = Listeners::bind(&config)?;
    run(config, Formats::up_to(newest_format), listeners, Clock::system(), orders).await?;
    Ok(())
}
