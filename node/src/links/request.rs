//! What a caller asks of a link, checked: requests in the caller's words become values that cannot be wrong.

use std::time::Duration;

use super::alias::Alias;
use super::blocked_hosts::BlockedHosts;
use super::link::RedirectStatus;
use super::target_url::{OwnDomains, TargetUrl};
use crate::ambient::UnixMs;
use crate::invalid::Invalid;
use crate::public_url::{Domain, PublicUrls};

/// Characters in a title.
pub const TITLE_CHARS_MAX: usize = 200;
/// Tags on one link.
pub const TAGS_MAX: usize = 10;
/// Characters in a tag.
pub const TAG_CHARS_MAX: usize = 50;
/// The longest `expires_in`: ten years, in seconds. What lives longer may as well not expire.
pub const EXPIRES_IN_MAX_S: u64 = 315_360_000;

/// What the checks need to know of this node.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Our own hosts.
    pub public_urls: &'a PublicUrls,
    /// Our own hosts as targets, which would redirect to ourselves.
    pub own_domains: &'a OwnDomains,
    /// Hosts that may not be shortened.
    pub blocked_hosts: &'a BlockedHosts,
    /// The status of links that name none.
    pub redirect_status: RedirectStatus,
}

/// A link as a caller asks for it.
#[derive(Clone, Debug, Default)]
pub struct LinkRequest {
    /// Where it should lead.
    pub original_url: String,
    /// The code it should have.
    pub custom_alias: Option<String>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// Seconds from now.
    pub expires_in: Option<u64>,
    /// 301, 302, 307 or 308.
    pub redirect_status: Option<u16>,
    /// Free text.
    pub title: Option<String>,
    /// Free words.
    pub tags: Option<Vec<String>>,
    /// One of our domains.
    pub domain: Option<String>,
}

/// A link that may be made.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Where it leads.
    pub target: TargetUrl,
    /// The code it must have; `None`: one is minted.
    pub alias: Option<Alias>,
    /// From when on it is gone.
    pub expires_at: Option<UnixMs>,
    /// The status of its redirect.
    pub status: RedirectStatus,
    /// Free text.
    pub title: Option<String>,
    /// Free words.
    pub tags: Vec<String>,
    /// The domain it is on.
    pub domain: Domain,
}

/// A change of a field: leave it, or set it, where `None` clears it.
pub type Change<T> = Option<Option<T>>;

/// A change of a link as a caller asks for it.
#[derive(Clone, Debug, Default)]
pub struct LinkChangeRequest {
    /// Where it should lead; cannot be cleared.
    pub original_url: Change<String>,
    /// Whether it redirects; cleared, it does.
    pub is_active: Change<bool>,
    /// RFC 3339; cleared, it never expires.
    pub expires_at: Change<String>,
    /// Cleared, it is this node's default.
    pub redirect_status: Change<u16>,
    /// Free text.
    pub title: Change<String>,
    /// Free words.
    pub tags: Change<Vec<String>>,
}

/// A change that may be made; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct LinkChange {
    /// Where it leads.
    pub target: Option<TargetUrl>,
    /// Whether it redirects.
    pub is_active: Option<bool>,
    /// From when on it is gone, or never.
    pub expires_at: Change<UnixMs>,
    /// The status of its redirect.
    pub status: Option<RedirectStatus>,
    /// Free text, or none.
    pub title: Change<String>,
    /// Free words.
    pub tags: Option<Vec<String>>,
}

impl LinkRequest {
    /// Checks all fields and names each that is wrong.
    pub fn check(self, rules: Rules<'_>, now: UnixMs) -> Result<NewLink, Invalid> {
        let Self { original_url, custom_alias, expires_at, expires_in, redirect_status, title, tags, domain } = self;
        let mut invalid = Invalid::default();
        let target = invalid.check("original_url", target(&original_url, rules));
        let alias = custom_alias.map(|text| invalid.check("custom_alias", Alias::parse(&text)));
        if expires_at.is_some() && expires_in.is_some() {
            invalid.add("expires_in", "give expires_at or expires_in, not both");
        }
        let at = expires_at.map(|text| invalid.check("expires_at", moment_after(&text, now)));
        let within = expires_in.map(|span_s| invalid.check("expires_in", moment_in(span_s, now)));
        let status = redirect_status.map(|status| invalid.check("redirect_status", status_of(status)));
        let title = title.map(|text| invalid.check("title", title_of(text)));
        let tags = invalid.check("tags", tags_of(tags.unwrap_or_default()));
        let domain = invalid.check("domain", domain_of(domain.as_deref(), rules.public_urls));
        invalid.into_result()?;
        // Every check that failed has left its error, so what is `None` from here on was not asked for.
        let (Some(target), Some(tags), Some(domain)) = (target, tags, domain) else { return Err(Invalid::default()) };
        Ok(NewLink {
            target,
            alias: alias.flatten(),
            expires_at: at.or(within).flatten(),
            status: status.flatten().unwrap_or(rules.redirect_status),
            title: title.flatten(),
            tags,
            domain,
        })
    }
}

