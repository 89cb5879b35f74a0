//! Balancers, hash policies, slow start, priorities and zones: as written, compiled and explained.

use std::time::Duration;

use proxy_config::compiled::{Balance, HashOn, HashPolicy, NewCookie, SlowStart};
use proxy_config::{Ask, EndpointHealth, explain, parse_documents};

use crate::{BASE, compiled, named, node, set, with};

#[test]
fn every_balancer_has_its_word() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::RingHash,
        Balance::Maglev,
        Balance::IpHash,
    ] {
        let word = balance.as_str();
        let text = format!("{{kind: Cluster, name: a, endpoints: [10.0.0.1:80], balance: {word}}}");
        let compiled = compiled(&with(&set(BASE), &text));
        assert_eq!(compiled.config.clusters[&named("a")].balance, balance);
    }
}

#[test]
fn what_is_left_out_is_envoys_default() {
    let compiled = compiled(&with(
        &set(BASE),
        "{kind: Cluster, name: a, endpoints: [10.0.0.1:80], slow_start: {window: 30s}}",
    ));
    let a = &compiled.config.clusters[&named("a")];
    let expected = SlowStart {
        window: Duration::from_secs(30),
        aggression: 1,
        min_weight_percent: 10,
    };
    assert_eq!(a.slow_start, Some(expected));
    assert_eq!(
        (a.minimum_ring_size, a.overprovisioning_factor),
        (1024, 140)
    );
    assert!(!a.prefer_zone && a.endpoints[0].priority == 0);
    assert_eq!(compiled.config.clusters[&named("b")].slow_start, None);
    assert_eq!(compiled.config.zone, None);
}

#[test]
fn a_node_knows_its_zone() {
    let target = node("n1", &["zone=west"]);
    let compiled = proxy_config::compile(&set(BASE), &target, None, model::ConfigRevision(1));
    assert_eq!(compiled.config.zone.as_deref(), Some("west"));
}

const HASHED: &str = "
{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{to: a, hash: [
  {header: X-User, terminal: true},
  {cookie: {name: Sid, ttl: 1h, path: /shop}},
  {cookie: {name: other}},
  {query_parameter: user},
  {source_ip: true}]}]}
---
{kind: Cluster, name: a, balance: ring_hash, minimum_ring_size: 4096, prefer_zone: true, endpoints: [
  10.0.0.1:80, {address: '10.0.0.2:80', priority: 1, zone: west}]}
";

#[test]
fn hash_policies_keep_their_order() {
    let compiled = compiled(&with(&set(BASE), HASHED));
    let listener = compiled.config.listeners.values().next().unwrap();
    let header = |_: &str| None;
    let request = proxy_config::RequestView {
        host: "shop.test",
        path: "/",
        query: "",
        method: "GET",
        header: &header,
    };
    let found = listener.router().unwrap().route(&request).unwrap();
    let policy = |on, terminal| HashPolicy { on, terminal };
    let cookie = |name: &str, new| HashOn::Cookie {
        name: name.into(),
        new,
    };
    let made = NewCookie {
        ttl: Duration::from_secs(3600),
        path: Some("/shop".into()),
    };
    let expected = [
        policy(HashOn::Header("x-user".into()), true),
        policy(cookie("Sid", Some(made)), false),
        policy(cookie("other", None), false),
        policy(HashOn::QueryParameter("user".into()), false),
        policy(HashOn::SourceIp, false),
    ];
    assert_eq!(*found.route.hash, expected);
    assert_eq!(
        compiled.config.clusters[&named("a")].minimum_ring_size,
        4096
    );
}

fn explained(text: &str) -> String {
    let compiled = compiled(&with(&set(BASE), text));
    let ask = Ask::get("http://shop.test/").unwrap();
    explain(&compiled.config, &ask, &|_, _| EndpointHealth::default()).to_string()
}

#[test]
fn explain_tells_how_an_endpoint_is_chosen() {
    let text = explained(HASHED);
    for part in [
        "hash on header x-user, terminal; cookie Sid (made if missing, ttl 1h); cookie other; \
         query_parameter user; source_ip\n",
        "cluster a: 100.0 % of the requests, by ring_hash; connect timeout 5s, panic threshold \
         50 %, own zone first\n",
        "10.0.0.2:80 weight 1, zone west, priority 1: unknown\n",
    ] {
        assert!(text.contains(part), "{text}\nshould have {part}");
    }
    assert!(!text.contains("at random"), "{text}");
    let slow = explained(
        "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{to: a}]}
---
{kind: Cluster, name: a, endpoints: [10.0.0.1:80], slow_start: {window: 30s}}",
    );
    assert!(slow.contains("by least_request; ") && slow.contains(", slow start 30s\n"));
    let unhashed = explained(
        "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{to: a}]}
---
{kind: Cluster, name: a, endpoints: [10.0.0.1:80], balance: maglev}",
    );
    assert!(
        unhashed.contains("nothing is hashed here: endpoints are drawn at random"),
        "{unhashed}"
    );
}

