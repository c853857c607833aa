//! A whole keyspace to JSON Lines and back: links, accounts, counts, marks, as they were at one moment.
//!
//! The first line is the header, then comes one line a row in the order of the keys, and last the number of rows and the
//! SHA-256 of all lines before it, so that a backup that was cut short is known as one. A row is given as it is stored, key and
//! value in base64: its value begins with its version, which every later release reads. What belongs to running
//! processes and to caches is left out (worker windows, where the files are, what caches are still to be told), and so is the
//! search index, which is made of the links again.
//!
//! A restore needs an empty keyspace, and gives it an identity of its own: no cache answers for it with what it knew of the
//! other. The marks are raised past all that may have been minted since the backup was made. Nodes refuse a keyspace
//! that was restored in part.

mod line;

use std::io::{BufRead, Write};
use std::time::Duration;

use sha2::{Digest, Sha256};
use shortener_crds::ids::CodeLength;
use shortener_crds::ids::allocate::restored_mark;

use crate::ambient::{UnixMs, random};
use crate::kv::{Kv, KvError, Row, prefix_range};
use crate::store::format::{Format, Formats};
use crate::store::keyspace::{self, KeyspaceRow, decode_keyspace};
use crate::store::{Kind, StoreError, allocation, key_after};
use line::Line;

/// Rows read at once.
const PAGE_ROWS: usize = 1_000;
/// Rows written in one transaction.
const BATCH_ROWS: usize = 500;
/// Bytes of rows written in one transaction, unless one row alone is larger.
const BATCH_BYTES: usize = 1 << 20;
/// How often a read or a write is tried that the store does not answer, and the pause in between: a store that changes its
/// leader must not cost hours of work.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest line of a backup: the longest row in base64.
const LINE_BYTES_MAX: u64 = 2 << 20;

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is there to back up.
    #[error("the keyspace is empty: no node has ever used it")]
    Empty,
    /// Something is there already.
    #[error("the keyspace is not empty; restore into one that is")]
    NotEmpty,
    /// A line is not what it should be.
    #[error("line {number} of the backup {problem}")]
    Line {
        /// Which, counted from 1.
        number: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The last line is missing.
    #[error("the backup was cut short: its last line is missing")]
    CutShort,
    /// The last line does not fit what came before.
    #[error("the backup is damaged: its last line does not fit what came before")]
    Damaged,
    /// The file failed.
    #[error("reading or writing the backup")]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<KvError> for BackupError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// Whether rows of a kind are in a backup.
fn is_kept(kind: Kind) -> bool {
    use Kind::{Invalidation, Place, SearchIndex, Unindexed, Worker};
    !matches!(kind, Worker | Place | Invalidation | Unindexed | SearchIndex)
}

/// Writes the keyspace as it is now to `out`, tells `progress` how many rows were written so far, and gives their number.
pub async fn back_up(kv: &Kv, now: UnixMs, out: &mut impl Write, progress: impl Fn(u64)) -> Result<u64, BackupError> {
    let snapshot = kv.snapshot().await?;
    let record = snapshot.get(&Kind::Keyspace.rows().start).await?.ok_or(BackupError::Empty)?;
    let mut out = Hashed { inner: out, hash: Sha256::new() };
    out.line(&Line::header(decode_keyspace(&record)?.identity, now))?;
    let (mut range, mut rows) = (prefix_range(Vec::new()), 0);
    loop {
        let page = patiently(|| snapshot.scan(range.clone(), PAGE_ROWS)).await?;
        let Some((last, _)) = page.last() else { break };
        range.start = key_after(last);
        for (key, value) in &page {
            if Kind::of_key(key).is_some_and(is_kept) {
                out.line(&Line::row(key, value))?;
                rows += 1;
            }
        }
        progress(rows);
    }
    let end = Line::End { rows, sha256: out.digest() };
    out.line(&end)?;
    out.inner.flush()?;
    Ok(rows)
}

/// Writes lines and hashes them.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Hashed<W> {
    fn line(&mut self, line: &Line) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.inner.write_all(&text)
    }

    fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

