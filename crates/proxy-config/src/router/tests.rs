//! The index against a linear scan, and the order of precedence.

use proptest::prelude::*;

use super::*;
use crate::compiled::{Action, RetryPolicy, Rewrite, Split, Upgrades};

fn name(text: &str) -> ResourceName {
    ResourceName {
        namespace: "default".into(),
        name: text.into(),
    }
}

fn host(host_name: &str, domains: &[&str], conditions: Vec<Conditions>) -> Arc<VirtualHost> {
    let route = |(index, conditions)| {
        let to = Split {
            targets: Box::default(),
            total: 0,
        };
        let virtual_host = name(host_name);
        (
            conditions,
            Arc::new(Route {
                virtual_host,
                index,
                action: Action::Forward(to),
                rewrite: Rewrite::default(),
                timeout: None,
                idle_timeout: None,
                max_stream_duration: None,
                grpc_timeout_max: None,
                retry: RetryPolicy::BUILT_IN,
                upgrades: Upgrades::default(),
                hash: Box::new([]),
                mirror: Box::default(),
                subset: None,
                headers: Default::default(),
            }),
        )
    };
    let domains: Vec<Authority> = domains
        .iter()
        .map(|domain| domain.parse().unwrap())
        .collect();
    let routes = conditions.into_iter().enumerate().map(route).collect();
    Arc::new(VirtualHost::new(name(host_name), domains, routes))
}

/// Headers as `name: value` pairs.
type Headers = Vec<(String, String)>;

fn with_view<T>(
    target: &str,
    method: &str,
    headers: &Headers,
    run: impl FnOnce(&RequestView<'_>) -> T,
) -> T {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str().into())
    };
    run(&RequestView {
        host: "a.test",
        path,
        query,
        method,
        header: &header,
    })
}

fn prefix(path: &str) -> Conditions {
    Conditions {
        path: PathCondition::Prefix(path.into()),
        ..Conditions::default()
    }
}

fn exact(path: &str) -> Conditions {
    Conditions {
        path: PathCondition::Exact(path.into()),
        ..Conditions::default()
    }
}

fn find(host: &VirtualHost, path: &str) -> Option<usize> {
    with_view(path, "GET", &vec![], |request| {
        host.route(request).map(|route| route.index)
    })
}

fn template(path: &str) -> Conditions {
    Conditions {
        path: PathCondition::Template(path.parse().unwrap()),
        ..Conditions::default()
    }
}

fn regex(path: &str) -> Conditions {
    Conditions {
        path: PathCondition::Regex(path.parse().unwrap()),
        ..Conditions::default()
    }
}

#[test]
fn prefixes_hold_on_whole_segments() {
    let table = host(
        "h",
        &["*"],
        vec![prefix("/api"), prefix("/b/"), exact("/c/"), exact("/")],
    );
    for (path, expected) in [
        ("/api", Some(0)),
        ("/api/", Some(0)),
        ("/api/x/y", Some(0)),
        ("/apis", None),
        ("/ap", None),
        ("/b", Some(1)),
        ("/b/x", Some(1)),
        ("/bb", None),
        ("/c/", Some(2)),
        ("/c", None),
        ("/c/x", None),
        ("/", Some(3)),
        ("/x", None),
        ("*", None),
        ("", None),
    ] {
        assert_eq!(find(&table, path), expected, "{path}");
    }
}

#[test]
fn the_first_match_wins_however_specific_a_later_one_is() {
    let table = host(
        "h",
        &["*"],
        vec![prefix("/a"), exact("/a/b"), prefix("/"), exact("/z")],
    );
    assert_eq!(find(&table, "/a/b"), Some(0));
    assert_eq!(find(&table, "/z"), Some(2));
    assert_eq!(table.unreachable(), [(1, 0), (3, 2)]);
}

