//! Settings that change over time, and what hosts mean afterwards.

use proptest::prelude::*;

use super::*;
use crate::public_url::BaseUrl;

fn urls(base: &str, further: &str) -> PublicUrls {
    let further: Vec<String> = further.split(',').map(str::to_owned).collect();
    PublicUrls::new(BaseUrl::parse(base).unwrap(), &further).unwrap()
}

/// A store on which nodes start one after another.
#[derive(Debug, Default)]
struct Store {
    registry: Registry,
    with_links: Vec<String>,
    now: u64,
}

impl Store {
    fn start(&mut self, urls: &PublicUrls) -> (Served, Vec<Warning>) {
        self.now += 1;
        let Settled { registry, changes, warnings } =
            settle(&self.registry, &self.with_links, urls, UnixMs(self.now)).unwrap();
        self.registry.extend(changes);
        assert_eq!(self.registry, registry, "the changes are all that differs");
        assert_eq!(default_host(&registry), Some(urls.base().authority()));
        (Served::new(&registry, urls).unwrap(), warnings)
    }
}

/// In few words.
fn said(warnings: &[Warning]) -> Vec<String> {
    let words = |warning: &Warning| match warning {
        Warning::Renamed { host, former } => format!("{former} renamed {host}"),
        Warning::OtherDefault { host, former } => format!("{host} instead of {former}"),
        Warning::Alias { host, of } => format!("{host} is {of}"),
        Warning::Unserved { host, .. } => format!("{host} unserved"),
    };
    warnings.iter().map(words).collect()
}

/// Nodes with these settings (`BASE_URL`, `DOMAINS`) start one after another. Then hosts are answered with domains of these IDs, and the
/// last start has these warnings.
fn check(settings: &[(&str, &str)], answers: &[(&str, Option<&str>)], warnings: &[&str]) {
    let mut store = Store::default();
    check_on(&mut store, settings, answers, warnings);
}

fn check_on(store: &mut Store, settings: &[(&str, &str)], answers: &[(&str, Option<&str>)], warnings: &[&str]) {
    let mut last = None;
    for (base, further) in settings {
        last = Some(store.start(&urls(base, further)));
    }
    let (served, found) = last.unwrap();
    for (host, id) in answers {
        assert_eq!(served.by_host(Some(host)).map(Domain::id), *id, "{host} after {settings:?}");
    }
    assert_eq!(said(&found), warnings, "after {settings:?}");
}

const OWN: Option<&str> = Some("b.test");
const FIRST: Option<&str> = Some("");

