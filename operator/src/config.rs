//! Flags and environment → what the operator is asked to do.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::observe::Scope;

/// Runs fleets of shortener nodes from ShortenerCluster resources.
#[derive(Clone, Debug, Parser)]
#[command(name = "shortener-operator", version, max_term_width = 100)]
pub struct Settings {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Reconciles until it is stopped.
    Run(Run),
    /// Asks the API server whether an operator can work here, with the rights that it has now.
    Check(Check),
    /// Prints the CustomResourceDefinition as YAML.
    Crd,
    /// Prints the operator's ClusterRole (or Role) as YAML, each rule with its reason.
    Rbac(Rbac),
    /// Prints all that `kubectl apply -f -` needs to install the operator, as YAML.
    Manifest(Manifest),
}

/// Settings of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The one namespace to look after. Default: all.
    #[arg(long, env)]
    pub watch_namespace: Option<String>,
    /// Image of the nodes of resources that name none.
    #[arg(long, env, default_value = concat!("shortener:", env!("CARGO_PKG_VERSION")))]
    pub node_image: String,
    /// Seconds that a release of the nodes must have run before the operator lets them write what earlier releases cannot read. Until
    /// then a release can be taken back.
    #[arg(long, env, default_value_t = 600)]
    pub format_raise_after_seconds: u64,
    /// Address of the probes and metrics. The chart and the manifest name all interfaces, because the kubelet asks from outside
    /// the pod.
    #[arg(long, env, default_value = "127.0.0.1:9090")]
    pub metrics_addr: SocketAddr,
    /// Whether of several operators one works. Without it all do, which costs work and harms nothing.
    #[arg(long, env, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// The operator's own namespace, where the leader's Lease lies. Default: that of its service account.
    #[arg(long, env)]
    pub operator_namespace: Option<String>,
    /// What this operator calls itself in the leader's Lease and in events. Default: a random name.
    #[arg(long, env)]
    pub pod_name: Option<String>,
    /// error, warn, info, debug or trace.
    #[arg(long, env, default_value = "info")]
    pub log_level: LogLevel,
    /// json, or text for people.
    #[arg(long, env, default_value = "json")]
    pub log_format: LogFormat,
}

/// Settings of `check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The one namespace to look after. Default: all.
    #[arg(long, env)]
    pub watch_namespace: Option<String>,
    /// The operator's own namespace. Default: that of its service account.
    #[arg(long, env)]
    pub operator_namespace: Option<String>,
}

/// Settings of `rbac`.
#[derive(Clone, Debug, Args)]
pub struct Rbac {
    /// Only the rules for one namespace.
    #[arg(long)]
    pub namespaced: bool,
}

/// Settings of `manifest`.
#[derive(Clone, Debug, Args)]
pub struct Manifest {
    /// The namespace that the operator is installed in.
    #[arg(long, default_value = "shortener-system")]
    pub namespace: String,
    /// Image of the operator.
    #[arg(long, default_value = concat!("shortener:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what looks wrong.
    Warn,
    /// Also start, stop and leadership.
    Info,
    /// Also each visit.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Run {
    /// Which namespaces are looked after.
    pub fn scope(&self) -> Scope {
        self.watch_namespace.clone().map_or(Scope::Cluster, Scope::Namespace)
    }
}
