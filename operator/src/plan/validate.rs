//! A `ShortenerCluster` → a [`ValidatedCluster`], or every reason why not.
//!
//! The API server has checked the same by the schema and its CEL rules; this is for an object that got past them (written before a rule
//! existed, or where the definition was replaced), and what turns text and signed numbers into types that cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kube::ResourceExt;
use shortener_crds::ShortenerCluster;
use shortener_crds::cluster::{
    Autoscaling, AutoscalingMode, DeletionPolicy, HttpRoute, Ids, Ingress, Monitoring, NAME_BYTES_MAX, NODES_MAX,
    NetworkPolicy, NodeConfig, PodSettings, RedisCluster, SecretKeyRef, Service, ServiceType, ShortenerClusterSpec,
    Tikv,
};
use shortener_crds::ids::{CodeLength, KeyspaceId};

/// The longest name of a keyspace, in bytes; the nodes' own limit.
const KEYSPACE_BYTES_MAX: usize = 64;
/// How many nodes there are when nothing says how many.
const REPLICAS_DEFAULT: i32 = 2;
/// The longest host name, in bytes: RFC 1035.
const HOST_BYTES_MAX: usize = 253;

/// Whose resource it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What tells it from an earlier one of the same name.
    pub uid: String,
}

/// A `ShortenerCluster` in which everything makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// Whose resource it is.
    pub identity: Identity,
    /// What short URLs begin with.
    pub base_url: BaseUrl,
    /// Further host names.
    pub domains: Vec<String>,
    /// The image that the spec names, if it names one.
    pub image: Option<String>,
    /// How many nodes, and who decides.
    pub replicas: Replicas,
    /// The pods.
    pub pod: PodSettings,
    /// Settings of the nodes that are set, by the names of their environment variables.
    pub settings: BTreeMap<&'static str, String>,
    /// Characters in a code.
    pub code_length: CodeLength,
    /// The key that signs tokens; `None`: a generated one.
    pub secret_key: Option<SecretKeyRef>,
    /// Where links are kept.
    pub tikv: Tikv,
    /// The keyspace in it.
    pub keyspace: String,
    /// What nodes share of what they have read.
    pub redis: Option<RedisCluster>,
    /// No block below this one is granted.
    pub floor_block: u64,
    /// The keyspace to go on with, although another one was recorded.
    pub adopt_keyspace: Option<KeyspaceId>,
    /// The Service.
    pub service: Service,
    /// The Ingress, if there is to be one.
    pub ingress: Option<Ingress>,
    /// The HTTPRoute, if there is to be one.
    pub http_route: Option<HttpRoute>,
    /// What monitoring is told.
    pub monitoring: Monitoring,
    /// Who may reach the nodes.
    pub network_policy: NetworkPolicy,
    /// What becomes of the generated Secret.
    pub deletion_policy: DeletionPolicy,
}

impl ValidatedCluster {
    /// All public hosts, without ports.
    pub fn hosts(&self) -> Vec<String> {
        let all = std::iter::once(&self.base_url.authority).chain(&self.domains);
        let bare = |authority: &String| authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let mut hosts: Vec<String> = all.map(bare).collect();
        hosts.dedup();
        hosts
    }

    /// The Secret with the certificates of Redis, if one is used.
    pub fn redis_tls_secret(&self) -> Option<&str> {
        self.redis.as_ref()?.tls.as_ref()?.secret_name.as_deref()
    }

    /// Every Secret that the pods use: when one changes, they are replaced.
    pub fn secrets(&self) -> BTreeSet<String> {
        let key = self.secret_key.as_ref().map_or_else(|| self.identity.secret_name(), |given| given.name.clone());
        let redis = self.redis.as_ref().and_then(|redis| redis.credentials.as_ref());
        let others = [
            self.tikv.tls_secret_name.clone(),
            redis.map(|credentials| credentials.secret_name.clone()),
            self.redis_tls_secret().map(str::to_owned),
        ];
        std::iter::once(key).chain(others.into_iter().flatten()).collect()
    }
}