#[test]
fn a_renamed_default_domain_keeps_its_links_and_its_former_hosts_are_its_own() {
    check(&[("http://a.test", "")], &[("a.test", FIRST), ("z.test", FIRST)], &[]);
    check(&[("http://a.test", "b.test")], &[("a.test", FIRST), ("b.test", OWN), ("z.test", None)], &[]);
    check(
        &[("http://old.test", ""), ("http://new.test", "old.test")],
        &[("new.test", FIRST), ("old.test", FIRST), ("z.test", None)],
        &["old.test renamed new.test", "old.test is new.test"],
    );
    // Named again at every start: an alias; said once: the new name.
    check(
        &[("http://old.test", ""), ("http://new.test", "old.test"), ("http://new.test", "old.test")],
        &[("new.test", FIRST), ("old.test", FIRST)],
        &["old.test is new.test"],
    );
    // Not named, it is answered where any host is.
    check(
        &[("http://old.test", ""), ("http://new.test", "")],
        &[("new.test", FIRST), ("old.test", FIRST), ("z.test", FIRST)],
        &["old.test renamed new.test"],
    );
    check(
        &[("http://old.test", "b.test"), ("http://new.test", "b.test")],
        &[("new.test", FIRST), ("old.test", None), ("b.test", OWN)],
        &["old.test renamed new.test"],
    );
    check(
        &[("http://old.test", "b.test"), ("http://new.test", "b.test"), ("http://new.test", "b.test")],
        &[("new.test", FIRST), ("old.test", None), ("b.test", OWN)],
        &["old.test unserved"],
    );
    // Back again.
    check(
        &[("http://old.test", ""), ("http://new.test", "old.test"), ("http://old.test", "new.test")],
        &[("new.test", FIRST), ("old.test", FIRST)],
        &["new.test renamed old.test", "new.test is old.test"],
    );
    // Twice, with all of them printed.
    check(
        &[("http://a.test", ""), ("http://b.test", "a.test"), ("http://c.test", "a.test,b.test")],
        &[("a.test", FIRST), ("b.test", FIRST), ("c.test", FIRST)],
        &["b.test renamed c.test", "a.test is c.test", "b.test is c.test"],
    );
    // Named only later, it is still no domain of its own.
    check(
        &[("http://old.test", ""), ("http://new.test", ""), ("http://new.test", "old.test")],
        &[("new.test", FIRST), ("old.test", FIRST)],
        &["old.test is new.test"],
    );
    check(
        &[
            ("http://old.test", ""),
            ("http://new.test", "old.test"),
            ("http://new.test", ""),
            ("http://new.test", "old.test"),
        ],
        &[("old.test", FIRST)],
        &["old.test is new.test"],
    );
    check(&[("http://a.test", ""), ("https://a.test", "")], &[("a.test", FIRST)], &[]);
}

#[test]
fn a_host_with_links_of_its_own_is_never_answered_with_those_of_another() {
    // Taken out.
    check(
        &[("http://a.test", "b.test"), ("http://a.test", "")],
        &[("a.test", FIRST), ("b.test", None), ("B.Test.", None), ("b.test:80", None), ("z.test", FIRST)],
        &["b.test unserved"],
    );
    check(
        &[("http://a.test", "b.test"), ("http://a.test", "c.test")],
        &[("b.test", None), ("c.test", Some("c.test"))],
        &["b.test unserved"],
    );
    // Taken out, and back.
    check(
        &[("http://a.test", "b.test"), ("http://a.test", ""), ("http://a.test", "b.test")],
        &[("a.test", FIRST), ("b.test", OWN)],
        &[],
    );
    // Made the default one.
    check(
        &[("http://a.test", "b.test"), ("http://b.test", "a.test")],
        &[("a.test", FIRST), ("b.test", OWN)],
        &["b.test instead of a.test"],
    );
    check(
        &[("http://a.test", "b.test"), ("http://b.test", "a.test"), ("http://a.test", "b.test")],
        &[("a.test", FIRST), ("b.test", OWN)],
        &["a.test instead of b.test"],
    );
    check(
        &[("http://a.test", "b.test"), ("http://b.test", "")],
        &[("a.test", None), ("b.test", OWN), ("z.test", OWN)],
        &["b.test instead of a.test"],
    );
    check(
        &[("http://a.test", "b.test"), ("http://a.test", ""), ("http://b.test", "")],
        &[("a.test", None), ("b.test", OWN)],
        &["b.test instead of a.test"],
    );
    // Made the default one, and renamed.
    check(
        &[("http://a.test", "b.test"), ("http://b.test", "a.test"), ("http://c.test", "a.test,b.test")],
        &[("a.test", FIRST), ("b.test", OWN), ("c.test", OWN)],
        &["b.test renamed c.test", "b.test is c.test"],
    );
    check(
        &[
            ("http://a.test", "b.test"),
            ("http://b.test", "a.test"),
            ("http://c.test", "a.test"),
            ("http://a.test", "b.test,c.test"),
        ],
        &[("a.test", FIRST), ("b.test", OWN), ("c.test", OWN)],
        &["a.test instead of c.test", "c.test is b.test"],
    );
}

