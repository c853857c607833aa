//! Hostile and harmless URLs, as data.

use proptest::prelude::*;

use super::*;
use TargetUrlError::{ControlOrSpace, OwnDomain, Scheme, TooLong, UserInfo};

fn own() -> OwnDomains {
    OwnDomains::new(["sho.rt", "Go.Example.COM.", "bücher.example", "203.0.113.7", "[2001:db8::7]"])
}

/// What kind of refusal is expected; the reason of a refused host is matched by a part of its text.
enum Expected {
    Is(TargetUrlError),
    Malformed,
    Host(&'static str),
    Invisible(&'static str),
}
use Expected::{Host as H, Invisible, Is, Malformed};

const HOSTILE: &[(&str, Expected)] = &[
    // Schemes.
    ("javascript:alert(1)", Is(Scheme)),
    ("JaVaScRiPt:alert(document.cookie)//https://example.com", Is(Scheme)),
    ("data:text/html,<script>alert(1)</script>", Is(Scheme)),
    ("vbscript:msgbox(1)", Is(Scheme)),
    ("file:///etc/passwd", Is(Scheme)),
    ("ftp://example.com/a", Is(Scheme)),
    ("gopher://example.com:70/1", Is(Scheme)),
    ("ws://example.com/", Is(Scheme)),
    ("mailto:someone@example.com", Is(Scheme)),
    ("tel:+123456789", Is(Scheme)),
    ("blob:https://example.com/1", Is(Scheme)),
    ("about:blank", Is(Scheme)),
    ("view-source:https://example.com", Is(Scheme)),
    ("intent://example.com#Intent;scheme=https;end", Is(Scheme)),
    ("localhost:8000/x", Is(Scheme)),
    // Not a URL.
    ("", Malformed),
    ("example.com/page", Malformed),
    ("//example.com/page", Malformed),
    ("/page", Malformed),
    ("https://", Malformed),
    ("https://?x", Malformed),
    ("https://:80/", Malformed),
    ("https://example.com:65536/", Malformed),
    ("https://example.com:x/", Malformed),
    ("https://exa<mple.com/", Malformed),
    ("https://exa%00mple.com/", Malformed),
    ("https://exa%20mple.com/", Malformed),
    ("https://[::1/", Malformed),
    ("https://[::g]/", Malformed),
    ("https://[fe80::1%25eth0]/", Malformed),
    ("https://1.2.3.256/", Malformed),
    ("https://1.2.3.4.5/", Malformed),
    ("https://0x100000000/", Malformed),
    ("https://xn--a/", Malformed),
    ("https://\u{ad}/", Invisible("U+00AD SOFT HYPHEN")),
    // What nobody sees, anywhere but at the ends.
    ("https://example.com/a\u{200b}b", Invisible("U+200B ZERO WIDTH SPACE")),
    ("https://exam\u{ad}ple.com/", Invisible("U+00AD SOFT HYPHEN")),
    ("https://example.com\u{200e}/", Invisible("U+200E LEFT-TO-RIGHT MARK")),
    ("https://example.com/?a=\u{202e}gpj.exe", Invisible("U+202E RIGHT-TO-LEFT OVERRIDE")),
    ("https://example.com/#\u{2060}x", Invisible("U+2060 WORD JOINER")),
    ("https://example.com/a\u{a0}b", Invisible("U+00A0 NO-BREAK SPACE")),
    ("https://example.com/a\u{2028}b", Invisible("U+2028 LINE SEPARATOR")),
    ("https://example.com/a\u{3000}b", Invisible("U+3000 IDEOGRAPHIC SPACE")),
    ("h\u{200b}ttps://example.com/", Invisible("U+200B ZERO WIDTH SPACE")),
    ("\u{200b} https://example.com/", Is(ControlOrSpace)),
    // Control characters and spaces, which the parser alone would drop.
    (" https://example.com/", Is(ControlOrSpace)),
    ("https://example.com/ ", Is(ControlOrSpace)),
    ("https://example.com/a b", Is(ControlOrSpace)),
    ("https://exam\tple.com/", Is(ControlOrSpace)),
    ("java\nscript:alert(1)", Is(ControlOrSpace)),
    ("https://example.com/\r\nSet-Cookie: a=b", Is(ControlOrSpace)),
    ("https://example.com/\0", Is(ControlOrSpace)),
    ("https://example.com/\u{7f}", Is(ControlOrSpace)),
    ("https://example.com/\u{85}", Is(ControlOrSpace)),
    // User information.
    ("https://user:secret@example.com/", Is(UserInfo)),
    ("https://user@example.com/", Is(UserInfo)),
    ("https://:secret@example.com/", Is(UserInfo)),
    ("https://@example.com/", Is(UserInfo)),
    ("https://:@example.com/", Is(UserInfo)),
    ("https://www.bank.example@evil.example/", Is(UserInfo)),
    ("https://www.bank.example%2F@evil.example/", Is(UserInfo)),
    ("http:\\\\user@example.com\\", Is(UserInfo)),
    // Loopback and unspecified, in every spelling.
    ("http://localhost/", H("no dot")),
    ("http://LOCALHOST:8000/", H("no dot")),
    ("http://localhost./", H("no dot")),
    ("http://app.localhost/", H("local network")),
    ("http://ｌｏｃａｌｈｏｓｔ/", H("no dot")),
    ("http://loc%61lhost/", H("no dot")),
    ("http:\\\\localhost\\", H("no dot")),
    ("http:127.0.0.1", H("loopback")),
    ("http://127.0.0.1/", H("loopback")),
    ("http://127.0.0.1./", H("loopback")),
    ("http://127.1/", H("loopback")),
    ("http://127.255.255.254/", H("loopback")),
    ("http://2130706433/", H("loopback")),
    ("http://0x7f000001/", H("loopback")),
    ("http://0x7f.0.0.1/", H("loopback")),
    ("http://0177.0.0.1/", H("loopback")),
    ("http://017700000001/", H("loopback")),
    ("http://%31%32%37.0.0.1/", H("loopback")),
    ("http://１２７.０.０.１/", H("loopback")),
    ("http://127。0。0。1/", H("loopback")),
    ("http://①②⑦.⓪.⓪.①/", H("loopback")),
    ("http://[::1]/", H("loopback")),
    ("http://[0:0:0:0:0:0:0:1]:8080/", H("loopback")),
    ("http://[::ffff:127.0.0.1]/", H("loopback")),
    ("http://[::ffff:7f00:1]/", H("loopback")),
    ("http://[::127.0.0.1]/", H("loopback")),
    ("http://[::ffff:0:127.0.0.1]/", H("loopback")),
    ("http://[64:ff9b::127.0.0.1]/", H("loopback")),
    ("http://[2002:7f00:1::]/", H("loopback")),
    ("http://[2001:0:0808:0808::80ff:fffe]/", H("loopback")),
    ("http://[2001:0:7f00:1::f7f7:f7f7]/", H("loopback")),
    ("http://[2a00::5efe:7f00:1]/", H("loopback")),
    ("http://0.0.0.0/", H("unspecified")),
    ("http://0/", H("unspecified")),
    ("http://0.1.2.3/", H("unspecified")),
    ("http://[::]/", H("unspecified")),
    ("http://[::ffff:0.0.0.0]/", H("unspecified")),
    // Private, shared, link-local, multicast, reserved.
    ("http://10.0.0.1/", H("private")),
    ("http://0xA000001/", H("private")),
    ("http://172.16.0.1/", H("private")),
    ("http://172.31.255.255/", H("private")),
    ("http://192.168.1.1/", H("private")),
    ("http://192.168.257/", H("private")),
    ("http://3232235777/", H("private")),
    ("http://[::ffff:192.168.1.1]/", H("private")),
    ("http://[64:ff9b::10.0.0.1]/", H("private")),
    ("http://[2002:c0a8:101::1]/", H("private")),
    ("http://[fc00::1]/", H("private")),
    ("http://[fdff:ffff::1]/", H("private")),
    ("http://100.64.0.1/", H("shared")),
    ("http://100.127.255.255/", H("shared")),
    ("http://169.254.1.1/", H("link-local")),
    ("http://[fe80::1]/", H("link-local")),
    ("http://[febf::1]/", H("link-local")),
    ("http://192.0.0.192/", H("one network")),
    ("http://198.18.0.1/", H("one network")),
    ("http://224.0.0.1/", H("multicast")),
    ("http://239.255.255.250:1900/", H("multicast")),
    ("http://[ff02::1]/", H("multicast")),
    ("http://255.255.255.255/", H("reserved")),
    ("http://4294967295/", H("reserved")),
    ("http://240.0.0.1/", H("reserved")),
    ("http://[fec0::1]/", H("global unicast")),
    ("http://[100::1]/", H("global unicast")),
    ("http://[64:ff9b:1::1]/", H("global unicast")),
    ("http://[4000::1]/", H("global unicast")),
    // Metadata services.
    ("http://169.254.169.254/latest/meta-data/", H("link-local")),
    ("http://2852039166/latest/meta-data/", H("link-local")),
    ("http://0251.0376.0251.0376/", H("link-local")),
    ("http://[::ffff:a9fe:a9fe]/", H("link-local")),
    // A public one, and our own: spelt so, nobody would know it.
    ("https://[::ffff:8.8.8.8]/", H("inside")),
    ("https://[::ffff:203.0.113.7]/", H("documentation")),
    ("https://[64:ff9b::8.8.8.8]/", H("inside")),
    ("https://[2002:808:808::1]/", H("inside")),
    ("https://[2001:0:808:808::f7f7:f7f7]/", H("inside")),
    ("http://[fd00:ec2::254]/", H("private")),
    ("http://100.100.100.200/", H("shared")),
    ("http://168.63.129.16/", H("metadata")),
    ("http://metadata.google.internal/", H("local network")),
    ("http://METADATA.google.internal./computeMetadata/v1/", H("local network")),
    ("http://metadata.tencentyun.com/", H("metadata")),
    // Names without a dot or under a local suffix.
    ("http://intranet/", H("no dot")),
    ("http://com/", H("no dot")),
    ("http://printer.local/", H("local network")),
    ("http://printer.LOCAL./", H("local network")),
    ("http://printer。local/", H("local network")),
    ("http://router.home.arpa/", H("local network")),
    ("http://nas.lan/", H("local network")),
    ("http://wiki.corp/", H("local network")),
    ("http://wiki.intranet/", H("local network")),
    ("http://box.home/", H("local network")),
    ("http://a.localdomain/", H("local network")),
    ("http://kubernetes.default.svc/", H("local network")),
    ("http://kubernetes.default.svc.cluster.local/", H("local network")),
    // Names of one cluster, and others that the public DNS cannot have.
    ("https://kubernetes.default/", H("cluster")),
    ("https://kubernetes.DEFAULT./", H("cluster")),
    ("http://dashboard.kube-system/", H("cluster")),
    ("http://api.team-a/", H("cluster")),
    ("http://api.team1/", H("cluster")),
    ("http://grafana.monitoring/", H("cluster")),
    ("http://redis.service.consul/", H("cluster")),
    ("http://web.nomad/", H("cluster")),
    ("http://api.svc.cluster/", H("cluster")),
    ("http://db.staging/", H("cluster")),
    ("http://a.b/", H("cluster")),
    ("http://exa{mple.com/", H("DNS")),
    ("http://exa\"mple.com/", H("DNS")),
    ("http://exa!mple.com/", H("DNS")),
    ("http://example..com/", H("DNS")),
    ("http://.example.com/", H("DNS")),
    ("http://example.com../", H("DNS")),
    // The service's own domains.
    ("https://sho.rt/abc", Is(OwnDomain)),
    ("https://SHO.RT/abc", Is(OwnDomain)),
    ("https://sho.rt./abc", Is(OwnDomain)),
    ("https://sho.rt:8443/abc", Is(OwnDomain)),
    ("http://sho%2Ert/", Is(OwnDomain)),
    ("http://sho。rt/", Is(OwnDomain)),
    ("http://ｓｈｏ.ｒｔ/", Is(OwnDomain)),
    ("http:\\\\sho.rt\\abc", Is(OwnDomain)),
    ("https:sho.rt/abc", Is(OwnDomain)),
    ("https://go.example.com/", Is(OwnDomain)),
    ("https://xn--bcher-kva.example/", Is(OwnDomain)),
    ("https://BU\u{308}CHER.example/", Is(OwnDomain)),
    ("http://203.0.113.7:8000/", Is(OwnDomain)),
    ("http://0xCB007107/", Is(OwnDomain)),
    ("http://[2001:db8:0::0:7]/", Is(OwnDomain)),
];

#[test]
fn hostile_urls_are_refused_for_the_right_reason() {
    let own = own();
    for (raw, expected) in HOSTILE {
        let refused = match TargetUrl::parse(raw, &own) {
            Ok(target) => panic!("{raw:?} was taken as {target}"),
            Err(error) => error,
        };
        let right = match expected {
            Is(error) => refused == *error,
            Malformed => matches!(refused, TargetUrlError::Malformed(_)),
            H(part) => matches!(refused, TargetUrlError::Host { reason } if reason.contains(part)),
            Invisible(name) => matches!(refused, TargetUrlError::Invisible(found) if found.to_string() == *name),
        };
        assert!(right, "{raw:?} was refused with: {refused}");
    }
}

/// The first, the last and a middle address of every network that is not reachable from everywhere.
#[test]
fn no_target_lies_in_a_network_that_is_not_reachable_from_everywhere() {
    let registry = include_str!("../../../../tests/corpora/special_purpose_addresses.txt");
    let entries = registry.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let mut seen = 0;
    for (network, reachable) in entries.filter(|(_, reachable)| *reachable != "yes") {
        let hosts = match network.parse::<ipnet::IpNet>().unwrap() {
            ipnet::IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                [first, first + (last - first) / 2, last].map(|ip| std::net::Ipv4Addr::from(ip).to_string())
            }
            ipnet::IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                [first, first + (last - first) / 2, last].map(|ip| format!("[{}]", std::net::Ipv6Addr::from(ip)))
            }
        };
        for host in hosts {
            // The registry's longer entries within are looked at by themselves.
            let refused = TargetUrl::parse(&format!("http://{host}/"), &OwnDomains::default());
            assert!(matches!(refused, Err(TargetUrlError::Host { .. })), "{network} {reachable}: {host} {refused:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * 38);
}

#[test]
fn harmless_urls_are_stored_normalised() {
    let own = own();
    for (raw, normalised) in [
        ("https://example.com", "https://example.com/"),
        ("HTTP://Example.COM:80/A?b=C#D", "http://example.com/A?b=C#D"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("https://example.com/a/../b/./c", "https://example.com/b/c"),
        ("https://example.com/ü?q=ü#ü", "https://example.com/%C3%BC?q=%C3%BC#%C3%BC"),
        ("https://münchen.example/", "https://xn--mnchen-3ya.example/"),
        ("https://例え.テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("https://example.com./", "https://example.com./"),
        ("https://example.com/%20%0d%0a", "https://example.com/%20%0d%0a"),
        (
            "https://example.com/?next=https://user:pw@localhost/",
            "https://example.com/?next=https://user:pw@localhost/",
        ),
        ("https://example.com/@someone", "https://example.com/@someone"),
        ("https://example.com\\@evil.example", "https://example.com/@evil.example"),
        ("https://xsho.rt/", "https://xsho.rt/"),
        ("https://www.sho.rt/", "https://www.sho.rt/"),
        ("https://localhost.example.com/", "https://localhost.example.com/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://134744072/", "https://8.8.8.8/"),
        ("https://172.32.0.1/", "https://172.32.0.1/"),
        ("https://100.128.0.1/", "https://100.128.0.1/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://exa_mple.com/", "https://exa_mple.com/"),
        ("\u{feff}https://example.com/\u{200b}\u{200e}", "https://example.com/"),
        ("\u{2066}https://example.com/a\u{2069}\u{a0}", "https://example.com/a"),
        ("https://example.com/\u{2028}", "https://example.com/"),
        ("https://example.com/\u{3000}", "https://example.com/"),
        ("https://example.com/\u{2764}\u{fe0f}", "https://example.com/%E2%9D%A4%EF%B8%8F"),
        ("https://example.com/%E2%80%8B", "https://example.com/%E2%80%8B"),
        ("https://example.com/a|b^c{d}[e]", "https://example.com/a%7Cb%5Ec%7Bd%7D%5Be%5D"),
        ("https://example.com/?a[]={b}|\\`^#|\\{}", "https://example.com/?a%5B%5D=%7Bb%7D%7C%5C%60%5E#%7C%5C%7B%7D"),
        ("https://example.com/100%?a=%zz", "https://example.com/100%25?a=%25zz"),
        ("https://kubernetes.default.example.com/", "https://kubernetes.default.example.com/"),
        ("https://default.com/", "https://default.com/"),
        ("https://[2001:4860:4860::8888]/", "https://[2001:4860:4860::8888]/"),
        ("https://192.31.196.1/", "https://192.31.196.1/"),
    ] {
        let target = TargetUrl::parse(raw, &own).unwrap_or_else(|error| panic!("{raw:?}: {error}"));
        assert_eq!(target.as_str(), normalised, "{raw:?}");
    }
}

#[test]
fn length_counts_before_and_after_normalising() {
    let own = OwnDomains::default();
    let base = "https://example.com/";
    let longest = format!("{base}{}", "a".repeat(TARGET_URL_BYTES_MAX - base.len()));
    assert_eq!(TargetUrl::parse(&longest, &own).unwrap().as_str(), longest);
    assert_eq!(TargetUrl::parse(&format!("{longest}a"), &own), Err(TooLong));
    let grows = format!("{base}{}", "ü".repeat(TARGET_URL_BYTES_MAX / 4));
    assert_eq!(TargetUrl::parse(&grows, &own), Err(TooLong));
    let label = format!("https://{}.example/", "a".repeat(64));
    assert!(matches!(TargetUrl::parse(&label, &own), Err(TargetUrlError::Host { .. } | TargetUrlError::Malformed(_))));
}

#[test]
fn a_debug_print_shows_the_host_only() {
    let target = TargetUrl::parse("https://example.com/reset?token=secret", &OwnDomains::default()).unwrap();
    assert_eq!(format!("{target:?}"), "TargetUrl(example.com…)");
}

/// Pieces that URLs are built of, so that random ones get past the first check.
fn url_like() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![Just("http://"), Just("https://"), Just("HTTPS:\\\\"), Just("https:"), Just("ftp://")];
    let host = prop_oneof![
        "[a-z0-9.-]{1,20}",
        "[a-zA-Z0-9ａ-ｚ０-９。．%_]{1,12}\\.(com|local|example|rt)\\.?",
        any::<[u8; 4]>().prop_map(|b| std::net::Ipv4Addr::from(b).to_string()),
        any::<u32>().prop_map(|n| format!("0x{n:x}")),
        any::<[u8; 16]>().prop_map(|b| format!("[{}]", std::net::Ipv6Addr::from(b))),
        (prop_oneof![Just("::ffff:"), Just("64:ff9b::"), Just("::")], any::<[u8; 4]>())
            .prop_map(|(prefix, b)| format!("[{prefix}{}]", std::net::Ipv4Addr::from(b))),
    ];
    (scheme, "(\\PC{0,3}@)?", host, "(:[0-9]{1,5})?", "([/?#\\\\]\\PC{0,40})?")
        .prop_map(|(scheme, user, host, port, rest)| format!("{scheme}{user}{host}{port}{rest}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn nothing_panics_and_what_is_taken_is_a_fixed_point(raw in prop_oneof![url_like(), "\\PC{0,60}", any::<String>()]) {
        let own = own();
        if let Ok(target) = TargetUrl::parse(&raw, &own) {
            let again = TargetUrl::parse(target.as_str(), &own);
            prop_assert_eq!(again.as_ref().map(TargetUrl::as_str), Ok(target.as_str()));
            prop_assert!(target.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(HeaderValue::from_str(target.as_str()).is_ok());
            let url = Url::parse(target.as_str()).unwrap();
            prop_assert!(matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none());
            match url.host().unwrap() {
                Host::Domain(name) => prop_assert!(!matches!(name.rsplit_once('.'), None | Some((_, "local")))),
                // The standard library's own idea of what is not public, where it has one.
                Host::Ipv4(ip) => prop_assert!(!ip.is_private() && !ip.is_loopback() && !ip.is_link_local()
                    && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified()),
                Host::Ipv6(ip) => prop_assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
                    && !ip.is_unique_local() && !ip.is_unicast_link_local()
                    && ip.to_ipv4_mapped().is_none_or(|v4| !v4.is_private() && !v4.is_loopback())),
            }
        }
    }
}
