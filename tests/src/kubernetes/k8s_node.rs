//! A machine that pods run on: namespaces of its own for mounts, processes and the network on this machine, and in them a
//! real containerd, kubelet and kube-proxy. All of it ends with its first process, pods and mounts included.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::START_DEADLINE;
use super::credentials::Credentials;
use super::network::Network;
use crate::prepared::{Prepared, not_run, prepare};
use crate::server_process::{Afterwards, DIE_WITH_PARENT, ServerFolder, ServerProcess, wait_until};
use crate::sizes::{environment, workspace_root};

/// Says that what a kubelet needs beside it is installed already.
pub const CONTAINERD_VARIABLE: &str = "SHORTENER_CONTAINERD";
/// Installs that and prints containerd's path.
pub const SCRIPT: &str = "tests/env/containerd.sh";

const INIT_SCRIPT: &str = include_str!("k8s_node_init.sh");
const LINK_SCRIPT: &str = include_str!("k8s_node_link.sh");
const GONE_SCRIPT: &str = include_str!("k8s_node_gone.sh");
/// Its name on the cluster.
const NAME: &str = "k8s-node";
/// More than there will ever be clusters with a machine at once.
const LINK_ATTEMPTS: usize = 20;
/// What holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "localhost/pause:1";
/// Where Debian has the plugins that give pods their network.
const NETWORK_PLUGINS: &str = "/usr/lib/cni";
/// What they are to do, in the machine's folder.
const NETWORK_SETTINGS: &str = "network";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

#[derive(Debug)]
pub(super) struct K8sNode {
    services: Vec<ServerProcess>,
    /// Ends all others; their own handles above merely know of them.
    machine: ServerProcess,
    _control_groups: Afterwards,
    pub(super) network: Network,
    folder: PathBuf,
}

/// Whether a machine can be made here; a line that says why if not, which is a failure in CI.
pub(super) async fn can_be_had() -> Result<bool> {
    static CONTAINERD: OnceCell<Prepared> = OnceCell::const_new();
    let missing = if rustix::process::geteuid().is_root() {
        let find = async || match environment(CONTAINERD_VARIABLE) {
            Some(path) => Ok(Prepared::Ready(path)),
            None => spawn_blocking(|| prepare(SCRIPT)).await.context("running the script")?,
        };
        match CONTAINERD.get_or_try_init(find).await? {
            Prepared::Ready(_) => return Ok(true),
            Prepared::Missing(reason) => reason.as_str(),
        }
    } else {
        "they take root"
    };
    not_run(&format!("the tests with a kubelet: {missing}"))?;
    Ok(false)
}

