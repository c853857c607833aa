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
    // The API server itself holds numbers of 64 bits with a sign; all others in the definition are of 32.
    let is_of_64_bits = fields.get("format").is_some_and(|format| format == "int64");
    if !is_integer || is_of_64_bits || fields.contains_key("enum") {
        return;
    }
    for (bound, value) in [("minimum", i32::MIN), ("maximum", i32::MAX)] {
        fields.entry(bound).or_insert_with(|| Value::from(value));
    }
}
