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
use crate::domains::default_host;
use crate::public_url::spelling;
use crate::store::domains::Registry;
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

/// What a person means by what is to be blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Every link to this host, normalised, and to what is below it.
    Host(String),
    /// The link with this code.
    Code {
        /// On the domain of this host; without one, on the default domain.
        host: Option<String>,
        /// The code.
        code: String,
    },
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// In the words of whoever gave the command.
    words: String,
    meant: Meant,
    /// Whether it is to be blocked from now on, or no longer.
    pub is_blocked: bool,
}

/// What cannot be blocked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code, no short URL of this service and no host")]
pub struct NoTakedown(String);

impl Order {
    /// To block what `words` say, or to let it be again.
    pub fn new(words: &str, is_blocked: bool) -> Result<Self, NoTakedown> {
        let meant = meant(words).ok_or_else(|| NoTakedown(words.to_owned()))?;
        Ok(Self { words: words.to_owned(), meant, is_blocked })
    }

    /// As one line, for a node to read.
    pub fn to_text(&self) -> String {
        let verb = if self.is_blocked { "block" } else { "unblock" };
        format!("{verb} {}\n", hex::encode(&self.words))
    }

    /// The order that [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (verb, words) = text.trim_end().split_once(' ')?;
        let is_blocked = match verb {
            "block" => true,
            "unblock" => false,
            _ => return None,
        };
        Self::new(&String::from_utf8(hex::decode(words).ok()?).ok()?, is_blocked).ok()
    }

    /// That it means nothing where it was to be carried out.
    pub fn refused(&self) -> NoTakedown {
        NoTakedown(self.words.clone())
    }

    /// What is to be written into a store whose hosts mean what `registry` says.
    pub fn takedown(&self, registry: &Registry) -> Result<Takedown, NoTakedown> {
        let (host, code) = match &self.meant {
            Meant::Host(host) => return Ok(Takedown::Host(host.clone())),
            Meant::Code { host, code } => (host, code),
        };
        let row = match host {
            None => default_host(registry).and_then(|host| registry.get(host)),
            Some(host) => {
                let spelt = ["https", "http"].map(|scheme| spelling(scheme, host));
                spelt.iter().flatten().find_map(|host| registry.get(host))
            }
        };
        let domain = match row {
            Some(row) => row.domain.clone(),
            // No node has used the store yet.
            None if host.is_none() => String::new(),
            None => return Err(self.refused()),
        };
        Ok(Takedown::Code(LinkAddress { domain, code: code.clone() }))
    }
}

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
fn meant(text: &str) -> Option<Meant> {
    let bare = text.trim();
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    let host = |host: &str| normalised(host).ok().map(|host| Meant::Host(host.into()));
    match bare.split_once('/') {
        Some((host, code)) if !code.is_empty() => {
            let is_whole = could_be_code(code) && spelling("https", host).is_some();
            is_whole.then(|| Meant::Code { host: Some(host.to_owned()), code: code.to_owned() })
        }
        Some((name, _)) => host(name),
        None if could_be_code(bare) => Some(Meant::Code { host: None, code: bare.to_owned() }),
        None => host(bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;
    use crate::store::domains::HostRow;

    #[test]
    fn a_code_a_short_url_and_a_host_are_told_apart() {
        let row = |domain: &str, since: u64| HostRow {
            domain: domain.to_owned(),
            registered_at: UnixMs(1),
            base_since: Some(UnixMs(since)).filter(|since| since.0 > 0),
        };
        let hosts = [("old.rt", row("", 5)), ("sho.rt", row("", 6)), ("go.example.com", row("go.example.com", 0))];
        let port = ("x.test:8080", row("x.test:8080", 0));
        let registry: Registry = hosts.into_iter().chain([port]).map(|(host, row)| (host.to_owned(), row)).collect();
        let at = |domain: &str, code: &str| {
            Ok(Takedown::Code(LinkAddress { domain: domain.to_owned(), code: code.to_owned() }))
        };
        let host = |name: &str| Ok(Takedown::Host(name.to_owned()));
        let takedown =
            |text: &str, registry: &Registry| Order::new(text, true).and_then(|order| order.takedown(registry));
        for (text, expected) in [
            ("promo", at("", "promo")),
            ("sho.rt/promo", at("", "promo")),
            ("old.rt./promo", at("", "promo")),
            ("https://sho.rt/promo", at("", "promo")),
            ("http://sho.rt:80/promo", at("", "promo")),
            ("https://GO.example.com/promo", at("go.example.com", "promo")),
            ("x.test:8080/promo", at("x.test:8080", "promo")),
            ("evil.example", host("evil.example")),
            ("https://Evil.Example/", host("evil.example")),
            ("*.bücher.example.", host("xn--bcher-kva.example")),
            ("192.0.2.1", host("192.0.2.1")),
            ("2606:4700::1111", host("[2606:4700::1111]")),
        ] {
            assert_eq!(takedown(text, &registry), expected, "{text}");
        }
        for wrong in ["", "sho.rt/a.b", "two words", "https://", "sho.rt/promo/x", "a b/promo"] {
            assert!(Order::new(wrong, true).is_err(), "{wrong:?}");
        }
        for strange in ["other.example/promo", "x.test/promo", "sho.rt:8080/promo"] {
            assert!(takedown(strange, &registry).is_err(), "{strange}");
        }
        assert_eq!(takedown("promo", &Registry::new()), at("", "promo"));
        // Where another domain is the default one, a code is one of its codes.
        let swapped = registry.into_iter().chain([("go.example.com".to_owned(), row("go.example.com", 7))]).collect();
        assert_eq!(takedown("promo", &swapped), at("go.example.com", "promo"));
        assert_eq!(takedown("sho.rt/promo", &swapped), at("", "promo"));
    }
}
