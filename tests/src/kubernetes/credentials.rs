//! Who is who on a cluster: an authority, what proves to clients that a server is the API server, and kubeconfigs that
//! prove to the API server that a client is the administrator or a part of the control plane.
use std::path::PathBuf;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::json;

use super::control_plane::SERVICE_ADDRESS;
use crate::certificates::Authority;
use crate::server_process::ServerFolder;

/// The group that may do everything, whatever the rules say.
const MASTERS: &str = "system:masters";

/// Files that the parts of a control plane take.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) api_port: u16,
    pub(super) ca: PathBuf,
    pub(super) ca_key: PathBuf,
    pub(super) api_server: PathBuf,
    pub(super) api_server_key: PathBuf,
    /// What service accounts' tokens are recognised by.
    pub(super) tokens: PathBuf,
    /// What they are signed with.
    pub(super) tokens_key: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) controller_manager: PathBuf,
    pub(super) scheduler: PathBuf,
}

impl Credentials {
    /// Writes them for a cluster whose API server is at this port.
    pub(super) fn write(folder: &ServerFolder, api_port: u16) -> Result<Self> {
        let authority = Authority::new()?;
        let ca = authority.itself();
        let hosts =
            ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", SERVICE_ADDRESS];
        let api_server = authority.sign("kube-apiserver", None, &hosts.map(str::to_owned))?;
        let tokens_key = KeyPair::generate().context("making the key for tokens")?;
        let kubeconfig = |user: &str, group: Option<&str>| {
            let signed = authority.sign(user, group, &[])?;
            let file = json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{ "name": "tests", "cluster": {
                    "server": format!("https://127.0.0.1:{api_port}"),
                    "certificate-authority-data": STANDARD.encode(&ca.cert),
                } }],
                "users": [{ "name": user, "user": {
                    "client-certificate-data": STANDARD.encode(signed.cert),
                    "client-key-data": STANDARD.encode(signed.key),
                } }],
                "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": user } }],
                "current-context": "tests",
            });
            // JSON is YAML.
            folder.write(&format!("{}.kubeconfig", user.replace(':', "-")), &format!("{file:#}"))
        };
        Ok(Self {
            api_port,
            ca: folder.write("ca.pem", &ca.cert)?,
            ca_key: folder.write("ca-key.pem", &ca.key)?,
            api_server: folder.write("api-server.pem", &api_server.cert)?,
            api_server_key: folder.write("api-server-key.pem", &api_server.key)?,
            tokens: folder.write("tokens.pem", &tokens_key.public_key_pem())?,
            tokens_key: folder.write("tokens-key.pem", &tokens_key.serialize_pem())?,
            admin: kubeconfig("admin", Some(MASTERS))?,
            controller_manager: kubeconfig("system:kube-controller-manager", None)?,
            scheduler: kubeconfig("system:kube-scheduler", None)?,
        })
    }
}