/// The faults of one document.
fn faults(text: &str) -> Vec<String> {
    let faults = parse_documents("in.yaml", text).expect_err("the text is faulty");
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn faults_of_a_cluster_are_told_at_their_place() {
    for (fields, part) in [
        (
            "minimum_ring_size: 9",
            "minimum_ring_size: only `balance: ring_hash` has a ring",
        ),
        (
            "balance: ring_hash, minimum_ring_size: 1048577",
            "minimum_ring_size: out of bounds; give 1 to 1048576",
        ),
        (
            "balance: ring_hash, minimum_ring_size: 0",
            "minimum_ring_size: out of bounds",
        ),
        (
            "hash_balance_factor: 150",
            "hash_balance_factor: only ring_hash, maglev and ip_hash have it",
        ),
        (
            "balance: maglev, hash_balance_factor: 99",
            "hash_balance_factor: out of bounds; give 100",
        ),
        (
            "balance: maglev, slow_start: {window: 1s}",
            "slow_start: only round_robin and least_request have it",
        ),
        (
            "slow_start: {window: 0s}",
            "slow_start.window: no time at all",
        ),
        ("slow_start: {}", "`window` is missing"),
        (
            "slow_start: {window: 1s, aggression: 0}",
            "slow_start.aggression: out of bounds",
        ),
        (
            "slow_start: {window: 1s, min_weight_percent: 101}",
            "slow_start.min_weight_percent: out of bounds",
        ),
        (
            "overprovisioning_factor: 99",
            "overprovisioning_factor: out of bounds",
        ),
        ("balance: ring", "balance: unknown word `ring`"),
    ] {
        let text = format!("{{kind: Cluster, name: a, endpoints: ['10.0.0.1:80'], {fields}}}");
        let found = faults(&text);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should have {part}"
        );
    }
    let found =
        faults("{kind: Cluster, name: a, endpoints: [{address: '10.0.0.1:80', priority: 128}]}");
    assert!(
        found[0].contains("endpoints[0].priority: out of bounds"),
        "{found:?}"
    );
}

#[test]
fn too_many_endpoints_for_a_table_are_refused() {
    let cluster = |balance: &str, count: u32| {
        let endpoints: Vec<String> = (0..count)
            .map(|n| format!("'10.0.{}.{}:80'", n / 256, n % 256))
            .collect();
        let endpoints = endpoints.join(", ");
        format!("{{kind: Cluster, name: a, balance: {balance}, endpoints: [{endpoints}]}}")
    };
    let found = faults(&cluster("maglev", 10_001));
    assert!(
        found[0].contains("balance: `maglev` takes at most 10000 endpoints"),
        "{found:?}"
    );
    assert!(parse_documents("in.yaml", &cluster("maglev", 10_000)).is_ok());
    assert!(parse_documents("in.yaml", &cluster("ring_hash", 10_001)).is_ok());
}

#[test]
fn faults_of_hash_policies_are_told_at_their_place() {
    for (policy, part) in [
        ("{}", "routes[0].hash[0]: it hashes one thing"),
        ("{terminal: true}", "routes[0].hash[0]: it hashes one thing"),
        (
            "{source_ip: false}",
            "routes[0].hash[0]: it hashes one thing",
        ),
        (
            "{header: a, source_ip: true}",
            "routes[0].hash[0]: it hashes one thing",
        ),
        (
            "{header: 'a b'}",
            "hash[0].header: \"a b\" is not a header name",
        ),
        (
            "{cookie: {name: 'a;b'}}",
            "hash[0].cookie.name: \"a;b\" is not the name of a cookie",
        ),
        ("{cookie: {ttl: 1h}}", "hash[0].cookie: `name` is missing"),
        (
            "{cookie: {name: a, path: /b}}",
            "hash[0].cookie.path: only a cookie that is made",
        ),
        (
            "{cookie: {name: a, ttl: 1h, path: '/b;c'}}",
            "hash[0].cookie.path: a cookie's path",
        ),
        (
            "{query_parameter: ''}",
            "hash[0].query_parameter: no query has it",
        ),
        (
            "{query_parameter: 'a=b'}",
            "hash[0].query_parameter: no query has it",
        ),
        ("{query: a}", "hash[0].query"),
    ] {
        let text = format!(
            "{{kind: VirtualHost, name: h, domains: [a.com], routes: [{{to: a, hash: [{policy}]}}]}}"
        );
        let found = faults(&text);
        assert!(
            found.iter().any(|fault| fault.contains(part)),
            "{found:?} should have {part}"
        );
    }
    let text = "{kind: VirtualHost, name: h, domains: [a.com], \
                routes: [{redirect: {host: b.com}, hash: [{source_ip: true}]}]}";
    assert!(faults(text)[0].contains("routes[0].hash: nothing is sent upstream"));
    let many = vec!["{source_ip: true}"; 17].join(", ");
    let text = format!(
        "{{kind: VirtualHost, name: h, domains: [a.com], routes: [{{to: a, hash: [{many}]}}]}}"
    );
    assert!(faults(&text)[0].contains("routes[0].hash: there are more than 16"));
}

#[test]
fn a_cluster_says_which_http_it_is_spoken_to() {
    use proxy_config::compiled::UpstreamHttp;
    let compiled = compiled(&with(
        &set(BASE),
        "{kind: Cluster, name: a, http: h2, endpoints: [10.0.0.1:80]}",
    ));
    let http = |name| compiled.config.clusters[&named(name)].http;
    assert_eq!((http("a"), http("b")), (UpstreamHttp::H2, UpstreamHttp::H1));
}
