//! The pipeline from text to what a node runs, through the public interface.

// All of this crate is tests; clippy knows that of functions marked so only.
#![allow(clippy::unwrap_used)]

mod balancing;
mod compiling;
mod connections;
mod datagrams;
mod examples;
mod explaining;
mod headers;
mod linking;
mod mirroring;
mod outliers;
mod passthrough;
mod reference;
mod retrying;
mod rewriting;
mod subsets;
mod tls;
mod upgrades;

use std::collections::BTreeMap;

use proxy_config::compiled::{ResourceName, Target};
use proxy_config::{Compiled, ConfigSet, Fault, Kind, ResourceId, compile, parse_documents};

/// The set of all documents of a well-formed text.
fn set(text: &str) -> ConfigSet {
    parse_documents("in.yaml", text)
        .unwrap()
        .into_iter()
        .collect()
}

/// `set` with the documents of `text` written over it.
fn with(set: &ConfigSet, text: &str) -> ConfigSet {
    let mut set = set.clone();
    for resource in parse_documents("in.yaml", text).unwrap() {
        set.insert(resource);
    }
    set
}

fn without(set: &ConfigSet, kind: Kind, name: &str) -> ConfigSet {
    let mut set = set.clone();
    assert!(
        set.remove(&ResourceId {
            kind,
            name: named(name)
        }),
        "{kind}/{name} was there"
    );
    set
}

fn named(name: &str) -> ResourceName {
    ResourceName {
        namespace: "default".into(),
        name: name.into(),
    }
}

/// A node with labels written as `k=v`.
fn node(name: &str, labels: &[&str]) -> Target {
    let pair = |label: &&str| {
        let (key, value) = label.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    };
    Target {
        node: name.parse().unwrap(),
        labels: labels.iter().map(pair).collect::<BTreeMap<_, _>>(),
        proxy_ip: "127.0.0.11".parse().unwrap(),
    }
}

/// The set compiled for a node without labels.
fn compiled(set: &ConfigSet) -> Compiled {
    compile(set, &node("n1", &[]), None, model::ConfigRevision(1))
}

/// The cluster that gets all of a request.
fn routed(compiled: &Compiled, host: &str, path: &str) -> Option<String> {
    let listener = compiled
        .config
        .listeners
        .values()
        .find(|l| l.router().is_some())?;
    let header = |_: &str| None;
    let request = proxy_config::RequestView {
        host,
        path,
        query: "",
        method: "GET",
        header: &header,
    };
    let found = listener.router()?.route(&request)?;
    Some(found.route.action.to()?.choose(0).name.to_string())
}

fn texts(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// One http listener, one virtual host, two clusters.
const BASE: &str = "
{kind: Listener, name: web, bind: ':80', protocol: http}
---
{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{match: {path_prefix: /a}, to: a}, {to: b}]}
---
{kind: Cluster, name: a, endpoints: [10.0.0.1:80]}
---
{kind: Cluster, name: b, endpoints: [10.0.0.2:80]}
";
