//! A port of a pod or Service on this machine's loopback, for requests of the suite itself.
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::client::Client;
use crate::kubernetes::Kubernetes;

const DEADLINE: Duration = Duration::from_secs(30);

/// Open until it is dropped, or until the pod that it leads to ends.
#[derive(Debug)]
pub struct Forward {
    url: String,
    _process: Child,
}

impl Forward {
    /// To a port of `pod/NAME` or `service/NAME`; of a Service, to one of its pods.
    pub async fn to(kubernetes: &Kubernetes, namespace: &str, target: &str, port: u16) -> Result<Self> {
        let namespace = format!("--namespace={namespace}");
        let mut command = kubernetes.command("kubectl", &["port-forward", &namespace, target, &format!(":{port}")]);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("starting kubectl")?;
        let mut lines = BufReader::new(process.stdout.take().context("its output is piped")?).lines();
        let first = timeout(DEADLINE, lines.next_line()).await.context("kubectl port-forward hangs")??;
        // "Forwarding from 127.0.0.1:40123 -> 8000"
        let address = first.as_deref().and_then(|line| line.split(' ').nth(2));
        let Some(address) = address else { bail!("kubectl cannot forward to {target}") };
        // Whoever writes lines is not to find that nobody reads them.
        let url = format!("http://{address}");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { url, _process: process })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of what is there.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.url)
    }
}