#[test]
fn nodes_with_old_and_new_settings_beside_each_other_mean_the_same() {
    let (old, new) = (("http://old.test", "b.test"), ("http://new.test", "old.test,b.test"));
    let answers = [("old.test", FIRST), ("b.test", OWN)];
    check(&[old, new, old], &answers, &["new.test renamed old.test"]);
    let both = [("old.test", FIRST), ("b.test", OWN), ("new.test", FIRST)];
    check(&[old, new, old, new], &both, &["old.test renamed new.test", "old.test is new.test"]);
    let (old, new) = (("http://a.test", "b.test"), ("http://b.test", "a.test"));
    check(&[old, new, old, new, old], &[("a.test", FIRST), ("b.test", OWN)], &["a.test instead of b.test"]);
    // Each with an address of its own.
    let nodes = [("http://127.0.0.1:8001", ""), ("http://127.0.0.1:8002", ""), ("http://127.0.0.1:8001", "")];
    check(&nodes, &[("127.0.0.1:8001", FIRST), ("127.0.0.1:8002", FIRST)], &[]);
}

#[test]
fn a_store_that_is_older_than_the_registry_keeps_the_keys_of_its_links() {
    let older = |with_links: &[&str]| Store {
        with_links: with_links.iter().map(|id| (*id).to_owned()).collect(),
        ..Store::default()
    };
    let unchanged = [("http://a.test", "b.test")];
    check_on(&mut older(&["", "b.test"]), &unchanged, &[("a.test", FIRST), ("b.test", OWN)], &[]);
    // What was taken out before is known by its links.
    check_on(
        &mut older(&["", "b.test"]),
        &[("http://a.test", "")],
        &[("a.test", FIRST), ("b.test", None), ("z.test", FIRST)],
        &["b.test unserved"],
    );
    check_on(
        &mut older(&["", "b.test"]),
        &[("http://a.test", ""), ("http://a.test", "b.test")],
        &[("b.test", OWN)],
        &[],
    );
    // The program before took the host of BASE_URL for the domain "", whatever it was earlier.
    check_on(&mut older(&["", "b.test"]), &[("http://b.test", "")], &[("b.test", FIRST)], &[]);
    // With a registry, links say nothing more.
    let mut store = older(&[""]);
    check_on(&mut store, &[("http://a.test", "")], &[("b.test", FIRST)], &[]);
    store.with_links.push("b.test".to_owned());
    check_on(&mut store, &[("http://a.test", "")], &[("b.test", FIRST)], &[]);
}

#[test]
fn a_host_is_known_in_every_spelling_and_with_its_port() {
    let idn = "xn--bcher-kva.example";
    check(
        &[("http://a.test", "bücher.example"), ("http://a.test", ""), ("http://a.test", idn)],
        &[(idn, Some(idn)), ("XN--BCHER-KVA.example.", Some(idn))],
        &[],
    );
    check(
        &[("http://A.Test", "B.TEST."), ("http://a.test.", "b.test")],
        &[("a.test", FIRST), ("A.TEST.", FIRST), ("b.test", OWN), ("b.test:80", OWN), ("b.test:443", None)],
        &[],
    );
    check(
        &[("https://a.test:443", "b.test:443,x.test:8080,x.test")],
        &[
            ("a.test:443", FIRST),
            ("b.test", OWN),
            ("b.test:80", None),
            ("x.test:8080", Some("x.test:8080")),
            ("x.test", Some("x.test")),
            ("X.test.:8080", Some("x.test:8080")),
            ("x.test:8081", None),
        ],
        &[],
    );
    // A laptop whose port is another one each time.
    check(
        &[("http://localhost:8000", ""), ("http://localhost:9000", ""), ("http://[::1]:8000", "b.test")],
        &[("localhost:8000", None), ("[::1]:8000", FIRST), ("[0:0::1]:8000", FIRST), ("b.test", OWN)],
        &[],
    );
    check(
        &[("http://a.test:8000", ""), ("https://a.test", "")],
        &[("a.test:8000", FIRST), ("a.test", FIRST), ("a.test:9000", FIRST)],
        &["a.test:8000 renamed a.test"],
    );
}