#[test]
fn methods_and_headers_narrow_a_route() {
    let header = |exact: Option<&str>| HeaderCondition {
        name: "x-tenant".into(),
        value: exact.map_or(ValueCondition::Present, |exact| {
            ValueCondition::Exact(exact.into())
        }),
        invert: false,
    };
    let with = |headers: Vec<HeaderCondition>, methods: &[&str]| Conditions {
        methods: methods.iter().map(|method| (*method).into()).collect(),
        headers: headers.into(),
        ..prefix("/api")
    };
    let table = host(
        "h",
        &["*"],
        vec![
            with(vec![header(Some("blue"))], &["GET", "POST"]),
            with(vec![header(Some("green"))], &[]),
            with(vec![header(None)], &["PUT"]),
            with(vec![], &["PUT"]),
            with(vec![], &[]),
            with(vec![header(Some("red"))], &[]),
        ],
    );
    let find = |method: &str, tenant: Option<&str>| {
        let headers = tenant.map(|value| ("x-tenant".to_owned(), value.to_owned()));
        with_view("/api", method, &headers.into_iter().collect(), |request| {
            table.route(request).map(|route| route.index)
        })
    };
    assert_eq!(find("GET", Some("blue")), Some(0));
    assert_eq!(find("PUT", Some("blue")), Some(2));
    assert_eq!(find("GET", Some("green")), Some(1));
    assert_eq!(find("PUT", None), Some(3));
    assert_eq!(find("GET", Some("red")), Some(4));
    assert_eq!(table.unreachable(), [(5, 4)]);
}

#[test]
fn exact_hosts_come_before_wildcards_and_longer_wildcards_before_shorter() {
    let all = [
        "shop.a.test",
        "*.a.test",
        "*.b.a.test",
        "*",
        "shop.*",
        "shop.b.*",
    ];
    let hosts = all.map(|domain| host(domain, &[domain], vec![Conditions::default()]));
    let router = Router::new(hosts.clone());
    for (given, expected) in [
        ("shop.a.test", Some("shop.a.test")),
        ("SHOP.A.test:8080", Some("shop.a.test")),
        ("shop.a.test.", Some("shop.a.test")),
        ("x.a.test", Some("*.a.test")),
        ("x.y.a.test", Some("*.a.test")),
        ("x.b.a.test", Some("*.b.a.test")),
        ("b.a.test", Some("*.a.test")),
        ("a.test", Some("*")),
        (".a.test", Some("*")),
        ("other", Some("*")),
        ("shop.x", Some("shop.*")),
        ("shop.x.y:1", Some("shop.*")),
        ("shop.b.x", Some("shop.b.*")),
        ("shop.b", Some("shop.*")),
        ("shop.c.a.test", Some("*.a.test")),
        ("shop", Some("*")),
        ("shops.x", Some("*")),
        ("[::1]:80", Some("*")),
        ("", None),
        ("a b", None),
        ("user@shop.a.test", None),
    ] {
        let found = router
            .virtual_host(given)
            .map(|host| host.name().to_string());
        assert_eq!(found.as_deref(), expected, "{given}");
    }
    assert_eq!(router.virtual_hosts().len(), 6);
    let mut without = router.clone();
    without.remove(&hosts[3]);
    without.remove(&hosts[1]);
    assert!(without.virtual_host("other").is_none() && without.virtual_host("x.a.test").is_none());
    assert!(
        router.virtual_host("other").is_some(),
        "the older router is untouched"
    );
    // A newer one of the same domain is not taken away with the old one.
    without.insert(&host("new", &["*"], vec![]));
    without.remove(&hosts[3]);
    assert_eq!(without.virtual_host("other").unwrap().name(), &name("new"));
}

#[test]
fn a_long_path_costs_no_more_than_its_known_segments() {
    let table = host("h", &["*"], vec![prefix("/a/a/a")]);
    let long = "/a".repeat(100_000);
    assert_eq!(find(&table, &long), Some(0));
    assert_eq!(find(&table, &"/".repeat(100_000)), None);
}

/// How many routes a look-up takes a look at.
fn looked_at(host: &VirtualHost, path: &str) -> usize {
    with_view(path, "GET", &Headers::default(), |view| {
        host.table.looked_at(view)
    })
}

#[test]
fn a_lookup_among_many_routes_looks_at_as_many_as_among_few() {
    let routes = |count: usize| {
        let conditions = (0..count).map(|at| exact(&format!("/r/{at}")));
        host("shop", &["*"], conditions.collect())
    };
    let (few, many) = (routes(1), routes(10_000));
    assert_eq!(find(&many, "/r/9999"), Some(9999));
    assert_eq!(
        (looked_at(&few, "/r/0"), looked_at(&many, "/r/9999")),
        (1, 1)
    );
    assert_eq!(looked_at(&many, "/r/none"), 0);
}

