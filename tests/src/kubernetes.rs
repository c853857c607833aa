//! A Kubernetes for the tests: the real etcd, API server and controllers (`tests/env/kubernetes`), on free loopback ports
//! with a folder of their own, so that any number of them live side by side. Their parts can be killed, paused, and put back
//! to how they were. With `KUBECONFIG` the same tests run against the cluster that it leads to, which is left as it is: only
//! the tests that harm a cluster, or look into its API server, are then not run.
mod audit;
mod builder;
mod commands;
mod control_plane;
mod credentials;
mod service_account;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;

pub use self::audit::{AuditEvent, ObjectReference};
pub use self::builder::KubernetesBuilder;
use self::control_plane::ControlPlane;
pub use self::control_plane::{Part, Snapshot, copy_folder};
use crate::server_process::{ServerFolder, fresh_name, wait_until};
use crate::sizes::environment;

/// Leads to a cluster that is there already, to be used instead of one of our own; kubectl's own variable.
pub const KUBECONFIG_VARIABLE: &str = "KUBECONFIG";
/// Names the directory with the programs when they are built already.
pub const PROGRAMS_VARIABLE: &str = "SHORTENER_KUBERNETES_DIR";
/// Builds them and prints that directory.
pub const SCRIPT: &str = "tests/env/kubernetes.sh";

/// An API server is ready in 5 s on two idle cores.
const START_DEADLINE: Duration = Duration::from_mins(2);
/// A namespace that every cluster has.
const DEFAULT_NAMESPACE: &str = "default";
/// What the controllers give to every namespace, and pods run as unless they name another.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    // Processes come before their folder: fields are dropped in this order.
    control_plane: Option<ControlPlane>,
    programs: PathBuf,
    kubeconfig: PathBuf,
    folder: ServerFolder,
}

impl Kubernetes {
    /// A cluster of etcd and an API server, and nothing that acts on what is written there.
    pub fn builder() -> KubernetesBuilder {
        KubernetesBuilder { controllers: false, audit_log: false }
    }

    /// The cluster, with controllers, that the tests of this binary share: each takes a namespace of its own, and none
    /// harms it. None as for [`KubernetesBuilder::start`], but for a cluster that is there already, which is then the
    /// shared one.
    pub async fn shared() -> Result<Option<&'static Self>> {
        static SHARED: OnceCell<Option<Kubernetes>> = OnceCell::const_new();
        let start = async || match environment(KUBECONFIG_VARIABLE) {
            Some(kubeconfig) => Self::at(kubeconfig.into()).await,
            None => Self::builder().with_controllers().start_own().await,
        };
        Ok(SHARED.get_or_try_init(start).await?.as_ref())
    }

    /// The directory that holds kubectl and Helm.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// A file by which kubectl, Helm and every client come in as the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's settings for a client, to be altered before [`Client::try_from`].
    pub async fn config(&self) -> Result<Config> {
        read_config(&self.kubeconfig).await
    }

    /// A client for the administrator. It lives no longer than the runtime of the test that makes it.
    pub async fn client(&self) -> Result<Client> {
        Client::try_from(self.config().await?).context("making a client")
    }

    /// Makes a namespace that no other test has, and returns its name.
    pub async fn namespace(&self, test: &str) -> Result<String> {
        let name = fresh_name(test);
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let client = self.client().await?;
        let created = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        created.with_context(|| format!("making the namespace {name}"))?;
        if self.control_plane.as_ref().is_none_or(ControlPlane::has_controllers) {
            wait_for_service_account(&client, &name).await?;
        }
        Ok(name)
    }

    /// Kills a part of the control plane. What the API server has acknowledged is there when it is started again.
    pub fn kill(&self, part: Part) -> Result<()> {
        self.control_plane()?.process(part)?.kill()
    }

    /// The process of a part.
    pub fn pid(&self, part: Part) -> Result<u32> {
        self.control_plane()?.process(part)?.pid().context("it does not run")
    }

    /// Starts a killed part on its old data and address, and waits until the control plane serves.
    pub async fn restart(&self, part: Part) -> Result<()> {
        self.control_plane()?.process(part)?.start_again()?;
        self.wait_until_serving().await
    }

    /// Makes a part hang: connections stay open and nothing answers.
    pub fn pause(&self, part: Part) -> Result<()> {
        self.control_plane()?.process(part)?.pause()
    }

    /// Lets a hanging part go on.
    pub fn resume(&self, part: Part) -> Result<()> {
        self.control_plane()?.process(part)?.resume()
    }

    /// Copies all that etcd holds at this moment, as a snapshot of its disk would.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.control_plane()?.snapshot(self.folder.path()).await
    }

    /// Puts everything back to how it was at the snapshot, versions of resources included, and starts all parts anew.
    pub async fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        let control_plane = self.control_plane()?;
        control_plane.kill_all()?;
        control_plane.put_back(snapshot).await?;
        for part in [Part::Etcd, Part::ApiServer] {
            control_plane.process(part)?.start_again()?;
        }
        self.wait_until_serving().await?;
        control_plane.start_controllers_again()
    }

    /// Waits until etcd and the API server, if they are up, answer.
    pub async fn wait_until_serving(&self) -> Result<()> {
        let control_plane = self.control_plane()?;
        let client = self.client().await?;
        wait_until("the API server is ready", START_DEADLINE, async || {
            control_plane.expect_running()?;
            Ok(!control_plane.is_to_serve() || control_plane.serves(&client).await)
        })
        .await
    }

    /// What the API server was asked so far, by whom, and what it answered: needs [`KubernetesBuilder::with_audit_log`].
    pub fn audit_log(&self) -> Result<Vec<AuditEvent>> {
        self.control_plane()?;
        audit::read(self.folder.path())
    }

    fn control_plane(&self) -> Result<&ControlPlane> {
        self.control_plane.as_ref().context("the cluster is not ours to look into or harm")
    }
}

/// Settings for a client out of a kubeconfig.
async fn read_config(kubeconfig: &Path) -> Result<Config> {
    let shown = kubeconfig.display();
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {shown}"))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("understanding {shown}"))
}

/// Pods of a new namespace are refused until the controllers have made the service account that they run as.
async fn wait_for_service_account(client: &Client, namespace: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    wait_until("a new namespace has its ServiceAccount", START_DEADLINE, async || {
        Ok(accounts.get_opt(DEFAULT_SERVICE_ACCOUNT).await.context("asking for a ServiceAccount")?.is_some())
    })
    .await
}
