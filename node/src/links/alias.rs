//! A custom alias: a short code that its owner chose.

use std::fmt;

/// The shortest alias, in characters.
pub const ALIAS_CHARS_MIN: usize = 3;

/// The longest alias, in characters.
pub const ALIAS_CHARS_MAX: usize = 64;

/// Words that no alias may be, whatever the case: paths that the service answers itself or may answer one day, files that
/// browsers and crawlers ask for by themselves, and words that a stranger's link must not be able to speak for us with.
/// Sorted, so that it can be searched by halves.
const RESERVED: [&str; 67] = [
    "about",
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "analytics",
    "api",
    "app",
    "apple-touch-icon",
    "assets",
    "auth",
    "billing",
    "callback",
    "console",
    "contact",
    "css",
    "dashboard",
    "debug",
    "developer",
    "developers",
    "doc",
    "docs",
    "error",
    "faq",
    "favicon",
    "graphql",
    "health",
    "healthz",
    "help",
    "images",
    "img",
    "index",
    "internal",
    "legal",
    "livez",
    "login",
    "logout",
    "manifest",
    "metrics",
    "oauth",
    "oidc",
    "openapi",
    "password",
    "privacy",
    "profile",
    "qr",
    "readyz",
    "register",
    "robots",
    "root",
    "security",
    "service-worker",
    "settings",
    "shortener",
    "signin",
    "signout",
    "signup",
    "sitemap",
    "static",
    "status",
    "support",
    "swagger",
    "swagger-ui",
    "terms",
    "well-known",
    "www",
];

/// 3 to 64 of `[A-Za-z0-9_-]`, not a reserved word. Case counts, as in every short code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alias(String);

/// Whether a code can hold `byte`.
pub fn is_code_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Whether the service keeps `code` for itself, whatever its case. A minted code is held to this too: seven letters can
/// happen to spell a path of ours, and that path would win.
pub fn is_reserved(code: &str) -> bool {
    RESERVED.binary_search(&code.to_ascii_lowercase().as_str()).is_ok()
}

/// Whether any link can have `code`: each is minted or chosen as an alias is.
pub fn could_be_code(code: &str) -> bool {
    Alias::check(code).is_ok()
}

/// Why an alias is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Too short or too long.
    #[error("an alias has {ALIAS_CHARS_MIN} to {ALIAS_CHARS_MAX} characters")]
    Length,
    /// A character that is not in the alphabet.
    #[error("an alias is made of A-Z, a-z, 0-9, _ and -")]
    Character,
    /// A word that the service keeps for itself.
    #[error("this word is reserved: choose another alias")]
    Reserved,
}

impl Alias {
    /// Checks an alias as a client sent it.
    pub fn parse(raw: &str) -> Result<Self, AliasError> {
        Self::check(raw).map(|()| Self(raw.to_owned()))
    }

    fn check(raw: &str) -> Result<(), AliasError> {
        if !(ALIAS_CHARS_MIN..=ALIAS_CHARS_MAX).contains(&raw.chars().count()) {
            return Err(AliasError::Length);
        }
        if !raw.bytes().all(is_code_byte) {
            return Err(AliasError::Character);
        }
        if is_reserved(raw) {
            return Err(AliasError::Reserved);
        }
        Ok(())
    }

    /// The alias as it stands in the short URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn aliases_are_taken_or_refused_as_the_contract_says() {
        let long = "x".repeat(ALIAS_CHARS_MAX);
        let too_long = "x".repeat(ALIAS_CHARS_MAX + 1);
        for (raw, expected) in [
            ("abc", Ok(())),
            ("Spring_Sale-2026", Ok(())),
            ("---", Ok(())),
            (&long, Ok(())),
            ("docs2", Ok(())),
            ("ab", Err(AliasError::Length)),
            ("", Err(AliasError::Length)),
            (&too_long, Err(AliasError::Length)),
            ("a.b", Err(AliasError::Character)),
            ("a/b", Err(AliasError::Character)),
            ("..%2f", Err(AliasError::Character)),
            ("a b", Err(AliasError::Character)),
            ("abc\n", Err(AliasError::Character)),
            ("abc\0", Err(AliasError::Character)),
            ("süß", Err(AliasError::Character)),
            ("аbc", Err(AliasError::Character)), // a Cyrillic а
            ("api", Err(AliasError::Reserved)),
            ("API", Err(AliasError::Reserved)),
            ("Docs", Err(AliasError::Reserved)),
            ("shortener", Err(AliasError::Reserved)),
            ("well-known", Err(AliasError::Reserved)),
        ] {
            assert_eq!(Alias::parse(raw).map(|_| ()), expected, "{raw:?}");
        }
    }

    #[test]
    fn the_reserved_words_are_sorted_lower_case_and_each_is_refused() {
        assert!(RESERVED.is_sorted_by(|a, b| a < b));
        for word in RESERVED.iter().filter(|word| word.len() >= ALIAS_CHARS_MIN) {
            assert_eq!(*word, word.to_ascii_lowercase());
            assert_eq!(Alias::parse(&word.to_ascii_uppercase()), Err(AliasError::Reserved));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_needs_no_escaping_in_a_path(raw in "\\PC{0,70}|[A-Za-z0-9_-]{0,70}") {
            if let Ok(alias) = Alias::parse(&raw) {
                prop_assert_eq!(alias.as_str(), raw.as_str());
                let url = url::Url::parse("https://sho.rt/").unwrap().join(alias.as_str()).unwrap();
                prop_assert_eq!(url.path(), format!("/{raw}"));
            }
        }
    }
}