#[test]
fn templates_and_expressions_take_their_turn() {
    let table = host(
        "h",
        &["*"],
        vec![
            exact("/users/me"),
            template("/users/{id}"),
            regex("/users/[0-9]+/x"),
            template("/users/{id}/{*rest}"),
            regex(".*/tail"),
            template("/users/{other}"),
            regex("/users/[0-9]+/x"),
            prefix("/"),
            regex("/late/.*"),
        ],
    );
    for (path, expected) in [
        ("/users/me", Some(0)),
        ("/users/7", Some(1)),
        ("/users/7/x", Some(2)),
        ("/users/a/x", Some(3)),
        ("/users/", Some(7)),
        ("/x/tail", Some(4)),
        ("*", None),
    ] {
        assert_eq!(find(&table, path), expected, "{path}");
    }
    assert_eq!(table.unreachable(), [(5, 1), (6, 2), (8, 7)]);
}

#[test]
fn queries_and_grpc_narrow_a_route() {
    let query = |name: &str, value| Conditions {
        query: Box::new([QueryCondition {
            name: name.into(),
            value,
        }]),
        ..prefix("/")
    };
    let grpc = Conditions {
        grpc: true,
        ..exact("/p.S/M")
    };
    let table = host(
        "h",
        &["*"],
        vec![
            query("v", ValueCondition::Exact("1 2".into())),
            query("v", ValueCondition::Prefix("b".into())),
            query("debug", ValueCondition::Present),
            grpc.clone(),
            query("v", ValueCondition::Exact("beta".into())),
            grpc,
        ],
    );
    let find = |target: &str, content: &str| {
        let headers = vec![("content-type".to_owned(), content.to_owned())];
        with_view(target, "POST", &headers, |request| {
            table.route(request).map(|route| route.index)
        })
    };
    for (target, content, expected) in [
        ("/?v=1+2", "", Some(0)),
        ("/?v=1%202", "", Some(0)),
        ("/?a=b&%76=beta", "", Some(1)),
        ("/?v=c&v=beta", "", None),
        ("/?debug", "", Some(2)),
        ("/p.S/M?debug", "application/grpc", Some(2)),
        ("/p.S/M", "application/grpc", Some(3)),
        ("/p.S/M", "application/grpc+proto", Some(3)),
        ("/p.S/M", "application/grpc-web", None),
        ("/p.S/M", "text/plain", None),
    ] {
        assert_eq!(find(target, content), expected, "{target} {content}");
    }
    assert_eq!(table.unreachable(), [(4, 1), (5, 3)]);
}

#[test]
fn many_templates_expressions_and_queries_are_not_tried_one_by_one() {
    let conditions = |at: usize| {
        let query = Conditions {
            query: Box::new([QueryCondition {
                name: "v".into(),
                value: ValueCondition::Exact(at.to_string().into()),
            }]),
            ..exact("/q")
        };
        [
            template(&format!("/t/{{id}}/{at}")),
            regex(&format!("/r/{at}/[a-z]+")),
            regex(&format!(r"/s/.*-{at}")),
            query,
        ]
    };
    let table = host("h", &["*"], (0..500).flat_map(conditions).collect());
    for (target, index) in [
        ("/t/x/499", 1996),
        ("/r/499/x", 1997),
        ("/s/x-499", 1998),
        ("/q?v=499", 1999),
    ] {
        assert_eq!(find(&table, target), Some(index), "{target}");
        assert_eq!(looked_at(&table, target), 1, "{target}");
    }
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("aa"), Just("")]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn target() -> impl Strategy<Value = String> {
    let query = prop_oneof![
        3 => Just(""),
        1 => Just("?x=1"),
        1 => Just("?x=2&y=1"),
        1 => Just("?y=12&%78=%31"),
        1 => Just("?x&y=2&x=1"),
    ];
    let path = prop_oneof![12 => path(), 1 => Just("*".to_owned())];
    (path, query).prop_map(|(path, query)| path + query)
}

fn headers() -> impl Strategy<Value = Headers> {
    let one = (
        prop_oneof![Just("x"), Just("y"), Just("content-type")],
        prop_oneof![Just("1"), Just("2"), Just("21"), Just("application/grpc")],
    );
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    prop::collection::vec(one.prop_map(own), 0..3)
}

fn template_text() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("{}")];
    let segments = prop::collection::vec(segment, 0..4);
    (segments, prop_oneof![Just("{}"), Just("{*}"), Just("{}/")]).prop_map(|(mut all, last)| {
        all.push(last);
        let mut names = 0..;
        let mut named = |part: &str| match part {
            "a" | "b" => part.to_owned(),
            variable => variable.replace('}', &format!("v{}}}", names.next().unwrap())),
        };
        let parts: Vec<_> = all.into_iter().map(&mut named).collect();
        format!("/{}", parts.join("/"))
    })
}

