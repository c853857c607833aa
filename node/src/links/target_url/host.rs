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
/// (`.home`, `.corp`), and what routers and clusters hand out. `.arpa` is DNS's own infrastructure. `.example`,
/// `.invalid` and `.onion` are not here: no local network answers them.
const LOCAL_SUFFIXES: [&str; 15] = [
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localdomain6",
    "localhost",
    "localhost6",
    "private",
    "svc",
    "test",
    "workgroup",
];

/// Public names that clouds resolve to their metadata service.
const METADATA_NAMES: [&str; 3] = ["metadata.packet.net", "metadata.platformequinix.com", "metadata.tencentyun.com"];

/// Metadata addresses outside the ranges below that are refused anyway: Azure's wire server.
const METADATA_V4: [Ipv4Addr; 1] = [Ipv4Addr::new(168, 63, 129, 16)];

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
    if name.len() > NAME_BYTES_MAX || name.split('.').any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return Some("is not a name that DNS can hold: labels of 1 to 63 bytes, 253 in all");
    }
    let Some((_, suffix)) = name.rsplit_once('.') else {
        return Some("has no dot: use the full public name");
    };
    if LOCAL_SUFFIXES.contains(&suffix) {
        return Some("is under a suffix that only a local network answers");
    }
    METADATA_NAMES.contains(&name).then_some("is a cloud's metadata service")
}

/// IANA's IPv4 special-purpose registry (RFC 6890), but for documentation networks: those lead nowhere and harm nobody.
fn refused_v4(address: Ipv4Addr) -> Option<Reason> {
    match address.octets() {
        [0, ..] => Some("is unspecified"),
        [127, ..] => Some("is loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("is private"),
        [100, 64..=127, ..] => Some("is in the shared range 100.64.0.0/10"),
        [169, 254, ..] => Some("is link-local"),
        [192, 0, 0, _] | [198, 18..=19, ..] => Some("is for use inside one network only"),
        [224..=239, ..] => Some("is multicast"),
        [240..=255, ..] => Some("is reserved or broadcast"),
        _ => METADATA_V4.contains(&address).then_some("is a cloud's metadata service"),
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<Reason> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("is unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("is loopback"),
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
        [0xfe80..=0xfebf, ..] => Some("is link-local"),
        [0xfc00..=0xfdff, ..] => Some("is unique-local, that is private"),
        [0xff00..=0xffff, ..] => Some("is multicast"),
        [0x2000..=0x3fff, ..] => None,
        // Only 2000::/3 is given out for use on the internet (RFC 4291 §2.4); 64:ff9b:1::/48 is a network's own NAT64.
        _ => Some("is outside the global unicast range 2000::/3"),
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