impl K8sNode {
    /// The empty machine, linked to this one.
    pub(super) async fn start(programs: &Path, folder: &ServerFolder) -> Result<Self> {
        let folder = folder.path().join(NAME);
        std::fs::create_dir(&folder).context("making the machine's folder")?;
        let mut arguments: Vec<OsString> = Vec::new();
        let namespaces = ["--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "--mount-proc", "--"];
        arguments.extend(namespaces.map(Into::into));
        arguments.extend(["sh", "-c", INIT_SCRIPT, "sh"].map(Into::into));
        arguments.extend([folder.clone().into(), programs.join("pause").into()]);
        let machine = ServerProcess::start(Path::new("unshare"), arguments, folder.join("machine.log"))?;
        wait_until("a machine for pods is up", START_DEADLINE, async || {
            machine.expect_running()?;
            Ok(folder.join("is-up").exists())
        })
        .await?;
        let network = link(machine.pid().context("the machine runs")?).await?;
        let control_groups = Afterwards::run(GONE_SCRIPT, network.name())?;
        Ok(Self { services: Vec::new(), machine, _control_groups: control_groups, network, folder })
    }

    /// Starts what makes a machine of the cluster of it, and waits until it is ready for pods.
    pub(super) async fn join(&mut self, programs: &Path, credentials: &Credentials, client: &Client) -> Result<()> {
        let kubeconfig = |user: &str, group| credentials.kubeconfig(&self.folder, user, group);
        let kubelet_kubeconfig = kubeconfig(&format!("system:node:{NAME}"), Some("system:nodes"))?;
        let proxy_kubeconfig = kubeconfig("system:kube-proxy", None)?;
        // A folder of its own: containerd takes the first file that it finds there.
        std::fs::create_dir(self.folder.join(NETWORK_SETTINGS))
            .context("making a folder for the network's settings")?;
        self.write(&format!("{NETWORK_SETTINGS}/pods.conflist"), &self.network_plugins())?;
        let containerd = self.write_text("containerd.toml", &self.containerd())?;
        self.serve(Path::new("containerd"), &["--config".into(), containerd.into()])?;
        wait_until("containerd serves", START_DEADLINE, async || {
            self.expect_running()?;
            Ok(self.containerd_client(&["version"]).await.is_ok())
        })
        .await?;
        self.load_image(PAUSE_IMAGE, &[&programs.join("pause")]).await?;

        let kubelet = self.write("kubelet.json", &self.kubelet(credentials))?;
        let kubelet = [
            format!("--config={}", kubelet.display()),
            format!("--kubeconfig={}", kubelet_kubeconfig.display()),
            format!("--root-dir={}", self.folder.join("kubelet").display()),
            format!("--cert-dir={}", self.folder.join("kubelet-certificates").display()),
            format!("--hostname-override={NAME}"),
            format!("--node-ip={}", self.network.k8s_node()),
        ];
        self.serve(&programs.join("kubelet"), &kubelet.map(Into::into))?;
        let proxy = self.write("kube-proxy.json", &self.proxy(&proxy_kubeconfig))?;
        self.serve(&programs.join("kube-proxy"), &[format!("--config={}", proxy.display()).into()])?;
        let nodes: Api<Node> = Api::all(client.clone());
        wait_until("the machine is ready for pods", START_DEADLINE, async || {
            self.expect_running()?;
            Ok(nodes.get_opt(NAME).await.ok().flatten().is_some_and(|node| is_ready(&node)))
        })
        .await
    }

    /// Makes an image of programs, with what they load, and gives it to containerd.
    pub(super) async fn load_image(&self, name: &str, programs: &[&Path]) -> Result<()> {
        let archive = self.folder.join("image.tar");
        let script = workspace_root()?.join("tests/env/image.sh");
        run(Command::new("bash").arg(script).arg(name).arg(&archive).args(programs)).await?;
        let archive = archive.to_str().context("a path is text")?;
        self.containerd_client(&["--namespace=k8s.io", "images", "import", archive]).await
    }

    pub(super) fn expect_running(&self) -> Result<()> {
        self.services.iter().chain([&self.machine]).try_for_each(ServerProcess::expect_running)
    }

    async fn containerd_client(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("nsenter");
        run(command.args(self.inside()?).args(["ctr", "--address", CONTAINERD_SOCKET]).args(arguments)).await
    }

    /// Starts a program on the machine. What this starts there goes with the machine; it itself can be killed alone.
    fn serve(&mut self, program: &Path, arguments: &[OsString]) -> Result<()> {
        let name = program.file_name().context("a program has a name")?;
        let log = self.folder.join(name).with_extension("log");
        let mut all: Vec<OsString> = self.inside()?.map(Into::into).into();
        all.push("setpriv".into());
        all.extend(DIE_WITH_PARENT.map(Into::into));
        all.push(program.into());
        all.extend_from_slice(arguments);
        self.services.push(ServerProcess::start(Path::new("nsenter"), all, log)?);
        Ok(())
    }

    /// Arguments of `nsenter`, before a program and its own, by which the program runs on the machine.
    fn inside(&self) -> Result<[String; 4]> {
        let namespaces = format!("/proc/{}/ns", self.machine.pid().context("the machine runs")?);
        Ok([
            format!("--mount={namespaces}/mnt"),
            format!("--net={namespaces}/net"),
            // `unshare` itself stays outside: its children are within.
            format!("--pid={namespaces}/pid_for_children"),
            "--".to_owned(),
        ])
    }

    /// Each pod has a link of its own to the machine, which routes: so that also what pods on one machine say to each other
    /// through a Service passes through its rules.
    fn network_plugins(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.folder.join("pod-addresses"),
                        "ranges": [[{ "subnet": self.network.pods() }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn containerd(&self) -> String {
        let folder = self.folder.display();
        // Not everybody who is root may lower what the kernel kills last.
        format!(
            r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{NETWORK_PLUGINS}"
conf_dir = "{folder}/{NETWORK_SETTINGS}"
"#
        )
    }

    fn kubelet(&self, credentials: &Credentials) -> Value {
        let never = "0%";
        let never = json!({
            "memory.available": never,
            "nodefs.available": never,
            "nodefs.inodesFree": never,
            "imagefs.available": never,
            "imagefs.inodesFree": never,
        });
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": { "x509": { "clientCAFile": credentials.ca } },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.network.name()),
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "enforceNodeAllocatable": [],
            // The machine is shared: it is no affair of the tests' pods how full it is.
            "evictionHard": never,
            "imageGCHighThresholdPercent": 100,
            "failCgroupV1": false,
            "failSwapOn": false,
            "podLogsDir": self.folder.join("pod-logs"),
            "resolvConf": "",
            "volumePluginDir": self.folder.join("volume-plugins"),
        })
    }

    fn proxy(&self, kubeconfig: &Path) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": kubeconfig },
            "clusterCIDR": self.network.pods(),
            "hostnameOverride": NAME,
            "mode": "iptables",
            // What is limited so is the whole machine's, not a namespace's.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        })
    }

    fn write(&self, name: &str, contents: &Value) -> Result<PathBuf> {
        self.write_text(name, &format!("{contents:#}"))
    }

    fn write_text(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, contents).with_context(|| format!("writing {name}"))?;
        Ok(path)
    }
}

/// Links the machine of this process to this one, through a network that no other cluster has.
async fn link(pid: u32) -> Result<Network> {
    for _ in 0..LINK_ATTEMPTS {
        let network = Network::any_part();
        if Path::new("/sys/class/net").join(network.name()).exists() {
            continue;
        }
        let [host, k8s_node] = [network.host(), network.k8s_node()].map(|address| address.to_string());
        let arguments = [pid.to_string(), network.name(), host, k8s_node, network.pods(), network.services()];
        run(Command::new("sh").args(["-c", LINK_SCRIPT, "sh"]).args(arguments)).await?;
        return Ok(network);
    }
    bail!("every network that was tried is another cluster's")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Runs a command to its end; its failure is an error with what it said.
async fn run(command: &mut Command) -> Result<()> {
    let output = command.kill_on_drop(true).output().await.context("starting a command for the machine")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?} ended with {}: {said}", command.as_std(), output.status);
    Ok(())
}
