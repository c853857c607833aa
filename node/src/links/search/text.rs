//! What a search compares: the text of a link, and what a person typed, both folded by the same rules.
//!
//! A link's text is its code, its target as it is stored, its target as a person reads it, and its title. Folding takes
//! away what people do not type alike: how accents are composed, case, width, and characters that nobody sees.
//! Accents themselves count. Nothing here reads the store.

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode_str;

use crate::links::invisible::is_invisible;
use crate::links::target_url::{encoded, host_of};
use crate::store::links::{LinkAddress, LinkRow};

/// What a search asks for, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    /// In one of the link's texts.
    text: Option<String>,
    /// One of its tags, exactly.
    tag: Option<String>,
}

impl Needle {
    /// What was typed as text and as a tag; none when neither narrows anything.
    pub fn new(text: Option<&str>, tag: Option<&str>) -> Option<Self> {
        let text = text.map(fold).filter(|text| !text.is_empty());
        let needle = Self { text, tag: tag.map(str::to_owned) };
        (needle.text.is_some() || needle.tag.is_some()).then_some(needle)
    }

    /// The folded text, if any is asked for.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The tag, if one is asked for.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Whether the link is one of those asked for.
    pub fn matches(&self, at: &LinkAddress, row: &LinkRow) -> bool {
        let tagged = self.tag.as_ref().is_none_or(|tag| row.tags.contains(tag));
        tagged && self.text.as_ref().is_none_or(|text| texts_of(at, row).any(|part| part.contains(text.as_str())))
    }
}

/// The folded texts of a link. A search looks into each by itself.
pub fn texts_of<'a>(at: &'a LinkAddress, row: &'a LinkRow) -> impl Iterator<Item = String> + 'a {
    let stored = encoded(&row.target);
    let read = readable(&stored);
    let read = (read != stored).then(|| fold(&read));
    let title = row.title.as_deref().map(fold);
    [fold(&at.code), fold(&stored)].into_iter().chain(read).chain(title)
}

/// Text as it is compared: compatible characters composed (NFKC), case folded, without what nobody sees.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let folded: String = nfkc.normalize(text).chars().filter(|c| !is_ignored(*c)).flat_map(folded_char).collect();
    // A small i has its dot anyway. What folding left apart may compose.
    nfkc.normalize(&folded.replace("i\u{307}", "i")).into_owned()
}

/// What has no form of its own: invisible characters, and selectors of another character's form.
fn is_ignored(c: char) -> bool {
    is_invisible(c) || matches!(c, '\u{fe00}'..='\u{fe0f}')
}

/// The full case folding of one character. Unicode's table is not in the standard library, but its case mappings are, and small of
/// capital of small is the same: `ß` and `ẞ` are `ss`, `ς` and `Σ` are `σ`. Only the dotless `ı` would become `i`, which it is not.
fn folded_char(c: char) -> impl Iterator<Item = char> {
    let dotless = (c == 'ı').then_some(c);
    let folded = c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    dotless.into_iter().chain(folded.filter(move |_| dotless.is_none()))
}

/// A target as a person reads it: the host in its own script, the rest without percent-encoding where that is UTF-8.
fn readable(target: &str) -> String {
    let host = host_of(target);
    let start = target.find("://").map_or(0, |at| at + 3);
    let (before, rest) = target.split_at_checked(start).unwrap_or_default();
    let after = rest.strip_prefix(host).unwrap_or(rest);
    // Labels that are no valid punycode stay as they are.
    let (host, _) = idna::domain_to_unicode(host);
    [before, &host, &percent_decoded(after)].concat()
}

