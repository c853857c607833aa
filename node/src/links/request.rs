//! What a caller asks of a link, checked: requests in the caller's words become values that cannot be wrong.

use std::time::Duration;

use icu_normalizer::ComposingNormalizerBorrowed;

use super::alias::Alias;
use super::invisible::{Invisible, trimmed};
use super::link::RedirectStatus;
use super::takedowns::Takedowns;
use super::target_url::TargetUrl;
use crate::ambient::UnixMs;
use crate::domains::{Domain, Served};
use crate::invalid::Invalid;

/// Characters in a title.
pub const TITLE_CHARS_MAX: usize = 200;
/// Tags on one link.
pub const TAGS_MAX: usize = 10;
/// Characters in a tag.
pub const TAG_CHARS_MAX: usize = 50;
/// The year of the moments that databases and clients write for "never", such as `9999-12-31T23:59:59Z`.
const YEAR_OF_NEVER: &str = "9999";
/// The longest `expires_in`: ten years, in seconds. What lives longer may as well not expire.
pub const EXPIRES_IN_MAX_S: u64 = 315_360_000;

/// What the checks need to know of this node.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Our own hosts: the domains that a link may be on, and where none may lead.
    pub served: &'a Served,
    /// Hosts that may not be shortened.
    pub takedowns: &'a Takedowns,
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
        let at = expires_at.and_then(|text| invalid.check("expires_at", moment_after(&text, now)).flatten());
        let within = expires_in.map(|span_s| invalid.check("expires_in", moment_in(span_s, now)));
        let status = redirect_status.map(|status| invalid.check("redirect_status", status_of(status)));
        let title = title.map(|text| invalid.check("title", title_of(text)));
        let tags = invalid.check("tags", tags_of(tags.unwrap_or_default()));
        let domain = invalid.check("domain", domain_of(domain.as_deref(), rules.served));
        invalid.into_result()?;
        // Every check that failed has left its error, so what is `None` from here on was not asked for.
        let (Some(target), Some(tags), Some(domain)) = (target, tags, domain) else { return Err(Invalid::default()) };
        Ok(NewLink {
            target,
            alias: alias.flatten(),
            expires_at: at.or(within.flatten()),
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
        let expires_at = change(expires_at, |text| invalid.check("expires_at", moment_after(&text, now)).flatten());
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
    let target = TargetUrl::parse(text, rules.served.ours()).map_err(|error| error.to_string())?;
    match rules.takedowns.block_host(target.host()) {
        true => Err("this host may not be shortened".to_owned()),
        false => Ok(target),
    }
}

/// A moment after `now`, or `None` for never.
fn moment_after(text: &str, now: UnixMs) -> Result<Option<UnixMs>, &'static str> {
    // The last year that RFC 3339 can write, which is beyond the last moment that can be computed with: only its form is looked
    // at, in a year of the same days.
    let at = match text.strip_prefix(YEAR_OF_NEVER) {
        Some(rest) => format!("9997{rest}").parse::<jiff::Timestamp>().map(|_| None),
        None => text.parse::<jiff::Timestamp>().map(Some),
    };
    let at = at.map_err(|_| "must be RFC 3339, such as 2026-01-31T09:30:00.000Z")?;
    let at = at.map(|at| u64::try_from(at.as_millisecond()).map(UnixMs).unwrap_or_default());
    if at.is_none_or(|at| at > now) { Ok(at) } else { Err("must be in the future") }
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
    let mut tidied: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags {
        let tag = tidy_tag(&tag);
        if !(1..=TAG_CHARS_MAX).contains(&tag.chars().count()) || tag.chars().any(char::is_control) {
            return Err(format!("each must have 1 to {TAG_CHARS_MAX} visible characters, without control characters"));
        }
        if let Some(invisible) = Invisible::first_in_words(&tag) {
            return Err(format!("one holds {invisible}, which nobody sees: remove it"));
        }
        if !tidied.contains(&tag) {
            tidied.push(tag);
        }
    }
    Ok(tidied)
}

/// A tag as it is kept and compared: without what nobody sees at its ends, composed (NFC), spaces as the space of ASCII. Case counts.
pub fn tidy_tag(tag: &str) -> String {
    let spaced = trimmed(tag).replace(|c: char| c.is_whitespace() && !c.is_control(), " ");
    ComposingNormalizerBorrowed::new_nfc().normalize(&spaced).into_owned()
}

fn domain_of(name: Option<&str>, served: &Served) -> Result<Domain, &'static str> {
    served.by_name(name.unwrap_or_default()).cloned().ok_or("is not a domain of this service")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_trimmed_unique_and_visible() {
        let check = |tags: &[&str], expected: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(tags_of(tags).unwrap(), expected);
        };
        check(&[], &[]);
        check(&[" food ", "food", "Food"], &["food", "Food"]);
        check(&["\u{200b}food\u{a0}", "\u{feff}food", "fo\u{a0}od", "fo od"], &["food", "fo od"]);
        check(&["gru\u{308}n", "grün"], &["grün"]);
        check(&["\u{1f468}\u{200d}\u{1f469}", "❤\u{fe0f}"], &["\u{1f468}\u{200d}\u{1f469}", "❤\u{fe0f}"]);
        check(&["\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}"], &["\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}"]);
        check(&[&format!(" {} ", "x".repeat(TAG_CHARS_MAX))], &[&"x".repeat(TAG_CHARS_MAX)]);
        for refused in [
            "",
            " ",
            "\t",
            "a\tb",
            "a\n",
            "\u{200b}",
            " \u{200b}\u{2060}",
            "\u{200d}",
            "\u{3164}",
            "\u{2800}",
            "\u{e0041}",
            "\u{a0}",
            "fo\u{200b}od",
            "fo\u{ad}od",
            "fo\u{202e}od",
            "\u{85}",
            &"x".repeat(TAG_CHARS_MAX + 1),
        ] {
            assert!(tags_of(vec![refused.to_owned()]).is_err(), "{refused:?}");
        }
        let named = tags_of(vec!["fo\u{200b}od".to_owned()]).unwrap_err();
        assert!(named.contains("U+200B ZERO WIDTH SPACE"), "{named}");
        assert!(
            tags_of(vec!["x".to_owned(); TAGS_MAX]).is_ok() && tags_of(vec!["x".to_owned(); TAGS_MAX + 1]).is_err()
        );
    }

    #[test]
    fn a_moment_in_the_last_year_is_never() {
        let now = UnixMs(1_790_000_000_000);
        for never in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T00:00:00+14:00",
            "9999-01-01T00:00:00Z",
            "9999-12-31t23:59:59z",
        ] {
            assert_eq!(moment_after(never, now), Ok(None), "{never}");
        }
        assert_eq!(moment_after("9998-12-31T23:59:59Z", now), Ok(Some(UnixMs(253_370_764_799_000))));
        for wrong in ["9999", "9999-13-01T00:00:00Z", "9999-02-29T00:00:00Z", "9999-12-31", "10000-01-01T00:00:00Z", ""]
        {
            assert!(moment_after(wrong, now).is_err(), "{wrong}");
        }
    }
}