/// How many nodes, and who decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Replicas {
    /// So many: the spec says so, or nothing says anything.
    Fixed(i32),
    /// The operator decides.
    Builtin(Autoscaling),
    /// A HorizontalPodAutoscaler decides, by writing the resource's scale; none while it has not.
    Hpa(Autoscaling, Option<i32>),
    /// Somebody else decides, by writing the resource's scale or, while that is unset, the Deployment's.
    External(Autoscaling, Option<i32>),
}

/// What short URLs begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// As it was written.
    pub text: String,
    /// The host, with its port if one is named.
    pub authority: String,
    /// Whether it is reached by https.
    pub is_https: bool,
}

/// Everything that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid(pub Vec<FieldError>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where, such as `spec.baseUrl`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Collects what is wrong while the rest is still looked at.
#[derive(Default)]
struct Problems(Vec<FieldError>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), problem: problem.into() });
    }

    fn expect(&mut self, is_right: bool, field: impl Into<String>, problem: impl Into<String>) {
        if !is_right {
            self.add(field, problem);
        }
    }

    fn range<T: Into<i64>>(&mut self, field: impl Into<String>, value: Option<T>, min: i64, max: i64) {
        if let Some(value) = value.map(Into::into) {
            self.expect((min..=max).contains(&value), field, format!("{value} is not from {min} to {max}"));
        }
    }

    fn name(&mut self, field: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.expect(is_subdomain(name), field, format!("{name:?} is no name of a Kubernetes object"));
        }
    }

    fn key(&mut self, field: &str, key: Option<&str>) {
        let is_key = |key: &str| {
            (1..=253).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        };
        if let Some(key) = key {
            self.expect(is_key(key), field, format!("{key:?} is no key of a Secret"));
        }
    }

    fn addresses(&mut self, field: &str, addresses: &[String]) {
        self.expect((1..=16).contains(&addresses.len()), field, "give 1 to 16 addresses, host:port");
        for address in addresses {
            self.expect(is_address(address), field, format!("{address:?} is not host:port"));
        }
        let different: BTreeSet<_> = addresses.iter().collect();
        self.expect(different.len() == addresses.len(), field, "an address is there twice");
    }
}

/// Looks at everything, and tells all that is wrong at once.
#[expect(clippy::too_many_lines, reason = "each field once, in the order of the spec")]
pub fn validate(cluster: &ShortenerCluster) -> Result<ValidatedCluster, Invalid> {
    let mut problems = Problems::default();
    let identity = identity(cluster, &mut problems);
    let ShortenerClusterSpec {
        base_url,
        domains,
        image,
        replicas,
        pod,
        config,
        secret_key_ref,
        storage,
        cache,
        autoscaling,
        ids,
        service,
        ingress,
        http_route,
        monitoring,
        network_policy,
        deletion_policy,
    } = cluster.spec.clone();
    let base_url = self::base_url(&base_url, &mut problems);
    self::domains(&domains, &base_url, &mut problems);
    problems.expect(
        image.as_ref().is_none_or(|image| is_image(image)),
        "spec.image",
        "is no image, such as registry.example/shortener:1.0.0",
    );
    problems.range("spec.replicas", replicas, 0, NODES_MAX.into());
    let pod = pod.unwrap_or_default();
    self::pod(&pod, &mut problems);
    let config = config.unwrap_or_default();
    let (settings, code_length) = settings(&config, &mut problems);
    if let Some(SecretKeyRef { name, key, previous_key }) = &secret_key_ref {
        problems.name("spec.secretKeyRef.name", Some(name));
        problems.key("spec.secretKeyRef.key", Some(key));
        problems.key("spec.secretKeyRef.previousKey", previous_key.as_deref());
        let differ = previous_key.as_ref() != Some(key);
        problems.expect(differ, "spec.secretKeyRef.previousKey", "must differ from key");
    }
    let keyspace = keyspace(&storage.tikv, &identity, &mut problems);
    let redis = cache.map(|cache| cache.redis_cluster);
    if let Some(redis) = &redis {
        self::redis(redis, &mut problems);
    }
    if let Some(autoscaling) = &autoscaling {
        self::autoscaling(autoscaling, &mut problems);
    }
    let Ids { floor_block, adopt_keyspace } = ids.unwrap_or_default();
    let most = i64::try_from(CodeLength::all().map(CodeLength::blocks).max().unwrap_or_default()).unwrap_or(i64::MAX);
    problems.range("spec.ids.floorBlock", floor_block, 0, most);
    let adopt_keyspace = adopt_keyspace.and_then(|text| {
        let parsed = text.parse::<KeyspaceId>().ok().filter(|id| id.to_string() == text);
        problems.expect(parsed.is_some(), "spec.ids.adoptKeyspace", "must be 32 hexadecimal digits in lower case");
        parsed
    });
    let service = service.unwrap_or_default();
    self::service(&service, &mut problems);
    exposure(ingress.as_ref(), http_route.as_ref(), &base_url, &mut problems);
    let monitoring = monitoring.unwrap_or_default();
    problems.range("spec.monitoring.intervalSeconds", Some(monitoring.interval_seconds), 1, 300);
    problems.expect(monitoring.labels.len() <= 16, "spec.monitoring.labels", "give at most 16");
    let network_policy = network_policy.unwrap_or_default();
    problems.expect(network_policy.metrics_from.len() <= 16, "spec.networkPolicy.metricsFrom", "give at most 16 peers");
    if !problems.0.is_empty() {
        return Err(Invalid(problems.0));
    }
    Ok(ValidatedCluster {
        identity,
        base_url,
        domains,
        image,
        replicas: self::replicas(autoscaling, replicas),
        pod,
        settings,
        code_length,
        secret_key: secret_key_ref,
        tikv: storage.tikv,
        keyspace,
        redis,
        floor_block: floor_block.and_then(|block| u64::try_from(block).ok()).unwrap_or_default(),
        adopt_keyspace,
        service,
        ingress,
        http_route,
        monitoring,
        network_policy,
        deletion_policy,
    })
}

