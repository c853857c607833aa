//! Forged and misused tokens, as data: each differs from a good one in one point, and most are signed with the right key,
//! so that it is this point and not the signature that they fail by.

use serde_json::{Value, json};

use super::*;
use TokenError::{Expired, Header as BadHeader, Invalid, Malformed, Times, TooLong, UnknownKey};

const NOW: UnixMs = UnixMs(1_769_851_800_000);
const NOW_S: u64 = NOW.0 / 1000;
const ISSUER: &str = "https://sho.rt";
const USER_NUMBER: u64 = 7_340_032_123_456_789;

fn user() -> UserId {
    UserId(USER_NUMBER.try_into().unwrap())
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::new(vec![byte; 32].into()).unwrap()
}

fn tokens() -> AccessTokens {
    AccessTokens::new(ISSUER.to_owned(), Duration::from_mins(30), &secret(1), None)
}

fn good_header() -> Value {
    json!({"alg": "HS256", "typ": "at+jwt", "kid": tokens().signing.id})
}

fn good_claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": USER_NUMBER.to_string(), "iat": NOW_S, "nbf": NOW_S, "exp": NOW_S + 1800,
        "jti": "00112233445566778899aabbccddeeff"})
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims as given, under a valid HMAC-SHA-256 with `key`.
fn signed_text(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", encode(hmac_sha256(key, &[message.as_bytes()])))
}

/// The same with the right key.
fn signed(header: &Value, claims: &Value) -> String {
    signed_text(&header.to_string(), &claims.to_string(), secret(1).derive(KEY_LABEL).as_slice())
}

/// A good header or good claims with one member changed, or removed where `value` is null.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    object
}

fn with_header(name: &str, value: Value) -> String {
    signed(&with(good_header(), name, value), &good_claims())
}

fn with_claim(name: &str, value: Value) -> String {
    signed(&good_header(), &with(good_claims(), name, value))
}

fn good() -> String {
    signed(&good_header(), &good_claims())
}

/// The good token with its parts changed.
fn reassembled(change: impl FnOnce(&mut Vec<String>)) -> String {
    let mut parts = good().split('.').map(str::to_owned).collect();
    change(&mut parts);
    parts.join(".")
}

#[test]
fn what_the_table_starts_from_is_accepted() {
    assert_eq!(tokens().verify(&good(), NOW), Ok(user()));
}

