//! Passwords that are tried first by whoever guesses: common ones, and the service's own words (ASVS 6.2.4, 6.2.11).

use std::collections::HashSet;
use std::sync::LazyLock;

use zeroize::Zeroizing;

/// One a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");
/// How a line of it begins that is none.
const REMARK: &str = "# ";
/// What comes to mind at the sight of this service. With digits and signs around or between them they are no better.
const OF_THIS_SERVICE: [&str; 8] =
    ["shortener", "urlshortener", "shortenernode", "linkshortener", "shorturl", "shortlink", "shortlinks", "shorten"];

static KNOWN: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| COMMON.lines().filter(|line| !line.starts_with(REMARK)).collect());

/// Whether somebody who guesses would try `password` early, in whatever case it is written.
pub(super) fn is_weak(password: &str) -> bool {
    let password = Zeroizing::new(password.to_lowercase());
    let letters: Zeroizing<String> = Zeroizing::new(password.chars().filter(|c| c.is_alphabetic()).collect());
    KNOWN.contains(password.as_str()) || OF_THIS_SERVICE.contains(&letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::password::PASSWORD_CHARS_MIN;

    #[test]
    fn common_passwords_and_the_services_own_words_are_weak_and_others_are_not() {
        for weak in
            ["password", "12345678", "Iloveyou1", "QWERTYUIOP", "shortener", "Shortener-2026!", "URL_shortener1"]
        {
            assert!(is_weak(weak), "{weak}");
        }
        for strong in ["correct horse battery staple", "password of mine", "shortener horse", "zu8&kd-2ls", ""] {
            assert!(!is_weak(strong), "{strong}");
        }
    }

    #[test]
    fn the_list_holds_what_could_be_a_password_in_the_form_that_it_is_looked_up_in() {
        assert!(KNOWN.len() > 3_000, "{} passwords", KNOWN.len());
        for known in KNOWN.iter() {
            assert!(known.chars().count() >= PASSWORD_CHARS_MIN && known.to_lowercase() == **known, "{known:?}");
        }
    }
}