fn replicas(autoscaling: Option<Autoscaling>, replicas: Option<i32>) -> Replicas {
    match autoscaling {
        None => Replicas::Fixed(replicas.unwrap_or(REPLICAS_DEFAULT)),
        Some(autoscaling) => match autoscaling.mode {
            AutoscalingMode::Builtin => Replicas::Builtin(autoscaling),
            AutoscalingMode::Hpa => Replicas::Hpa(autoscaling, replicas),
            AutoscalingMode::None => Replicas::External(autoscaling, replicas),
        },
    }
}

fn identity(cluster: &ShortenerCluster, problems: &mut Problems) -> Identity {
    let name = cluster.name_any();
    let shape = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.contains('.')
        && is_subdomain(&name);
    problems.expect(
        shape,
        "metadata.name",
        "must begin with a letter, have only a-z, 0-9 and -, and at most 40 characters: pods are named after it",
    );
    Identity {
        name,
        namespace: cluster.namespace().unwrap_or_default(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
    }
}

fn base_url(text: &str, problems: &mut Problems) -> BaseUrl {
    let (is_https, authority) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => (false, ""),
    };
    problems.expect(
        is_host(authority) && text.len() <= 255,
        "spec.baseUrl",
        "must be http:// or https:// with a host and nothing after it, such as https://sho.rt",
    );
    BaseUrl { text: text.to_owned(), authority: authority.to_owned(), is_https }
}

fn domains(domains: &[String], base_url: &BaseUrl, problems: &mut Problems) {
    problems.expect(domains.len() <= 64, "spec.domains", "give at most 64");
    for domain in domains {
        let right = is_host(domain) && domain.bytes().all(|byte| !byte.is_ascii_uppercase());
        problems.expect(right, "spec.domains", format!("{domain:?} is no host name in lower case"));
    }
    let mut hosts: BTreeSet<&str> = BTreeSet::from([base_url.authority.as_str()]);
    for domain in domains {
        problems.expect(
            hosts.insert(domain),
            "spec.domains",
            format!("{domain:?} is there twice; the host of spec.baseUrl is the default domain"),
        );
    }
}

