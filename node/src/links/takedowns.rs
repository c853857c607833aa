//! What is blocked: hosts that no link may lead to, and codes that lead nowhere any more, whoever made them.
//!
//! There are two lists, and both hold for new links and for those that are there: the file of the settings, and what the command
//! `shortener-node block` has put into the store. Whoever reads them again replaces them whole; a redirect asks both.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::BlockedHostsNow;
use super::alias::could_be_code;
use super::blocked_hosts::{BlockedHosts, normalised};
use super::link::Hop;
use super::target_url::host_of;
use crate::public_url::PublicUrls;
use crate::store::links::LinkAddress;
use crate::store::takedowns::Takedown;

/// The lists as they are now; cheap to clone.
#[derive(Clone, Debug)]
pub struct Takedowns {
    file: BlockedHostsNow,
    store: Arc<RwLock<Stored>>,
}

/// What the store has.
#[derive(Debug, Default)]
struct Stored {
    hosts: BlockedHosts,
    /// Codes by their domain.
    codes: HashMap<Box<str>, HashSet<Box<str>>>,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Of what.
    pub takedown: Takedown,
    /// Whether it is to be blocked from now on, or no longer.
    pub is_blocked: bool,
}

impl Order {
    /// As one line, for a node to read.
    pub fn to_text(&self) -> String {
        let verb = if self.is_blocked { "block" } else { "unblock" };
        format!("{verb} {}\n", hex::encode(self.takedown.key()))
    }

    /// The order that [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (verb, key) = text.trim_end().split_once(' ')?;
        let is_blocked = match verb {
            "block" => true,
            "unblock" => false,
            _ => return None,
        };
        Some(Self { takedown: Takedown::of_key(&hex::decode(key).ok()?)?, is_blocked })
    }
}

/// What cannot be blocked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code, no short URL of this service and no host")]
pub struct NoTakedown(String);

impl Takedowns {
    /// With the list of a file, and nothing from the store yet.
    pub fn new(file: BlockedHostsNow) -> Self {
        Self { file, store: Arc::default() }
    }

    /// Replaces what the store has.
    pub fn set_stored(&self, takedowns: Vec<Takedown>) {
        let mut stored = Stored::default();
        for takedown in takedowns {
            match takedown {
                Takedown::Host(host) => stored.hosts.insert(host),
                Takedown::Code(LinkAddress { domain, code }) => {
                    stored.codes.entry(domain.into()).or_default().insert(code.into());
                }
            }
        }
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = stored;
    }

    /// Whether no link may lead to `host`, normalised.
    pub fn block_host(&self, host: &str) -> bool {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        if !file.is_empty() && file.contains(host) {
            return true;
        }
        drop(file);
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        !store.hosts.is_empty() && store.hosts.contains(host)
    }

    /// Whether a link that redirects may not do so any more.
    pub fn block(&self, hop: &Hop) -> bool {
        let clicked = &hop.clicked;
        let has_code = {
            let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
            !store.codes.is_empty()
                && store.codes.get(&clicked.domain).is_some_and(|codes| codes.contains(&clicked.code))
        };
        has_code || hop.location.to_str().is_ok_and(|target| self.block_host(host_of(target)))
    }
}

/// What a person means by `text`: a code of the default domain, a short URL with its host, or a host.
pub fn meant(text: &str, public_urls: &PublicUrls) -> Result<Takedown, NoTakedown> {
    let unknown = || NoTakedown(text.to_owned());
    let bare = text.trim();
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    match bare.split_once('/') {
        Some((host, code)) if !code.is_empty() => {
            let domain = public_urls.by_name(host).filter(|_| could_be_code(code)).ok_or_else(unknown)?;
            Ok(Takedown::Code(LinkAddress { domain: domain.as_str().to_owned(), code: code.to_owned() }))
        }
        Some((host, _)) => normalised(host).map(|host| Takedown::Host(host.into())).map_err(|_| unknown()),
        None if could_be_code(bare) => Ok(Takedown::Code(LinkAddress { domain: String::new(), code: bare.to_owned() })),
        None => normalised(bare).map(|host| Takedown::Host(host.into())).map_err(|_| unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_url::BaseUrl;

    #[test]
    fn a_code_a_short_url_and_a_host_are_told_apart() {
        let further = ["go.example.com".to_owned()];
        let urls = PublicUrls::new(BaseUrl::parse("https://sho.rt").unwrap(), &further).unwrap();
        let at =
            |domain: &str, code: &str| Ok(Takedown::Code(LinkAddress { domain: domain.into(), code: code.into() }));
        let host = |name: &str| Ok(Takedown::Host(name.to_owned()));
        for (text, expected) in [
            ("promo", at("", "promo")),
            ("sho.rt/promo", at("", "promo")),
            ("https://sho.rt/promo", at("", "promo")),
            ("https://GO.example.com/promo", at("go.example.com", "promo")),
            ("evil.example", host("evil.example")),
            ("https://Evil.Example/", host("evil.example")),
            ("*.bücher.example.", host("xn--bcher-kva.example")),
            ("192.0.2.1", host("192.0.2.1")),
            ("2606:4700::1111", host("[2606:4700::1111]")),
        ] {
            assert_eq!(meant(text, &urls), expected, "{text}");
        }
        for wrong in ["", "other.example/promo", "sho.rt/a.b", "two words", "https://", "sho.rt/promo/x"] {
            assert!(meant(wrong, &urls).is_err(), "{wrong:?}");
        }
    }
}