/// Text with its percent-encoding taken away where that leaves UTF-8; other bytes stay encoded.
fn percent_decoded(text: &str) -> String {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    let mut decoded = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        decoded.push_str(chunk.valid());
        decoded.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02x}")));
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ambient::UnixMs;

    fn link(code: &str, target: &str, title: Option<&str>, tags: &[&str]) -> (LinkAddress, LinkRow) {
        let at = LinkAddress { domain: String::new(), code: code.to_owned() };
        let row = LinkRow {
            id: 7,
            owner: None,
            target: target.to_owned(),
            status: 302,
            title: title.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            is_active: true,
            expires_at: None,
            created_at: UnixMs(1),
            updated_at: UnixMs(1),
            version: 1,
            is_alias: false,
            is_deleted: false,
        };
        (at, row)
    }

    fn finds(typed: &str, (at, row): &(LinkAddress, LinkRow)) -> bool {
        Needle::new(Some(typed), None).is_none_or(|needle| needle.matches(at, row))
    }

    #[test]
    fn what_people_type_differently_folds_alike() {
        for (one, other) in [
            ("Apples", "aPPLES"),
            ("münchen", "MÜNCHEN"),
            ("münchen", "mu\u{308}nchen"),
            ("café", "cafe\u{301}"),
            ("CAFÉ", "cafe\u{301}"),
            ("straße", "STRASSE"),
            ("straße", "Strasse"),
            ("STRAẞE", "straße"),
            ("россия", "РОССИЯ"),
            ("йод", "И\u{306}ОД"),
            ("ёлка", "Е\u{308}ЛКА"),
            ("ΟΔΟΣ", "οδος"),
            ("οδός", "ΟΔΌΣ"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("σ", "ς"),
            ("İstanbul", "istanbul"),
            ("i\u{307}stanbul", "İSTANBUL"),
            ("ＷＩＤＥ１２", "wide12"),
            ("ｶﾞ", "ガ"),
            ("ﬁne", "FINE"),
            ("Å", "a\u{30a}"),
            ("\u{212b}ngström", "ångstro\u{308}m"),
            ("\u{212a}elvin", "kelvin"),
            ("ŉ", "ʼN"),
            ("ǆ", "Ǆ"),
            ("ǅ", "ǆ"),
            ("x²", "X2"),
            ("a\u{a0}b", "A b"),
            ("a\u{3000}b", "a b"),
            ("co\u{ad}op", "coop"),
            ("\u{200b}word\u{feff}", "word"),
            ("❤\u{fe0f}", "❤"),
            ("한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
            ("ᾳ", "ΑΙ"),
            ("ﻻ", "لا"),
            ("Ա", "ա"),
            ("Ⴀ", "ⴀ"),
            ("𐐀", "𐐨"),
            ("ſ", "S"),
            ("µ", "Μ"),
            ("ạ\u{308}", "a\u{308}\u{323}"),
        ] {
            assert_eq!(fold(one), fold(other), "{one:?} {other:?}");
        }
        for (one, other) in [
            ("cafe", "café"),
            ("munchen", "münchen"),
            ("ı", "i"),
            ("ı", "I"),
            ("и", "й"),
            ("kadın", "kadin"),
            ("日", "曰"),
            ("a", "а"),
            ("😀", "😁"),
            ("ل", "لا"),
        ] {
            assert_ne!(fold(one), fold(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_search_finds_a_target_as_it_is_read_and_as_it_is_stored() {
        let target = |target: &str| link("q3XfZ0a", target, None, &[]);
        let munich = target(
            "https://xn--mnchen-3ya.example:8443/stra%C3%9Fe/caf%C3%A9?q=%D1%80%D0%BE%D1%81%D1%81%D0%B8%D1%8F#b%20c",
        );
        for typed in [
            "münchen",
            "MÜNCHEN.EXAMPLE",
            "https://münchen.example:8443/straße/café?q=россия#b c",
            "mu\u{308}nchen",
            "xn--mnchen-3ya",
            "STRASSE",
            "straße/café",
            "cafe\u{301}",
            "stra%c3%9fe",
            "caf%C3%A9",
            "россия",
            "%D1%80%D0%BE",
            "РОССИЯ#B C",
            "b%20c",
            "q3xf",
            "é",
        ] {
            assert!(finds(typed, &munich), "{typed:?}");
        }
        for typed in ["munchen", "muenchen", "cafe?", "straßé", "россия!", "b+c", "q3XfZ0ahttps"] {
            assert!(!finds(typed, &munich), "{typed:?}");
        }
        for (stored, typed, is_found) in [
            ("https://example.com/%FF%C3%A9", "é", true),
            ("https://example.com/%FF%C3%A9", "%FFé", true),
            ("https://example.com/%FF%C3%A9", "%ff%c3%a9", true),
            ("https://example.com/%C3", "%C3", true),
            ("https://example.com/%C3", "Ã", false),
            ("https://example.com/100%25", "100%", true),
            ("https://example.com/100%", "100%25", true),
            ("https://example.com/%25C3%25A9", "é", false),
            ("https://example.com/%F0%9F%98%80", "😀", true),
            ("https://example.com/%E6%97%A5%E6%9C%AC", "日本", true),
            ("https://example.com/%D8%B3%D9%84%D8%A7%D9%85", "سلام", true),
            ("https://example.com/a|b", "a|b", true),
            ("https://example.com/a|b", "a%7Cb", true),
            ("https://example.com/a%2Fb%3F", "a/b?", true),
            ("https://xn--e1afmkfd.xn--p1ai/", "пример.рф", true),
            ("https://xn--e1afmkfd.xn--p1ai/", "ПРИМЕР", true),
            ("https://xn--fsqu00a.xn--0zwm56d/", "例子", true),
            ("https://xn--strae-oqa.example/", "strasse.example", true),
            ("https://xn--.example/", "xn--.example", true),
            ("https://[2606:4700::1111]/x", "[2606:4700::1111]/x", true),
            ("https://example.com", "example.com", true),
        ] {
            assert_eq!(finds(typed, &target(stored)), is_found, "{typed:?} in {stored:?}");
        }
    }

    #[test]
    fn a_search_looks_at_title_and_code_and_takes_a_tag_as_it_is() {
        let link = link("Launch-26", "https://example.com/", Some("Große Öffnung"), &["Food", "grün"]);
        for typed in ["GROSSE ÖFF", "launch", "nung", "h-26"] {
            assert!(finds(typed, &link), "{typed:?}");
        }
        assert!(!finds("26https", &link) && !finds("/große", &link));
        let tagged = |text, tag| Needle::new(text, Some(tag)).is_some_and(|needle| needle.matches(&link.0, &link.1));
        assert!(tagged(None, "Food") && tagged(Some("launch"), "grün"));
        assert!(!tagged(None, "food") && !tagged(None, "Foo") && !tagged(Some("lunch"), "Food"));
    }

    #[test]
    fn what_folds_to_nothing_narrows_nothing() {
        assert_eq!(Needle::new(None, None), None);
        assert_eq!(Needle::new(Some(""), None), None);
        assert_eq!(Needle::new(Some("\u{200b}"), None), None);
    }

    #[test]
    fn every_letter_that_is_folded_stays() {
        for c in ('\0'..=char::MAX).filter(|c| c.is_alphabetic()) {
            let once = fold(c.encode_utf8(&mut [0; 4]));
            assert_eq!(fold(&once), once, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_folded_stays(text in "\\PC{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn a_link_is_found_by_any_word_of_its_path(word in "[\\p{L}\\p{N}]{1,20}") {
            let url = url::Url::parse("https://example.com/").and_then(|base| base.join(&format!("/a/{word}/b"))).unwrap();
            prop_assert!(finds(&word, &link("q3XfZ0a", url.as_str(), None, &[])));
        }
    }
}
