//! What a link is to those who follow it: pure decisions on a [`LinkRow`] and a moment.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::target_url::{OwnDomains, encoded};
use crate::ambient::UnixMs;
use crate::clicks::ClickedLink;
use crate::store::links::LinkRow;

/// How long a client may keep a permanent redirect. It bounds how long a changed, deleted or blocked link lives on in browsers.
const PERMANENT_MAX_AGE: Duration = Duration::from_mins(5);

/// A status that redirects: 301, 302, 307 or 308.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(StatusCode);

impl RedirectStatus {
    /// 302: what a link has that asks for nothing else.
    pub const FOUND: Self = Self(StatusCode::FOUND);

    /// The status, if it is one of the four.
    pub fn new(status: u16) -> Option<Self> {
        match status {
            301 | 302 | 307 | 308 => StatusCode::from_u16(status).ok().map(Self),
            _ => None,
        }
    }

    /// As a number.
    pub fn as_u16(self) -> u16 {
        self.0.as_u16()
    }

    /// As what hyper sends.
    pub fn code(self) -> StatusCode {
        self.0
    }

    /// Whether the client repeats its method at the target: 307 and 308.
    pub fn keeps_method(self) -> bool {
        matches!(self.0, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
    }

    /// Whether clients may remember the redirect: 301 and 308.
    pub fn is_permanent(self) -> bool {
        matches!(self.0, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT)
    }
}

/// What a redirect needs of a link, ready to be sent: kept in the process's cache.
#[derive(Clone, Debug)]
pub struct Hop {
    /// `Location`.
    pub location: HeaderValue,
    /// The status to answer with.
    pub status: RedirectStatus,
    /// What its clicks are counted for.
    pub clicked: Arc<ClickedLink>,
    /// From when on the link is gone.
    pub expires_at: Option<UnixMs>,
    /// `Cache-Control` of a link that never expires; one that does has it computed each time.
    pub cache_control: HeaderValue,
}

/// Where a code leads.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To a link that redirects, at least until it expires.
    Hop(Hop),
    /// Back to this service, where the redirect might go round for ever; with the status that it would have.
    Loop(RedirectStatus),
    /// Nowhere: no such link, an inactive or a deleted one.
    Nowhere,
}

impl Destination {
    /// What the cache keeps of the row at (`domain`, `code`), on a node that answers the hosts `answered`.
    pub fn of(domain: &str, code: &str, row: Option<&LinkRow>, answered: &OwnDomains, cache_max_age: Duration) -> Self {
        let live = row.filter(|row| row.is_active && !row.is_deleted);
        let destination = live.and_then(|row| {
            let status = RedirectStatus::new(row.status)?;
            // Refused when a link is made; but a host may become ours later.
            if answered.include_host_of(&row.target) {
                return Some(Self::Loop(status));
            }
            // Rows of earlier releases hold what only browsers understand.
            let location = HeaderValue::from_str(&encoded(&row.target)).ok()?;
            let cache_control = cache_control(status, None, cache_max_age);
            let clicked = Arc::new(ClickedLink { domain: domain.into(), code: code.into() });
            Some(Self::Hop(Hop { location, status, clicked, expires_at: row.expires_at, cache_control }))
        });
        destination.unwrap_or(Self::Nowhere)
    }

    /// Memory it takes, in bytes, about.
    pub fn weight(&self) -> u64 {
        let text = match self {
            Self::Hop(hop) => {
                hop.location.len() + hop.cache_control.len() + hop.clicked.domain.len() + hop.clicked.code.len()
            }
            Self::Loop(_) | Self::Nowhere => 0,
        };
        (size_of::<Self>() + text) as u64
    }
}

impl Hop {
    /// `Cache-Control` of a redirect that is sent at `now`: as the link's own status says, whichever it is sent with, and never
    /// longer than the link lives.
    pub fn cache_control_at(&self, now: UnixMs, cache_max_age: Duration) -> HeaderValue {
        match self.expires_at {
            None => self.cache_control.clone(),
            Some(end) => cache_control(self.status, Some(end.since(now)), cache_max_age),
        }
    }
}

fn cache_control(status: RedirectStatus, life: Option<Duration>, cache_max_age: Duration) -> HeaderValue {
    let wanted = if status.is_permanent() { PERMANENT_MAX_AGE } else { cache_max_age };
    let max_age = life.map_or(wanted, |life| wanted.min(life)).as_secs();
    if max_age == 0 {
        return HeaderValue::from_static("private, max-age=0");
    }
    HeaderValue::try_from(format!("public, max-age={max_age}"))
        .unwrap_or_else(|_| HeaderValue::from_static("private, max-age=0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, life_s: Option<u64>, cdn_s: u64, expected: &str) {
        let status = RedirectStatus::new(status).unwrap();
        let found = cache_control(status, life_s.map(Duration::from_secs), Duration::from_secs(cdn_s));
        assert_eq!(found, expected);
    }

    #[test]
    fn caches_keep_a_redirect_no_longer_than_the_link_lives() {
        check(302, None, 0, "private, max-age=0");
        check(307, None, 60, "public, max-age=60");
        check(307, Some(20), 60, "public, max-age=20");
        check(302, Some(0), 60, "private, max-age=0");
        check(301, None, 0, "public, max-age=300");
        check(308, Some(90), 0, "public, max-age=90");
    }

    #[test]
    fn a_link_back_to_this_service_leads_nowhere() {
        let answered = OwnDomains::new(["sho.rt", "xn--bcher-kva.example"]);
        let mut row = LinkRow {
            id: 7,
            owner: None,
            target: String::new(),
            status: 307,
            title: None,
            tags: Vec::new(),
            is_active: true,
            expires_at: None,
            created_at: UnixMs(1),
            updated_at: UnixMs(1),
            version: 1,
            is_alias: false,
            is_deleted: false,
        };
        let mut of = |target: &str, is_active| {
            (row.target, row.is_active) = (target.to_owned(), is_active);
            Destination::of("", "abc", Some(&row), &answered, Duration::ZERO)
        };
        for target in ["https://sho.rt/x", "http://sho.rt.:8080/", "https://xn--bcher-kva.example/#x", "https://SHO.rt"]
        {
            assert!(matches!(of(target, true), Destination::Loop(status) if status.keeps_method()), "{target}");
            assert!(matches!(of(target, false), Destination::Nowhere), "{target}");
        }
        for target in ["https://example.com/https://sho.rt/", "https://x.sho.rt/", "https://sho.rt.example/"] {
            assert!(matches!(of(target, true), Destination::Hop(_)), "{target}");
        }
    }

    #[test]
    fn only_the_four_redirects_are_statuses() {
        let known: Vec<u16> = (0..1000).filter(|status| RedirectStatus::new(*status).is_some()).collect();
        assert_eq!(known, [301, 302, 307, 308]);
    }
}
