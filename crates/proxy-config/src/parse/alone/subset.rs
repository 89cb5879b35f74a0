//! The rules for subsets by label.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::resource::{ClusterSpec, FallbackWord, RouteSpec};

/// So many lists of labels divide a cluster.
const KEYS_MAX: usize = 8;
/// So many subsets a cluster may have, and so many if each has a table of its own.
const SUBSETS_MAX: usize = 1024;
const TABLES_MAX: usize = 64;

pub(super) fn check_cluster(spec: &ClusterSpec, findings: &mut Findings) {
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        if let Some(labels) = endpoint.labels() {
            refuse_empty(labels, &format!("endpoints[{index}].labels"), findings);
        }
    }
    let Some(subsets) = &spec.subsets else {
        return;
    };
    findings.refuse_if(
        subsets.keys.is_empty() || subsets.keys.len() > KEYS_MAX,
        "subsets.keys",
        || format!("out of bounds; give 1 to {KEYS_MAX} lists of labels, such as [[version]]"),
    );
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for (index, names) in subsets.keys.iter().enumerate() {
        let path = format!("subsets.keys[{index}]");
        let distinct: BTreeSet<&String> = names.iter().collect();
        let odd = names.is_empty() || names.iter().any(String::is_empty);
        findings.refuse_if(odd || distinct.len() < names.len(), path.clone(), || {
            "not a list of different labels; give at least one, such as [version]".into()
        });
        let values = spec.endpoints.iter().filter_map(|endpoint| {
            let value = |name: &&String| endpoint.labels()?.get(*name);
            distinct.iter().map(value).collect::<Option<Vec<_>>>()
        });
        count += values.collect::<BTreeSet<_>>().len();
        findings.refuse_if(!seen.insert(distinct), path, || {
            "these labels are given twice; keep one of them".into()
        });
    }
    let most = if spec.balance.is_hashing() {
        TABLES_MAX
    } else {
        SUBSETS_MAX
    };
    findings.refuse_if(count > most, "subsets.keys", || {
        format!(
            "the endpoints have {count} combinations of these labels, and `{}` bears {most}; use \
             fewer labels, or other ones",
            spec.balance.as_str()
        )
    });
    let wanted = subsets.fallback == Some(FallbackWord::Default);
    findings.refuse_if(
        wanted == subsets.default.is_empty(),
        "subsets.default",
        || "`fallback: default` and the labels in `default` go together; give both, or none".into(),
    );
    refuse_empty(&subsets.default, "subsets.default", findings);
}

pub(super) fn check_route(route: &RouteSpec, path: &str, findings: &mut Findings) {
    let path = format!("{path}.subset");
    let idle = route.to.is_none() && !route.subset.is_empty();
    findings.refuse_if(idle, path.clone(), || {
        "only a route with `to` has a subset; leave it out".into()
    });
    refuse_empty(&route.subset, &path, findings);
}

fn refuse_empty(labels: &BTreeMap<String, String>, path: &str, findings: &mut Findings) {
    findings.refuse_if(labels.keys().any(String::is_empty), path, || {
        "a label has no name; give one, such as version".into()
    });
}
