//! Passwords that are tried first by whoever guesses: common ones, the service's own words, and the user's own (ASVS 6.2.4,
//! 6.2.11).
//!
//! A program that guesses takes such a word, writes it in capitals, puts `@` for `a`, and a year or `123!` behind it. So a
//! password is weak if that is all that tells it from a known one: up to [`AFFIX_CHARS_MAX`] digits and signs around it.
//! So is one of hardly any different characters, of one part repeated, or of neighbours in the alphabet.

use std::collections::HashSet;
use std::sync::LazyLock;

use zeroize::Zeroizing;

use super::email::Email;

/// One a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");
/// How a line of it begins that is none.
const REMARK: &str = "# ";
/// What comes to mind at the sight of this service. With digits and signs around or between them they are no better.
const OF_THIS_SERVICE: [&str; 9] = [
    "shortener",
    "urlshortener",
    "shortenernode",
    "linkshortener",
    "shorturl",
    "shortlink",
    "shortlinks",
    "shorten",
    "localhost",
];
/// Digits and signs around a word that do not make it harder to guess: a year and two signs.
const AFFIX_CHARS_MAX: usize = 6;
/// The shortest word that is looked for within a password: what is left of a shorter one is no word.
const STEM_CHARS_MIN: usize = 3;
/// Different characters below which a password is none.
const DISTINCT_CHARS_MIN: usize = 4;
/// The longest part that is repeated to make up a password.
const REPEATED_CHARS_MAX: usize = 4;

/// Common passwords.
static KNOWN: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| COMMON.lines().filter(|line| !line.starts_with(REMARK)).collect());
/// The words that common passwords are made of: `welcome` of `welcome123`.
static STEMS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let stems = KNOWN.iter().map(|known| known.trim_matches(|c: char| !c.is_alphabetic()));
    stems.filter(|stem| stem.chars().count() > STEM_CHARS_MIN && stem.chars().all(char::is_alphabetic)).collect()
});

/// Words that somebody who guesses knows of a user and of where the account is.
pub(super) fn own_words(email: &Email, full_name: Option<&str>, hosts: &[String]) -> Vec<String> {
    let address = email.as_normalised();
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let names = full_name.into_iter().flat_map(|name| std::iter::once(name).chain(name.split_whitespace()));
    let hosts = hosts.iter().map(String::as_str).chain([domain]).flat_map(|host| {
        // `sho.rt` itself, and `links` of `links.example.com`; the last label is everybody's.
        let labels = host.rsplit_once('.').map_or("", |(labels, _)| labels);
        std::iter::once(host).chain(labels.split('.'))
    });
    let words = [address, local].into_iter().chain(local.split(['.', '_', '-', '+'])).chain(names).chain(hosts);
    words.map(squashed).filter(|word| word.chars().count() >= STEM_CHARS_MIN).collect()
}

/// Whether somebody who guesses, and knows these `own_words`, would try `password` early.
pub(super) fn is_weak(password: &str, own_words: &[String]) -> bool {
    let password = Zeroizing::new(password.to_lowercase());
    let letters: Zeroizing<String> = Zeroizing::new(password.chars().filter(|c| c.is_alphabetic()).collect());
    let is_known = |text: &str| {
        let squashed = Zeroizing::new(squashed(text));
        KNOWN.contains(text)
            || STEMS.contains(text)
            || OF_THIS_SERVICE.contains(&squashed.as_str())
            || own_words.contains(&squashed)
    };
    is_simple(&password)
        || OF_THIS_SERVICE.contains(&letters.as_str())
        || variants(&password).iter().any(|variant| is_known(variant))
}

/// Whether a password is made by a rule that a child would find.
fn is_simple(password: &str) -> bool {
    let chars: Zeroizing<Vec<char>> = Zeroizing::new(password.chars().collect());
    let distinct: HashSet<char> = chars.iter().copied().collect();
    let is_repeated = |length: usize| length < chars.len() && chars.iter().zip(&chars[length..]).all(|(a, b)| a == b);
    let step = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let is_row = |by: i64| chars.windows(2).all(|pair| step(pair) == by);
    distinct.len() < DISTINCT_CHARS_MIN || (1..=REPEATED_CHARS_MAX).any(is_repeated) || is_row(1) || is_row(-1)
}

/// The password, with and without the digits and signs around it, as it is and with signs read as the letters that they
/// look like.
fn variants(password: &str) -> Vec<Zeroizing<String>> {
    let is_sign = |c: char| !c.is_alphabetic();
    let inner = [
        password,
        password.trim_end_matches(is_sign),
        password.trim_start_matches(is_sign),
        password.trim_matches(is_sign),
        // Signs alone: `qwerty123!` is `qwerty123`.
        password.trim_matches(|c: char| !c.is_alphanumeric()),
    ];
    let length = password.chars().count();
    let inner = inner.into_iter().filter(|inner| {
        let left = inner.chars().count();
        left >= STEM_CHARS_MIN && length - left <= AFFIX_CHARS_MAX
    });
    let read_as = |text: &str, one: char| -> Zeroizing<String> {
        let letter = |c| match c {
            '@' | '4' => 'a',
            '3' => 'e',
            '1' | '!' | '|' => one,
            '0' => 'o',
            '5' | '$' => 's',
            '7' | '+' => 't',
            c => c,
        };
        Zeroizing::new(text.chars().map(letter).collect())
    };
    inner.flat_map(|text| [Zeroizing::new(text.to_owned()), read_as(text, 'i'), read_as(text, 'l')]).collect()
}

/// Letters and digits alone, in lower case: `Ada.Lovelace` and `ada-lovelace` are one word.
fn squashed(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::password::PASSWORD_CHARS_MIN;

    /// One a line: what a new user tries, with whether it is taken.
    const CASES: &str = include_str!("../../../tests/corpora/passwords.txt");

    #[test]
    fn common_passwords_and_the_services_own_words_are_weak_and_others_are_not() {
        for weak in
            ["password", "12345678", "Iloveyou1", "QWERTYUIOP", "shortener", "Shortener-2026!", "URL_shortener1"]
        {
            assert!(is_weak(weak, &[]), "{weak}");
        }
        for strong in ["correct horse battery staple", "password of mine", "shortener horse", "zu8&kd-2ls"] {
            assert!(!is_weak(strong, &[]), "{strong}");
        }
    }

    #[test]
    fn a_password_is_judged_as_the_corpus_says() {
        let email = Email::parse("Ada.Lovelace@analytical-engine.example").unwrap();
        let hosts = ["sho.rt".to_owned(), "links.example.com".to_owned()];
        let words = own_words(&email, Some("Ada Byron King"), &hosts);
        let mut cases = 0;
        for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (expected, password) = line.split_once('\t').expect(line);
            assert_eq!(is_weak(password, &words), expected == "weak", "{password:?} is {expected}");
            cases += 1;
        }
        assert!(cases > 80, "{cases}");
    }

    #[test]
    fn short_words_of_a_user_do_not_make_every_password_weak() {
        let email = Email::parse("a@b.example").unwrap();
        let words = own_words(&email, Some("Al"), &[]);
        assert!(!is_weak("a8163920", &words) && !is_weak("al-b-zu8&kd", &words), "{words:?}");
    }

    #[test]
    fn the_list_holds_what_could_be_a_password_in_the_form_that_it_is_looked_up_in() {
        assert!(KNOWN.len() > 3_000, "{} passwords", KNOWN.len());
        for known in KNOWN.iter() {
            assert!(known.chars().count() >= PASSWORD_CHARS_MIN && known.to_lowercase() == **known, "{known:?}");
        }
    }
}
