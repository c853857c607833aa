//! Whose address a request comes from, when proxies may stand between.
//!
//! A proxy adds the address that it was called from to `Forwarded` (RFC 7239) or `X-Forwarded-For`, at the right end.
//! Everything to its left was there before and may be anybody's invention. So the walk begins at the peer and goes left
//! for as long as the hop that vouches for the next one is in a trusted network; the first that is not is the client.
//! Whatever cannot be read ends the walk at the last hop that could.

use std::net::{IpAddr, Ipv4Addr};

use http::{Extensions, HeaderMap, header};
use ipnet::IpNet;

use super::list::elements_of;

/// The most hops that are followed: more proxies than any request passes, fewer than a header can hold.
const HOPS_MAX: usize = 32;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that a request's connection comes from; the server puts it into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The client's address of a request that carries its [`Peer`]. One without counts as coming from `0.0.0.0`.
pub fn of(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    client_addr(peer, headers, trusted)
}

/// Whether a request's connection comes from one of the `trusted` networks. One without its [`Peer`] does not.
pub fn is_from_trusted(extensions: &Extensions, trusted: &[IpNet]) -> bool {
    extensions.get::<Peer>().is_some_and(|peer| is_trusted(peer.0.to_canonical(), trusted))
}

/// The client's address, given the peer's, the headers, and the networks whose word is taken. IPv4 in IPv6 is unwrapped.
pub fn client_addr(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let forwarded = joined(headers, header::FORWARDED.as_str()).map(|text| walk(peer, forwarded_hops(&text), trusted));
    let x_forwarded = joined(headers, X_FORWARDED_FOR).map(|text| walk(peer, x_forwarded_hops(&text), trusted));
    match (forwarded, x_forwarded) {
        (Some(client), None) | (None, Some(client)) => client,
        (None, None) => peer,
        // A proxy adds to one of them and passes the other on as the client sent it. Which one, cannot be told, so only what
        // both say is believed.
        (Some(one), Some(other)) => {
            if one == other {
                one
            } else {
                peer
            }
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// All lines of a header as one list (RFC 9110 §5.3); `None` when there is no element in it. A line that is no text leaves a
/// hole, at which the walk ends.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    let has_element = |line: &&str| elements_of(line).next().is_some();
    lines.iter().any(has_element).then(|| lines.join(","))
}

/// Goes from the peer through `hops`, nearest first, while they are trusted.
fn walk(peer: IpAddr, hops: Vec<Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops.into_iter().take(HOPS_MAX) {
        match hop {
            Some(address) if is_trusted(client, trusted) => client = address,
            _ => break,
        }
    }
    client
}

/// The hops of `X-Forwarded-For`, nearest first; `None` for what is no address.
fn x_forwarded_hops(text: &str) -> Vec<Option<IpAddr>> {
    let mut hops: Vec<_> = elements_of(text).map(address).collect();
    hops.reverse();
    hops
}

/// The hops of `Forwarded`, nearest first; `None` for one without an address. Nothing at all when the header is malformed:
/// a quote that somebody left open would otherwise swallow what a proxy added behind it.
fn forwarded_hops(text: &str) -> Vec<Option<IpAddr>> {
    let mut hops = forwarded_elements(text).unwrap_or_default();
    hops.reverse();
    hops
}

/// Parses `Forwarded` from the left (RFC 7239 §4). Empty elements are none (RFC 9110 §5.6.1).
fn forwarded_elements(text: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return Some(hops);
        }
        let (hop, after) = forwarded_element(rest)?;
        hops.push(hop);
        rest = after;
    }
}

/// An element's address, if it has one, and what follows: a comma or the end. An element is `name=value` pairs, values bare or
/// quoted, with semicolons between; a pair may be left out.
fn forwarded_element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let mut hop = None;
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            let name = name.trim();
            if name.is_empty() || name.contains([',', ';', '"', ' ']) {
                return None;
            }
            if name.eq_ignore_ascii_case("for") && hop.replace(address(&value)).is_some() {
                return None;
            }
            rest = after;
        }
        match rest.strip_prefix(';') {
            Some(after) => rest = after,
            None => return Some((hop.flatten(), rest)),
        }
    }
}

