//! The cluster that the suite runs in: a kind cluster out of `kind-config.yaml`, made where no container registry is (`tests/env/kind`), or the
//! one that `KUBECONFIG` leads to, which must have the images already.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::kubernetes::{KUBECONFIG_VARIABLE, Kubernetes};
use crate::prepared::{Prepared, prepare};
use crate::programs::{beside_this_program, node_program, operator_program};
use crate::server_process::{Afterwards, ServerFolder, fresh_name};
use crate::sizes::{environment, workspace_root};

/// Prepares what a kind cluster takes and prints where it is.
const SCRIPT: &str = "tests/env/kind.sh";
/// The image of the product, with both programs.
pub const IMAGE: &str = "shortener:test";
/// The same once more, for what replaces one by the other.
pub const NEXT_IMAGE: &str = "shortener:next";
/// The image of what the suite runs in pods.
pub const LOAD_IMAGE: &str = "shortener-e2e:test";

const NOT_OURS: &str = "the cluster is not ours to harm";

/// A cluster, ours or not.
#[derive(Debug)]
pub struct Kind {
    /// To use it.
    pub kubernetes: Kubernetes,
    /// What it is called, as are its machines; none of a cluster that is not ours.
    name: Option<String>,
    _down: Option<Afterwards>,
    folder: ServerFolder,
}

/// What there is of it.
#[derive(Debug)]
pub enum Found {
    /// The cluster.
    Cluster(Box<Kind>),
    /// What is missing.
    Missing(String),
}

impl Kind {
    /// Makes the cluster and gives it all images.
    pub async fn start() -> Result<Found> {
        let folder = ServerFolder::new()?;
        if let Some(kubeconfig) = environment(KUBECONFIG_VARIABLE) {
            let kubernetes = Kubernetes::at(kubeconfig.into()).await?;
            let Some(kubernetes) = kubernetes else { return Ok(Found::Missing("kubectl and Helm".to_owned())) };
            return Ok(Found::Cluster(Box::new(Self { kubernetes, name: None, _down: None, folder })));
        }
        let directory = match tokio::task::spawn_blocking(|| prepare(SCRIPT)).await.context("running the script")?? {
            Prepared::Ready(directory) => PathBuf::from(directory),
            Prepared::Missing(reason) => return Ok(Found::Missing(reason)),
        };
        let name = fresh_name("e2e");
        let scripts = workspace_root()?.join("tests/env/kind");
        let down = format!("bash '{}' '{}' \"$1\"", scripts.join("down.sh").display(), directory.display());
        let down = Afterwards::run(&down, &name)?;
        let kubeconfig = folder.path().join("kubeconfig");
        run(Command::new("bash").arg(scripts.join("up.sh")).arg(&directory).arg(&name).arg(&kubeconfig)).await?;
        let kubernetes = Kubernetes::at(kubeconfig).await?.context("Kubernetes' programs are there: kind is")?;
        let cluster = Self { kubernetes, name: Some(name.clone()), _down: Some(down), folder };
        cluster.load_images(&directory, &name).await?;
        Ok(Found::Cluster(Box::new(cluster)))
    }

    /// Runs a command on the control plane's machine; an error where that is not ours.
    pub async fn on_control_plane(&self, command: &[&str]) -> Result<()> {
        let name = self.name.as_deref().context(NOT_OURS)?;
        self.on_machine(&format!("{name}-control-plane"), command).await
    }

    /// Runs a command on a machine by its name in Kubernetes; an error where that is not ours.
    pub async fn on_machine(&self, machine: &str, command: &[&str]) -> Result<()> {
        ensure!(self.is_ours(), NOT_OURS);
        run(in_docker("docker").arg("exec").arg(machine).args(command)).await.map(drop)
    }

    /// Whether it may be harmed.
    pub fn is_ours(&self) -> bool {
        self.name.is_some()
    }

    async fn load_images(&self, directory: &Path, name: &str) -> Result<()> {
        let mut archives: Vec<PathBuf> = std::fs::read_dir(directory.join("images"))
            .context("listing the servers' images")?
            .map(|entry| Ok(entry.context("listing the servers' images")?.path()))
            .collect::<Result<_>>()?;
        let (node, operator) = (node_program()?, operator_program()?);
        let ours: [(&str, Vec<PathBuf>); 3] = [
            (IMAGE, vec![node.clone(), operator.clone()]),
            (NEXT_IMAGE, vec![node, operator]),
            (LOAD_IMAGE, vec![beside_this_program("in_cluster")?]),
        ];
        let script = workspace_root()?.join("tests/env/image.sh");
        for (image, programs) in ours {
            let archive = self.folder.path().join(format!("{}.tar", image.replace(':', "-")));
            run(Command::new("bash").arg(&script).arg(image).arg(&archive).args(programs)).await?;
            archives.push(archive);
        }
        let workers = format!("{name}-worker,{name}-worker2");
        for archive in archives {
            let kind = directory.join("kubernetes/kind");
            let mut load = in_docker(kind.as_os_str());
            load.args(["load", "image-archive", "--name", name, "--nodes", &workers]).arg(archive);
            run(&mut load).await?;
        }
        Ok(())
    }
}

/// A command that talks to the engine that `tests/env/kind/docker.sh` starts.
fn in_docker(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("DOCKER_HOST", "unix:///run/shortener-docker/docker.sock")
        .env("DOCKER_CONFIG", "/run/shortener-docker/config");
    command
}

async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8(output.stdout).with_context(|| format!("reading what {shown} prints"))?;
    ensure!(said.len() < 1 << 24, "{shown} prints too much");
    Ok(said)
}
