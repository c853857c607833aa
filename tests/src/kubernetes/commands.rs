//! kubectl and Helm on a cluster, as its administrator. They keep what they remember in the cluster's folder.
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{KUBECONFIG_VARIABLE, Kubernetes};

/// Above the deadlines that a test gives to the commands themselves (`--timeout`).
const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

impl Kubernetes {
    /// Runs kubectl and returns what it prints; its failure is an error with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run("kubectl", arguments, "").await
    }

    /// Runs kubectl with this on its standard input, for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run("kubectl", arguments, input).await
    }

    /// Runs Helm and returns what it prints; its failure is an error with what it said.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.run("helm", arguments, "").await
    }

    /// One of them, to be run otherwise; it ends when it is dropped.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        let memory = ["KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
        command
            .args(arguments)
            .env(KUBECONFIG_VARIABLE, &self.kubeconfig)
            .envs(memory.map(|variable| (variable, self.folder.path().join(variable))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let shown = format!("{program} {}", arguments.join(" "));
        let mut command = self.command(program, arguments);
        let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
        let mut stdin = child.stdin.take().context("its standard input is piped")?;
        let run = async {
            let write = async {
                // One that ends without reading it all says why.
                let _ = stdin.write_all(input.as_bytes()).await;
                drop(stdin);
            };
            tokio::join!(write, child.wait_with_output()).1
        };
        let output = timeout(COMMAND_DEADLINE, run).await.with_context(|| format!("{shown} hangs"))?;
        let output = output.with_context(|| format!("waiting for {shown}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{shown} ended with {}: {said}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
