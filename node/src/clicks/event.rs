//! A click as the redirect leaves it: what the request said, unread.
//!
//! Made on the redirect's path, so it costs two short copies and four look-ups; everything that takes thought is done later,
//! by the consumer. The headers are copied and not shared, because a shared one would keep the connection's whole read
//! buffer alive for as long as the click waits.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Method};

use super::country::Countries;
use super::referrer;
use super::user_agent::Agents;
use super::visitor::{Salt, visitor};
use crate::ambient::UnixMs;
use crate::store::clicks::Click;

/// Bytes of a `User-Agent` that are read: the names stand within.
const USER_AGENT_BYTES_MAX: usize = 512;
/// Bytes of a `Referer` that are read: scheme, user-info and the longest host name.
const REFERRER_BYTES_MAX: usize = 512;

/// Headers by which a browser says that nobody has clicked yet.
const PURPOSE_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];
const PURPOSES: [&str; 3] = ["prefetch", "prerender", "preview"];

/// Which link was clicked on. One value a link, shared by its clicks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClickedLink {
    /// The ID of its domain.
    pub domain: Box<str>,
    /// Its short code.
    pub code: Box<str>,
}

/// A click that waits to be counted. It has no `Debug`, so that no log ever shows the address in it.
#[derive(Clone)]
pub struct ClickEvent {
    at: UnixMs,
    link: Arc<ClickedLink>,
    address: IpAddr,
    user_agent: Box<[u8]>,
    referrer: Option<Box<[u8]>>,
    is_prefetch: bool,
}

impl ClickEvent {
    /// The click that a request from `address` made at `at`.
    pub fn new(at: UnixMs, link: Arc<ClickedLink>, address: IpAddr, method: &Method, headers: &HeaderMap) -> Self {
        let copy = |name, bytes_max| {
            let value: &[u8] = headers.get(name)?.as_bytes();
            Some(Box::from(value.get(..bytes_max).unwrap_or(value)))
        };
        Self {
            at,
            link,
            address,
            user_agent: copy(USER_AGENT, USER_AGENT_BYTES_MAX).unwrap_or_default(),
            referrer: copy(REFERER, REFERRER_BYTES_MAX),
            is_prefetch: *method != Method::GET || PURPOSE_HEADERS.iter().any(|name| is_ahead_of_time(headers, name)),
        }
    }

    /// When it was.
    pub fn at(&self) -> UnixMs {
        self.at
    }

    /// Reads what the request said. The address goes no further than this: a country and a hash come out.
    pub fn read(&self, countries: &Countries, agents: &mut Agents, salt: &Salt) -> Click {
        let Self { at, link, address, user_agent, referrer, is_prefetch } = self;
        let address = address.to_canonical();
        let software = agents.read(user_agent);
        Click {
            at: *at,
            domain: link.domain.to_string(),
            code: link.code.to_string(),
            referrer: referrer::host(referrer.as_deref()),
            browser: software.browser.to_owned(),
            operating_system: software.operating_system.to_owned(),
            device: software.device.to_owned(),
            country: countries.of(address),
            bot: *is_prefetch || software.bot,
            visitor: visitor(salt, link, address, user_agent),
        }
    }
}

fn is_ahead_of_time(headers: &HeaderMap, name: &HeaderName) -> bool {
    let said = headers.get(name).and_then(|value| value.to_str().ok());
    said.is_some_and(|said| {
        let said = said.to_ascii_lowercase();
        PURPOSES.iter().any(|purpose| said.contains(purpose))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";

    fn click(method: &Method, headers: &[(&'static str, &str)]) -> Click {
        let link = Arc::new(ClickedLink { domain: "".into(), code: "abc".into() });
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let event = ClickEvent::new(UnixMs(7), link, [192, 0, 2, 1].into(), method, &headers.collect());
        event.read(&Countries::unknown(), &mut Agents::default(), &[1; 32])
    }

    #[test]
    fn a_click_holds_what_its_request_said() {
        let click = click(&Method::GET, &[("user-agent", FIREFOX), ("referer", "https://www.example.org/a?b")]);
        let Click { at, domain, code, referrer, browser, operating_system, device, country, bot, visitor: _ } = click;
        assert_eq!((at, domain.as_str(), code.as_str(), bot), (UnixMs(7), "", "abc", false));
        assert_eq!(
            [referrer, browser, operating_system, device, country],
            ["example.org", "Firefox", "Linux", "desktop", "unknown"]
        );
    }

    #[test]
    fn what_nobody_looks_at_is_a_bots() {
        assert!(!click(&Method::GET, &[("user-agent", FIREFOX)]).bot);
        assert!(click(&Method::HEAD, &[("user-agent", FIREFOX)]).bot);
        assert!(click(&Method::GET, &[]).bot, "no user agent");
        assert!(click(&Method::GET, &[("user-agent", "curl/8.5.0")]).bot);
        for (name, value) in [
            ("purpose", "prefetch"),
            ("purpose", "Preview"),
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender;anonymous-client-ip"),
            ("sec-purpose", "Prerender"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
            ("x-purpose", "preview"),
            ("x-moz", "Prefetch"),
        ] {
            assert!(click(&Method::GET, &[("user-agent", FIREFOX), (name, value)]).bot, "{name}: {value}");
        }
        for (name, value) in [("purpose", "shopping"), ("sec-purpose", ""), ("x-moz", "fetch"), ("x-other", "prefetch")]
        {
            assert!(!click(&Method::GET, &[("user-agent", FIREFOX), (name, value)]).bot, "{name}: {value}");
        }
    }

    #[test]
    fn long_headers_are_cut() {
        let long = "x".repeat(100_000);
        let headers = [(USER_AGENT, long.parse().unwrap()), (REFERER, long.parse().unwrap())].into_iter().collect();
        let link = Arc::new(ClickedLink { domain: "".into(), code: "abc".into() });
        let event = ClickEvent::new(UnixMs(7), link, [192, 0, 2, 1].into(), &Method::GET, &headers);
        assert_eq!(event.user_agent.len(), USER_AGENT_BYTES_MAX);
        assert_eq!(event.referrer.unwrap().len(), REFERRER_BYTES_MAX);
    }
}
