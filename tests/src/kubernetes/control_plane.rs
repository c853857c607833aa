//! The processes of a control plane, and the copies of what etcd holds.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use tokio::process::Command;
use tokio::time::timeout;

use super::credentials::Credentials;
use crate::server_process::{ServerProcess, fresh_name};

/// An API server that hangs is asked again, not waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// Addresses of Services. They lead nowhere without a kubelet, so that all clusters may have the same.
const SERVICE_ADDRESSES: &str = "10.96.0.0/16";
/// The first of them is the API server's.
pub(super) const SERVICE_ADDRESS: &str = "10.96.0.1";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Where etcd keeps its data, in the cluster's folder.
const ETCD_DATA: &str = "etcd";

/// A process of the control plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The store of all resources.
    Etcd,
    /// What every client talks to.
    ApiServer,
    /// What turns Deployments into pods, and the rest of what acts on resources.
    ControllerManager,
    /// What gives pods to machines.
    Scheduler,
}

/// All that etcd held at one moment.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

#[derive(Debug)]
pub(super) struct ControlPlane {
    // Whoever asks comes before whom it asks: fields are dropped, and so killed, in this order.
    controllers: Option<[ServerProcess; 2]>,
    api_server: ServerProcess,
    etcd: ServerProcess,
    etcd_data: PathBuf,
}

impl ControlPlane {
    /// Starts etcd, on two ports for clients and peers, and the API server, with further arguments.
    pub(super) fn start(
        programs: &Path,
        folder: &Path,
        credentials: &Credentials,
        etcd_ports: [u16; 2],
        api_server_arguments: Vec<String>,
    ) -> Result<Self> {
        let etcd_data = folder.join(ETCD_DATA);
        let [etcd_url, peer_url] = etcd_ports.map(|port| format!("http://127.0.0.1:{port}"));
        let etcd = vec![
            "--name=etcd".to_owned(),
            format!("--data-dir={}", etcd_data.display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=etcd={peer_url}"),
            // A killed etcd still loses nothing; only a power cut would.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let etcd = start(programs, folder, "etcd", etcd)?;
        let Credentials { api_port, ca, api_server, api_server_key, tokens, tokens_key, .. } = credentials;
        let mut arguments = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={api_port}"),
            // It would publish its address to pods, which loopback is of no use to, and complain.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--client-ca-file={}", ca.display()),
            format!("--tls-cert-file={}", api_server.display()),
            format!("--tls-private-key-file={}", api_server_key.display()),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", tokens.display()),
            format!("--service-account-signing-key-file={}", tokens_key.display()),
        ];
        arguments.extend(api_server_arguments);
        let api_server = start(programs, folder, "kube-apiserver", arguments)?;
        Ok(Self { controllers: None, api_server, etcd, etcd_data })
    }

    /// Starts the controller manager and the scheduler: the API server must be ready, for which they wait but a while.
    pub(super) fn start_controllers(
        &mut self,
        programs: &Path,
        folder: &Path,
        credentials: &Credentials,
    ) -> Result<()> {
        let Credentials { ca, ca_key, tokens_key, controller_manager, scheduler, .. } = credentials;
        // One of each, that serves nobody.
        let alone = |kubeconfig: &Path| {
            let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
            vec![kubeconfig, "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()]
        };
        let mut manager = alone(controller_manager);
        manager.extend([
            "--use-service-account-credentials=true".to_owned(),
            format!("--root-ca-file={}", ca.display()),
            format!("--service-account-private-key-file={}", tokens_key.display()),
            format!("--cluster-signing-cert-file={}", ca.display()),
            format!("--cluster-signing-key-file={}", ca_key.display()),
        ]);
        self.controllers = Some([
            start(programs, folder, "kube-controller-manager", manager)?,
            start(programs, folder, "kube-scheduler", alone(scheduler))?,
        ]);
        Ok(())
    }

    /// Starts them as they were started before, if at all.
    pub(super) fn start_controllers_again(&self) -> Result<()> {
        self.controllers.iter().flatten().try_for_each(ServerProcess::start_again)
    }

    pub(super) fn has_controllers(&self) -> bool {
        self.controllers.is_some()
    }

    pub(super) fn process(&self, part: Part) -> Result<&ServerProcess> {
        let controllers = || self.controllers.as_ref().context("the cluster was started without controllers");
        Ok(match part {
            Part::Etcd => &self.etcd,
            Part::ApiServer => &self.api_server,
            Part::ControllerManager => &controllers()?[0],
            Part::Scheduler => &controllers()?[1],
        })
    }

    pub(super) fn kill_all(&self) -> Result<()> {
        self.processes().try_for_each(ServerProcess::kill)
    }

    /// An error that shows the log of a part that has ended by itself.
    pub(super) fn expect_running(&self) -> Result<()> {
        self.processes().filter(|process| process.pid().is_some()).try_for_each(ServerProcess::expect_running)
    }

    /// Whether nothing that it takes to answer is killed or paused.
    pub(super) fn is_to_serve(&self) -> bool {
        self.etcd.is_up() && self.api_server.is_up()
    }

    /// Whether the API server says that it is ready: etcd answers it, and the rules that every cluster has are there.
    pub(super) async fn serves(&self, client: &Client) -> bool {
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        timeout(ANSWER_DEADLINE, client.request_text(request)).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Copies etcd's data while etcd is stopped (SIGSTOP) for that moment: what is written by then is in the copy.
    pub(super) async fn snapshot(&self, folder: &Path) -> Result<Snapshot> {
        let copy = folder.join(fresh_name("snapshot"));
        let stop = self.etcd.is_up();
        if stop {
            self.etcd.pause()?;
        }
        let copied = copy_folder(&self.etcd_data, &copy).await;
        if stop {
            self.etcd.resume()?;
        }
        copied.map(|()| Snapshot(copy))
    }

    /// Replaces etcd's data; etcd must not run.
    pub(super) async fn put_back(&self, Snapshot(copy): &Snapshot) -> Result<()> {
        ensure!(self.etcd.pid().is_none(), "etcd runs on the data that is to be replaced");
        tokio::fs::remove_dir_all(&self.etcd_data).await.context("removing etcd's data")?;
        copy_folder(copy, &self.etcd_data).await
    }

    fn processes(&self) -> impl Iterator<Item = &ServerProcess> {
        self.controllers.iter().flatten().chain([&self.api_server, &self.etcd])
    }
}

/// Starts one of the programs, with a log of its own.
fn start(programs: &Path, folder: &Path, program: &str, arguments: Vec<String>) -> Result<ServerProcess> {
    let arguments = arguments.into_iter().map(Into::into).collect();
    ServerProcess::start(&programs.join(program), arguments, folder.join(format!("{program}.log")))
}

/// Copies a folder to where none is yet.
pub async fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).output().await.context("starting cp")?;
    let said = String::from_utf8_lossy(&copied.stderr);
    ensure!(copied.status.success(), "copying {} to {}: {said}", from.display(), to.display());
    Ok(())
}
