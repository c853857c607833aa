//! E-mail addresses: one spelling for comparing, another for showing.
//!
//! Two addresses that differ only in case, in Unicode composition or in how an international domain is written are the
//! same account. The local part is compared without case although RFC 5321 §2.4 lets a mail server tell cases apart: none
//! in use does, and two accounts for one mailbox would be a trap.

use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;

/// The longest address that SMTP can carry, in bytes (RFC 5321 §4.5.3.1.3, less the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;

/// The longest local part, in bytes (RFC 5321 §4.5.3.1.1).
const LOCAL_PART_BYTES_MAX: usize = 64;

/// An address that mail could be sent to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email {
    shown: String,
    normalised: String,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Over [`EMAIL_BYTES_MAX`], or a local part over its own limit.
    #[error("an e-mail address has at most {EMAIL_BYTES_MAX} bytes, {LOCAL_PART_BYTES_MAX} of them before the @")]
    TooLong,
    /// Not `name@domain`.
    #[error("an e-mail address is written as name@example.com")]
    Form,
    /// The part before the `@` has a character that no mail provider gives out, or dots in the wrong place.
    #[error(
        "the part before the @ is made of letters, digits, and . ! # $ % & ' * + / = ? ^ _ ` {{ | }} ~ -, without two dots together"
    )]
    LocalPart,
    /// The part after the `@` is not a public domain name.
    #[error("the part after the @ is not a full domain name")]
    Domain,
}

impl Email {
    /// Checks an address as a client sent it; spaces around it are dropped.
    pub fn parse(raw: &str) -> Result<Self, EmailError> {
        let shown = raw.trim();
        if shown.len() > EMAIL_BYTES_MAX {
            return Err(EmailError::TooLong);
        }
        let (local, domain) = shown.rsplit_once('@').ok_or(EmailError::Form)?;
        if local.is_empty() || domain.is_empty() {
            return Err(EmailError::Form);
        }
        let (local, domain) = (normalised_local_part(local)?, normalised_domain(domain)?);
        let normalised = format!("{local}@{domain}");
        if normalised.len() > EMAIL_BYTES_MAX {
            return Err(EmailError::TooLong);
        }
        Ok(Self { shown: shown.to_owned(), normalised })
    }

    /// As the client wrote it.
    pub fn as_shown(&self) -> &str {
        &self.shown
    }

    /// The one spelling that stands for this mailbox; without NUL, at most [`EMAIL_BYTES_MAX`] bytes.
    pub fn as_normalised(&self) -> &str {
        &self.normalised
    }
}

impl fmt::Debug for Email {
    /// Without the person: an address does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// A dot-string of RFC 5321, or of RFC 6531 with letters and digits of any script. Quoted strings are refused: nobody
/// has one.
fn normalised_local_part(local: &str) -> Result<String, EmailError> {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    // Lower-casing can take a string out of its composed form, so it is composed again.
    let local = nfc.normalize(&nfc.normalize(local).to_lowercase()).into_owned();
    if local.len() > LOCAL_PART_BYTES_MAX {
        return Err(EmailError::TooLong);
    }
    let atoms_hold = local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char));
    if atoms_hold { Ok(local) } else { Err(EmailError::LocalPart) }
}

/// `atext` of RFC 5322 and, as RFC 6531 adds, whatever is not ASCII, less what is a space or cannot be seen: that would
/// make two addresses look like one.
fn is_atom_char(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(c);
    }
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}');
    !invisible && !c.is_control() && !c.is_whitespace()
}

fn normalised_domain(domain: &str) -> Result<String, EmailError> {
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| EmailError::Domain)?;
    // An address literal (`[192.0.2.1]`) fails above; a bare number at the end would be an IPv4 address.
    let public = ascii.rsplit_once('.').is_some_and(|(_, last)| !last.bytes().all(|byte| byte.is_ascii_digit()));
    if public { Ok(ascii) } else { Err(EmailError::Domain) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_that_differ_in_spelling_only_are_one() {
        for (raw, shown, normalised) in [
            ("someone@example.com", "someone@example.com", "someone@example.com"),
            ("  Some.One@Example.COM \n", "Some.One@Example.COM", "some.one@example.com"),
            ("a+tag@example.com", "a+tag@example.com", "a+tag@example.com"),
            ("o'neil@example.com", "o'neil@example.com", "o'neil@example.com"),
            ("x@MÜNCHEN.example", "x@MÜNCHEN.example", "x@xn--mnchen-3ya.example"),
            ("x@xn--mnchen-3ya.example", "x@xn--mnchen-3ya.example", "x@xn--mnchen-3ya.example"),
            ("JOSE\u{301}@example.com", "JOSE\u{301}@example.com", "josé@example.com"),
            ("josé@example.com", "josé@example.com", "josé@example.com"),
            ("x@ｅｘａｍｐｌｅ．com", "x@ｅｘａｍｐｌｅ．com", "x@example.com"),
        ] {
            let email = Email::parse(raw).unwrap_or_else(|error| panic!("{raw:?}: {error}"));
            assert_eq!((email.as_shown(), email.as_normalised()), (shown, normalised), "{raw:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}.com", vec!["a".repeat(62); 4].join("."));
        for (raw, error) in [
            ("", EmailError::Form),
            ("someone", EmailError::Form),
            ("@example.com", EmailError::Form),
            ("someone@", EmailError::Form),
            ("some one@example.com", EmailError::LocalPart),
            ("a@b@example.com", EmailError::LocalPart),
            ("a\0b@example.com", EmailError::LocalPart),
            ("a\r\nBcc: b@example.com", EmailError::LocalPart),
            ("\"quoted\"@example.com", EmailError::LocalPart),
            (".a@example.com", EmailError::LocalPart),
            ("a.@example.com", EmailError::LocalPart),
            ("a..b@example.com", EmailError::LocalPart),
            ("a\u{200b}b@example.com", EmailError::LocalPart),
            ("a\u{202e}b@example.com", EmailError::LocalPart),
            ("a<b>@example.com", EmailError::LocalPart),
            ("a@localhost", EmailError::Domain),
            ("a@example..com", EmailError::Domain),
            ("a@example.com.", EmailError::Domain),
            ("a@-example.com", EmailError::Domain),
            ("a@exa_mple.com", EmailError::Domain),
            ("a@exa mple.com", EmailError::Domain),
            ("a@192.0.2.1", EmailError::Domain),
            ("a@[192.0.2.1]", EmailError::Domain),
            (&long_local, EmailError::TooLong),
            (&long, EmailError::TooLong),
        ] {
            assert_eq!(Email::parse(raw), Err(error), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn the_normalised_spelling_stands_for_itself(raw in "[\\PC]{1,20}@[a-zA-Zäß]{1,9}\\.(com|Example)|\\PC*") {
            if let Ok(email) = Email::parse(&raw) {
                let again = Email::parse(email.as_normalised()).unwrap();
                prop_assert_eq!(again.as_normalised(), email.as_normalised());
                prop_assert!(!email.as_normalised().contains(|c: char| c.is_control() || c.is_whitespace()));
                prop_assert!(email.as_normalised().len() <= EMAIL_BYTES_MAX);
            }
        }
    }
}
