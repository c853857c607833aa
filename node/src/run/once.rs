//! What the program does instead of serving: backing up and restoring, with a progress bar on a terminal.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::private_file::Draft;
use super::takedowns::{carry_out, leave};
use super::{Background, RunError, format, open};
use crate::ambient::Clock;
use crate::backup::{BackupError, back_up, restore};
use crate::config::{Copying, Database};
use crate::kv::embedded::OpenError;
use crate::kv::{Kv, KvError};
use crate::links::takedowns::{NoTakedown, Order};
use crate::resilience::BackEndMetrics;
use crate::store::StoreError;
use crate::store::format::{Format, Formats};

/// How long a store on other machines has to answer for the first time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// How long closing the store may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// Why it was not done. One line each.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] RunError),
    /// The store does not answer.
    #[error("the store does not answer")]
    NoStore(#[source] KvError),
    /// A file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It failed on the way.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// No node has used the store yet.
    #[error("the store has no keyspace yet: start a node first")]
    NoKeyspace,
    /// It means nothing to this service.
    #[error(transparent)]
    NotOurs(#[from] NoTakedown),
    /// A node has the store for itself, and did not do it.
    #[error(
        "the node that uses the data directory does not carry out the order: is it of an earlier release, or does it hang?"
    )]
    NotCarriedOut,
    /// What was restored may not be on disk.
    #[error("the store did not close in time")]
    NotClosed,
}

/// Backs up or restores `database`.
pub async fn run_once(command: Copying, database: &Database, clock: Clock) -> Result<(), OnceError> {
    let mut background = Background { shutdown: CancellationToken::new(), tasks: Vec::new() };
    let metrics = BackEndMetrics::register(&Registry::new()).map_err(RunError::from)?;
    let kv = open(database, &clock, &metrics, &mut background).map_err(RunError::from)?;
    answers(&kv).await.map_err(OnceError::NoStore)?;
    let done = match &command {
        Copying::Backup { file } => to_file(&kv, &clock, file).await,
        Copying::Restore { file } => from_file(&kv, file).await,
    };
    let is_closed = kv.close(CLOSE_DEADLINE).await;
    background.stop().await;
    done?;
    if is_closed { Ok(()) } else { Err(OnceError::NotClosed) }
}

/// Blocks something in `database`, or lets it be again.
pub async fn take_down(order: &Order, database: &Database, clock: Clock) -> Result<(), OnceError> {
    let mut background = Background { shutdown: CancellationToken::new(), tasks: Vec::new() };
    let metrics = BackEndMetrics::register(&Registry::new()).map_err(RunError::from)?;
    match open(database, &clock, &metrics, &mut background) {
        Ok(kv) => {
            answers(&kv).await.map_err(OnceError::NoStore)?;
            let done = carry_out(order, &kv).await;
            let is_closed = kv.close(CLOSE_DEADLINE).await;
            background.stop().await;
            done??;
            if !is_closed {
                return Err(OnceError::NotClosed);
            }
        }
        Err(OpenError::InUse { dir }) => leave(&dir, order).await?,
        Err(error) => return Err(RunError::from(error).into()),
    }
    let done = if order.is_blocked { "blocked" } else { "no longer blocked" };
    let _ = writeln!(io::stderr(), "{done}: on every node within 5 s");
    Ok(())
}

/// Lets nodes write rows of the format `newest` in `database`. A node that uses an embedded store has done so when it started.
pub async fn raise_format(newest: Format, database: &Database, clock: Clock) -> Result<(), OnceError> {
    let mut background = Background { shutdown: CancellationToken::new(), tasks: Vec::new() };
    let metrics = BackEndMetrics::register(&Registry::new()).map_err(RunError::from)?;
    let kv = open(database, &clock, &metrics, &mut background).map_err(RunError::from)?;
    answers(&kv).await.map_err(OnceError::NoStore)?;
    let raised = format::raise(&kv, &Formats::up_to(newest), newest).await;
    let is_closed = kv.close(CLOSE_DEADLINE).await;
    background.stop().await;
    let (before, after) = raised?.ok_or(OnceError::NoKeyspace)?;
    if !is_closed {
        return Err(OnceError::NotClosed);
    }
    let done = match before == after {
        true => format!("the keyspace was in format {after} already"),
        false => {
            format!("raised the keyspace from format {before} to {after}: releases that do not know it refuse to start")
        }
    };
    let _ = writeln!(io::stderr(), "{done}");
    Ok(())
}

/// Waits until the store answers: a connection is made in the background.
async fn answers(kv: &Kv) -> Result<(), KvError> {
    let answering = async {
        while kv.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(CONNECT_DEADLINE, answering).await {
        Ok(()) => Ok(()),
        Err(_) => kv.ping().await,
    }
}

async fn to_file(kv: &Kv, clock: &Clock, path: &Path) -> Result<(), OnceError> {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {human_pos} rows in {elapsed} ({per_sec})"));
    let progress = |rows| bar.set_position(rows);
    if is_standard(path) {
        let rows = back_up(kv, clock.now(), &mut BufWriter::new(io::stdout().lock()), progress).await?;
        finish(&bar, &format!("backed up {rows} rows"));
        return Ok(());
    }
    let failed = |source| OnceError::File { path: path.to_owned(), source };
    // Under another name until it is whole: half a backup must not look like one. It holds password hashes, and the key that
    // codes are permuted with.
    let draft = Draft::create(path).map_err(failed)?;
    let mut out = BufWriter::new(draft.file());
    let rows = back_up(kv, clock.now(), &mut out, progress).await?;
    out.flush().map_err(failed)?;
    drop(out);
    draft.publish().map_err(failed)?;
    finish(&bar, &format!("backed up {rows} rows to {}", path.display()));
    Ok(())
}

async fn from_file(kv: &Kv, path: &Path) -> Result<(), OnceError> {
    let failed = |source| OnceError::File { path: path.to_owned(), source };
    let (rows, bar) = if is_standard(path) {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {bytes} in {elapsed} ({bytes_per_sec})"));
        let mut input = BufReader::new(io::stdin());
        (restore(kv, &mut input, |bytes| bar.set_position(bytes)).await?, bar)
    } else {
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let bar = ProgressBar::new(bytes).with_style(style("{wide_bar} {percent} % of {total_bytes}, {eta} left"));
        let mut input = BufReader::new(file);
        (restore(kv, &mut input, |bytes| bar.set_position(bytes)).await?, bar)
    };
    finish(&bar, &format!("restored {rows} rows"));
    Ok(())
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// A bar's style; the templates are ours and known to be right.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Replaces the bar by a last line, on standard error: a backup may go to standard output.
fn finish(bar: &ProgressBar, line: &str) {
    bar.finish_and_clear();
    // If nobody reads it there is no one to complain to.
    let _ = writeln!(io::stderr(), "{line}");
}
