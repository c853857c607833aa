//! Bounds of numbers in the definition. The API server knows a number's format and does not hold anybody to it: without a bound it takes
//! a number that no program of ours can read.

use schemars::Schema;
use serde_json::Value;

/// Gives an integer the bounds of its Rust type, where it has none that are tighter. Applied to each schema below the one that names it.
pub(super) fn bound_integers(schema: &mut Schema) {
    let Some(fields) = schema.as_object_mut() else { return };
    let is_integer = match fields.get("type") {
        Some(Value::String(name)) => name == "integer",
        Some(Value::Array(names)) => names.iter().any(|name| name == "integer"),
        _ => false,
    };
    if !is_integer || fields.contains_key("enum") {
        return;
    }
    let (least, most) = match fields.get("format").and_then(Value::as_str) {
        Some("int64") => (i64::MIN, i64::MAX),
        // The API server reads numbers as 64 bits with a sign: it has no larger ones to give.
        Some("uint64" | "uint") => (0, i64::MAX),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint8") => (0, u8::MAX.into()),
        // Kubernetes' own integers are of 32 bits unless they say otherwise.
        _ => (i32::MIN.into(), i32::MAX.into()),
    };
    // A bound beyond what a double holds exactly would be another number; and it would bound nothing.
    let is_exact = |bound: &i64| bound.unsigned_abs() < 1 << f64::MANTISSA_DIGITS;
    for (bound, value) in [("minimum", least), ("maximum", most)] {
        if is_exact(&value) {
            fields.entry(bound).or_insert_with(|| Value::from(value));
        }
    }
}
