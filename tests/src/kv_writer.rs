//! What the process writes that the crash tests kill, so that they know what must be there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use shortener_node::ambient::Clock;
use shortener_node::kv::embedded::Embedded;
use shortener_node::kv::{Kv, KvError, Row};
use tokio::task::JoinSet;

/// Writers at once: enough that commits are groups.
const WRITERS: usize = 16;
/// Counters that the transactions share, so that some conflict and are tried again.
pub const COUNTERS: usize = 8;
/// Most rows of one transaction, its counter aside.
pub const ROWS_MAX: usize = 5;

/// The counter and the rows of a transaction, by its ID.
pub fn rows_of(id: &str) -> (usize, Vec<Row>) {
    let seed = id.bytes().fold(7_usize, |seed, byte| seed.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let rows = 1 + seed % ROWS_MAX;
    // From nothing up to what is compressed in the journal.
    let row =
        |number| (format!("row/{id}/{number}").into_bytes(), format!("{id} of {rows};").repeat(seed % 300).into());
    (seed % COUNTERS, (0..rows).map(row).collect())
}

/// Opens the store in `dir`, says `open`, and then commits for ever; says each transaction's ID once it is committed.
pub async fn write_for_ever(dir: &Path, round: &str, say: impl Fn(&str) + Clone + Send + 'static) -> Result<()> {
    let kv = Kv::Embedded(Embedded::open(dir, Clock::system())?);
    say("open");
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (kv, say, round) = (kv.clone(), say.clone(), Arc::<str>::from(round));
        writers.spawn(async move {
            for number in 0_u64.. {
                let id = format!("{round}-{writer:02}-{number:08}");
                write(&kv, &id).await?;
                say(&id);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn write(kv: &Kv, id: &str) -> Result<(), KvError> {
    let (counter, rows) = rows_of(id);
    let counter = format!("count/{counter}").into_bytes();
    kv.transact(async |mut transaction| {
        let count = transaction.get(&counter).await?.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        transaction.put(counter.clone(), (count.unwrap_or(0) + 1).to_be_bytes().to_vec());
        for (key, value) in rows.clone() {
            transaction.insert(key, value);
        }
        Ok((transaction, ()))
    })
    .await
}
