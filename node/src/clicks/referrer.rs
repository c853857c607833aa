//! Which site a visitor came from: the host of the `Referer`, never its path or query, which may say who he is.

use url::{Host, Url};

/// Said of a visitor who came from no page, or whose page had no host.
pub const DIRECT: &str = "direct";
/// Said of a referrer that cannot be read.
pub const UNKNOWN: &str = "unknown";
/// Said of a referrer that is named by an address and not by a name: that address may be the visitor's own.
pub const ADDRESS: &str = "(address)";
/// Longest host name that is kept, in bytes: the longest in the DNS.
const HOST_BYTES_MAX: usize = 253;

/// The host of a `Referer` header in lower case and without `www.`, or what is said in place of one.
pub fn host(header: Option<&[u8]>) -> String {
    let Some(header) = header.map(<[u8]>::trim_ascii).filter(|header| !header.is_empty()) else {
        return DIRECT.to_owned();
    };
    let Some(url) = str::from_utf8(header).ok().and_then(|header| Url::parse(header).ok()) else {
        return UNKNOWN.to_owned();
    };
    match url.host() {
        None => DIRECT.to_owned(),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => ADDRESS.to_owned(),
        Some(Host::Domain(name)) => name_of(name),
    }
}

fn name_of(name: &str) -> String {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // Only web addresses are read as such by the parser: `app://192.0.2.1` has a name that is an address.
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return ADDRESS.to_owned();
    }
    match name.strip_prefix("www.").unwrap_or(&name) {
        "" => UNKNOWN.to_owned(),
        name if name.len() > HOST_BYTES_MAX => UNKNOWN.to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_is_kept() {
        for (header, expected) in [
            ("https://example.org", "example.org"),
            ("https://www.Example.ORG/path?user=me#fragment", "example.org"),
            ("http://me:secret@news.example.org:8080/", "news.example.org"),
            ("https://example.org./", "example.org"),
            ("https://bücher.example/", "xn--bcher-kva.example"),
            ("android-app://com.google.android.gm/", "com.google.android.gm"),
            ("", DIRECT),
            (" ", DIRECT),
            ("about:blank", DIRECT),
            ("data:text/html,hello", DIRECT),
            ("/path", UNKNOWN),
            ("example.org", UNKNOWN),
            ("https://", UNKNOWN),
            ("app://./", UNKNOWN),
            ("http://192.0.2.7/", ADDRESS),
            ("http://0xC0000207/", ADDRESS),
            ("http://[2001:db8::7]/", ADDRESS),
            ("app://192.0.2.7/", ADDRESS),
        ] {
            assert_eq!(host(Some(header.as_bytes())), expected, "{header}");
        }
        assert_eq!(host(None), DIRECT);
        assert_eq!(host(Some(b"https://\xff/")), UNKNOWN);
        assert_eq!(host(Some(format!("https://{}", "a.".repeat(200)).as_bytes())), UNKNOWN);
    }
}
