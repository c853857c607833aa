//! Schemas that an attribute cannot say: what a client may send, as exactly as JSON Schema can tell.

use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use crate::accounts::email::EMAIL_BYTES_MAX;
use crate::links::request::{TAG_CHARS_MAX, TAGS_MAX};
use crate::links::target_url::TARGET_URL_BYTES_MAX;

/// Nothing else is accepted. Not all of it is: hosts must be public, which no pattern can say.
const HTTP: &str = "^[Hh][Tt][Tt][Pp][Ss]?:";
/// All of it is accepted, so that a generator of requests has something that succeeds.
const SURELY_FINE: &str = r"^https?://[a-z0-9]{1,40}\.(com|org|net)(/[A-Za-z0-9._~-]{0,200}){0,4}$";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Where a link leads.
pub fn target_url() -> Schema {
    let fine = text().max_length(Some(TARGET_URL_BYTES_MAX)).pattern(Some(SURELY_FINE));
    let any = text().max_length(Some(TARGET_URL_BYTES_MAX)).pattern(Some(HTTP));
    AnyOfBuilder::new()
        .item(fine)
        .item(any)
        .description(Some("Where it leads: http or https, a public host, at most 8,192 bytes."))
        .examples([serde_json::json!("https://example.com/page")])
        .build()
        .into()
}

/// An e-mail address of a new account.
pub fn email() -> Schema {
    let fine =
        text().max_length(Some(EMAIL_BYTES_MAX)).pattern(Some(r"^[a-z0-9]{1,40}@[a-z0-9]{1,40}\.(com|org|net)$"));
    let any = text().max_length(Some(EMAIL_BYTES_MAX)).pattern(Some(r"^[\s\S]+@[\s\S]+$"));
    AnyOfBuilder::new()
        .item(fine)
        .item(any)
        .description(Some("E-mail address; compared without case."))
        .examples([serde_json::json!("ada@example.com")])
        .build()
        .into()
}

/// The status of a redirect, or null for the node's default.
pub fn redirect_status() -> Schema {
    let values = [Some(301), Some(302), Some(307), Some(308), None];
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
        .enum_values(Some(values))
        .description(Some("301, 302, 307 or 308; null: the node's own default, 302."))
        .build()
        .into()
}

/// Free words, or null for none.
pub fn tags() -> Schema {
    // No control characters and nothing that nobody sees; not only spaces.
    let hidden = concat!(
        r"\x00-\x1F\x7F-\xA0\u00AD\u034F\u061C\u115F\u1160\u1680\u17B4\u17B5\u180E\u2000-\u200F\u2028-\u202F",
        r"\u205F-\u206F\u2800\u3000\u3164\uFEFF\uFFA0\uFFF9-\uFFFB",
    );
    let tag = text().max_length(Some(TAG_CHARS_MAX)).pattern(Some(format!("^[^{hidden}]*[^ {hidden}][^{hidden}]*$")));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(tag)
        .max_items(Some(TAGS_MAX))
        .description(Some("Free words, each kept once, without spaces at its ends; null: none."))
        .build()
        .into()
}