/// Restores what [`back_up`] wrote from `input` into an empty keyspace, tells `progress` how many bytes of it were read so far,
/// and gives the number of rows.
pub async fn restore(kv: &Kv, input: &mut impl BufRead, progress: impl Fn(u64)) -> Result<u64, BackupError> {
    let mut lines = Lines { input, number: 0, bytes: 0, hash: Sha256::new() };
    match lines.next()? {
        Some(Line::Header { .. }) => {}
        Some(_) => return Err(lines.wrong("is no header: is it a backup?")),
        None => return Err(BackupError::CutShort),
    }
    let (mut batch, mut rows, mut record) = (Batch::default(), 0, None);
    loop {
        let digest = lines.digest();
        match lines.next()? {
            Some(Line::Row { kind: _, key, value }) => {
                let (key, value) = lines.decode(&key, &value)?;
                if key == Kind::Keyspace.rows().start {
                    // It comes first: a backup that this program cannot read leaves the keyspace as it was.
                    record = Some(readable(decode_keyspace(&value)?)?);
                }
                if rows == 0 {
                    begin(kv).await?;
                }
                rows += 1;
                if key != Kind::Keyspace.rows().start {
                    batch.add(kv, (key, value)).await?;
                }
                progress(lines.bytes);
            }
            Some(Line::End { rows: expected, sha256 }) => {
                batch.write(kv).await?;
                let record = record.filter(|_| expected == rows && sha256 == digest);
                end(kv, record.ok_or(BackupError::Damaged)?).await?;
                progress(lines.bytes);
                return Ok(rows);
            }
            Some(Line::Header { .. }) => return Err(lines.wrong("is a second header")),
            None => return Err(BackupError::CutShort),
        }
    }
}

fn readable(record: KeyspaceRow) -> Result<KeyspaceRow, StoreError> {
    Formats::up_to(Format::NEWEST).see(record.format)?;
    Ok(record)
}

/// Takes an empty keyspace for a restore.
async fn begin(kv: &Kv) -> Result<(), BackupError> {
    let mut txn = kv.begin().await?;
    if !txn.scan(prefix_range(Vec::new()), 1).await?.is_empty() {
        return Err(BackupError::NotEmpty);
    }
    keyspace::begin_restore(&mut txn);
    match txn.commit().await {
        Err(KvError::AlreadyExists { .. } | KvError::Conflict) => Err(BackupError::NotEmpty),
        committed => Ok(committed?),
    }
}

/// Lets nodes use the keyspace: with an identity of its own, and minting past what may have been minted since.
async fn end(kv: &Kv, record: KeyspaceRow) -> Result<(), BackupError> {
    let record = KeyspaceRow { identity: u128::from_be_bytes(random()), ..record };
    let ended = kv.transact(async |mut txn| {
        for length in CodeLength::all() {
            let mark = allocation::high_water_mark(&txn, length).await?;
            allocation::put_high_water_mark(&mut txn, length, restored_mark(length, mark));
        }
        keyspace::end_restore(&mut txn, &record);
        Ok::<_, StoreError>((txn, ()))
    });
    Ok(ended.await?)
}

/// Rows that are written together.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch {
    async fn add(&mut self, kv: &Kv, row: Row) -> Result<(), KvError> {
        self.bytes += row.0.len() + row.1.len();
        self.rows.push(row);
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.write(kv).await?;
        }
        Ok(())
    }

    /// Writes the rows; what is written twice after an answer was lost is the same.
    async fn write(&mut self, kv: &Kv) -> Result<(), KvError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let write = || {
            kv.transact(async |mut txn| {
                for (key, value) in rows.clone() {
                    txn.put(key, value);
                }
                Ok::<_, KvError>((txn, ()))
            })
        };
        patiently(write).await
    }
}

/// Tries until the store answers. `attempt` must do no harm when it is done twice.
async fn patiently<T, Attempt>(attempt: impl Fn() -> Attempt) -> Result<T, KvError>
where
    Attempt: Future<Output = Result<T, KvError>>,
{
    for _ in 1..TRIES {
        match attempt().await {
            Err(KvError::Unavailable { .. } | KvError::Undetermined) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
    attempt().await
}

/// Reads lines and hashes them.
struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
    hash: Sha256,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Line>, BackupError> {
        let mut text = Vec::new();
        let read = std::io::Read::take(&mut self.input, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        self.hash.update(&text);
        if text.last() != Some(&b'\n') {
            return Err(if read as u64 == LINE_BYTES_MAX { self.wrong("is too long") } else { BackupError::CutShort });
        }
        serde_json::from_slice(&text).map(Some).map_err(|_| self.wrong("is not one of a backup of this version"))
    }

    /// A row's key and value.
    fn decode(&self, key: &str, value: &str) -> Result<Row, BackupError> {
        let row = line::decode(key).zip(line::decode(value)).ok_or_else(|| self.wrong("is not base64"))?;
        let is_known = Kind::of_key(&row.0).is_some_and(is_kept);
        is_known.then_some(row).ok_or_else(|| self.wrong("holds a kind of row that this release does not know"))
    }

    fn wrong(&self, problem: &'static str) -> BackupError {
        BackupError::Line { number: self.number, problem }
    }

    fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

#[cfg(test)]
mod tests;
