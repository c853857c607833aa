//! The resource definition in `crds/yaml` is what the types say: checked here, and rewritten when it is not.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use kube::CustomResourceExt;
use serde_json::Value;
use shortener_crds::ShortenerCluster;

/// What `kubectl apply` can take: it keeps the whole object in an annotation, and annotations have 256 KiB in all.
const BYTES_MAX: usize = 200 * 1024;

fn definition() -> Value {
    serde_json::to_value(ShortenerCluster::crd()).expect("JSON")
}

fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(path, map);
            map.iter().for_each(|(key, value)| walk(value, &format!("{path}.{key}"), visit));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, path, visit)),
        _ => {}
    }
}

#[test]
fn the_yaml_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml/shortenerclusters.shortener.dev.yaml");
    let yaml = serde_saphyr::to_string(&ShortenerCluster::crd()).expect("YAML");
    let wanted =
        format!("# Generated from crds/src/cluster.rs by `cargo test --package shortener-crds`; do not edit.\n{yaml}");
    assert!(wanted.len() < BYTES_MAX, "{} bytes", wanted.len());
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&wanted) {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, &wanted).expect("written");
        panic!("{} was not what the types say and has been rewritten; commit it", path.display());
    }
}

#[test]
fn no_number_has_a_format_that_the_api_server_does_not_know() {
    let mut formats = Vec::new();
    walk(&definition(), "", &mut |path, map| {
        if let Some(Value::String(format)) = map.get("format") {
            formats.push((path.to_owned(), format.clone()));
        }
    });
    assert!(!formats.is_empty(), "the schema was walked");
    let unknown: Vec<_> = formats
        .iter()
        .filter(|(_, format)| !["int32", "int64", "double", "date-time"].contains(&format.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Beyond what a Rust type holds, one resource could not be read: neither by the operator nor by anybody else who uses these types.
#[test]
fn every_integer_has_the_bounds_of_its_type() {
    let (mut integers, mut endless) = (0, Vec::new());
    walk(&definition()["spec"]["versions"][0]["schema"], "", &mut |path, map| {
        if map.get("type").and_then(Value::as_str) != Some("integer") {
            return;
        }
        integers += 1;
        let bound = |name: &str| map.get(name).and_then(Value::as_f64);
        let is_within = |value: f64| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
        let is_bounded = match map.get("format").and_then(Value::as_str) {
            // What the API server itself holds.
            Some("int64") => true,
            _ => {
                map.contains_key("enum")
                    || bound("minimum").is_some_and(is_within) && bound("maximum").is_some_and(is_within)
            }
        };
        if !is_bounded {
            endless.push(format!("{path}: {map:?}"));
        }
    });
    assert!(integers > 50, "the schema was walked: {integers}");
    assert!(endless.is_empty(), "{endless:?}");
}

/// Every field that we define, and not Kubernetes, is described.
#[test]
fn every_field_is_described() {
    let definition = definition();
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").expect("a schema");
    let mut bare = Vec::new();
    for part in ["spec", "status"] {
        walk(&schema[part], part, &mut |path, map| {
            let Some(Value::Object(properties)) = map.get("properties") else { return };
            for (name, field) in properties {
                if field.get("description").is_none() && !path.contains("affinity") && !path.contains("metricsFrom") {
                    bare.push(format!("{path}.{name}"));
                }
            }
        });
    }
    assert!(bare.is_empty(), "{bare:?}");
}

/// Cost of CEL is estimated by the bounds of what it looks at.
#[test]
fn every_text_and_list_of_the_spec_is_bounded() {
    let definition = definition();
    let spec = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").expect("a spec");
    let mut endless = Vec::new();
    walk(spec, "spec", &mut |path, map| {
        let foreign = ["affinity", "tolerations", "topologySpreadConstraints", "resources", "metricsFrom"];
        if foreign.iter().any(|part| path.contains(part)) {
            return;
        }
        let bounded = match map.get("type").and_then(Value::as_str) {
            Some("string") => ["maxLength", "enum", "pattern"].iter().any(|bound| map.contains_key(*bound)),
            Some("array") => map.contains_key("maxItems"),
            Some("integer") => map.contains_key("enum") || (map.contains_key("minimum")),
            _ => true,
        };
        let in_a_map = path.ends_with("additionalProperties");
        if !bounded && !in_a_map {
            endless.push(path.to_owned());
        }
    });
    assert!(endless.is_empty(), "{endless:?}");
}
