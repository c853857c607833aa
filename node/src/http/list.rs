//! Headers that are lists (RFC 9110 §5.6.1): elements with commas between, over any number of lines. Empty elements are none.
//!
//! Not for lists whose elements may be quoted strings: a comma in one of them would part it.

use http::{HeaderMap, HeaderName};

/// The elements of all lines of a header. A line that is no text is left out.
pub fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(elements_of)
}

/// The elements of one line.
pub fn elements_of(line: &str) -> impl DoubleEndedIterator<Item = &str> {
    line.split(',').map(|element| element.trim_matches([' ', '\t'])).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn empty_elements_are_none() {
        let check = |lines: &[&[u8]], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, HeaderValue::from_bytes(line).unwrap());
            }
            assert_eq!(elements(&headers, header::ACCEPT).collect::<Vec<_>>(), expected, "{lines:?}");
        };
        check(&[], &[]);
        check(&[b""], &[]);
        check(&[b" ,\t, ,"], &[]);
        check(&[b"a"], &["a"]);
        check(&[b"a,"], &["a"]);
        check(&[b",a"], &["a"]);
        check(&[b"a, ,b;c=1 ,,\td e"], &["a", "b;c=1", "d e"]);
        check(&[b"a", b"", b",b,", b"c"], &["a", "b", "c"]);
        check(&[b"a", b"\xff", b"b"], &["a", "b"]);
    }
}
