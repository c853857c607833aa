//! The engines under comparison, behind the little that the store asks of one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use redb::{Durability, ReadableDatabase, TableDefinition};

/// The same for both; the embedded store's own.
const CACHE_BYTES: usize = 64 << 20;
const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

pub(super) type Row = (Vec<u8>, Vec<u8>);

/// An engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    Fjall,
    Redb,
}

impl Candidate {
    pub(super) const ALL: [Self; 2] = [Self::Fjall, Self::Redb];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.name() == name).with_context(|| format!("no engine {name}"))
    }

    /// Opens the engine with the options that the embedded store sets.
    pub(super) fn open(self, dir: &Path) -> Result<Engine> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Fjall => {
                let database = Database::builder(dir)
                    .cache_size(CACHE_BYTES as u64)
                    .max_journaling_size(256 << 20)
                    .worker_threads(2)
                    .manual_journal_persist(true)
                    .open()?;
                let options = || KeyspaceCreateOptions::default().max_memtable_size(32 << 20);
                let rows = database.keyspace("rows", options)?;
                Engine::Fjall { database, rows }
            }
            Self::Redb => {
                let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(dir.join("redb"))?;
                let transaction = database.begin_write()?;
                transaction.open_table(TABLE)?;
                transaction.commit()?;
                Engine::Redb(database)
            }
        })
    }
}

/// An open engine.
pub(super) enum Engine {
    Fjall { database: Database, rows: Keyspace },
    Redb(redb::Database),
}

impl Engine {
    /// A point get on a snapshot of its own, as a redirect makes it.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(match self {
            Self::Fjall { database, rows } => database.snapshot().get(rows, key)?.map(|value| value.to_vec()),
            Self::Redb(database) => {
                let table = database.begin_read()?.open_table(TABLE)?;
                table.get(key)?.map(|value| value.value().to_vec())
            }
        })
    }

    /// Writes all rows as one, synced when it returns.
    pub(super) fn commit(&self, new_rows: &[Row]) -> Result<()> {
        match self {
            Self::Fjall { database, rows } => {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                for (key, value) in new_rows {
                    batch.insert(rows, key.as_slice(), value.as_slice());
                }
                batch.commit()?;
            }
            Self::Redb(database) => {
                let mut transaction = database.begin_write()?;
                transaction.set_durability(Durability::Immediate)?;
                let mut table = transaction.open_table(TABLE)?;
                for (key, value) in new_rows {
                    table.insert(key.as_slice(), value.as_slice())?;
                }
                drop(table);
                transaction.commit()?;
            }
        }
        Ok(())
    }

    /// Waits until what was loaded lies where it will stay.
    pub(super) fn settle(&self) -> Result<()> {
        let Self::Fjall { database, .. } = self else { return Ok(()) };
        database.persist(PersistMode::SyncAll)?;
        // Five minutes in steps of 100 ms: compaction of the largest load takes one.
        for _ in 0..3_000 {
            if database.outstanding_flushes() == 0 && database.active_compactions() == 0 {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("the engine is still compacting")
    }
}
