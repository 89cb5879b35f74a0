//! The rules of the house that no compiler checks: directions of dependency, one foreign engine per
//! crate, headers, file length.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Layer and family of every crate; a dependency must point to a lower layer, or to a crate of the
/// same family within the pairs below. A new crate is added here on purpose.
const HOUSE: &[(&str, u8, &str)] = &[
    ("base2histogram", 0, ""),
    ("model", 0, ""),
    ("lifecycle", 0, ""),
    ("telemetry", 0, ""),
    ("store-mvcc", 1, "store"),
    ("mesh-health", 1, "mesh"),
    ("proxy-config", 1, "proxy"),
    ("proxy-balance", 1, "proxy"),
    ("store-api", 2, "store"),
    ("store-disk", 2, "store"),
    ("control-api", 2, ""),
    ("tls", 2, ""),
    ("rpc", 2, ""),
    ("store-raft", 3, "store"),
    ("store-server", 3, "store"),
    ("store-client", 3, "store"),
    ("mesh-gossip", 3, "mesh"),
    ("proxy-server", 3, "proxy"),
    ("admin", 4, ""),
    ("node", 5, ""),
    ("skein", 6, ""),
    ("bench", 6, ""),
];

/// Dependencies inside one layer that the design draws.
const SAME_LAYER: &[(&str, &str)] = &[
    ("rpc", "tls"),
    ("store-api", "rpc"),
    ("control-api", "rpc"),
    ("store-server", "store-raft"),
    ("proxy-balance", "proxy-config"),
    ("proxy-balance", "mesh-health"),
];

/// Dependencies between families that the design permits: the proxy reads the health view.
const ACROSS_FAMILIES: &[(&str, &str)] = &[
    ("proxy-balance", "mesh-health"),
    ("proxy-server", "mesh-health"),
];

/// Foreign engines and the one crate that may name each.
const ENGINES: &[(&str, &str)] = &[
    ("openraft", "store-raft"),
    ("sled", "store-disk"),
    ("bincode", "store-disk"),
    ("chitchat", "mesh-gossip"),
    ("rustls", "tls"),
    ("tokio-rustls", "tls"),
    ("rustls-webpki", "tls"),
];

/// What no pure crate may depend on: it would bring sockets, clocks or threads.
const IMPURE: &[&str] = &["tokio", "hyper", "tonic", "socket2", "rustix"];

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the root exists")
}

/// The normal dependencies of every workspace crate, by crate.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let wanted = package["dependencies"].as_array().expect("dependencies");
            let normal = wanted.iter().filter(|one| one["kind"].is_null());
            (
                text(&package["name"]),
                normal.map(|one| text(&one["name"])).collect(),
            )
        })
        .collect()
}

#[test]
fn dependencies_point_down_and_families_stay_apart() {
    let house: BTreeMap<_, _> = HOUSE
        .iter()
        .map(|&(name, layer, family)| (name, (layer, family)))
        .collect();
    let mut faults = Vec::new();
    for (name, wanted) in &dependencies() {
        let Some(&(layer, family)) = house.get(name.as_str()) else {
            faults.push(format!("{name} has no place in the house; add it to HOUSE"));
            continue;
        };
        for other in wanted {
            let Some(&(below, its_family)) = house.get(other.as_str()) else {
                continue;
            };
            let pair = (name.as_str(), other.as_str());
            if below > layer || (below == layer && !SAME_LAYER.contains(&pair)) {
                faults.push(format!(
                    "{name} (layer {layer}) may not use {other} (layer {below})"
                ));
            }
            let apart = !family.is_empty() && !its_family.is_empty() && family != its_family;
            if apart && !ACROSS_FAMILIES.contains(&pair) {
                faults.push(format!("{name} and {other} are of different families"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_engine_has_one_crate_and_pure_crates_have_none() {
    let mut faults = Vec::new();
    for (name, wanted) in &dependencies() {
        for (engine, keeper) in ENGINES {
            if wanted.iter().any(|one| one == engine) && name != keeper {
                faults.push(format!("{name} names {engine}; only {keeper} may"));
            }
        }
        let pure = HOUSE
            .iter()
            .any(|&(one, layer, _)| one == name && layer == 1);
        for foreign in wanted
            .iter()
            .filter(|one| pure && IMPURE.contains(&one.as_str()))
        {
            faults.push(format!("{name} is pure; {foreign} is not"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every Rust file below the product's folders.
fn sources() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = ["crates", "tests", "bench", "jepsen"]
        .map(|d| root().join(d))
        .into();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("readable").path()) {
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("src/generated") {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_file_says_what_it_is_and_fits_its_room() {
    let files = sources();
    assert!(
        files.len() > 50,
        "the walk found {} files: is it looking in the right place?",
        files.len()
    );
    let mut faults = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let shown = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        if !text.starts_with("//! ") {
            faults.push(format!("{shown}: begins without a `//!` header"));
        }
        let is_test = shown.starts_with("tests/")
            || shown.contains("/tests/")
            || shown.ends_with("/tests.rs")
            || shown.ends_with("_tests.rs");
        let code = text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(&text);
        let lines = code.lines().count();
        if !is_test && lines > LINES_MAX {
            faults.push(format!(
                "{shown}: {lines} lines, more than {LINES_MAX}; split it"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