impl LinkChangeRequest {
    /// Checks all fields and names each that is wrong.
    pub fn check(self, rules: Rules<'_>, now: UnixMs) -> Result<LinkChange, Invalid> {
        let Self { original_url, is_active, expires_at, redirect_status, title, tags } = self;
        let mut invalid = Invalid::default();
        let url = original_url.map(|url| url.ok_or_else(|| "cannot be null".to_owned()));
        let target = url.and_then(|url| invalid.check("original_url", url.and_then(|url| target(&url, rules))));
        let expires_at = change(expires_at, |text| invalid.check("expires_at", moment_after(&text, now)));
        let status = change(redirect_status, |status| invalid.check("redirect_status", status_of(status)));
        let title = change(title, |text| invalid.check("title", title_of(text)));
        let tags = tags.and_then(|tags| invalid.check("tags", tags_of(tags.unwrap_or_default())));
        invalid.into_result()?;
        Ok(LinkChange {
            target,
            is_active: is_active.map(|active| active.unwrap_or(true)),
            expires_at,
            status: status.map(|status| status.unwrap_or(rules.redirect_status)),
            title,
            tags,
        })
    }
}

fn change<T, U>(asked: Change<T>, check: impl FnOnce(T) -> Option<U>) -> Change<U> {
    asked.map(|value| value.and_then(check))
}

fn target(text: &str, rules: Rules<'_>) -> Result<TargetUrl, String> {
    let target = TargetUrl::parse(text, rules.own_domains).map_err(|error| error.to_string())?;
    match rules.blocked_hosts.contains(target.host()) {
        true => Err("this host may not be shortened".to_owned()),
        false => Ok(target),
    }
}

fn moment_after(text: &str, now: UnixMs) -> Result<UnixMs, &'static str> {
    let at = text.parse::<jiff::Timestamp>().map_err(|_| "must be RFC 3339, such as 2026-01-31T09:30:00.000Z")?;
    let at = u64::try_from(at.as_millisecond()).map(UnixMs).unwrap_or_default();
    if at > now { Ok(at) } else { Err("must be in the future") }
}

fn moment_in(span_s: u64, now: UnixMs) -> Result<UnixMs, String> {
    match span_s {
        1..=EXPIRES_IN_MAX_S => Ok(now.plus(Duration::from_secs(span_s))),
        _ => Err(format!("must be from 1 to {EXPIRES_IN_MAX_S} seconds")),
    }
}

fn status_of(status: u16) -> Result<RedirectStatus, &'static str> {
    RedirectStatus::new(status).ok_or("must be 301, 302, 307 or 308")
}

fn title_of(text: String) -> Result<String, String> {
    match text.chars().count() <= TITLE_CHARS_MAX && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => Err(format!("must be at most {TITLE_CHARS_MAX} characters, without control characters")),
    }
}

fn tags_of(tags: Vec<String>) -> Result<Vec<String>, String> {
    if tags.len() > TAGS_MAX {
        return Err(format!("must be at most {TAGS_MAX} tags"));
    }
    let fine = |tag: &String| {
        !tag.trim().is_empty() && tag.chars().count() <= TAG_CHARS_MAX && !tag.chars().any(char::is_control)
    };
    match tags.iter().all(fine) {
        true => Ok(tags),
        false => {
            Err(format!("each must have 1 to {TAG_CHARS_MAX} characters, not only spaces, without control characters"))
        }
    }
}

fn domain_of(name: Option<&str>, public_urls: &PublicUrls) -> Result<Domain, &'static str> {
    public_urls.by_name(name.unwrap_or_default()).cloned().ok_or("is not a domain of this service")
}
