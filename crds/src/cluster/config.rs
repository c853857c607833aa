//! Settings of the nodes, by the names that the nodes give them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What is not set has the node's own default, which the description names.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Characters in a generated code. Default 7. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 6, max = 10))]
    pub short_code_length: Option<i32>,
    /// Status of new links that name none: 301, 302, 307 or 308. Default 302.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [301, 302, 307, 308]))]
    pub redirect_status: Option<i32>,
    /// What a valid host gets that is neither that of `baseUrl` nor one of `domains`: the default domain, or 404. Default: `default`
    /// while there are no `domains`, else `"404"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["default", "404"]))]
    pub unknown_hosts: Option<String>,
    /// How long a CDN or gateway may keep a temporary redirect, in seconds. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub cache_max_age: Option<i32>,
    /// Life of an access token, in minutes. Default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1440))]
    pub access_token_expire_minutes: Option<i32>,
    /// Life of a refresh token, in days. Default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 365))]
    pub refresh_token_expire_days: Option<i32>,
    /// Requests that a user may make to one endpoint in a window. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate_limit_requests: Option<i32>,
    /// The same without a token, by address. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate_limit_anonymous: Option<i32>,
    /// Length of that window, in seconds. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub rate_limit_window: Option<i32>,
    /// Registrations by one address, requests/seconds. Default 60/3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,4}$"))]
    pub rate_limit_register: Option<String>,
    /// Logins tried by one address, requests/seconds. Default 20/300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,4}$"))]
    pub rate_limit_login: Option<String>,
    /// Networks whose Forwarded and X-Forwarded-For headers are believed, such as 10.0.0.0/8, no wider than /8 (IPv6: /7). Behind an
    /// ingress or gateway, name its pods' network: else all clients share its limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 43), regex(pattern = r"^[0-9A-Fa-f:.]+(/([7-9]|[1-9][0-9]{1,2}))?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub trusted_proxies: Vec<String>,
    /// Clicks written in one transaction. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub analytics_batch_size: Option<i32>,
    /// Longest time that a click waits to be written, in seconds. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub analytics_flush_interval: Option<i32>,
    /// How long single clicks and hourly counts are kept, in days. Default 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub analytics_retention_days: Option<i32>,
    /// Redirects in an hour from which a link is hot. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub hot_url_click_threshold: Option<i32>,
    /// Memory for links kept in each node, in bytes. Default 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576_i64, max = 68_719_476_736_i64))]
    pub local_cache_bytes: Option<i64>,
    /// How long a link is kept there, in seconds. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub local_cache_ttl: Option<i32>,
    /// error, warn, info or debug (also redirects). Default info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["error", "warn", "info", "debug", "trace"]))]
    pub log_level: Option<String>,
    /// OpenTelemetry collector that takes OTLP over HTTP: its base URL, to which the nodes add /v1/traces. Without one, no traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        regex(pattern = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[-A-Za-z0-9._~/]*)?$")
    )]
    pub otlp_endpoint: Option<String>,
}
