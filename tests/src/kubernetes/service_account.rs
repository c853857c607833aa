//! Clients that come in as a service account, as what runs in a pod does.
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Client, Config};

use super::Kubernetes;
use crate::server_process::fresh_name;

/// Longer than any test.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

impl Kubernetes {
    /// A token for a service account; for the pod that it is to run in, as a kubelet would ask for, if there is one.
    pub async fn token(&self, namespace: &str, account: &str, pod: Option<&Pod>) -> Result<String> {
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(), // the API server itself
                bound_object_ref,
                expiration_seconds: Some(TOKEN_SECONDS),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("asking for a token for {namespace}/{account}"))?;
        Ok(answer.status.context("the answer to a TokenRequest has the token")?.token)
    }

    /// Settings for a client with this token alone, to be altered before [`Client::try_from`].
    pub async fn config_with_token(&self, token: &str) -> Result<Config> {
        let mut config = self.config().await?;
        config.auth_info = with_token(token);
        Ok(config)
    }

    /// A client with this token alone.
    pub async fn client_with_token(&self, token: &str) -> Result<Client> {
        Client::try_from(self.config_with_token(token).await?).context("making a client")
    }

    /// A kubeconfig with this token alone, for a process.
    pub fn kubeconfig_with_token(&self, token: &str) -> Result<PathBuf> {
        let mut file = Kubeconfig::read_from(&self.kubeconfig).context("reading the kubeconfig")?;
        for user in &mut file.auth_infos {
            user.auth_info = Some(with_token(token));
        }
        // JSON is YAML.
        let file = serde_json::to_string_pretty(&file).context("writing a kubeconfig")?;
        self.folder.write(&format!("{}.kubeconfig", fresh_name("token")), &file)
    }
}

fn with_token(token: &str) -> AuthInfo {
    AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() }
}
