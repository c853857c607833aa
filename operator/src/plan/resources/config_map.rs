//! The settings of the nodes, as their environment.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::deployment::{REDIS_PASSWORD_FILE, REDIS_TLS, SECRET_KEY_FILE, SECRET_KEY_PREVIOUS_FILE, TIKV_TLS};
use crate::plan::validate::ValidatedCluster;

pub(super) fn build_config_map(cluster: &ValidatedCluster) -> ConfigMap {
    let identity = &cluster.identity;
    ConfigMap {
        metadata: identity.owned(identity.config_name()),
        data: Some(settings(cluster)),
        ..ConfigMap::default()
    }
}

/// Secrets are named here as files, and mounted by the Deployment.
fn settings(cluster: &ValidatedCluster) -> BTreeMap<String, String> {
    let ValidatedCluster { identity, base_url, domains, settings, tikv, keyspace, redis, secret_key, .. } = cluster;
    let mut all: BTreeMap<String, String> =
        settings.iter().map(|(variable, value)| ((*variable).to_owned(), value.clone())).collect();
    let mut set = |variable: &str, value: String| all.insert(variable.to_owned(), value);
    set("ALLOCATION", "lease".to_owned());
    set("BASE_URL", base_url.text.clone());
    set("CLUSTER_NAME", identity.name.clone());
    set("DATABASE_URL", format!("tikv://{}/{keyspace}", tikv.pd_endpoints.join(",")));
    set("LOG_FORMAT", "json".to_owned());
    set("SECRET_KEY_FILE", SECRET_KEY_FILE.to_owned());
    if !domains.is_empty() {
        set("DOMAINS", domains.join(","));
    }
    if secret_key.as_ref().is_some_and(|key| key.previous_key.is_some()) {
        set("SECRET_KEY_PREVIOUS_FILE", SECRET_KEY_PREVIOUS_FILE.to_owned());
    }
    if tikv.tls_secret_name.is_some() {
        for (variable, file) in [("TIKV_CA", "ca.crt"), ("TIKV_CERT", "tls.crt"), ("TIKV_KEY", "tls.key")] {
            set(variable, format!("{TIKV_TLS}/{file}"));
        }
    }
    if let Some(redis) = redis {
        let scheme = if redis.tls.is_some() { "rediss-cluster" } else { "redis-cluster" };
        set("REDIS_URL", format!("{scheme}://{}", redis.seed_nodes.join(",")));
        if redis.credentials.is_some() {
            set("REDIS_PASSWORD_FILE", REDIS_PASSWORD_FILE.to_owned());
        }
        if let Some(tls) = redis.tls.as_ref().filter(|tls| tls.secret_name.is_some()) {
            set("REDIS_CA", format!("{REDIS_TLS}/ca.crt"));
            if tls.client_certificate {
                set("REDIS_CERT", format!("{REDIS_TLS}/tls.crt"));
                set("REDIS_KEY", format!("{REDIS_TLS}/tls.key"));
            }
        }
    }
    all
}
