//! What admission refuses, and in which words.

use proxy_config::{Change, ConfigSet, Kind, RESOURCES_MAX, ResourceId, check};

use crate::{BASE, compiled, named, routed, set, texts, with, without};

fn refused(set: &ConfigSet) -> Vec<String> {
    texts(&check(set).expect_err("the set is inconsistent"))
}

/// Whether `change`, made to the base, is refused with each of `parts`, also by an incremental
/// check.
fn refuses(change: &str, parts: &[&str]) {
    let base = set(BASE);
    let next = with(&base, change);
    let incremental = check(&base)
        .unwrap()
        .next(&next)
        .expect_err("the change is inconsistent");
    for found in [refused(&next), texts(&incremental)] {
        for part in parts {
            assert!(
                found.iter().any(|fault| fault.contains(part)),
                "{found:?} should have {part}"
            );
        }
        assert_eq!(found.len(), parts.len(), "{found:?}");
    }
}

#[test]
fn dangling_references_are_refused_with_the_nearest_name() {
    refuses(
        "{kind: VirtualHost, name: h, domains: [h], listeners: [wbe, raw], routes: [{to: shopp}, {to: {b: 1, c/d: 1}}]}
---
{kind: Cluster, name: shop, endpoints: [10.0.0.1:80]}
---
{kind: Listener, name: raw, bind: ':1', protocol: tcp, to: nobody}",
        &[
            "VirtualHost/h: routes[0].to: there is no Cluster `shopp`; did you mean `shop`? (in.yaml:1:1)",
            "VirtualHost/h: routes[1].to: there is no Cluster `c/d`; add a Cluster of this name",
            "VirtualHost/h: listeners[0]: there is no Listener `wbe`; did you mean `web`?",
            "VirtualHost/h: listeners[1]: Listener/raw is not an http listener",
            "Listener/raw: to: there is no Cluster `nobody`",
        ],
    );
}

#[test]
fn what_is_in_use_cannot_be_deleted() {
    let base = set(BASE);
    let checked = check(&base).unwrap();
    let found = checked
        .next(&without(&base, Kind::Cluster, "b"))
        .unwrap_err();
    assert_eq!(texts(&found).len(), 1);
    assert!(
        texts(&found)[0].starts_with("VirtualHost/shop: routes[1].to: there is no Cluster `b`")
    );
    let named_listener = with(
        &base,
        "{kind: VirtualHost, name: h, domains: [h], listeners: [web], routes: [{to: a}]}",
    );
    let checked = checked.next(&named_listener).unwrap();
    let found = checked
        .next(&without(&named_listener, Kind::Listener, "web"))
        .unwrap_err();
    assert!(
        texts(&found)[0].starts_with("VirtualHost/h: listeners[0]: there is no Listener `web`")
    );
    // With its last user it goes.
    let both = without(
        &without(&base, Kind::Cluster, "b"),
        Kind::VirtualHost,
        "shop",
    );
    assert!(check(&base).unwrap().next(&both).is_ok());
}

#[test]
fn a_domain_is_served_once_per_listener() {
    refuses(
        "{kind: VirtualHost, name: other, domains: [x.test, SHOP.test], routes: [{to: a}]}",
        &["serves `shop.test` on the same listener already; remove it from one of them"],
    );
    // On listeners or nodes that never meet, it may be.
    let base = set(BASE);
    let apart = with(
        &base,
        "{kind: Listener, name: web2, bind: ':81', protocol: http}
---
{kind: VirtualHost, name: one, domains: [x], listeners: [web], routes: [{to: a}]}
---
{kind: VirtualHost, name: two, domains: [x], listeners: [web2], routes: [{to: a}]}
---
{kind: VirtualHost, name: three, domains: [y], nodes: [n1], routes: [{to: a}]}
---
{kind: VirtualHost, name: four, domains: [y], nodes: [n2], routes: [{to: a}]}",
    );
    assert!(check(&apart).is_ok());
    let meeting = with(
        &apart,
        "{kind: VirtualHost, name: five, domains: [x], routes: [{to: a}]}",
    );
    assert_eq!(refused(&meeting).len(), 2);
}