/// Headers: algorithms, types, and members that point to another key.
fn forged_headers() -> Vec<(&'static str, String, TokenError)> {
    let unsigned = |alg: &str| {
        let header = with(good_header(), "alg", json!(alg)).to_string();
        format!("{}.{}.", encode(header), encode(good_claims().to_string()))
    };
    let public_key =
        b"-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----\n";
    let jwk = json!({"kty": "oct", "k": encode([9; 32])});
    let (header, claims) = (good_header().to_string(), good_claims().to_string());
    vec![
        ("alg none, no signature", unsigned("none"), Malformed),
        ("alg None, no signature", unsigned("None"), Malformed),
        ("alg NONE, no signature", unsigned("NONE"), Malformed),
        ("alg none, a signature", with_header("alg", json!("none")), BadHeader),
        ("alg nOnE, a signature", with_header("alg", json!("nOnE")), BadHeader),
        ("alg missing", with_header("alg", Value::Null), BadHeader),
        ("alg in lower case", with_header("alg", json!("hs256")), BadHeader),
        ("alg HS384", with_header("alg", json!("HS384")), BadHeader),
        ("alg HS512", with_header("alg", json!("HS512")), BadHeader),
        ("alg RS256", with_header("alg", json!("RS256")), BadHeader),
        ("alg ES256", with_header("alg", json!("ES256")), BadHeader),
        ("alg PS256", with_header("alg", json!("PS256")), BadHeader),
        ("alg EdDSA", with_header("alg", json!("EdDSA")), BadHeader),
        ("alg a number", with_header("alg", json!(256)), BadHeader),
        ("alg a list", with_header("alg", json!(["HS256"])), BadHeader),
        ("HMAC keyed with a public key's text", signed_text(&header, &claims, public_key), Invalid),
        ("HMAC keyed with nothing", signed_text(&header, &claims, b""), Invalid),
        ("HMAC keyed with SECRET_KEY itself, not the derived key", signed_text(&header, &claims, &[1; 32]), Invalid),
        (
            "HMAC keyed with another secret",
            signed_text(&header, &claims, secret(2).derive(KEY_LABEL).as_slice()),
            Invalid,
        ),
        (
            "HMAC keyed with what is derived for another use",
            signed_text(&header, &claims, secret(1).derive(b"x").as_slice()),
            Invalid,
        ),
        ("typ missing", with_header("typ", Value::Null), BadHeader),
        ("typ JWT", with_header("typ", json!("JWT")), BadHeader),
        ("typ of a logout token", with_header("typ", json!("logout+jwt")), BadHeader),
        ("typ in upper case", with_header("typ", json!("AT+JWT")), BadHeader),
        ("crit", with_header("crit", json!(["b64"])), BadHeader),
        ("crit empty", with_header("crit", json!([])), BadHeader),
        ("b64 false", with_header("b64", json!(false)), BadHeader),
        ("zip", with_header("zip", json!("DEF")), BadHeader),
        ("jku", with_header("jku", json!("https://evil.example/keys")), BadHeader),
        ("jwk", with_header("jwk", jwk), BadHeader),
        ("x5u", with_header("x5u", json!("https://evil.example/cert")), BadHeader),
        ("x5c", with_header("x5c", json!(["MIIB"])), BadHeader),
        ("kid missing", with_header("kid", Value::Null), BadHeader),
        ("kid empty", with_header("kid", json!("")), UnknownKey),
        ("kid of a path", with_header("kid", json!("../../../../dev/null")), UnknownKey),
        ("kid of a query", with_header("kid", json!("' UNION SELECT 'key")), UnknownKey),
        ("kid with more behind it", with_header("kid", json!(format!("{}0", tokens().signing.id))), UnknownKey),
        (
            "alg twice",
            signed_text(&header.replacen('{', r#"{"alg":"none","#, 1), &claims, secret(1).derive(KEY_LABEL).as_slice()),
            BadHeader,
        ),
        ("header a list", signed_text("[]", &claims, secret(1).derive(KEY_LABEL).as_slice()), BadHeader),
        ("header not JSON", signed_text("{", &claims, secret(1).derive(KEY_LABEL).as_slice()), BadHeader),
    ]
}

/// Claims: all of them under a valid signature.
fn misused_claims() -> Vec<(&'static str, String, TokenError)> {
    let key = secret(1).derive(KEY_LABEL);
    let text = |claims: &str| signed_text(&good_header().to_string(), claims, key.as_slice());
    let twice = good_claims().to_string().replacen('{', r#"{"sub":"1","#, 1);
    vec![
        ("iss of another service", with_claim("iss", json!("https://evil.example")), Invalid),
        ("iss with a slash more", with_claim("iss", json!("https://sho.rt/")), Invalid),
        ("iss in upper case", with_claim("iss", json!("HTTPS://SHO.RT")), Invalid),
        ("iss a list that holds ours", with_claim("iss", json!([ISSUER, "https://evil.example"])), Invalid),
        ("iss missing", with_claim("iss", Value::Null), Invalid),
        ("aud of another service", with_claim("aud", json!("other-api")), Invalid),
        ("aud a list that holds ours", with_claim("aud", json!([AUDIENCE, "other-api"])), Invalid),
        ("aud missing", with_claim("aud", Value::Null), Invalid),
        ("sub missing", with_claim("sub", Value::Null), Invalid),
        ("sub empty", with_claim("sub", json!("")), Invalid),
        ("sub not a number", with_claim("sub", json!("admin")), Invalid),
        ("sub a JSON number", with_claim("sub", json!(USER_NUMBER)), Invalid),
        ("sub negative", with_claim("sub", json!("-1")), Invalid),
        ("sub with a sign", with_claim("sub", json!(format!("+{USER_NUMBER}"))), Invalid),
        ("sub with a leading zero", with_claim("sub", json!(format!("0{USER_NUMBER}"))), Invalid),
        ("sub with a space", with_claim("sub", json!(format!(" {USER_NUMBER}"))), Invalid),
        ("sub over 64 bits", with_claim("sub", json!("18446744073709551616")), Invalid),
        ("sub over 63 bits", with_claim("sub", json!("9223372036854775808")), Invalid),
        ("sub twice", text(&twice), Invalid),
        ("expired this second", with_claim("exp", json!(NOW_S)), Expired),
        ("expired long ago", with_claim("exp", json!(1)), Expired),
        ("exp missing", with_claim("exp", Value::Null), Invalid),
        ("exp a string", with_claim("exp", json!((NOW_S + 1800).to_string())), Invalid),
        ("exp a fraction", with_claim("exp", json!(1_769_853_600.5)), Invalid),
        ("exp negative", with_claim("exp", json!(-1)), Invalid),
        ("exp over 64 bits", text(&good_claims().to_string().replace(&(NOW_S + 1800).to_string(), "1e30")), Invalid),
        ("exp the largest number", with_claim("exp", json!(u64::MAX)), Times),
        ("a life of over a day", with_claim("exp", json!(NOW_S + 86_401)), Times),
        ("issued half an hour from now", with_claim("iat", json!(NOW_S + 1700)), Times),
        ("issued after its expiry", with_claim("iat", json!(NOW_S + 3600)), Times),
        ("iat missing", with_claim("iat", Value::Null), Invalid),
        ("not valid for a minute yet", with_claim("nbf", json!(NOW_S + 60)), Times),
        ("nbf the largest number", with_claim("nbf", json!(u64::MAX)), Times),
        ("nbf missing", with_claim("nbf", Value::Null), Invalid),
        ("jti missing", with_claim("jti", Value::Null), Invalid),
        ("a claim that we do not write", with_claim("role", json!("admin")), Invalid),
        ("claims a list", text("[]"), Invalid),
        ("claims not JSON", text("sub=1"), Invalid),
        ("claims with more behind them", text(&format!("{}{{}}", good_claims())), Invalid),
    ]
}

/// The compact form itself.
fn broken_forms() -> Vec<(&'static str, String, TokenError)> {
    let other_user = encode(with(good_claims(), "sub", json!("1")).to_string());
    let later = encode(with(good_claims(), "exp", json!(NOW_S + 3600)).to_string());
    // The last character of 32 bytes in base64 has two bits to spare: another one decodes to the same signature in a lax
    // decoder, so that one token would have four spellings.
    let respelled = |part: &mut String| {
        let last = part.pop().unwrap();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let index = alphabet.find(last).unwrap();
        part.push(char::from(alphabet.as_bytes()[index + 1]));
    };
    vec![
        ("empty", String::new(), Malformed),
        ("dots only", "..".to_owned(), Malformed),
        ("a refresh token", encode([7; 32]), Malformed),
        ("no signature part", reassembled(|parts| drop(parts.pop())), Malformed),
        ("an empty signature", reassembled(|parts| parts[2].clear()), Malformed),
        ("a truncated signature", reassembled(|parts| parts[2].truncate(20)), Invalid),
        ("a signature with one character off", reassembled(|parts| parts[2] = format!("A{}", &parts[2][1..])), Invalid),
        ("a signature spelled in another way", reassembled(|parts| respelled(&mut parts[2])), Invalid),
        ("a signature of zeros", reassembled(|parts| parts[2] = encode([0; 32])), Invalid),
        ("another user under the same signature", reassembled(|parts| parts[1] = other_user), Invalid),
        ("a later expiry under the same signature", reassembled(|parts| parts[1] = later), Invalid),
        ("a part more", reassembled(|parts| parts.push("e30".to_owned())), Malformed),
        ("five parts, as JWE has", reassembled(|parts| parts.extend(["e30".to_owned(), "e30".to_owned()])), Malformed),
        ("an empty header", reassembled(|parts| parts[0].clear()), Malformed),
        ("padded base64", reassembled(|parts| parts[2].push('=')), Malformed),
        ("the alphabet of plain base64", reassembled(|parts| parts[2].replace_range(..1, "+")), Malformed),
        ("a space before", format!(" {}", good()), Malformed),
        ("a line end behind", format!("{}\n", good()), Malformed),
        ("a NUL behind", format!("{}\0", good()), Malformed),
        ("Bearer before", format!("Bearer {}", good()), Malformed),
        ("over the size limit", format!("{}.{}.AA", encode(good_header().to_string()), "A".repeat(4096)), TooLong),
        ("JWS in its JSON form", json!({"payload": "e30", "signatures": []}).to_string(), Malformed),
    ]
}

#[test]
fn forged_and_misused_tokens_are_refused_each_for_its_own_reason() {
    let tokens = tokens();
    for (what, token, error) in [forged_headers(), misused_claims(), broken_forms()].concat() {
        assert_eq!(tokens.verify(&token, NOW), Err(error), "{what}: {token}");
    }
}

#[test]
fn a_token_is_good_from_its_issue_to_its_expiry_and_no_two_are_the_same() {
    let tokens = tokens();
    let token = tokens.issue(user(), NOW, [1; 16]).unwrap();
    assert_ne!(token, tokens.issue(user(), NOW, [2; 16]).unwrap());
    let after = |s: u64| NOW.plus(Duration::from_secs(s));
    let before = |s: u64| NOW.minus(Duration::from_secs(s));
    for (now, expected) in [
        (NOW, Ok(user())),
        (after(1799), Ok(user())),
        (after(1800), Err(Expired)),
        (UnixMs(u64::MAX), Err(Expired)),
        (before(30), Ok(user())),
        (before(31), Err(Times)),
        (UnixMs(0), Err(Times)),
    ] {
        assert_eq!(tokens.verify(token.expose(), now), expected, "{now}");
    }
}

#[test]
fn a_rotated_key_is_accepted_while_it_is_named_and_signs_nothing_any_more() {
    let old = tokens();
    let token = old.issue(user(), NOW, [1; 16]).unwrap();
    let rotated = AccessTokens::new(ISSUER.to_owned(), Duration::from_mins(30), &secret(2), Some(&secret(1)));
    let forgotten = AccessTokens::new(ISSUER.to_owned(), Duration::from_mins(30), &secret(2), None);
    assert_eq!(rotated.verify(token.expose(), NOW), Ok(user()));
    assert_eq!(forgotten.verify(token.expose(), NOW), Err(UnknownKey));
    let new = rotated.issue(user(), NOW, [1; 16]).unwrap();
    assert_eq!(forgotten.verify(new.expose(), NOW), Ok(user()));
    assert_eq!(old.verify(new.expose(), NOW), Err(UnknownKey));
}

#[test]
fn a_configured_life_of_over_a_day_is_cut() {
    let tokens = AccessTokens::new(ISSUER.to_owned(), Duration::from_hours(100), &secret(1), None);
    assert_eq!(tokens.lifetime(), ACCESS_LIFETIME_MAX);
    assert_eq!(tokens.verify(tokens.issue(user(), NOW, [1; 16]).unwrap().expose(), NOW), Ok(user()));
}

#[test]
fn nothing_secret_is_printed() {
    let tokens = tokens();
    let token = tokens.issue(user(), NOW, [1; 16]).unwrap();
    assert_eq!(format!("{token:?} {tokens:?}"), "AccessToken(redacted) AccessTokens(https://sho.rt)");
}

proptest::proptest! {
    #[test]
    fn no_text_passes_and_none_panics(text in "\\PC*|[A-Za-z0-9_-]{1,80}\\.[A-Za-z0-9_-]{1,80}\\.[A-Za-z0-9_-]{1,80}") {
        proptest::prop_assert!(tokens().verify(&text, NOW).is_err());
    }

    #[test]
    fn one_changed_character_anywhere_is_noticed(at in 0..400_usize, to in "[A-Za-z0-9_-]") {
        let good = good();
        let at = at % good.len();
        let mut forged = good.clone();
        forged.replace_range(at..=at, &to);
        proptest::prop_assume!(forged != good);
        proptest::prop_assert!(tokens().verify(&forged, NOW).is_err(), "{}", forged);
    }
}