fn pod(pod: &PodSettings, problems: &mut Problems) {
    problems.name("spec.pod.priorityClassName", pod.priority_class_name.as_deref());
    for secret in &pod.image_pull_secrets {
        problems.name("spec.pod.imagePullSecrets", Some(&secret.name));
    }
    let lists = [
        ("spec.pod.imagePullSecrets", pod.image_pull_secrets.len(), 16),
        ("spec.pod.tolerations", pod.tolerations.len(), 64),
        ("spec.pod.topologySpreadConstraints", pod.topology_spread_constraints.len(), 16),
        ("spec.pod.nodeSelector", pod.node_selector.len(), 64),
        ("spec.pod.labels", pod.labels.len(), 64),
        ("spec.pod.annotations", pod.annotations.len(), 64),
    ];
    for (field, entries, most) in lists {
        problems.expect(entries <= most, field, format!("give at most {most}"));
    }
    let is_ours = |key: &&String| key.starts_with("shortener.dev/") || key.starts_with("app.kubernetes.io/");
    if let Some(key) = pod.labels.keys().find(is_ours) {
        problems.add("spec.pod.labels", format!("{key} is the operator's"));
    }
    if let Some(key) = pod.annotations.keys().find(|key| key.starts_with("shortener.dev/")) {
        problems.add("spec.pod.annotations", format!("{key} is the operator's"));
    }
    problems.range("spec.pod.terminationGracePeriodSeconds", pod.termination_grace_period_seconds, 15, 600);
}

