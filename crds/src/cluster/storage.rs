//! The back ends of a cluster, and the Secrets that open them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where links are kept.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// A TiKV cluster.
    pub tikv: Tikv,
}

/// A keyspace of a TiKV cluster.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tikv {
    /// Addresses of placement drivers, `host:port`. Some may be down.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 259), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub pd_endpoints: Vec<String>,
    /// Secret with `ca.crt`, `tls.crt` and `tls.key` for mutual TLS with placement drivers and stores. Default: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub tls_secret_name: Option<String>,
    /// Name before every key, so that several clusters share one TiKV. Default: namespace and name of this resource, with _
    /// between them. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub keyspace: Option<String>,
}

/// What nodes share of what they have read.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// A Redis Cluster, version 7 or later.
    pub redis_cluster: RedisCluster,
}

/// A Redis Cluster.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisCluster {
    /// Addresses of some of its nodes, `host:port`; the others are found through them.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 259), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub seed_nodes: Vec<String>,
    /// Who the nodes log in as. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RedisCredentials>,
    /// TLS. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
}

/// User and password in a Secret.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisCredentials {
    /// The Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Its key for the user's name. Without it the default user logs in by password alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub username_key: Option<String>,
    /// Its key for the password. Default: `password`.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub password_key: String,
}

fn password_key() -> String {
    "password".to_owned()
}

/// TLS to Redis.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.clientCertificate) || !self.clientCertificate || has(self.secretName)")
    .message("spec.cache.redisCluster.tls.clientCertificate needs secretName: the certificate lies in that Secret"))]
pub struct RedisTls {
    /// Secret with `ca.crt`, who signed the servers' certificates. Default: the authorities that the image trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,
    /// Whether the servers ask for a certificate: `tls.crt` and `tls.key` of the same Secret.
    #[serde(default)]
    pub client_certificate: bool,
}

/// The key that signs access tokens, and the one before.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.previousKey) || self.previousKey != self.key")
    .message("spec.secretKeyRef.previousKey must differ from spec.secretKeyRef.key: it names the key before the last rotation"))]
pub struct SecretKeyRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its key for what signs. Default: `secret-key`.
    #[serde(default = "secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub key: String,
    /// Its key for what signed before the last rotation and is still accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub previous_key: Option<String>,
}

fn secret_key() -> String {
    "secret-key".to_owned()
}
