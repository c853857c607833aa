//! The code in the path of a short link.
//!
//! The text around a link often sticks to its end: a slash, a full stop, a bracket, a space that nobody sees. What no code can
//! hold is cut off there, percent-encoded or not. What cannot be a code after that is no link, and nobody is asked for it.

use std::borrow::Cow;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use tower::ServiceExt;

use crate::links::alias::{could_be_code, is_code_byte};

/// What stands before a code, in the paths of redirects.
const PREFIXES: [&str; 2] = ["/shortener/url/", "/"];

/// The code that `text`, a path without what stands before its code, holds.
pub fn code_in(text: &str) -> Option<Cow<'_, str>> {
    let code = match text.bytes().all(is_code_byte) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(without_end(text)?),
    };
    could_be_code(&code).then_some(code)
}

/// `text` decoded and without what no code can hold at its end.
fn without_end(text: &str) -> Option<String> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(text).into();
    let last = decoded.iter().rposition(|byte| is_code_byte(*byte))?;
    decoded.get(..=last).and_then(|code| str::from_utf8(code).ok()).map(str::to_owned)
}

/// The code at the end of a path that the route table knows.
pub fn code_of(uri: &Uri) -> Option<Cow<'_, str>> {
    code_in(uri.path().rsplit('/').next().unwrap_or_default())
}

/// Answers what the route table does not know: as the short link that it is, once the slashes are cut off, or else as `router` does.
pub async fn without_slashes(router: Router, mut request: Request) -> Response {
    if let Some(uri) = known(request.uri()) {
        *request.uri_mut() = uri;
    }
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The URI of the short link that `uri` means, if it means one.
fn known(uri: &Uri) -> Option<Uri> {
    let path = PREFIXES.iter().find_map(|prefix| {
        let code = code_in(uri.path().strip_prefix(prefix)?)?;
        Some(format!("{prefix}{code}"))
    })?;
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one end after another")]
    fn what_no_code_can_hold_is_cut_off_at_the_end_and_nowhere_else() {
        for tail in [
            "",
            "/",
            "//",
            ".",
            "...",
            ",",
            ";",
            ":",
            "!",
            "?!",
            "'",
            "\"",
            ")",
            "]",
            "}",
            ">",
            "*",
            "**",
            "|",
            "\\",
            "^",
            "`",
            "~",
            "+",
            "=",
            "&",
            "%",
            "%20",
            "%20%20",
            "%09",
            "%0A",
            "%0D%0A",
            "%00",
            "%22",
            "%27",
            "%2F",
            "%2f/",
            "%3F",
            "%5D",
            "%C2%A0",
            "%E2%80%8B",
            "%E2%80%8E",
            "%EF%BB%BF",
            "%E2%80%9D",
            "%E3%80%82",
            "%FF",
            "\u{2019}",
            "\u{200b}",
            ").",
            "/.",
            "./%20",
        ] {
            assert_eq!(code_in(&format!("Launch-26{tail}")).as_deref(), Some("Launch-26"), "{tail:?}");
        }
        for text in [
            "",
            "/",
            "%20",
            ".",
            "ab",
            "%FF",
            "a.b",
            "Launch-26.html",
            "Launch-26/x",
            "Launch-26%2Fx",
            "Launch%2026",
            ".Launch-26",
            "%20Launch-26",
            "/Launch-26",
            "Launch-26%E2%80%8Bx",
            "Launch-26%2520x",
            "apple-touch-icon.png",
            ".env",
            ".git/config",
            "wp-login.php",
            "a/b",
            "api",
            "Docs",
            "docs/",
            "shortener/url",
        ] {
            assert_eq!(code_in(text), None, "{text:?}");
        }
        assert_eq!(code_in("%4Caunch-26").as_deref(), Some("Launch-26"));
        assert_eq!(code_in("--_").as_deref(), Some("--_"));
        // Where words have no spaces between them, the next one follows.
        assert_eq!(code_in("Launch-26\u{8bf7}\u{70b9}").as_deref(), Some("Launch-26"));
    }

    #[test]
    fn a_short_link_with_slashes_behind_it_is_the_same_link_and_keeps_its_query() {
        let check = |uri: &str, expected: Option<&str>| {
            let found = known(&uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{uri}");
        };
        check("/Launch-26/", Some("/Launch-26"));
        check("/Launch-26//?a=b&c", Some("/Launch-26?a=b&c"));
        check("/Launch-26/).%20", Some("/Launch-26"));
        check("/shortener/url/Launch-26/", Some("/shortener/url/Launch-26"));
        check("http://sho.rt/Launch-26/", Some("http://sho.rt/Launch-26"));
        for uri in
            ["/", "//", "/docs/", "/docs//", "/api/", "/api/v1/urls/", "/a/b", "/shortener/url/", "/shortener/", "*"]
        {
            check(uri, None);
        }
    }

    proptest! {
        #[test]
        fn a_code_is_found_whatever_follows_that_no_code_can_hold(code in "[A-Za-z0-9_-]{3,64}", tail in "[^A-Za-z0-9_%-]{0,20}") {
            prop_assume!(could_be_code(&code));
            let encoded = percent_encoding::utf8_percent_encode(&tail, percent_encoding::NON_ALPHANUMERIC);
            for text in [format!("{code}{tail}"), format!("{code}{encoded}")] {
                let found = code_in(&text);
                prop_assert_eq!(found.as_deref(), Some(code.as_str()));
            }
        }
    }
}
