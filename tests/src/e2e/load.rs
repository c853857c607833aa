//! A load that runs in a pod beside the nodes: no proxy and no other machine is between it and them.
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::kind::LOAD_IMAGE;
use super::record::Record;
use super::world::{NAMESPACE, World, restricted_container, restricted_pod};
use crate::server_process::fresh_name;
use crate::witness::Ask;

/// A running load. One that is not stopped goes with its namespace.
#[derive(Debug)]
pub struct Load {
    pod: String,
}

impl Load {
    /// Asks so often a second from now on.
    pub async fn start(world: &World, ask: Ask, per_second: u32) -> Result<Self> {
        let (what, urls) = match ask {
            Ask::Kept(urls) => ("kept", urls),
            Ask::Fresh(urls) => ("fresh", urls),
            Ask::Create(service) => ("create", vec![service]),
        };
        let pod = fresh_name("load");
        let mut arguments = vec!["load".to_owned(), format!("--per-second={per_second}"), format!("--ask={what}")];
        arguments.extend(urls.into_iter().map(|url| format!("--url={url}")));
        let mut security = restricted_pod();
        // A connection for each request takes many.
        security["sysctls"] = json!([{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}]);
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "labels": {"app": "load"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": security,
                "containers": [{
                    "name": "load", "image": LOAD_IMAGE, "args": arguments,
                    "securityContext": restricted_container(),
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
                }],
            },
        });
        world.kubectl_with_input(&["create", "-f", "-"], &manifest.to_string()).await?;
        let load = Self { pod };
        let running = format!("pod/{}", load.pod);
        world.kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", &running, "--timeout=60s"]).await?;
        Ok(load)
    }

    /// Ends it, and tells what it saw.
    pub async fn stop(self, world: &World) -> Result<Record> {
        world.kubectl(&["exec", &self.pod, "--", "/usr/local/bin/in_cluster", "stop"]).await?;
        let pod = format!("pod/{}", self.pod);
        world.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &pod, "--timeout=60s"]).await?;
        let printed = world.kubectl(&["logs", &self.pod]).await?;
        ensure!(!printed.is_empty(), "the load {} printed nothing", self.pod);
        let record = Record::read(&printed).with_context(|| format!("what the load {} saw", self.pod))?;
        world.kubectl(&["delete", &pod, "--wait=false", &format!("--namespace={NAMESPACE}")]).await?;
        Ok(record)
    }
}