/// The settings that are set, by the nodes' names for them, and the code length.
#[expect(clippy::too_many_lines, reason = "a table: one setting after another")]
fn settings(config: &NodeConfig, problems: &mut Problems) -> (BTreeMap<&'static str, String>, CodeLength) {
    let NodeConfig {
        short_code_length,
        redirect_status,
        unknown_hosts,
        cache_max_age,
        access_token_expire_minutes,
        refresh_token_expire_days,
        rate_limit_requests,
        rate_limit_anonymous,
        rate_limit_window,
        rate_limit_register,
        rate_limit_login,
        trusted_proxies,
        analytics_batch_size,
        analytics_flush_interval,
        analytics_retention_days,
        hot_url_click_threshold,
        local_cache_bytes,
        local_cache_ttl,
        log_level,
        otlp_endpoint,
    } = config;
    let numbers: [(&str, &'static str, Option<i64>, i64, i64); 14] = [
        ("shortCodeLength", "SHORT_CODE_LENGTH", short_code_length.map(Into::into), 6, 10),
        ("redirectStatus", "REDIRECT_STATUS", redirect_status.map(Into::into), 301, 308),
        ("cacheMaxAge", "CACHE_MAX_AGE", cache_max_age.map(Into::into), 0, 31_536_000),
        (
            "accessTokenExpireMinutes",
            "ACCESS_TOKEN_EXPIRE_MINUTES",
            access_token_expire_minutes.map(Into::into),
            1,
            1440,
        ),
        ("refreshTokenExpireDays", "REFRESH_TOKEN_EXPIRE_DAYS", refresh_token_expire_days.map(Into::into), 1, 365),
        ("rateLimitRequests", "RATE_LIMIT_REQUESTS", rate_limit_requests.map(Into::into), 1, 1_000_000),
        ("rateLimitAnonymous", "RATE_LIMIT_ANONYMOUS", rate_limit_anonymous.map(Into::into), 1, 1_000_000),
        ("rateLimitWindow", "RATE_LIMIT_WINDOW", rate_limit_window.map(Into::into), 1, 86_400),
        ("analyticsBatchSize", "ANALYTICS_BATCH_SIZE", analytics_batch_size.map(Into::into), 1, 1000),
        ("analyticsFlushInterval", "ANALYTICS_FLUSH_INTERVAL", analytics_flush_interval.map(Into::into), 1, 3600),
        ("analyticsRetentionDays", "ANALYTICS_RETENTION_DAYS", analytics_retention_days.map(Into::into), 1, 3650),
        (
            "hotUrlClickThreshold",
            "HOT_URL_CLICK_THRESHOLD",
            hot_url_click_threshold.map(Into::into),
            1,
            i64::from(i32::MAX),
        ),
        ("localCacheBytes", "LOCAL_CACHE_BYTES", *local_cache_bytes, 1 << 20, 64 << 30),
        ("localCacheTtl", "LOCAL_CACHE_TTL", local_cache_ttl.map(Into::into), 0, 3600),
    ];
    let mut set = BTreeMap::new();
    for (field, variable, value, min, max) in numbers {
        problems.range(format!("spec.config.{field}"), value, min, max);
        if let Some(value) = value {
            set.insert(variable, value.to_string());
        }
    }
    let is_status = redirect_status.is_none_or(|status| matches!(status, 301 | 302 | 307 | 308));
    problems.expect(is_status, "spec.config.redirectStatus", "must be 301, 302, 307 or 308");
    let rules = [
        ("spec.config.rateLimitRegister", "RATE_LIMIT_REGISTER", rate_limit_register),
        ("spec.config.rateLimitLogin", "RATE_LIMIT_LOGIN", rate_limit_login),
    ];
    for (field, variable, rule) in rules {
        let Some(rule) = rule else { continue };
        problems.expect(is_rule(rule), field, format!("{rule:?} is not requests/seconds, such as 20/300"));
        set.insert(variable, rule.clone());
    }
    let network = "spec.config.trustedProxies";
    problems.expect(trusted_proxies.len() <= 64, network, "give at most 64");
    for proxy in trusted_proxies {
        let what = "is no network of proxies, such as 10.0.0.0/8, no wider than /8 (IPv6: /7)";
        problems.expect(is_proxy_network(proxy), network, format!("{proxy:?} {what}"));
    }
    if !trusted_proxies.is_empty() {
        set.insert("TRUSTED_PROXIES", trusted_proxies.join(","));
    }
    if let Some(answer) = unknown_hosts {
        let is_answer = matches!(answer.as_str(), "default" | "404");
        problems.expect(is_answer, "spec.config.unknownHosts", "must be default or \"404\"");
        set.insert("UNKNOWN_HOSTS", answer.clone());
    }
    if let Some(level) = log_level {
        let is_level = matches!(level.as_str(), "error" | "warn" | "info" | "debug" | "trace");
        problems.expect(is_level, "spec.config.logLevel", "must be error, warn, info, debug or trace");
        set.insert("LOG_LEVEL", level.clone());
    }
    if let Some(endpoint) = otlp_endpoint {
        problems.expect(
            is_base_url(endpoint) && !endpoint.trim_end_matches('/').ends_with("/v1/traces"),
            "spec.config.otlpEndpoint",
            "must be the base URL of a collector, such as http://collector.tracing:4318, without /v1/traces",
        );
        set.insert("OTLP_ENDPOINT", endpoint.clone());
    }
    let digits = short_code_length.and_then(|digits| u8::try_from(digits).ok());
    let code_length = digits.and_then(|digits| CodeLength::try_from(digits).ok()).unwrap_or_default();
    (set, code_length)
}

fn keyspace(tikv: &Tikv, identity: &Identity, problems: &mut Problems) -> String {
    problems.addresses("spec.storage.tikv.pdEndpoints", &tikv.pd_endpoints);
    problems.name("spec.storage.tikv.tlsSecretName", tikv.tls_secret_name.as_deref());
    let keyspace = tikv.keyspace.clone().unwrap_or_else(|| format!("{}_{}", identity.namespace, identity.name));
    let is_name = (1..=KEYSPACE_BYTES_MAX).contains(&keyspace.len())
        && keyspace.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    problems.expect(
        is_name,
        "spec.storage.tikv.keyspace",
        format!("must be 1 to {KEYSPACE_BYTES_MAX} of A-Z, a-z, 0-9, - and _; {keyspace:?} is not"),
    );
    keyspace
}

fn redis(redis: &RedisCluster, problems: &mut Problems) {
    problems.addresses("spec.cache.redisCluster.seedNodes", &redis.seed_nodes);
    if let Some(credentials) = &redis.credentials {
        problems.name("spec.cache.redisCluster.credentials.secretName", Some(&credentials.secret_name));
        problems.key("spec.cache.redisCluster.credentials.usernameKey", credentials.username_key.as_deref());
        problems.key("spec.cache.redisCluster.credentials.passwordKey", Some(&credentials.password_key));
    }
    if let Some(tls) = &redis.tls {
        problems.name("spec.cache.redisCluster.tls.secretName", tls.secret_name.as_deref());
        let has_certificate = !tls.client_certificate || tls.secret_name.is_some();
        problems.expect(has_certificate, "spec.cache.redisCluster.tls.clientCertificate", "needs secretName");
    }
}

fn autoscaling(autoscaling: &Autoscaling, problems: &mut Problems) {
    let nodes = i64::from(NODES_MAX);
    let Autoscaling {
        mode,
        min_replicas,
        max_replicas,
        target_latency,
        prometheus,
        fallback_replicas,
        target_utilization_percent,
        tolerance_percent,
        warm_up_seconds,
        scale_up,
        scale_down,
    } = autoscaling;
    let mut range = |field: &str, value: i32, min, max| {
        problems.range(format!("spec.autoscaling.{field}"), Some(value), min, max);
    };
    range("minReplicas", *min_replicas, 1, nodes);
    range("maxReplicas", *max_replicas, 1, nodes);
    range("fallbackReplicas", fallback_replicas.unwrap_or(1), 1, nodes);
    range("targetLatency.milliseconds", target_latency.milliseconds, 5, 10_000);
    range("targetUtilizationPercent", *target_utilization_percent, 10, 95);
    range("tolerancePercent", *tolerance_percent, 0, 50);
    range("warmUpSeconds", *warm_up_seconds, 0, 600);
    range("scaleUp.percent", scale_up.percent, 1, 1000);
    range("scaleUp.nodes", scale_up.nodes, 1, nodes);
    range("scaleUp.periodSeconds", scale_up.period_seconds, 15, 1800);
    range("scaleDown.percent", scale_down.percent, 1, 100);
    range("scaleDown.nodes", scale_down.nodes, 1, nodes);
    range("scaleDown.periodSeconds", scale_down.period_seconds, 15, 1800);
    range("scaleDown.stabilizationSeconds", scale_down.stabilization_seconds, 0, 3600);
    if let Some(prometheus) = prometheus {
        range("prometheus.queryWindowSeconds", prometheus.query_window_seconds, 15, 600);
        range("prometheus.queryIntervalSeconds", prometheus.query_interval_seconds, 5, 300);
        let authority = prometheus.url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
        let is_url = authority.is_some_and(is_host) && !prometheus.url.contains(['?', '#', ' ', '@']);
        problems.expect(
            is_url,
            "spec.autoscaling.prometheus.url",
            "must be http:// with a host; TLS is not spoken to Prometheus yet",
        );
    }
    problems.expect(
        min_replicas <= max_replicas,
        "spec.autoscaling.minReplicas",
        "must be at most spec.autoscaling.maxReplicas",
    );
    let between = fallback_replicas.is_none_or(|fallback| (*min_replicas..=*max_replicas).contains(&fallback));
    problems.expect(between, "spec.autoscaling.fallbackReplicas", "must lie between minReplicas and maxReplicas");
    problems.expect(
        *mode != AutoscalingMode::Builtin || prometheus.is_some(),
        "spec.autoscaling.prometheus",
        "is needed with mode builtin: latency is read from it",
    );
}

fn service(service: &Service, problems: &mut Problems) {
    problems.range("spec.service.port", Some(service.port), 1, 65_535);
    problems.range("spec.service.nodePort", service.node_port, 1, 65_535);
    problems.expect(service.annotations.len() <= 64, "spec.service.annotations", "give at most 64");
    problems.expect(
        service.node_port.is_none() || service.service_type != ServiceType::ClusterIP,
        "spec.service.nodePort",
        "needs spec.service.type NodePort or LoadBalancer",
    );
}

fn exposure(ingress: Option<&Ingress>, http_route: Option<&HttpRoute>, base_url: &BaseUrl, problems: &mut Problems) {
    problems.expect(
        ingress.is_none() || http_route.is_none(),
        "spec.httpRoute",
        "give spec.ingress or spec.httpRoute, not both",
    );
    if let Some(ingress) = ingress {
        problems.name("spec.ingress.className", ingress.class_name.as_deref());
        problems.name("spec.ingress.tlsSecretName", ingress.tls_secret_name.as_deref());
        let fits = ingress.tls_secret_name.is_none() || base_url.is_https;
        problems.expect(fits, "spec.ingress.tlsSecretName", "needs a spec.baseUrl of https://");
    }
    if let Some(route) = http_route {
        problems.expect(
            (1..=16).contains(&route.parent_refs.len()),
            "spec.httpRoute.parentRefs",
            "give 1 to 16 gateways",
        );
        for parent in &route.parent_refs {
            problems.name("spec.httpRoute.parentRefs.name", Some(&parent.name));
            problems.name("spec.httpRoute.parentRefs.namespace", parent.namespace.as_deref());
            problems.name("spec.httpRoute.parentRefs.sectionName", parent.section_name.as_deref());
        }
    }
}

/// A DNS subdomain, as most names of objects are.
fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    name.len() <= HOST_BYTES_MAX && name.split('.').all(label)
}