#[test]
fn a_request_without_a_host_or_with_a_strange_one_means_what_the_setting_says() {
    for (further, setting, id) in [
        ("", None, FIRST),
        ("", Some(UnknownHosts::NotFound), None),
        ("b.test", None, None),
        ("b.test", Some(UnknownHosts::Default), FIRST),
    ] {
        let urls = urls("https://a.test", further);
        let urls = setting.map_or(urls.clone(), |setting| urls.with_unknown_hosts(setting));
        let (served, _) = Store::default().start(&urls);
        for strange in [None, Some("z.test"), Some("x.a.test"), Some("10.0.0.1:8000"), Some("a.test:80")] {
            assert_eq!(served.by_host(strange).map(Domain::id), id, "{further:?} {setting:?} {strange:?}");
        }
        assert_eq!(served.by_host(Some("A.test.:443")).map(Domain::id), FIRST);
        assert!(served.by_name("z.test").is_none());
    }
}

#[test]
fn answers_name_a_domain_by_the_host_that_it_has_now_or_had_last() {
    let mut store = Store::default();
    let name = |served: &Served, id: &str| (served.name_of(id).to_owned(), served.short_url(id, "abc"));
    let named = |name: &str, url: &str| (name.to_owned(), url.to_owned());
    let (served, _) = store.start(&urls("http://a.test", "b.test,x.test:8080"));
    assert_eq!(name(&served, ""), named("", "http://a.test/abc"));
    assert_eq!(name(&served, "x.test:8080"), named("x.test:8080", "http://x.test:8080/abc"));
    assert_eq!(served.by_name("x.test:8080").unwrap().host_and_port(), ("x.test", Some(8080)));
    let (served, _) = store.start(&urls("https://c.test", "a.test"));
    assert_eq!(name(&served, ""), named("", "https://c.test/abc"));
    assert_eq!(name(&served, "b.test"), named("b.test", "https://b.test/abc"));
    assert_eq!((served.id_of("b.test"), served.by_name("b.test").is_none()), (OWN, true));
    assert_eq!(served.by_name("A.test").map(Domain::host), Some("c.test"));
    // Another domain is the default one: the first has its hosts of `DOMAINS`, or else the last one that it had.
    let (served, _) = store.start(&urls("http://b.test", "a.test"));
    assert_eq!(name(&served, "b.test"), named("", "http://b.test/abc"));
    assert_eq!(name(&served, ""), named("a.test", "http://a.test/abc"));
    assert_eq!(served.by_name("").map(Domain::id), OWN);
    let (served, _) = store.start(&urls("http://b.test", ""));
    assert_eq!(name(&served, ""), named("c.test", "http://c.test/abc"));
    let six = Store::default().start(&urls("http://[::1]", "[::2]:8000")).0;
    assert_eq!(six.by_name("[::1]").unwrap().host_and_port(), ("[::1]", None));
    assert_eq!(six.by_name("[::2]:8000").unwrap().host_and_port(), ("[::2]", Some(8000)));
}

#[test]
fn no_link_may_lead_to_a_host_that_was_ours_and_none_is_followed_to_one_that_is() {
    let mut store = Store::default();
    store.start(&urls("http://old.test", "gone.test,bücher.example:8080"));
    let (served, _) = store.start(&urls("http://new.test", "old.test,bücher.example:8080"));
    for (host, answered) in [
        ("new.test", true),
        ("NEW.test.", true),
        ("new.test:8443", true),
        ("old.test", true),
        ("b%C3%BCcher.example", true),
        ("gone.test", false),
        ("x.new.test", false),
    ] {
        let target = format!("https://{host}/x");
        assert_eq!(served.answered().include_host_of(&target), answered, "{host}");
        assert_eq!(served.ours().include_host_of(&target), host != "x.new.test", "{host}");
    }
    assert!(!served.answered().include_host_of("no URL"));
    // The address that is listened on is a host of ours where any host is.
    for (address, target) in [("203.0.113.7", "http://203.0.113.7:8000/x"), ("2001:db8::7", "https://[2001:DB8:0::7]/")]
    {
        let urls = urls("http://new.test", "old.test").at_address(address.parse().unwrap());
        assert!(!store.start(&urls).0.answered().include_host_of(target), "{target}");
        let (open, _) = store.start(&urls.with_unknown_hosts(UnknownHosts::Default));
        assert!(open.answered().include_host_of(target) && open.ours().include_host_of(target), "{target}");
    }
}

