//! The contract stays a contract: no runtime and no client among what it is built from.

use std::collections::BTreeSet;
use std::process::Command;

/// What would let this crate do I/O, or read a clock or randomness.
const FORBIDDEN: [&str; 15] = [
    "tokio",
    "async-std",
    "smol",
    "futures",
    "mio",
    "hyper",
    "reqwest",
    "axum",
    "tonic",
    "kube-client",
    "redis",
    "tikv-client",
    "fjall",
    "rand",
    "getrandom",
];

#[test]
fn nothing_it_is_built_from_can_do_io() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "shortener-crds", "--edges", "normal", "--prefix", "none", "--format", "{lib}"])
        .args(["--locked", "--offline", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("crate names");
    let built_from: BTreeSet<_> = tree.lines().map(|name| name.trim().replace('_', "-")).collect();
    assert!(built_from.contains("aes") && built_from.contains("serde"), "the tree was read: {built_from:?}");
    let forbidden: Vec<_> = FORBIDDEN.into_iter().filter(|name| built_from.contains(*name)).collect();
    assert!(forbidden.is_empty(), "shortener-crds is built from {forbidden:?}");
}
