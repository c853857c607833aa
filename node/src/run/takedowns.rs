//! What is blocked in the store: read at start and every [`LOOK_EVERY`] from then on, and changed by the commands `block` and `unblock`.
//!
//! A command writes into the store itself. Where a node has the data directory of an embedded store for itself, the command leaves an order
//! in a folder of that directory, and the node carries it out.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::once::OnceError;
use crate::ambient::random;
use crate::kv::Kv;
use crate::links::takedowns::{NoTakedown, Order, Takedowns};
use crate::store::StoreError;
use crate::store::domains::registry;
use crate::store::takedowns::{delete_takedown, put_takedown, takedowns};

/// How often a node looks. What is blocked is blocked everywhere within 5 s, with the time that a slow store takes to answer.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a command waits for a node to carry out its order.
const ORDER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a command looks whether it has.
const ORDER_POLL: Duration = Duration::from_millis(50);
/// The folder of orders in a data directory. Its files are words; earlier releases had keys of rows in `orders`.
const FOLDER: &str = "commands";
/// What the name of an order ends with that nobody can carry out.
const REFUSED: &str = "refused";
/// What the name of an order ends with that is not written in full.
const DRAFT: &str = "part";
/// Orders that are carried out in one look.
const ORDERS_MAX: usize = 100;
/// The longest order that is read, in bytes: words in hexadecimal.
const ORDER_BYTES_MAX: u64 = 2_048;

/// Writes an order into the store; gives why there is nothing that it could mean.
pub(super) async fn carry_out(order: &Order, kv: &Kv) -> Result<Result<(), NoTakedown>, StoreError> {
    kv.transact(async |mut txn| {
        let now = txn.now();
        let takedown = match order.takedown(&registry(&txn).await?) {
            Ok(takedown) => takedown,
            Err(refused) => return Ok((txn, Err(refused))),
        };
        match order.is_blocked {
            true => put_takedown(&mut txn, &takedown, now),
            false => delete_takedown(&mut txn, &takedown),
        }
        Ok((txn, Ok(())))
    })
    .await
}

/// Reads what is blocked, now and until `shutdown`; where there is a data `directory`, carries out the orders in it first.
pub(super) async fn follow(kv: Kv, takedowns: Takedowns, directory: Option<PathBuf>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Some(directory) = &directory {
            carry_out_orders(&kv, directory).await;
        }
        if let Err(error) = read(&kv, &takedowns).await {
            tracing::debug!(%error, "what is blocked could not be read and stays as it was");
        }
    }
}

/// Reads what is blocked.
pub(super) async fn read(kv: &Kv, now: &Takedowns) -> Result<(), StoreError> {
    now.set_stored(takedowns(&kv.snapshot().await?).await?);
    Ok(())
}

async fn carry_out_orders(kv: &Kv, directory: &Path) {
    let folder = directory.join(FOLDER);
    let Ok(Ok(orders)) = tokio::task::spawn_blocking(move || orders(&folder)).await else { return };
    for (path, order) in orders {
        if let Some(order) = order {
            match carry_out(&order, kv).await {
                Ok(Ok(())) => tracing::info!(is_blocked = order.is_blocked, "carried out an order to block"),
                Ok(Err(_)) => {
                    // Whoever left it finds it, and says so.
                    let _ =
                        tokio::task::spawn_blocking(move || std::fs::rename(&path, path.with_extension(REFUSED))).await;
                    continue;
                }
                Err(error) => {
                    // It stays, and is tried again.
                    tracing::warn!(%error, "an order to block could not be carried out");
                    return;
                }
            }
        } else {
            tracing::warn!("a file in the folder of orders is none and is deleted");
        }
        // If it cannot be deleted it is carried out once more, which changes nothing.
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    }
}

/// The orders in a folder: by the path, what the file says.
fn orders(folder: &Path) -> io::Result<Vec<(PathBuf, Option<Order>)>> {
    let mut found = Vec::new();
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    // An order that waits has no extension.
    let waiting = paths.filter(|path: &io::Result<PathBuf>| path.as_ref().is_ok_and(|path| path.extension().is_none()));
    for path in waiting.take(ORDERS_MAX) {
        let path = path?;
        let is_short = std::fs::symlink_metadata(&path).is_ok_and(|of| of.is_file() && of.len() <= ORDER_BYTES_MAX);
        let text = if is_short { std::fs::read_to_string(&path).ok() } else { None };
        found.push((path, text.as_deref().and_then(Order::parse)));
    }
    Ok(found)
}

/// Leaves an order for the node that has `directory` for itself, and waits until it is carried out.
pub(super) async fn leave(directory: &Path, order: &Order) -> Result<(), OnceError> {
    let folder = directory.join(FOLDER);
    let path = folder.join(hex::encode(random::<8>()));
    let failed = |source| OnceError::File { path: path.clone(), source };
    write(&folder, &path, &order.to_text()).map_err(failed)?;
    let carried_out = async {
        while path.try_exists().unwrap_or(true) {
            tokio::time::sleep(ORDER_POLL).await;
        }
    };
    if tokio::time::timeout(ORDER_DEADLINE, carried_out).await.is_ok() {
        return match std::fs::remove_file(path.with_extension(REFUSED)) {
            Ok(()) => Err(OnceError::NotOurs(order.refused())),
            Err(_) => Ok(()),
        };
    }
    std::fs::remove_file(&path).map_err(failed)?;
    Err(OnceError::NotCarriedOut)
}

/// Under another name until it is whole, for nobody but the owner to read.
fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension(DRAFT);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_left_and_anything_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let left = [("evil.example", true), ("https://bücher.example/promo", false)]
            .map(|(words, is_blocked)| Order::new(words, is_blocked).unwrap());
        for (name, order) in ["a", "b"].iter().zip(&left) {
            write(folder.path(), &folder.path().join(name), &order.to_text()).unwrap();
        }
        for (name, text) in [
            ("c", "block"),
            ("d", "block zz\n"),
            ("e", "hide 75\n"),
            ("f", ""),
            ("g.part", "block 75"),
            ("h.refused", "block 75"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut found = orders(folder.path()).unwrap();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let found: Vec<_> = found.into_iter().map(|(_, order)| order).collect();
        assert_eq!(found[..2], left.map(Some));
        assert_eq!(found[2..], [const { None }; 4]);
    }
}