#[test]
fn ports_conflict_where_nodes_may_meet() {
    for (bind, nodes, conflicts) in [
        (":80", "", true),
        ("0.0.0.0:80", "", true),
        ("127.0.0.1:80", "", true),
        ("'[::]:80'", "", true),
        (":81", "", false),
        (":80", "nodes: [n1],", true),
    ] {
        let bind = if bind.starts_with('\'') {
            bind.to_owned()
        } else {
            format!("'{bind}'")
        };
        let next = with(
            &set(BASE),
            &format!("{{kind: Listener, name: z, {nodes} bind: {bind}, protocol: tcp, to: a}}"),
        );
        assert_eq!(check(&next).is_err(), conflicts, "{bind} {nodes}");
    }
    let listener = |name: &str, bind: &str, nodes: &str| {
        format!(
            "{{kind: Listener, name: {name}, nodes: {nodes}, bind: '{bind}', protocol: http}}\n---\n"
        )
    };
    let apart = [
        listener("one", ":90", "[n1]") + &listener("two", ":90", "[n2]"),
        listener("one", ":90", "{zone: a}") + &listener("two", ":90", "{zone: b}"),
        listener("one", "10.0.0.1:90", "[n1]") + &listener("two", "10.0.0.2:90", "[n1]"),
    ];
    for text in apart {
        assert!(check(&with(&set(BASE), &text)).is_ok(), "{text}");
    }
    // A label and a name: nobody can say whether they meet.
    let found = refused(&with(
        &set(BASE),
        &(listener("one", ":90", "{zone: a}") + &listener("two", ":90", "[n2]")),
    ));
    assert!(
        found[0].contains("bind: `:90` is taken by Listener/one (`:90`)"),
        "{found:?}"
    );
}

#[test]
fn what_is_used_must_be_on_the_same_nodes() {
    refuses(
        "{kind: Cluster, name: c, nodes: [n1], endpoints: [10.0.0.1:80]}
---
{kind: VirtualHost, name: h, domains: [h], routes: [{to: c}]}
---
{kind: VirtualHost, name: i, nodes: [n1], domains: [i], routes: [{to: c}]}
---
{kind: Listener, name: raw, nodes: [n2], bind: ':1', protocol: tcp, to: c}
---
{kind: Listener, name: far, nodes: [n3], bind: ':2', protocol: http}
---
{kind: VirtualHost, name: j, nodes: [n1], listeners: [far], domains: [j], routes: [{to: a}]}",
        &[
            "VirtualHost/h: routes[0].to: Cluster/c is not on every node where this is",
            "Listener/raw: to: Cluster/c is not on every node where this is",
            "VirtualHost/j: listeners[0]: Listener/far is on none of the nodes where this is",
        ],
    );
}

#[test]
fn failing_expectations_are_refused_with_what_happens_instead() {
    refuses(
        "kind: VirtualHost
name: h
domains: [h.test]
routes:
- {match: {path_prefix: /api, methods: [GET]}, to: {a: 1, b: 1}}
- {match: {headers: [{name: x, exact: y}]}, to: b}
expect:
- {get: /api/x?q=1, to: a}
- {get: /api/x, to: b}
- {get: /apis, status: 404}
- {get: /api, method: POST, status: 404}
- {get: /, headers: {X: y}, to: b}
- {get: /apis, to: a}
- {get: /api, status: 404}
- {get: /, headers: {x: y}, to: a}",
        &[
            "VirtualHost/h: expect[5]: GET /apis should go to a, but no route takes it; correct",
            "VirtualHost/h: expect[6]: GET /api should go to status 404, but routes[0] takes it, to a 1, b 1",
            "VirtualHost/h: expect[7]: GET / should go to a, but routes[1] takes it, to b",
        ],
    );
}

#[test]
fn expectations_guard_later_changes() {
    let base = with(
        &set(BASE),
        "{kind: VirtualHost, name: shop, domains: [shop.test], expect: [{get: /a, to: a}], routes: [{match: {path_prefix: /a}, to: a}, {to: b}]}",
    );
    let checked = check(&base).unwrap();
    let broken = with(
        &base,
        "{kind: VirtualHost, name: shop, domains: [shop.test], expect: [{get: /a, to: a}], routes: [{to: b}]}",
    );
    assert!(checked.next(&broken).is_err());
}