/// A host name, with a port if need be.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    port && is_subdomain(&host.to_ascii_lowercase())
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match ipv6 {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_subdomain(&host.to_ascii_lowercase()),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// http:// or https:// with a host, and a path if need be.
fn is_base_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let (authority, path) = rest.and_then(|rest| rest.split_once('/')).unwrap_or((rest.unwrap_or_default(), ""));
    let is_in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.len() <= 512 && is_host(authority) && path.bytes().all(is_in_path)
}

fn is_image(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'/' | b'@');
    (1..=512).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_part)
}

/// `requests/seconds`.
fn is_rule(text: &str) -> bool {
    let number = |text: &str, digits| {
        text.len() <= digits && !text.starts_with('0') && text.parse::<u32>().is_ok_and(|number| number > 0)
    };
    text.split_once('/').is_some_and(|(requests, seconds)| number(requests, 6) && number(seconds, 5))
}

/// A network in CIDR form, or one address.
/// A network that nodes take for one of proxies: a wider one would have everybody in it.
fn is_proxy_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let bits = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 8..=32,
        Ok(std::net::IpAddr::V6(_)) => 7..=128,
        Err(_) => return false,
    };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|prefix| bits.contains(&prefix)))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SMALLEST: &str = include_str!("../../../tests/samples/cluster.yaml");
    const INVALID: &str = include_str!("../../../tests/samples/invalid_clusters.yaml");

    /// The smallest resource, with what `patch` changes in it; the error names the field where it is no such resource at all.
    pub(crate) fn resource(patch: &Value) -> Result<ShortenerCluster, String> {
        let mut resource: Value = serde_saphyr::from_str(SMALLEST).expect("YAML");
        json_patch::merge(&mut resource, &json!({"metadata": {"uid": "uid-1", "generation": 1}}));
        json_patch::merge(&mut resource, patch);
        serde_path_to_error::deserialize(resource).map_err(|error| format!("{}: {}", error.path(), error.inner()))
    }

    pub(crate) fn smallest() -> ValidatedCluster {
        validate(&resource(&json!({})).expect("a resource")).expect("it makes sense")
    }

    #[test]
    fn the_smallest_makes_sense_and_its_keyspace_is_its_own() {
        let cluster = smallest();
        assert_eq!((cluster.keyspace.as_str(), cluster.base_url.authority.as_str()), ("default_main", "sho.rt"));
        assert!(matches!(cluster.replicas, Replicas::Builtin(_)));
        assert_eq!(cluster.secrets(), BTreeSet::from(["main-secret".to_owned()]));
    }

    /// The same samples as are refused by a real API server.
    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let samples: Vec<Value> = serde_saphyr::from_str(INVALID).expect("YAML");
        assert!(samples.len() >= 60, "{}", samples.len());
        for sample in samples {
            let field = sample["field"].as_str().expect("a field");
            let refused = resource(&sample["patch"])
                .and_then(|resource| validate(&resource).map(|_| ()).map_err(|error| error.to_string()));
            let problem = refused.expect_err(&sample.to_string());
            // Where serde refuses a missing or mistyped field, its path may end before the field's own name.
            let last = field.rsplit('.').next().unwrap_or_default();
            assert!(problem.contains(field) || problem.contains(last), "{sample}: {problem}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let resource = resource(&json!({"spec": {"baseUrl": "sho.rt", "replicas": -1}})).expect("a resource");
        let Invalid(problems) = validate(&resource).expect_err("two things are wrong");
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["spec.baseUrl", "spec.replicas"]);
    }
}