fn regex_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("/a"),
        Just("/b"),
        Just("/"),
        Just("[ab]"),
        Just("(/a|/b)"),
        Just(".*"),
        Just("a?"),
        Just("(/b)?"),
        Just("a+"),
        Just("(?i:A)"),
        Just("a|/b"),
        Just("^"),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn value() -> impl Strategy<Value = ValueCondition> {
    let text = || prop_oneof![Just("1"), Just("2")].prop_map(Into::into);
    prop_oneof![
        1 => Just(ValueCondition::Present),
        3 => text().prop_map(ValueCondition::Exact),
        1 => text().prop_map(ValueCondition::Prefix),
        1 => text().prop_map(ValueCondition::Suffix),
        1 => text().prop_map(ValueCondition::Contains),
        1 => prop_oneof![Just("1?2?"), Just("[12]")]
            .prop_map(|text| ValueCondition::Regex(text.parse().unwrap())),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let path = prop_oneof![
        1 => Just(PathCondition::Any),
        2 => path().prop_map(|path| PathCondition::Prefix(path.into())),
        2 => path().prop_map(|path| PathCondition::Exact(path.into())),
        2 => template_text().prop_map(|text| PathCondition::Template(text.parse().unwrap())),
        2 => regex_text().prop_map(|text| PathCondition::Regex(text.parse().unwrap())),
    ];
    let methods = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["GET"]),
        1 => Just(vec!["GET", "POST"]),
    ];
    let name = || prop_oneof![Just("x"), Just("y")].prop_map(Into::into);
    let header = (name(), value(), prop::bool::weighted(0.2));
    let header = header.prop_map(|(name, value, invert)| HeaderCondition {
        name,
        value,
        invert,
    });
    let query = (name(), value()).prop_map(|(name, value)| QueryCondition { name, value });
    let headers = prop::collection::vec(header, 0..3);
    let query = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(query, 1..3)];
    let all = (path, methods, headers, query, prop::bool::weighted(0.1));
    all.prop_map(|(path, methods, headers, query, grpc)| Conditions {
        path,
        methods: methods.into_iter().map(Into::into).collect(),
        headers: headers.into(),
        query: query.into(),
        grpc,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_linear_scan_finds(
        table in prop::collection::vec(conditions(), 0..24),
        requests in prop::collection::vec(
            (target(), prop_oneof![Just("GET"), Just("POST"), Just("PUT")], headers()),
            1..8,
        ),
    ) {
        let table = host("h", &["*"], table);
        let unreachable = table.unreachable();
        for (target, method, headers) in requests {
            with_view(&target, method, &headers, |request| {
                let linear = table
                    .routes()
                    .iter()
                    .position(|(conditions, _)| conditions.check(request).is_ok());
                let found = table.route(request).map(|route| route.index);
                prop_assert_eq!(found, linear);
                // What is called unreachable is never reached.
                prop_assert!(!unreachable.iter().any(|(index, _)| Some(*index) == linear));
                Ok(())
            })?;
        }
    }

    #[test]
    fn hosts_are_found_as_by_trying_all_domains(
        domains in prop::collection::btree_set(
            "((\\*\\.)?[ab](\\.[ab]){0,3}|[ab](\\.[ab]){0,3}\\.\\*|\\*)(:[12])?", 0..16,
        ),
        asked in "[ab](\\.[ab]){0,4}(:[123]?)?",
    ) {
        let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
        let hosts: Vec<_> = domains.iter().map(|one| host(one, &[one], vec![])).collect();
        let mut router = Router::new(hosts.clone());
        // Longest wins among wildcards; an exact one is longer than every wildcard that matches.
        let rank = |domain: &str| {
            let (name, port) = domain.split_once(':').unwrap_or((domain, ""));
            let below = name.starts_with("*.");
            (!name.contains('*'), below, name.len(), !port.is_empty())
        };
        let (name, port) = split_host(&asked).unwrap();
        let mut matching: Vec<&str> = domains
            .iter()
            .copied()
            .filter(|one| one.parse::<Authority>().unwrap().matches(&name, port))
            .collect();
        matching.sort_by_key(|domain| rank(domain));
        // And the next best one, when the best is gone.
        while let Some(best) = matching.pop() {
            let found = router.virtual_host(&asked).map(|host| host.name().to_string());
            prop_assert_eq!(found.as_deref(), Some(best));
            let at = domains.iter().position(|domain| *domain == best).unwrap();
            router.remove(&hosts[at]);
        }
        prop_assert!(router.virtual_host(&asked).is_none());
    }
}
