//! The index against a linear scan, and the order of precedence.

use proptest::prelude::*;

use super::*;
use crate::compiled::{RetryPolicy, Split};

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
                to,
                timeout: None,
                retry: RetryPolicy::BUILT_IN,
            }),
        )
    };
    let domains: Vec<_> = domains
        .iter()
        .map(|domain| domain.parse().unwrap())
        .collect();
    let routes = conditions.into_iter().enumerate().map(route).collect();
    Arc::new(VirtualHost::new(name(host_name), domains, routes))
}

/// Headers as `name: value` pairs.
type Headers = Vec<(String, String)>;

fn with_view<T>(
    path: &str,
    method: &str,
    headers: &Headers,
    run: impl FnOnce(&RequestView<'_>) -> T,
) -> T {
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str().into())
    };
    run(&RequestView {
        host: "a.test",
        path,
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
        exact: exact.map(Into::into),
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
    let all = ["shop.a.test", "*.a.test", "*.b.a.test", "*"];
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
    assert_eq!(router.virtual_hosts().len(), 4);
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
        let mut candidates = 0;
        host.table.visit(view, |list| candidates += list.len());
        candidates
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

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("aa"), Just("")]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn headers() -> impl Strategy<Value = Headers> {
    let one = (
        prop_oneof![Just("x"), Just("y")],
        prop_oneof![Just("1"), Just("2"), Just("3")],
    );
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    prop::collection::vec(one.prop_map(own), 0..3)
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let path = prop_oneof![
        Just(PathCondition::Any),
        path().prop_map(|path| PathCondition::Prefix(path.into())),
        path().prop_map(|path| PathCondition::Exact(path.into())),
    ];
    let methods = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["GET"]),
        1 => Just(vec!["GET", "POST"]),
    ];
    let header = (
        prop_oneof![Just("x"), Just("y")],
        prop::option::of(prop_oneof![Just("1"), Just("2")]),
    )
        .prop_map(|(name, exact)| HeaderCondition {
            name: name.into(),
            exact: exact.map(Into::into),
        });
    (path, methods, prop::collection::vec(header, 0..3)).prop_map(|(path, methods, headers)| {
        let methods = methods.into_iter().map(Into::into).collect();
        Conditions {
            path,
            methods,
            headers: headers.into(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_linear_scan_finds(
        table in prop::collection::vec(conditions(), 0..24),
        requests in prop::collection::vec(
            (path(), prop_oneof![Just("GET"), Just("POST"), Just("PUT")], headers()),
            1..8,
        ),
    ) {
        let table = host("h", &["*"], table);
        let unreachable = table.unreachable();
        for (path, method, headers) in requests {
            with_view(&path, method, &headers, |request| {
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
        domains in prop::collection::btree_set("(\\*\\.)?[ab](\\.[ab]){0,3}", 0..12),
        asked in "[ab](\\.[ab]){0,4}",
    ) {
        let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
        let router = Router::new(domains.iter().map(|domain| host(domain, &[domain], vec![])));
        // Longest wins among wildcards; an exact one is longer than every wildcard that matches.
        let best = domains
            .iter()
            .filter(|domain| domain.parse::<Domain>().unwrap().matches(&asked))
            .max_by_key(|domain| (!domain.starts_with('*'), domain.len()));
        let found = router.virtual_host(&asked).map(|host| host.name().to_string());
        prop_assert_eq!(found.as_deref(), best.copied());
    }
}
