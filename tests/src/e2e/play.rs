//! The suite's cluster to play with, before anything of the product is installed.
use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::kind::{Found, IMAGE, Kind};
use super::say;
use super::world::{MONITORING, NAMESPACE, World};
use crate::kubernetes::KUBECONFIG_VARIABLE;
use crate::sizes::environment;

/// Makes the cluster, with TiKV, Redis Cluster, Prometheus and the product's image in it, says how to use it, and removes it at Ctrl-C or
/// SIGTERM.
pub fn run() -> Result<()> {
    let other = environment(KUBECONFIG_VARIABLE);
    ensure!(other.is_none(), "{KUBECONFIG_VARIABLE} names a cluster: unset it, this makes one of its own");
    Runtime::new().context("starting a runtime")?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        say("starting; the first time, Kubernetes and a machine for it are built, which takes many minutes");
        // What has been started by then is ended when it is dropped.
        let world = tokio::select! {
            world = start() => world?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        say(&description(&world));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        say("stopping");
        drop(world);
        Ok(())
    })
}

async fn start() -> Result<World> {
    let kind = match Kind::start().await? {
        Found::Cluster(kind) => *kind,
        Found::Missing(reason) => bail!("a kind cluster cannot be had here: {reason}"),
    };
    let world = World::new(kind, false).await?;
    world.start_servers().await?;
    Ok(world)
}

fn description(world: &World) -> String {
    let kubernetes = world.kubernetes();
    let programs = kubernetes.programs().display();
    let (repository, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
    format!(
        "The cluster is there, with TiKV and Redis Cluster in the namespace {NAMESPACE} and Prometheus in {MONITORING} (http://localhost:9090).\n\
         In another terminal:\n  \
         export KUBECONFIG={} PATH={programs}:$PATH\n\
         and on with the README; the image is repository {repository}, tag {tag}, and is on the machines already.\n\
         Ctrl-C removes everything.",
        kubernetes.kubeconfig().display()
    )
}
