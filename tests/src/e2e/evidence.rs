//! What tells why a scenario failed: what all pods logged, also those that are gone, events, and the resource, in a folder.
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::empty_folder;
use super::world::{MONITORING, NAMESPACE, OPERATOR_NAMESPACE, World};
use crate::kubernetes::copy_folder;

/// Writes it and returns where.
pub async fn leave(world: &World, scenario: &str) -> Result<PathBuf> {
    let folder = empty_folder(&format!("failed-{scenario}"))?;
    let into = format!("--output-directory={}", folder.display());
    let namespaces = format!("--namespaces={NAMESPACE},{OPERATOR_NAMESPACE},{MONITORING}");
    let kubernetes = world.kubernetes();
    copy_folder(world.logs.folder(), &folder.join("logs")).await?;
    // Logs of all containers that are there still, events, and what workloads there are.
    kubernetes.kubectl(&["cluster-info", "dump", &into, &namespaces]).await?;
    for (file, arguments) in [
        ("shortenerclusters.yaml", vec!["get", "shc", "--all-namespaces", "-o", "yaml"]),
        ("leases.yaml", vec!["get", "leases", "--namespace", NAMESPACE, "-o", "yaml"]),
        ("pods.txt", vec!["describe", "pods", "--namespace", NAMESPACE]),
        ("machines.txt", vec!["describe", "nodes"]),
    ] {
        let said = kubernetes.kubectl(&arguments).await.unwrap_or_else(|error| format!("{error:?}"));
        std::fs::write(folder.join(file), said).with_context(|| format!("writing {file}"))?;
    }
    Ok(folder)
}
