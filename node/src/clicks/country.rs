//! Which country an address is in, from a file in MaxMind's format (GeoIP2 or GeoLite2 Country or City, DB-IP, ...), if
//! there is one. Read whole: such a file has a few megabytes, and nothing is mapped that somebody could truncate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, RwLock};

use maxminddb::{MaxMindDbError, PathElement, Reader};

/// Said of an address that is in no country, as far as is known.
pub const UNKNOWN: &str = "unknown";

/// The countries of addresses as they are known now; whoever reads the file again replaces them.
pub type CountriesNow = Arc<RwLock<Arc<Countries>>>;

/// The countries of addresses.
#[derive(Debug, Default)]
pub struct Countries(Option<Reader<Vec<u8>>>);

impl Countries {
    /// Knows no address.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Knows what a file of these bytes says. One whose records cannot be read is refused.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, MaxMindDbError> {
        let reader = Reader::from_source(bytes)?;
        let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
        // A sample of all addresses: what is damaged would be found out only when somebody comes from there.
        for first in 0..=u8::MAX {
            reader.lookup(Ipv4Addr::new(first, 0, 0, 1).into())?.decode_path::<&str>(&path)?;
        }
        Ok(Self(Some(reader)))
    }

    /// The ISO 3166-1 alpha-2 code of the country that `address` is in, or [`UNKNOWN`].
    pub fn of(&self, address: IpAddr) -> String {
        self.look_up(address).unwrap_or(UNKNOWN).to_owned()
    }

    fn look_up(&self, address: IpAddr) -> Option<&str> {
        let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
        let found = self.0.as_ref()?.lookup(address).ok()?;
        let code: &str = found.decode_path(&path).ok()??;
        // A file that somebody else made must not make rows of any other size.
        (code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text in the data section of a database: type 2, and its length if that is under 29.
    fn text(text: &str) -> Vec<u8> {
        [&[2 << 5 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    /// A map: type 7, and the number of its entries.
    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let head = [7 << 5 | u8::try_from(entries.len()).unwrap()];
        let entries = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat());
        head.into_iter().chain(entries).collect()
    }

    /// An unsigned number of type `kind` (5 = 16 bits, 6 = 32 bits), in two bytes.
    fn number(kind: u8, value: u16) -> Vec<u8> {
        [&[kind << 5 | 2][..], &value.to_be_bytes()].concat()
    }

    /// The bytes of a database (MaxMind DB format 2.0, IPv4, 24 bits a record) that says `code` of 0.0.0.0/1 and nothing of
    /// the rest: one node, its left record pointing 16 bytes past the tree, at the start of the data.
    fn database(code: &str) -> Vec<u8> {
        let tree = [0, 0, 1 + 16, 0, 0, 1];
        let data = map(&[("country", map(&[("iso_code", text(code))]))]);
        let metadata = map(&[
            ("binary_format_major_version", number(5, 2)),
            ("binary_format_minor_version", number(5, 0)),
            // A number of 64 bits, in one byte: an extended type (0), which is 7 + 2.
            ("build_epoch", vec![1, 2, 1]),
            ("node_count", number(6, 1)),
            ("record_size", number(5, 24)),
            ("ip_version", number(5, 4)),
            ("database_type", text("Test-Country")),
            ("description", map(&[])),
            // An empty list: an extended type (0), which is 7 + 4.
            ("languages", vec![0, 4]),
        ]);
        [&tree[..], &[0; 16], &data, b"\xab\xcd\xefMaxMind.com", &metadata].concat()
    }

    fn countries(bytes: &[u8]) -> Result<Countries, MaxMindDbError> {
        Countries::parse(bytes.to_vec())
    }

    #[test]
    fn a_country_comes_from_the_file_and_is_unknown_without_one() {
        let known = countries(&database("DE")).unwrap();
        for (address, expected) in [([100, 0, 2, 1], "DE"), ([192, 0, 2, 1], UNKNOWN)] {
            assert_eq!(known.of(address.into()), expected);
            assert_eq!(Countries::unknown().of(address.into()), UNKNOWN);
        }
        assert_eq!(known.of("2001:db8::1".parse().unwrap()), UNKNOWN, "a file of IPv4 addresses alone");
    }

    #[test]
    fn what_is_no_code_of_a_country_is_not_kept() {
        for code in ["", "D", "DEU", "de", "\u{e9}"] {
            assert_eq!(countries(&database(code)).unwrap().of([100, 0, 2, 1].into()), UNKNOWN, "{code}");
        }
    }

    #[test]
    fn what_is_no_database_or_cannot_be_read_is_refused() {
        assert!(countries(b"no database").is_err());
        let whole = database("DE");
        for cut in [1, 20, whole.len() / 2, whole.len() - 1] {
            assert!(countries(&whole[..cut]).is_err(), "{cut} bytes of {}", whole.len());
        }
        // The tree leads past the end of the data.
        let mut damaged = whole;
        damaged[..3].copy_from_slice(&[0, 0xff, 0xff]);
        assert!(countries(&damaged).is_err());
    }
}
