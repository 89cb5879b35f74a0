//! Mirrors as config writes them, and as `explain` and `graph` tell them.

use proxy_config::{Ask, EndpointHealth, check, explain, graph, parse_documents};

use crate::{BASE, compiled, set, texts, with, without};

fn host(fields: &str) -> String {
    format!("{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{{{fields}}}]}}")
}

#[test]
fn faults_of_a_mirror_are_told_at_their_place() {
    for (fields, part) in [
        (
            "redirect: {path: /x}, mirror: [{to: a}]",
            "mirror: nothing is sent upstream; leave it out, or give `to`",
        ),
        (
            "to: a, mirror: [{to: b}, {to: b, percent: 1}]",
            "mirror[1]: `b` is given twice; keep one of them",
        ),
        (
            "to: a, mirror: [{to: b, percent: 100.5}]",
            "mirror[0].percent: `100.5` is not a share in percent; give 0 to 100",
        ),
        (
            "to: a, mirror: [{to: b, percent: nan}]",
            "mirror[0].percent: `NaN` is not a share in percent",
        ),
        (
            "to: a, mirror: [{to: b, percent: a}]",
            "mirror[0].percent: expected a number",
        ),
        (
            "to: a, mirror: [{to: b}, {to: c}, {to: d}, {to: e}, {to: f}]",
            "mirror: there are more than 4; leave some out",
        ),
    ] {
        let faults = texts(&parse_documents("in", &host(fields)).unwrap_err());
        let told = |fault: &String| fault.contains(&format!("routes[0].{part}"));
        assert!(faults.iter().any(told), "{faults:#?}\nshould have {part}");
    }
    let unknown = with(&set(BASE), &host("to: a, mirror: [{to: aa}]"));
    let faults = texts(&check(&unknown).unwrap_err());
    let told = "VirtualHost/shop: routes[0].mirror[0].to: there is no Cluster `aa`; did you mean";
    assert!(faults[0].contains(told), "{faults:?}");
    // A cluster that only copies go to is in use.
    let used = check(&with(&set(BASE), &host("to: a, mirror: [{to: b}]"))).unwrap();
    let without = without(used.resources(), proxy_config::Kind::Cluster, "b");
    let faults = texts(&used.next(&without).unwrap_err());
    assert!(
        faults[0].contains("mirror[0].to: there is no Cluster `b`"),
        "{faults:?}"
    );
}

#[test]
fn mirrors_are_told_with_their_shares() {
    let text = host("to: a, mirror: [{to: b, percent: 0.5, keep_host: true}, {to: c}]")
        + "\n---\n{kind: Cluster, name: c, endpoints: [10.0.0.3:80]}";
    let config = compiled(&with(&set(BASE), &text)).config;
    let ask = Ask::get("http://shop.test/").unwrap();
    let explanation = explain(&config, &ask, &|_, _| EndpointHealth::default());
    let chosen = explanation.chosen.as_ref().unwrap();
    assert_eq!(chosen.mirror, ["0.5 % to b, host kept", "100 % to c"]);
    assert!(
        explanation
            .to_string()
            .contains("\nmirror 0.5 % to b, host kept\nmirror 100 % to c\ncluster a: 100.0 %")
    );
    let graph = graph(&config);
    let labels: Vec<_> = graph
        .edges
        .iter()
        .filter(|edge| edge.from == "route:default/shop/0")
        .map(|edge| (&*edge.to, &*edge.label))
        .collect();
    assert_eq!(
        labels,
        [
            ("cluster:default/a", ""),
            ("cluster:default/b", "mirror 0.5 %"),
            ("cluster:default/c", "mirror 100 %")
        ]
    );
    let resource = parse_documents(
        "in",
        &host("to: a, mirror: [{to: b, percent: 0.5}, {to: c}]"),
    );
    let json = String::from_utf8(resource.unwrap()[0].canonical_json()).unwrap();
    assert!(
        json.ends_with(r#""mirror":[{"to":"b","percent":0.5},{"to":"c"}]}]}"#),
        "{json}"
    );
}
