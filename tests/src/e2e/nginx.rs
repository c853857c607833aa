//! nginx in a pod where it may write nowhere but to `/tmp`.
use serde_json::{Value, json};

use super::world::{restricted_container, restricted_pod};

/// The pod, labelled `app` with its own name, and its `files`, which it finds in `/files`; `http` are its settings of HTTP. It
/// listens on 8080.
pub fn pod(namespace: &str, name: &str, http: &str, files: &Value) -> [Value; 2] {
    let settings = format!(
        "pid /tmp/pid; error_log stderr; events {{}} http {{ access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; \
         fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; {http} }}"
    );
    let mut data = json!({"nginx.conf": settings});
    json_patch::merge(&mut data, files);
    let metadata = json!({"name": name, "namespace": namespace, "labels": {"app": name}});
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "securityContext": restricted_pod(),
            "containers": [{
                "name": "nginx", "image": "nginx:1.22", "command": ["nginx", "-c", "/files/nginx.conf", "-g", "daemon off;"],
                "securityContext": restricted_container(),
                "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }],
            "volumes": [{"name": "files", "configMap": {"name": name}}],
        }}),
    ]
}
