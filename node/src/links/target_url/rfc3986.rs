//! What RFC 3986 does not have, percent-encoded.
//!
//! The standard of browsers leaves `|`, `^`, `{`, `}`, `[`, `]`, a lone `%` and more as they are in places where RFC 3986 has no such
//! characters, and clients that hold to the RFC (Java's, for one) refuse them in `Location`. Encoded, they mean the same to both.

use std::borrow::Cow;

/// `url` with every byte percent-encoded that RFC 3986 does not have where it stands. What is encoded already stays as it is.
pub fn encoded(url: &str) -> Cow<'_, str> {
    let path = path_start(url);
    let fragment = url.find('#');
    let fits = |at: usize, byte: u8| match byte {
        b'%' => is_escape(url.as_bytes(), at),
        b'#' => fragment == Some(at),
        b'[' | b']' => at < path,
        byte => is_plain(byte),
    };
    if url.bytes().enumerate().all(|(at, byte)| fits(at, byte)) {
        return Cow::Borrowed(url);
    }
    let mut text = String::with_capacity(url.len() + url.len() / 4);
    for (at, byte) in url.bytes().enumerate() {
        if fits(at, byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].map(hex_digit));
        }
    }
    Cow::Owned(text)
}

/// The host of a URL of the web that holds no user information, without a port.
pub fn host_of(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let host = url.get(start..path_start(url)).unwrap_or_default();
    match host.rsplit_once(':') {
        // The colons of an address are within its brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Where what follows the host begins: only the address of a host has brackets.
fn path_start(url: &str) -> usize {
    let host = url.find("://").map_or(0, |at| at + 3);
    url.get(host..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |at| host + at)
}

/// Whether two hexadecimal digits follow the `%` at this place.
fn is_escape(url: &[u8], at: usize) -> bool {
    url.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// `unreserved`, `sub-delims`, and the delimiters that a path, a query and a fragment may hold.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_rfc_does_not_have_is_encoded_and_nothing_else() {
        for (url, expected) in [
            ("https://example.com/a|b", "https://example.com/a%7Cb"),
            ("https://example.com/a^b?c={d}#{e}", "https://example.com/a%5Eb?c=%7Bd%7D#%7Be%7D"),
            ("https://example.com/?a[]=1&b[c]=2", "https://example.com/?a%5B%5D=1&b%5Bc%5D=2"),
            ("https://example.com/?a=\\b`c\"<d>", "https://example.com/?a=%5Cb%60c%22%3Cd%3E"),
            ("https://example.com/100%", "https://example.com/100%25"),
            ("https://example.com/%zz%4", "https://example.com/%25zz%254"),
            ("https://example.com/%7c%7C%20", "https://example.com/%7c%7C%20"),
            ("https://example.com/#a#b", "https://example.com/#a%23b"),
            ("https://example.com/\u{e9}", "https://example.com/%C3%A9"),
            ("https://[2606:4700::1111]:8443/[x]", "https://[2606:4700::1111]:8443/%5Bx%5D"),
            ("https://[2606:4700::1111]", "https://[2606:4700::1111]"),
        ] {
            assert_eq!(encoded(url), expected);
        }
        let plain = "https://example.com:8443/a-._~!$&'()*+,;=:@/b%20?c/d?e#f/g?h";
        assert!(matches!(encoded(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn a_host_has_no_port_and_keeps_its_brackets() {
        for (url, host) in [
            ("https://example.com/", "example.com"),
            ("https://example.com:8443?a:b", "example.com"),
            ("https://example.com", "example.com"),
            ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]"),
            ("https://[2606:4700::1111]/a:b", "[2606:4700::1111]"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_once_stays(rest in "\\PC{0,60}") {
            let url = format!("https://example.com/{rest}");
            let once = encoded(&url).into_owned();
            prop_assert!(once.bytes().all(|byte| byte == b'%' || byte == b'#' || is_plain(byte)), "{}", once);
            let twice = encoded(&once).into_owned();
            prop_assert_eq!(twice, once);
        }
    }
}