/// A value, bare or quoted, and what follows it: a comma, a semicolon or the end.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';']).unwrap_or(text.len());
        let (bare, rest) = text.split_at(end);
        let bare = bare.trim_end();
        return (!bare.is_empty() && !bare.contains(['"', ' ', '='])).then(|| (bare.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = quoted[at + 1..].trim_start();
                return (rest.is_empty() || rest.starts_with([',', ';'])).then_some((value, rest));
            }
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. None
/// for `unknown`, for obfuscated identifiers (`_gazonk`), and for anything else.
fn address(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let address: IpAddr = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let port_holds = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        address.parse().ok().filter(|address: &IpAddr| address.is_ipv6() && port_holds)?
    } else if let Ok(address) = text.parse() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        address.parse().ok().filter(|address: &IpAddr| address.is_ipv4() && is_port(port))?
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const X: &str = X_FORWARDED_FOR;
    const F: &str = "forwarded";

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "192.168.7.1/32", "2001:db8:aa::/48"].map(|network| network.parse().unwrap()).to_vec()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, line)| (http::HeaderName::from_static(name), HeaderValue::from_str(line).unwrap()))
            .collect()
    }

    fn check(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
        let mut map = HeaderMap::new();
        for (name, line) in lines {
            map.append(*name, HeaderValue::from_str(line).unwrap());
        }
        let found = client_addr(peer.parse().unwrap(), &map, &trusted());
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        for peer in ["203.0.113.9", "2001:db8:ab::1", "192.168.7.2"] {
            check(peer, &[], peer);
            check(peer, &[(X, "1.2.3.4")], peer);
            check(peer, &[(F, "for=1.2.3.4")], peer);
            check(peer, &[(X, "10.0.0.1, 10.0.0.2")], peer);
        }
        check("::ffff:203.0.113.9", &[(X, "1.2.3.4")], "203.0.113.9");
        check("::ffff:10.0.0.1", &[(X, "1.2.3.4")], "1.2.3.4");
    }

    #[test]
    fn the_first_hop_from_the_right_that_is_not_trusted_is_the_client() {
        for (line, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            (" 203.0.113.9\t", "203.0.113.9"),
            ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.7, 203.0.113.9", "203.0.113.9"),
            ("1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("1.2.3.4,203.0.113.9,2001:db8:aa::5,192.168.7.1", "203.0.113.9"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            // Empty elements are none.
            ("203.0.113.9,", "203.0.113.9"),
            (",203.0.113.9", "203.0.113.9"),
            (", ,\t, 203.0.113.9 ,, ", "203.0.113.9"),
            ("1.2.3.4, , 203.0.113.9, , 10.0.0.2,", "203.0.113.9"),
            ("", "10.0.0.1"),
            (" , ,", "10.0.0.1"),
            // What cannot be read ends the walk at the last hop that could.
            ("unknown,", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("_hidden", "10.0.0.1"),
            ("localhost", "10.0.0.1"),
            ("203.0.113.9, unknown", "10.0.0.1"),
            ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("203.0.113.999", "10.0.0.1"),
            ("203.0.113.9:port", "10.0.0.1"),
            ("203.0.113.9:123456", "10.0.0.1"),
            ("[2001:db8::9", "10.0.0.1"),
            ("[203.0.113.9]", "10.0.0.1"),
            ("fe80::1%eth0", "10.0.0.1"),
            ("0x7f.1", "10.0.0.1"),
            ("203.0.113.9 1.2.3.4", "10.0.0.1"),
        ] {
            check("10.0.0.1", &[(X, line)], expected);
        }
        check("10.0.0.1", &[(X, "1.2.3.4"), (X, "203.0.113.9")], "203.0.113.9");
        check("10.0.0.1", &[(X, "203.0.113.9"), (X, "10.0.0.2")], "203.0.113.9");
        check("10.0.0.1", &[(X, "203.0.113.9"), (X, "")], "203.0.113.9");
        check("10.0.0.1", &[(X, ""), (X, "203.0.113.9"), (X, " , "), (X, "10.0.0.2,")], "203.0.113.9");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (line, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
            ("proto=https;FOR=\"203.0.113.9:4711\"", "203.0.113.9"),
            ("for=\"[2001:db8::9]\"", "2001:db8::9"),
            ("for=\"[2001:db8::9]:4711\"", "2001:db8::9"),
            ("for=\"\\203.0.113.9\"", "203.0.113.9"),
            ("for=1.2.3.4, for=203.0.113.9", "203.0.113.9"),
            ("for=1.2.3.4, for=203.0.113.9, for=10.0.0.2", "203.0.113.9"),
            ("for=1.2.3.4 , for=203.0.113.9 , for=\"[2001:db8:aa::1]\"", "203.0.113.9"),
            ("host=\"a,b;for=1.2.3.4\";for=203.0.113.9", "203.0.113.9"),
            // Empty elements are none, and a pair may be left out.
            ("for=203.0.113.9,", "203.0.113.9"),
            (",for=203.0.113.9", "203.0.113.9"),
            (" , for=1.2.3.4, ,\tfor=203.0.113.9 , ,for=10.0.0.2, ", "203.0.113.9"),
            ("for=203.0.113.9;", "203.0.113.9"),
            (";for=203.0.113.9", "203.0.113.9"),
            (";;proto=https;;for=203.0.113.9;;,", "203.0.113.9"),
            ("for=\"[2001:db8::9]\";, for=10.0.0.2;", "2001:db8::9"),
            (",", "10.0.0.1"),
            // This element is not empty; it names nobody.
            ("for=203.0.113.9, ;", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("for=_SEVKISEK", "10.0.0.1"),
            ("for=\"_gazonk:_port\"", "10.0.0.1"),
            ("for=203.0.113.9, for=unknown", "10.0.0.1"),
            ("for=203.0.113.9, for=_a, for=10.0.0.2", "10.0.0.2"),
            ("for=203.0.113.9, proto=http", "10.0.0.1"),
            // Malformed: nothing of it is believed.
            ("", "10.0.0.1"),
            ("203.0.113.9", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("for=1.2.3.4;for=203.0.113.9", "10.0.0.1"),
            ("for=1.2.3.4;by=\", for=203.0.113.9", "10.0.0.1"),
            ("for=1.2.3.4;by=\", for=\"203.0.113.9\"", "10.0.0.1"),
            ("for=\"1.2.3.4\"5", "10.0.0.1"),
            ("for=\"1.2.3.4\\", "10.0.0.1"),
            ("for =\"1.2.3.4\" x", "10.0.0.1"),
        ] {
            check("10.0.0.1", &[(F, line)], expected);
        }
    }

    #[test]
    fn a_header_that_the_proxy_passed_on_does_not_outvote_the_one_it_wrote() {
        check("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=1.2.3.4")], "10.0.0.1");
        check("10.0.0.1", &[(X, "1.2.3.4"), (F, "for=203.0.113.9")], "10.0.0.1");
        check("10.0.0.1", &[(X, "203.0.113.9"), (F, "for=203.0.113.9")], "203.0.113.9");
        check("10.0.0.1", &[(F, "for=203.0.113.9"), (F, "")], "203.0.113.9");
        // A header without an element says nothing.
        for empty in ["", " ", ",", " ,\t,"] {
            check("10.0.0.1", &[(X, "203.0.113.9"), (F, empty)], "203.0.113.9");
            check("10.0.0.1", &[(X, empty), (F, "for=203.0.113.9")], "203.0.113.9");
            check("10.0.0.1", &[(X, empty), (F, empty)], "10.0.0.1");
        }
    }

    #[test]
    fn a_chain_of_trusted_hops_is_followed_so_far_and_no_farther() {
        let chain = ["10.0.0.2"; 200].join(",");
        check("10.0.0.1", &[(X, &format!("203.0.113.9,{chain}"))], "10.0.0.2");
    }

    #[test]
    fn a_request_carries_its_peer() {
        let mut request = http::Request::new(());
        assert_eq!(of(request.extensions(), request.headers(), &trusted()), Ipv4Addr::UNSPECIFIED);
        request.extensions_mut().insert(Peer([10, 0, 0, 1].into()));
        request.headers_mut().extend(headers(&[(X, "203.0.113.9")]));
        assert_eq!(of(request.extensions(), request.headers(), &trusted()), IpAddr::from([203, 0, 113, 9]));
    }

    proptest! {
        /// Whatever a client sends, a proxy that appends the client's address has the last word.
        #[test]
        fn nobody_can_forge_an_address_through_a_proxy_that_appends(sent in "[ -~]{0,60}", in_forwarded in any::<bool>()) {
            let honest: IpAddr = [203, 0, 113, 9].into();
            let (name, added) = if in_forwarded { (F, "for=203.0.113.9") } else { (X, "203.0.113.9") };
            let found = client_addr([10, 0, 0, 1].into(), &headers(&[(name, &format!("{sent}, {added}"))]), &trusted());
            prop_assert!(found == honest || found == IpAddr::from([10, 0, 0, 1]), "{}", found);
        }

        #[test]
        fn no_header_makes_it_panic(line in "[ -~]{0,80}|(for=|by=|\"|,|;|\\\\|\\[|\\]|1\\.2\\.3\\.4|::1){0,20}") {
            client_addr([10, 0, 0, 1].into(), &headers(&[(F, &line), (X, &line)]), &trusted());
        }
    }
}
