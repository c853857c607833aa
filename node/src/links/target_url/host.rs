//! Which hosts a short link may not lead to: those that mean something else, or something private, where the visitor is.
//!
//! Takes a host that the URL parser has normalised and gives the reason to refuse it, or none. Names are not resolved:
//! what a name points at can change after the check, and the service never fetches a target itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::Host;

/// What stands in the way of a host, as the middle of a sentence: "the host … {reason}".
pub(super) type Reason = &'static str;

/// The longest name that DNS can carry, in bytes, without its trailing dot (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// The longest label of a name, in bytes (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Suffixes that are answered, if at all, by the visitor's own network: special-use names (RFC 6761, RFC 6762, RFC 8375,
/// `.internal` by ICANN's resolution of 2024), those that ICANN will not delegate because so many networks use them
/// (`.home`, `.corp`), and what routers hand out. `.arpa` is DNS's own infrastructure. `.example`, `.invalid` and `.onion`
/// are not here: no local network answers them.
const LOCAL_SUFFIXES: [&str; 20] = [
    "arpa",
    "corp",
    "dmz",
    "domain",
    "home",
    "internal",
    "intra",
    "intranet",
    "lan",
    "lo",
    "local",
    "localdomain",
    "localdomain6",
    "localhost",
    "localhost6",
    "mgmt",
    "private",
    "svc",
    "test",
    "workgroup",
];

/// Last labels of names in one cluster: `<service>.<namespace>` in Kubernetes, the domains of Consul, Nomad and Docker. A namespace can
/// have any name: these are the ones that clusters have by themselves or by the usual charts, and none is a domain of the public DNS.
/// Namespaces with a hyphen or a digit, such as `kube-system`, are refused by [`is_top_level`].
const CLUSTER_SUFFIXES: [&str; 60] = [
    "argo",
    "argocd",
    "backend",
    "calico",
    "ceph",
    "cilium",
    "cluster",
    "consul",
    "databases",
    "default",
    "docker",
    "elasticsearch",
    "envoy",
    "flux",
    "frontend",
    "gitlab",
    "grafana",
    "harbor",
    "infra",
    "infrastructure",
    "ingress",
    "istio",
    "jenkins",
    "kafka",
    "keda",
    "keycloak",
    "knative",
    "kube",
    "kubernetes",
    "linkerd",
    "logging",
    "loki",
    "longhorn",
    "mariadb",
    "mesh",
    "metallb",
    "metrics",
    "mongodb",
    "monitoring",
    "mysql",
    "nomad",
    "observability",
    "openshift",
    "operators",
    "pod",
    "podman",
    "postgres",
    "postgresql",
    "preprod",
    "production",
    "prometheus",
    "rabbitmq",
    "rancher",
    "redis",
    "rook",
    "staging",
    "swarm",
    "traefik",
    "vault",
    "velero",
];

/// Public names that clouds resolve to their metadata service.
const METADATA_NAMES: [&str; 3] = ["metadata.packet.net", "metadata.platformequinix.com", "metadata.tencentyun.com"];

/// Metadata addresses outside the ranges below that are refused anyway: Azure's wire server.
const METADATA_V4: [Ipv4Addr; 1] = [Ipv4Addr::new(168, 63, 129, 16)];

/// IANA's IPv4 Special-Purpose Address Registry (RFC 6890, as of October 2025) and multicast: network, prefix length, and why no link may
/// lead there, or none where the registry says that it is reachable from everywhere. The longest prefix that fits counts.
const SPECIAL_V4: [(Ipv4Addr, u32, Option<Reason>); 21] = [
    (Ipv4Addr::UNSPECIFIED, 8, Some("is unspecified")),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Some("is private")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Some("is in the shared range 100.64.0.0/10")),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Some("is loopback")),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Some("is link-local")),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Some("is private")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, ONE_NETWORK),
    // The anycast addresses of port control and of TURN: the nearest one answers, which is the visitor's own network.
    (Ipv4Addr::new(192, 0, 0, 9), 32, ONE_NETWORK),
    (Ipv4Addr::new(192, 0, 0, 10), 32, ONE_NETWORK),
    (Ipv4Addr::new(192, 0, 2, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(192, 31, 196, 0), 24, None),
    (Ipv4Addr::new(192, 52, 193, 0), 24, None),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Some("is that of a 6to4 relay, of which there are none any more")),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Some("is private")),
    (Ipv4Addr::new(192, 175, 48, 0), 24, None),
    (Ipv4Addr::new(198, 18, 0, 0), 15, ONE_NETWORK),
    (Ipv4Addr::new(198, 51, 100, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(203, 0, 113, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Some("is multicast")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Some("is reserved or broadcast")),
    (Ipv4Addr::BROADCAST, 32, Some("is reserved or broadcast")),
];

/// IANA's IPv6 Special-Purpose Address Registry (as of October 2025), in the same form. Networks that carry an IPv4 address are not here:
/// it is looked at.
const SPECIAL_V6: [(Ipv6Addr, u32, Option<Reason>); 17] = [
    // Only 2000::/3 is given out for use on the internet (RFC 4291 §2.4); 64:ff9b:1::/48 is a network's own NAT64.
    (Ipv6Addr::UNSPECIFIED, 0, Some("is outside the global unicast range 2000::/3")),
    (Ipv6Addr::UNSPECIFIED, 128, Some("is unspecified")),
    (Ipv6Addr::LOCALHOST, 128, Some("is loopback")),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, None),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Some("is for protocols of the internet, not for hosts")),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 0), 32, ONE_NETWORK),
    (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, ONE_NETWORK),
    (Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 0), 32, None),
    (Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 0), 48, None),
    (Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28, Some("is for protocols of the internet, not for hosts")),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, DOCUMENTATION),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48, None),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, DOCUMENTATION),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, ONE_NETWORK),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Some("is unique-local, that is private")),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Some("is link-local")),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Some("is multicast")),
];

