//! The Service under the public hosts, through a gateway.

use serde_json::{Value, json};
use shortener_crds::cluster::HttpRoute;

use crate::kinds::Kind;
use crate::plan::validate::ValidatedCluster;

pub(super) fn build_http_route(cluster: &ValidatedCluster, wanted: &HttpRoute) -> Value {
    let identity = &cluster.identity;
    let mut metadata = identity.owned(identity.main_name());
    if !wanted.annotations.is_empty() {
        metadata.annotations = Some(wanted.annotations.clone());
    }
    json!({
        "apiVersion": Kind::HttpRoute.api_version(),
        "kind": Kind::HttpRoute.kind(),
        "metadata": metadata,
        "spec": {
            "parentRefs": wanted.parent_refs,
            "hostnames": cluster.hosts(),
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": identity.main_name(), "port": cluster.service.port}],
            }],
        },
    })
}
