//! Starts a cluster: its programs, who is who on it, etcd and the API server, then the controllers.
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::control_plane::ControlPlane;
use super::credentials::Credentials;
use super::{
    DEFAULT_NAMESPACE, KUBECONFIG_VARIABLE, Kubernetes, PROGRAMS_VARIABLE, SCRIPT, audit, wait_for_service_account,
};
use crate::prepared::{Prepared, not_run, provided, say_not_run};
use crate::server_process::{ServerFolder, lasting_ports};
use crate::sizes::environment;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct KubernetesBuilder {
    pub(super) controllers: bool,
    pub(super) audit_log: bool,
}

impl KubernetesBuilder {
    /// The controller manager and the scheduler: Deployments make pods, owners take what they own with them when they are
    /// deleted, namespaces get what pods need. No pod ever runs: there is no kubelet.
    #[must_use]
    pub fn with_controllers(mut self) -> Self {
        self.controllers = true;
        self
    }

    /// Writes down every request, for [`Kubernetes::audit_log`].
    #[must_use]
    pub fn with_audit_log(mut self) -> Self {
        self.audit_log = true;
        self
    }

    /// Starts the cluster and waits until it serves. None, and a line that says so, where its programs cannot be had or
    /// the tests are to use a cluster that is there already; the first is a failure in CI.
    pub async fn start(self) -> Result<Option<Kubernetes>> {
        if environment(KUBECONFIG_VARIABLE).is_some() {
            say_not_run(&format!("{KUBECONFIG_VARIABLE} is set, and this test harms its cluster or looks into it"));
            return Ok(None);
        }
        self.start_own().await
    }

    pub(super) async fn start_own(self) -> Result<Option<Kubernetes>> {
        let Some(programs) = programs().await? else { return Ok(None) };
        let folder = ServerFolder::new()?;
        let ports: [u16; 3] = lasting_ports(3)?.try_into().ok().context("as many ports as were asked for")?;
        let [etcd_port, peer_port, api_port] = ports;
        let credentials = Credentials::write(&folder, api_port)?;
        let audit = if self.audit_log { audit::arguments(&folder)? } else { Vec::new() };
        let control_plane = ControlPlane::start(&programs, folder.path(), &credentials, [etcd_port, peer_port], audit)?;
        let kubeconfig = credentials.admin.clone();
        let mut cluster = Kubernetes { control_plane: Some(control_plane), programs, kubeconfig, folder };
        cluster.wait_until_serving().await?;
        if self.controllers {
            cluster.start_controllers(&credentials)?;
            wait_for_service_account(&cluster.client().await?, DEFAULT_NAMESPACE).await?;
        }
        Ok(Some(cluster))
    }
}

impl Kubernetes {
    /// The cluster that is there already, with our own kubectl and Helm; none where those cannot be had.
    pub async fn at(kubeconfig: PathBuf) -> Result<Option<Self>> {
        let Some(programs) = programs().await? else { return Ok(None) };
        Ok(Some(Self { control_plane: None, programs, kubeconfig, folder: ServerFolder::new()? }))
    }

    fn start_controllers(&mut self, credentials: &Credentials) -> Result<()> {
        let control_plane = self.control_plane.as_mut().context("the control plane is ours")?;
        control_plane.start_controllers(&self.programs, self.folder.path(), credentials)
    }
}

/// Where the programs are: named by the environment, else built by the script, once a process.
async fn programs() -> Result<Option<PathBuf>> {
    static PROGRAMS: OnceCell<Prepared> = OnceCell::const_new();
    match provided(&PROGRAMS, PROGRAMS_VARIABLE, SCRIPT).await? {
        Prepared::Ready(directory) => Ok(Some(directory.into())),
        Prepared::Missing(reason) => {
            not_run(&format!("the tests on Kubernetes: {reason}"))?;
            Ok(None)
        }
    }
}