const ONE_NETWORK: Option<Reason> = Some("is for use inside one network only");
const DOCUMENTATION: Option<Reason> = Some("is an example in documentation, where no host is");

/// A public IPv4 address, but spelt so that nothing that is said of it as IPv4 would hold: that it is our own, or blocked.
const V4_IN_V6: Option<Reason> = Some("is an IPv4 address inside an IPv6 one");

/// Why no link may lead to `host`; `None` when it may.
pub(super) fn refusal(host: &Host<&str>) -> Option<Reason> {
    match host {
        Host::Domain(name) => refused_name(name),
        Host::Ipv4(address) => refused_v4(*address),
        Host::Ipv6(address) => refused_v6(*address),
    }
}

/// `name` as it is compared: without the one trailing dot that means the root of DNS.
pub(super) fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn refused_name(name: &str) -> Option<Reason> {
    let name = without_root(name);
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Some("is not a name that DNS can hold: labels of 1 to 63 letters, digits, - and _, 253 bytes in all");
    }
    let Some((_, suffix)) = name.rsplit_once('.') else {
        return Some("has no dot: use the full public name");
    };
    if LOCAL_SUFFIXES.contains(&suffix) || CLUSTER_SUFFIXES.contains(&suffix) || !is_top_level(suffix) {
        return Some("is under a suffix that only a local network or a cluster answers");
    }
    METADATA_NAMES.contains(&name).then_some("is a cloud's metadata service")
}

/// What hosts on the internet are named with (RFC 1123 §2.1), and the underscore that some have all the same.
fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether the public DNS can have `label` at its top: two letters or more, or an internationalised name. ICANN delegates no other.
fn is_top_level(label: &str) -> bool {
    label.starts_with("xn--") || (label.len() >= 2 && label.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

fn refused_v4(address: Ipv4Addr) -> Option<Reason> {
    let special = SPECIAL_V4.iter().filter(|(network, bits, _)| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        (u32::from(address) ^ u32::from(*network)) & mask == 0
    });
    let reason = special.max_by_key(|(_, bits, _)| *bits).and_then(|(_, _, reason)| *reason);
    reason.or_else(|| METADATA_V4.contains(&address).then_some("is a cloud's metadata service"))
}

fn refused_v6(address: Ipv6Addr) -> Option<Reason> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => special_v6(address),
        // Teredo (RFC 4380): the server as it is, the client inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            refused_v4(embedded(server_high, server_low)).or_else(|| refused_v4(embedded(!high, !low))).or(V4_IN_V6)
        }
        // In this order: IPv4-compatible and -mapped (RFC 4291), -translated (RFC 2765), NAT64's well-known prefix
        // (RFC 6052), 6to4 (RFC 3056), and ISATAP (RFC 5214), which carries an IPv4 address below any prefix.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0x2000..=0x3fff, _, _, _, 0 | 0x0200, 0x5efe, high, low] => refused_v4(embedded(high, low)).or(V4_IN_V6),
        _ => special_v6(address),
    }
}

fn special_v6(address: Ipv6Addr) -> Option<Reason> {
    let special = SPECIAL_V6.iter().filter(|(network, bits, _)| {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        (u128::from(address) ^ u128::from(*network)) & mask == 0
    });
    special.max_by_key(|(_, bits, _)| *bits).and_then(|(_, _, reason)| *reason)
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