#[test]
fn an_id_that_is_used_is_not_used_again_and_a_full_registry_is_said() {
    let mut store = Store::default();
    store.registry.insert("a.test".to_owned(), host_of("b.test".to_owned(), UnixMs(0)));
    check_on(&mut store, &[("http://a.test", "b.test")], &[("a.test", OWN), ("b.test", Some("b.test#2"))], &[]);
    let host = |number: usize| (format!("h{number}.test"), host_of(String::new(), UnixMs(0)));
    let full: Registry = (0..HOSTS_MAX).map(host).collect();
    assert!(settle(&full, &[], &urls("http://h1.test", ""), UnixMs(1)).is_ok());
    assert_eq!(settle(&full, &[], &urls("http://new.test", ""), UnixMs(1)), Err(RegistryFull));
}

#[test]
fn a_registry_that_has_lost_a_host_answers_nothing() {
    assert!(Served::new(&Registry::new(), &urls("http://a.test", "")).is_none());
}

const HOSTS: [&str; 6] = ["a.test", "b.test", "c.test", "d.test:8080", "e.test", "f.test"];

fn settings() -> impl Strategy<Value = PublicUrls> {
    (0..HOSTS.len(), 0_u8..64, any::<Option<bool>>()).prop_map(|(base, further, is_open)| {
        let named = HOSTS.iter().enumerate().filter(|(at, _)| *at != base && (further >> at) & 1 == 1);
        let further: Vec<&str> = named.map(|(_, host)| *host).collect();
        let urls = urls(&format!("http://{}", HOSTS[base]), &further.join(","));
        match is_open {
            None => urls,
            Some(true) => urls.with_unknown_hosts(UnknownHosts::Default),
            Some(false) => urls.with_unknown_hosts(UnknownHosts::NotFound),
        }
    })
}

proptest! {
    #[test]
    fn no_host_ever_changes_its_domain(
        starts in prop::collection::vec(settings(), 1..12),
        with_links in prop::sample::subsequence(HOSTS.to_vec(), 0..HOSTS.len()),
    ) {
        let with_links = with_links.into_iter().map(str::to_owned).collect();
        let mut store = Store { with_links, ..Store::default() };
        for urls in &starts {
            let before = store.registry.clone();
            let (served, _) = store.start(urls);
            for (host, row) in &before {
                prop_assert_eq!(&store.registry[host].domain, &row.domain);
            }
            for host in HOSTS {
                let id = store.registry.get(host).map(|row| row.domain.as_str());
                let is_named = urls.authorities().any(|named| named == host);
                let answered = served.by_host(Some(host)).map(Domain::id);
                if is_named {
                    prop_assert_eq!(answered, id);
                    prop_assert_eq!(served.by_name(host).map(Domain::id), id);
                }
                // What was ours is answered with its own links or with none.
                prop_assert!(answered.is_none() || id.is_none() || answered == id);
                let is_new = id.is_some() && !before.contains_key(host);
                if is_new && host != urls.base().authority() {
                    let sharing = store.registry.values().filter(|row| Some(row.domain.as_str()) == id).count();
                    prop_assert_eq!(sharing, 1, "a new domain has an ID of its own");
                }
            }
            let again = settle(&store.registry, &[], urls, UnixMs(u64::MAX)).unwrap();
            prop_assert_eq!(again.changes, []);
        }
    }
}
