//! Who is who on a cluster: an authority, what proves to clients that a server is the API server, and kubeconfigs that
//! prove to the API server that a client is the administrator or a part of the control plane.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::json;

use super::network::Network;
use crate::certificates::Authority;
use crate::server_process::ServerFolder;

/// The group that may do everything, whatever the rules say.
const MASTERS: &str = "system:masters";

/// Files that the parts of a cluster take.
pub(super) struct Credentials {
    authority: Authority,
    network: Network,
    pub(super) api_port: u16,
    pub(super) ca: PathBuf,
    pub(super) ca_key: PathBuf,
    pub(super) api_server: PathBuf,
    pub(super) api_server_key: PathBuf,
    /// What service accounts' tokens are recognised by.
    pub(super) tokens: PathBuf,
    /// What they are signed with.
    pub(super) tokens_key: PathBuf,
}

impl Credentials {
    /// Writes them for a cluster whose API server is at this port.
    pub(super) fn write(folder: &ServerFolder, network: Network, api_port: u16) -> Result<Self> {
        let authority = Authority::new()?;
        let addresses = [network.host().to_string(), network.api_service().to_string()];
        let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let hosts = [&names.map(str::to_owned)[..], &addresses].concat();
        // The API server shows it to clients, and to kubelets as a client of theirs.
        let api_server = authority.sign("kube-apiserver", Some(MASTERS), &hosts)?;
        let tokens_key = KeyPair::generate().context("making the key for tokens")?;
        Ok(Self {
            network,
            api_port,
            ca: folder.write("ca.pem", &authority.itself().cert)?,
            ca_key: folder.write("ca-key.pem", &authority.itself().key)?,
            api_server: folder.write("api-server.pem", &api_server.cert)?,
            api_server_key: folder.write("api-server-key.pem", &api_server.key)?,
            tokens: folder.write("tokens.pem", &tokens_key.public_key_pem())?,
            tokens_key: folder.write("tokens-key.pem", &tokens_key.serialize_pem())?,
            authority,
        })
    }

    /// Writes a kubeconfig for the administrator.
    pub(super) fn admin(&self, folder: &Path) -> Result<PathBuf> {
        self.kubeconfig(folder, "admin", Some(MASTERS))
    }

    /// Writes a kubeconfig for a user in a group, and returns the file's path.
    pub(super) fn kubeconfig(&self, folder: &Path, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let signed = self.authority.sign(user, group, &[])?;
        // JSON is YAML.
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "tests", "cluster": {
                "server": format!("https://{}:{}", self.network.host(), self.api_port),
                "certificate-authority-data": STANDARD.encode(self.authority.itself().cert),
            } }],
            "users": [{ "name": user, "user": {
                "client-certificate-data": STANDARD.encode(signed.cert),
                "client-key-data": STANDARD.encode(signed.key),
            } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": user } }],
            "current-context": "tests",
        });
        let path = folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        std::fs::write(&path, format!("{file:#}")).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
