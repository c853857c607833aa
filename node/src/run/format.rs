//! The keyspace's format: read every [`LOOK_EVERY`], and raised when that is due.

use std::time::Duration;

use shortener_crds::causes::Causes;
use tokio_util::sync::CancellationToken;

use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::format::{Format, Formats};
use crate::store::keyspace;

/// How often a node looks. For so long a node that is too old may meet rows that it reads and cannot change, before it stops.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Raises the keyspace to the newest format that the program knows. The caller sees to it that no node runs which does not know it.
pub(super) async fn raise_to_newest(kv: &Kv, formats: &Formats) {
    formats.want(formats.newest());
    if let Err(error) = look(kv, formats).await {
        // A disk may be full. Redirects go on, and it is tried again.
        tracing::warn!(error = %Causes(&error), "the keyspace's format could not be raised yet");
    }
}

/// Raises the keyspace to `format`, and gives the format before and after; none while the keyspace has no record.
pub(super) async fn raise(kv: &Kv, formats: &Formats, format: Format) -> Result<Option<(Format, Format)>, StoreError> {
    let Some((before, after)) = keyspace::raise_format(kv, format).await? else { return Ok(None) };
    formats.see(after)?;
    if before != after {
        tracing::info!(%before, %after, "raised the keyspace's format: releases that do not know it refuse to start");
    }
    Ok(Some((before, after)))
}

/// Follows the keyspace's format until `shutdown`. Where nobody else has it raised, `is_operated` is false, and the log says once what
/// to do.
pub(super) async fn follow(kv: Kv, formats: Formats, is_operated: bool, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut is_told = is_operated;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match look(&kv, &formats).await {
            Ok(()) if !is_told && formats.written() < formats.newest() => {
                is_told = true;
                tracing::warn!(
                    written = %formats.written(),
                    newest = %formats.newest(),
                    "the keyspace is in an older format; once no node of an earlier release runs, run `shortener-node raise-format`"
                );
            }
            Ok(()) => is_told |= formats.written() == formats.newest(),
            Err(error) => {
                tracing::debug!(%error, "the keyspace's format could not be read or raised; trying again");
            }
        }
    }
}

async fn look(kv: &Kv, formats: &Formats) -> Result<(), StoreError> {
    match formats.due() {
        Some(format) => raise(kv, formats, format).await.map(drop),
        None => match keyspace::format(kv).await? {
            Some(found) => Ok(formats.see(found)?),
            None => Ok(()),
        },
    }
}