#[test]
fn a_route_that_can_never_match_is_reported_but_accepted() {
    let odd = with(
        &set(BASE),
        "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{to: b}, {match: {path: /a}, to: a}]}",
    );
    let checked = check(&odd).unwrap();
    let warnings = texts(&checked.warnings());
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .starts_with("VirtualHost/shop: routes[1]: this route can never match, for routes[0]")
    );
    let mended = checked.next(&set(BASE)).unwrap();
    assert!(mended.warnings().is_empty());
}

#[test]
fn several_changes_in_one_step_are_judged_by_their_end() {
    let base = with(
        &set(BASE),
        "{kind: VirtualHost, name: blog, domains: [blog.test], routes: [{to: a}]}",
    );
    let checked = check(&base).unwrap();
    // Two virtual hosts swap domains, and a cluster goes along with its last use.
    let swapped = with(
        &base,
        "{kind: VirtualHost, name: blog, domains: [shop.test], routes: [{to: b}]}
---
{kind: VirtualHost, name: shop, domains: [blog.test], routes: [{to: b}]}",
    );
    let swapped = without(&swapped, Kind::Cluster, "a");
    assert!(checked.next(&swapped).is_ok());
}

#[test]
fn unreadable_values_and_keys_are_faults() {
    let mut base = set(BASE);
    let change = |key, value| Change {
        key,
        value: Some(value),
        mod_revision: 7,
    };
    base.apply([
        change(b"/skein/config/default/Cluster/c", b"{".as_slice()),
        change(
            b"/skein/config/default/Cluster/d",
            br#"{"kind":"Cluster","name":"e","endpoints":["1.1.1.1:1"]}"#,
        ),
        change(b"/skein/config/default/Teapot/t", b"{}"),
        change(b"/skein/config/\xff", b"{}"),
    ]);
    let found = refused(&base);
    assert_eq!(found.len(), 4, "{found:?}");
    for part in [
        "Cluster/c: this is not valid JSON",
        "says that it is Cluster/e",
        "/Teapot/t: this is not the key",
    ] {
        assert!(
            found.iter().any(|fault| fault.contains(part)),
            "{found:?} should have {part}"
        );
    }
    let gone = |key| Change {
        key,
        value: None,
        mod_revision: 8,
    };
    base.apply([
        gone(b"/skein/config/default/Cluster/c".as_slice()),
        gone(b"/skein/config/default/Cluster/d"),
        gone(b"/skein/config/default/Teapot/t"),
        gone(b"/skein/config/\xff"),
    ]);
    assert!(check(&base).is_ok());
}

#[test]
fn too_many_resources_are_refused() {
    let mut many = set(BASE);
    let key = |index: usize| format!("/skein/config/default/X/{index}");
    for index in 0..=RESOURCES_MAX {
        many.apply([Change {
            key: key(index).as_bytes(),
            value: Some(b""),
            mod_revision: 1,
        }]);
    }
    let found = check(&many).unwrap_err();
    assert!(
        found
            .iter()
            .any(|fault| fault.message.contains("more than the limit of 100000"))
    );
}

#[test]
fn a_node_keeps_the_previous_version_of_what_is_refused_and_applies_the_rest() {
    let first = compiled(&set(BASE));
    assert!(first.refused.is_empty());
    let bad = with(
        &without(&set(BASE), Kind::Cluster, "b"),
        "{kind: VirtualHost, name: new, domains: [new.test], routes: [{to: nobody}]}
---
{kind: VirtualHost, name: good, domains: [good.test], routes: [{to: a}]}
---
{kind: Cluster, name: a, endpoints: [10.0.0.9:80]}",
    );
    let next = proxy_config::compile(
        &bad,
        &crate::node("n1", &[]),
        Some(&first),
        model::ConfigRevision(2),
    );
    assert_eq!(next.refused.len(), 2, "{:?}", texts(&next.refused));
    assert_eq!(
        routed(&next, "shop.test", "/").as_deref(),
        Some("b"),
        "its cluster is kept for it"
    );
    assert_eq!(routed(&next, "good.test", "/").as_deref(), Some("a"));
    assert_eq!(routed(&next, "new.test", "/"), None);
    let a = &next.config.clusters[&named("a")];
    assert_eq!(a.endpoints[0].address.to_string(), "10.0.0.9:80");
    // What is kept as last-known-good starts a node again without a fault.
    assert!(compiled(next.in_force()).refused.is_empty());
    // Once the fault is mended, all of it applies.
    let mended = with(
        &bad,
        "{kind: Cluster, name: nobody, endpoints: [10.0.0.3:80]}",
    );
    let mended = with(
        &mended,
        "{kind: Cluster, name: b, endpoints: [10.0.0.4:80]}",
    );
    let last = proxy_config::compile(
        &mended,
        &crate::node("n1", &[]),
        Some(&next),
        model::ConfigRevision(3),
    );
    assert!(last.refused.is_empty(), "{:?}", texts(&last.refused));
    assert_eq!(routed(&last, "new.test", "/").as_deref(), Some("nobody"));
}

