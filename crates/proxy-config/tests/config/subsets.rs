//! Subsets by label: as written, linked and explained.

use proxy_config::compiled::{Labels, SubsetFallback};
use proxy_config::{Ask, EndpointHealth, check, explain, parse_documents};

use crate::{compiled, named, set, texts};

fn shop(route: &str, cluster: &str) -> String {
    format!(
        "{{kind: Listener, name: web, bind: ':80', protocol: http}}
---
{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{{to: a, {route}}}]}}
---
{{kind: Cluster, name: a, {cluster}, endpoints: [
  {{address: '10.0.0.1:80', labels: {{version: v1}}}},
  {{address: '10.0.0.2:80', labels: {{version: v2}}}}]}}
"
    )
}

fn explained(route: &str, subsets: &str) -> String {
    let compiled = compiled(&set(&shop(route, &format!("subsets: {subsets}"))));
    let ask = Ask::get("http://shop.test/").unwrap();
    explain(&compiled.config, &ask, &|_, _| EndpointHealth::default()).to_string()
}

#[test]
fn labels_and_subsets_are_compiled_in_order() {
    let compiled = compiled(&set(&shop(
        "subset: {version: v2}",
        "subsets: {keys: [[version], [version, stage]], fallback: any}",
    )));
    let cluster = &compiled.config.clusters[&named("a")];
    assert_eq!(
        cluster.endpoints[1].labels,
        Labels::new([("version", "v2")])
    );
    let subsets = cluster.subsets.as_ref().unwrap();
    assert_eq!(subsets.fallback, SubsetFallback::Any);
    let second: Vec<&str> = subsets.keys[1].iter().map(|name| &**name).collect();
    assert_eq!(second, ["stage", "version"]);
}

#[test]
fn explain_tells_who_is_in_the_subset() {
    let text = explained("subset: {version: v2}", "{keys: [[version]]}");
    for part in [
        "  subset: those with version=v2 are used\n",
        "10.0.0.1:80 weight 1, version=v1: not in the subset\n",
        "10.0.0.2:80 weight 1, version=v2: unknown\n",
    ] {
        assert!(text.contains(part), "{text}\nshould have {part}");
    }
    for (fallback, part) in [
        ("", "no endpoint has version=v3, and there is no fallback\n"),
        (
            ", fallback: any",
            "no endpoint has version=v3: any is used\n",
        ),
        (
            ", fallback: default, default: {version: v1}",
            "no endpoint has version=v3: those with version=v1 are used\n",
        ),
    ] {
        let subsets = format!("{{keys: [[version]]{fallback}}}");
        let text = explained("subset: {version: v3}", &subsets);
        assert!(text.contains(part), "{text}\nshould have {part}");
    }
}

#[test]
fn a_subset_that_the_cluster_does_not_know_is_refused() {
    let text = shop("subset: {stage: prod}", "subsets: {keys: [[version]]}");
    let faults = check(&set(&text)).expect_err("there is no such list");
    let found = texts(&faults);
    let part = "routes[0].subset: Cluster/a is not divided by [stage]; add this list";
    assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
}

#[test]
fn faults_are_told_at_their_place() {
    for (cluster, part) in [
        (
            "subsets: {keys: []}",
            "subsets.keys: out of bounds; give 1 to 8",
        ),
        (
            "subsets: {keys: [[]]}",
            "subsets.keys[0]: not a list of different labels",
        ),
        (
            "subsets: {keys: [[a, a]]}",
            "subsets.keys[0]: not a list of different labels",
        ),
        (
            "subsets: {keys: [[a, b], [b, a]]}",
            "subsets.keys[1]: these labels are given twice",
        ),
        (
            "subsets: {keys: [[a]], fallback: default}",
            "subsets.default: `fallback: default` and the labels",
        ),
        (
            "subsets: {keys: [[a]], default: {a: b}}",
            "subsets.default: `fallback: default` and the labels",
        ),
    ] {
        let faults = parse_documents("in.yaml", &shop("", cluster)).expect_err("it is faulty");
        let found = texts(&faults);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should have {part}"
        );
    }
    let endpoints: Vec<String> = (0..65)
        .map(|n| format!("{{address: '10.0.0.{n}:80', labels: {{v: '{n}'}}}}"))
        .collect();
    let many = |balance: &str| {
        let endpoints = endpoints.join(", ");
        let text = format!(
            "{{kind: Cluster, name: a, balance: {balance}, subsets: {{keys: [[v]]}}, \
             endpoints: [{endpoints}]}}"
        );
        parse_documents("in.yaml", &text)
    };
    let found = texts(&many("maglev").expect_err("too many tables"));
    let part = "the endpoints have 65 combinations of these labels, and `maglev` bears 64";
    assert!(found[0].contains(part), "{found:?}");
    assert!(many("random").is_ok());
}