#[test]
fn a_node_that_starts_with_something_unreadable_serves_the_rest() {
    let mut bad = set(BASE);
    bad.apply([Change {
        key: b"/skein/config/default/Cluster/a",
        value: Some(b"{\"kind\":\"Cluster\",\"from\":\"the future\"}"),
        mod_revision: 9,
    }]);
    let bad = with(
        &bad,
        "{kind: VirtualHost, name: other, domains: [other.test], routes: [{to: b}]}",
    );
    let compiled = compiled(&bad);
    assert_eq!(routed(&compiled, "other.test", "/").as_deref(), Some("b"));
    assert_eq!(
        routed(&compiled, "shop.test", "/a"),
        None,
        "its cluster is unreadable"
    );
    assert!(
        texts(&compiled.refused)
            .iter()
            .any(|fault| fault.starts_with("VirtualHost/shop"))
    );
}

#[test]
fn a_set_of_stored_pairs_knows_who_wrote_what() {
    let base = set(BASE);
    let pairs: Vec<_> = base
        .resources()
        .zip(1i64..)
        .map(|(resource, revision)| (resource.key(), resource.canonical_json(), revision))
        .collect();
    let mut stored = ConfigSet::from_pairs(pairs);
    assert_eq!(stored.len(), 4);
    let id = |kind, name| ResourceId {
        kind,
        name: named(name),
    };
    let shop = id(Kind::VirtualHost, "shop");
    assert_eq!(stored.mod_revision(&shop), Some(3));
    assert_eq!(stored.resource(&shop), base.resource(&shop));
    let checked = check(&stored).unwrap();
    assert_eq!(checked.resources().mod_revision(&shop), Some(3));
    let before = stored.clone();
    stored.apply([Change {
        key: shop.key().as_bytes(),
        value: None,
        mod_revision: 9,
    }]);
    assert_eq!((stored.len(), before.len()), (3, 4));
    assert!(stored.resource(&shop).is_none() && before.resource(&shop).is_some());
}

#[test]
fn domains_with_different_ports_are_not_in_each_other_s_way() {
    let other = |domain: &str| {
        let host = format!(
            "{{kind: VirtualHost, name: other, domains: ['{domain}'], routes: [{{to: a}}],
              expect: [{{get: /, to: a}}, {{get: /, host: '{domain}', to: a}}]}}"
        );
        check(&with(&set(BASE), &host)).map_or_else(|faults| texts(&faults), |_| Vec::new())
    };
    assert_eq!(other("shop.test:8443"), [""; 0]);
    let faults = other("shop.test");
    assert!(faults[0].contains("serves `shop.test` on the same listener"));
    let wrong = "{kind: VirtualHost, name: o, domains: ['o:81'], routes: [{to: a}],
                  expect: [{get: /, host: 'o:82', to: a}]}";
    let faults = texts(&proxy_config::parse_documents("in", wrong).unwrap_err());
    assert!(
        faults[0].contains("`o:82` is none of the domains"),
        "{faults:?}"
    );
    let explained = |url: &str| {
        let two = "{kind: VirtualHost, name: other, domains: ['shop.test:81'], routes: [{to: a}]}
---
{kind: Listener, name: more, bind: ':81', protocol: http}";
        let config = compiled(&with(&set(BASE), two)).config;
        let ask = proxy_config::Ask::get(url).unwrap();
        let health = |_: &_, _: &_| proxy_config::EndpointHealth::default();
        let told = proxy_config::explain(&config, &ask, &health);
        told.virtual_host.unwrap().name
    };
    assert_eq!(explained("http://shop.test:81/"), "other");
    assert_eq!(explained("http://shop.test/"), "shop");
}
