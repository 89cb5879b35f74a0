//! What a person who errs is told.

use super::*;

fn faults(text: &str) -> Vec<String> {
    parse_documents("in.yaml", text)
        .expect_err("the text is faulty")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn one(text: &str) -> Resource {
    let mut resources = parse_documents("in.yaml", text).unwrap();
    assert_eq!(resources.len(), 1);
    resources.remove(0)
}

fn canonical(text: &str) -> String {
    String::from_utf8(one(text).canonical_json()).unwrap()
}

const CLUSTER: &str = "kind: Cluster\nname: a\nendpoints: [10.0.0.1:80]\n";

#[test]
fn every_unknown_field_is_told_with_place_and_nearest_name() {
    let found = faults(
        "kind: VirtualHost\n\
         name: shop\n\
         domans: [a]\n\
         domains: ['*']\n\
         routes:\n\
         - match: { path_prefx: /api }\n  \
           to: web\n  \
           time_out: 2s\n\
         - to: web\n  \
           colour: red\n",
    );
    assert_eq!(
        found,
        [
            "VirtualHost/shop: domans: unknown field `domans`; did you mean `domains`? (in.yaml:3:1)",
            "VirtualHost/shop: routes[0].match.path_prefx: unknown field `path_prefx`; \
             did you mean `path_prefix`? (in.yaml:6:12)",
            "VirtualHost/shop: routes[0].time_out: unknown field `time_out`; \
             did you mean `timeout`? (in.yaml:8:3)",
            "VirtualHost/shop: routes[1].colour: unknown field `colour`; \
             use one of: match, to, \
             rewrite, redirect, respond, timeout, idle_timeout, max_stream_duration, grpc_timeout_max, retry, upgrades, hash, mirror, subset, headers (in.yaml:10:3)",
        ]
    );
}

#[test]
fn a_wrong_type_does_not_hide_the_next_fault() {
    let found = faults(
        "kind: Cluster\n\
         name: [a]\n\
         endpoints: [nowhere, 10.0.0.1:80, { address: 10.0.0.2:80, wieght: 2 }]\n\
         balance: round_robbin\n\
         connect_timeout: 5\n\
         panic_threshold: '50'\n\
         limits: 7\n\
         probe:\n  \
           every: fast\n",
    );
    let expected = [
        "Cluster/?: name: expected text, found a list; give text (in.yaml:2:7)",
        "endpoints[0]: \"nowhere\" is not an address to connect to; write ip:port",
        "endpoints[2].wieght: unknown field `wieght`; did you mean `weight`?",
        "balance: unknown word `round_robbin`; did you mean `round_robin`? (in.yaml:4:10)",
        "connect_timeout: `5` is not a duration; write a whole number and a unit",
        "panic_threshold: expected a whole number from 0 to 255, found the text \"50\"",
        "limits: expected a map of fields, found `7`; give a map of fields",
        "probe.every: `fast` is not a duration",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (text, part) in found.iter().zip(expected) {
        assert!(text.contains(part), "{text} should have {part}");
    }
}

#[test]
fn what_is_missing_or_blank_is_told() {
    for (text, part) in [
        ("name: a\n", "in.yaml: document 1: `kind` is missing"),
        (
            "kind: Clutser\nname: a\n",
            "unknown kind `Clutser`; did you mean `Cluster`?",
        ),
        (
            "kind: Cluster\nendpoints: [10.0.0.1:80]\n",
            "Cluster/?: `name` is missing; add it",
        ),
        (
            "kind: Cluster\nname: a\n",
            "Cluster/a: endpoints: there is no endpoint; give at least one ip:port, or a `service`",
        ),
        (
            "kind: Cluster\nname: a\nendpoints:\n",
            "endpoints: expected a list, found nothing",
        ),
        (
            "kind: Cluster\nname: a\nendpoints: []\n",
            "endpoints: there is no endpoint",
        ),
        ("- kind: Cluster\n", "expected a map of fields"),
        ("just words\n", "expected a map of fields"),
        (
            "kind: Cluster\nname: a b\nendpoints: [10.0.0.1:80]\n",
            "\"a b\" is not a name",
        ),
        (
            "kind: Cluster\nname: a\nschema: 2\nendpoints: [10.0.0.1:80]\n",
            "schema 1 only",
        ),
        ("kind: Cluster\nname: a\nname: b\n", "`name` is given twice"),
        ("kind: Cluster\n  name: a\n", "not valid YAML"),
        ("kind: !!python/object x\n", "has no meaning here"),
        (
            "kind: Cluster\nname: a\nendpoints: [10.0.0.1:80]\nfilters: []\n",
            "`filters` is not supported yet",
        ),
        (
            "kind: Cluster\nname: a\nendpoints: [10.0.0.1:80]\nproxy_protocol: v3\n",
            "unknown word `v3`; did you mean `v1`?",
        ),
    ] {
        let found = faults(text);
        assert!(
            found.iter().any(|fault| fault.contains(part)),
            "{found:?} should have {part}"
        );
    }
}

fn told(text: &str, part: &str) {
    let found = faults(text);
    assert!(
        found.iter().any(|fault| fault.contains(part)),
        "{found:?} should have {part}"
    );
    assert!(
        found.iter().all(|fault| fault.contains("(in.yaml:")),
        "{found:?}"
    );
}

#[test]
fn rules_of_a_virtual_host_are_told_at_their_place() {
    for (routes, part) in [
        (
            "{ to: { a: 0, b: 0 } }",
            "routes[0].to: no cluster has a weight above 0",
        ),
        (
            "{ to: { a: 4294967295, b: 1 } }",
            "routes[0].to: the weights sum to more",
        ),
        ("{ to: {} }", "routes[0].to: no cluster"),
        (
            "{ match: { path: /a, path_prefix: /a }, to: a }",
            "routes[0].match: both",
        ),
        (
            "{ match: { headers: [{ name: x }] }, to: a }",
            "headers[0]: a header condition",
        ),
        (
            "{ to: a, retry: { when: [] } }",
            "routes[0].retry.when: there is no condition",
        ),
        (
            "{ to: a, retry: { when: [5xx], times: 11 } }",
            "routes[0].retry.times: out of bounds; give 0 (never) to 10",
        ),
        (
            "{ to: a, retry: { times: 1 } }",
            "routes[0].retry.when: there is no condition; give at least one, such as \
             connect-failure, or `times: 0`",
        ),
        ("{ to: a, retry: { times: -1 } }", "routes[0].retry.times: "),
        (
            "{ to: a }\nexpect:\n- { get: /, to: a, status: 404 }",
            "expect[0]: an expectation",
        ),
        (
            "{ to: a }\nexpect:\n- { get: /, host: b.com, to: a }",
            "expect[0].host: `b.com`",
        ),
        ("{ to: a }\nlisteners: []", "listeners: the list is empty"),
        ("{ to: a }\nexpect:\n- { get: a, to: a }", "expect[0].get"),
    ] {
        told_of_route(routes, part);
    }
}

fn told_of_route(route: &str, part: &str) {
    told(
        &format!("kind: VirtualHost\nname: h\ndomains: [a.com]\nroutes:\n- {route}\n"),
        part,
    );
}

#[test]
fn rules_of_a_match_are_told_at_their_place() {
    for (route, part) in [
        (
            "{ match: { path_regex: '/a(', path_template: '/{b}', grpc: p.S }, to: a }",
            "routes[0].match.path_regex: \"/a(\" is not a regular expression: unclosed group; correct \
             it (RE2's syntax) (in.yaml:5:26)",
        ),
        (
            "{ match: { path_regex: '/((a{1000}){1000}){1000}' }, to: a }",
            "routes[0].match.path_regex: \"/((a{1000}){1000}){1000}\" needs more than 256 KiB once it \
             is compiled; use smaller repetitions (in.yaml:5:26)",
        ),
        (
            "{ match: { path_regex: /a, path_template: '/{b}', grpc: p.S }, to: a }",
            "routes[0].match: `path_template` and `path_regex` and `grpc`; give one of them",
        ),
        (
            "{ match: { path_template: '/{a}.json' }, to: a }",
            "routes[0].match.path_template: \"/{a}.json\" is not a path template: a variable is a \
             whole segment",
        ),
        (
            "{ match: { grpc: /p.S/M }, to: a }",
            "routes[0].match.grpc: \"/p.S/M\" is not a gRPC method; write it as package.Service/Method",
        ),
        (
            "{ match: { headers: [{ name: x, prefix: a, exact: b }] }, to: a }",
            "headers[0]: a header condition says one thing",
        ),
        (
            "{ match: { headers: [{ name: x, exact: \"a\\r\\nb\" }] }, to: a }",
            "headers[0].exact: no header has such a value",
        ),
        (
            "{ match: { headers: [{ name: x, prefix: '' }] }, to: a }",
            "headers[0].prefix: every value has that",
        ),
        (
            "{ match: { headers: [{ name: x, exact: a }, { name: X, exact: a }] }, to: a }",
            "headers[1]: `x` is given twice",
        ),
        (
            "{ match: { query: [{ name: x }] }, to: a }",
            "query[0]: a query condition says one thing",
        ),
        (
            "{ match: { query: [{ name: '', present: true }] }, to: a }",
            "query[0].name: there is no name",
        ),
    ] {
        told_of_route(route, part);
    }
}

#[test]
fn rules_of_what_a_route_does_are_told_at_their_place() {
    for (route, part) in [
        (
            "{ match: { path: /a } }",
            "routes[0]: a route does one thing; give `to: <cluster>`, `redirect` or `respond`",
        ),
        (
            "{ to: a, respond: { status: 200 } }",
            "routes[0]: a route does one thing",
        ),
        (
            "{ respond: { status: 200 }, timeout: 1s, retry: { times: 0 } }",
            "routes[0].retry: nothing is sent upstream",
        ),
        (
            "{ redirect: {} }",
            "routes[0].redirect: it leads back to where it comes from",
        ),
        (
            "{ redirect: { path: /a, path_prefix: /b } }",
            "routes[0].redirect: both `path` and `path_prefix`",
        ),
        (
            "{ redirect: { host: 'a:1', port: 2 } }",
            "routes[0].redirect.port: give one port",
        ),
        (
            "{ redirect: { path: /a, code: 304 } }",
            "routes[0].redirect.code: not the code of a redirect; give 301, 302, 303, 307 or 308",
        ),
        (
            "{ redirect: { host: \"a\\r\\nset-cookie: b\" } }",
            "routes[0].redirect.host: \"a\\r\\nset-cookie: b\" is not a host: what follows",
        ),
        (
            "{ match: { path_regex: /a.* }, redirect: { path_prefix: /b } }",
            "routes[0].redirect.path_prefix: the route matches no prefix that could be replaced",
        ),
        (
            "{ respond: { status: 101 } }",
            "routes[0].respond.status: not the status of an answer; give 200 to 599",
        ),
        (
            "{ respond: { status: 204, body: a } }",
            "routes[0].respond.body: an answer of status 204 has no body",
        ),
        (
            "{ respond: { status: 200, headers: { x: \"a\\r\\nb: c\" } } }",
            "routes[0].respond.headers.x: \"a\\r\\nb: c\" is not the value of a header",
        ),
        (
            "{ respond: { status: 200, headers: { Content-Length: 1 } } }",
            "routes[0].respond.headers: `content-length` is written by Skein itself",
        ),
        (
            "{ to: a }\nexpect:\n- { get: /, status: 100 }",
            "expect[0].status: not the status of an answer",
        ),
    ] {
        told_of_route(route, part);
    }
    let body = "a".repeat(16 * 1024 + 1);
    let route = format!("{{ respond: {{ status: 200, body: {body} }} }}");
    told_of_route(&route, "routes[0].respond.body: it is longer than 16 KiB");
}

#[test]
fn rules_of_a_rewrite_are_told_at_their_place() {
    for (route, part) in [
        (
            "{ to: a, rewrite: {} }",
            "routes[0].rewrite: it changes nothing; give `path`, `path_prefix`, `path_regex`,",
        ),
        (
            "{ to: a, rewrite: { path_prefix: \"/a\\r\\nb\" } }",
            "routes[0].rewrite.path_prefix: \"/a\\r\\nb\" is not a path",
        ),
        (
            "{ match: { grpc: a.B }, to: a, rewrite: { path_prefix: /a } }",
            "routes[0].rewrite.path_prefix: the route matches no prefix",
        ),
        (
            "{ redirect: { path: /b }, rewrite: { path: /a } }",
            "routes[0].rewrite: nothing is sent upstream",
        ),
    ] {
        told_of_route(route, part);
    }
}

#[test]
fn rules_of_other_kinds_are_told_at_their_place() {
    told(
        &format!("{CLUSTER}probe: {{ every: 1s }}"),
        "probe: a probe asks one thing",
    );
    told(
        &format!("{CLUSTER}probe: {{ tcp: true, grpc: a.B }}"),
        "probe: a probe asks one thing",
    );
    told(
        &format!("{CLUSTER}probe: {{ grpc: 'a B' }}"),
        "probe.grpc: not the name of a service",
    );
    told(
        &format!("{CLUSTER}probe: {{ tcp: true, every: 1ms }}"),
        "probe.every: too often",
    );
    told(
        &format!("{CLUSTER}connect_timeout: 0s"),
        "connect_timeout: no time at all",
    );
    told(
        &CLUSTER.replace("80]", "80, 10.0.0.1:80]"),
        "endpoints[1]: `10.0.0.1:80` is given twice",
    );
    for (text, part) in [
        (
            "kind: Defaults\nname: other\n",
            "name: there is one Defaults only",
        ),
        (
            "kind: Defaults\nnodes: [a]\n",
            "nodes: Defaults are mesh-wide",
        ),
        (
            "kind: Defaults\nmax_head_size: 1B\n",
            "max_head_size: out of bounds",
        ),
        (
            "kind: Listener\nname: l\nbind: ':1'\nprotocol: tcp\n",
            "to: a tcp listener needs",
        ),
        (
            "kind: Listener\nname: l\nbind: ':1'\nprotocol: http\nto: a\n",
            "has no `to`",
        ),
    ] {
        told(text, part);
    }
}

#[test]
fn words_that_older_yaml_takes_for_truth_values_stay_words() {
    let resource = one(
        "kind: Cluster\nname: no\nlabels: { country: no, old: on, ver: 1.10, yes: off, n: ~x }\n\
         endpoints: [{ address: 10.0.0.1:80, zone: no }]\n",
    );
    assert_eq!(resource.metadata.name.as_str(), "no");
    let labels = &resource.metadata.labels;
    assert_eq!(
        (labels["country"].as_str(), labels["ver"].as_str()),
        ("no", "1.10")
    );
    assert_eq!(
        (labels["old"].as_str(), labels["yes"].as_str()),
        ("on", "off")
    );
    // And back: what is exported reads as the same.
    assert_eq!(one(&resource.to_yaml()), resource, "{}", resource.to_yaml());
    let found = faults(
        "kind: VirtualHost\nname: h\ndomains: [a]\nroutes:\n\
         - { to: a, match: { headers: [{ name: x, present: yes }] } }\n",
    );
    assert!(
        found[0].contains("present: expected true or false, found `yes`"),
        "{found:?}"
    );
}

#[test]
fn canonical_json_is_the_same_for_all_ways_to_say_it() {
    let short = "kind: Cluster\nname: a\nendpoints: [10.0.0.1:80]\nconnect_timeout: 1000ms\n";
    let long = "{\"schema\": 1, \"name\": \"a\", \"namespace\": \"default\", \"labels\": {},\n\
                \"connect_timeout\": \"1s\", \"balance\": \"least_request\", \"kind\": \"Cluster\",\n\
                \"endpoints\": [{\"address\": \"10.0.0.1:80\", \"weight\": 1}], \"limits\": {}}";
    assert_eq!(canonical(short), canonical(long));
    assert_eq!(
        canonical(short),
        r#"{"schema":1,"kind":"Cluster","name":"a","endpoints":["10.0.0.1:80"],"connect_timeout":"1s"}"#
    );
    let split = canonical(
        "kind: Listener\nname: l\nbind: ':80'\nprotocol: tcp\nto: { b: 2, a: 1 }\nnodes: [n2, n1]\n",
    );
    assert_eq!(
        split,
        r#"{"schema":1,"kind":"Listener","name":"l","nodes":["n1","n2"],"bind":":80","protocol":"tcp","to":{"a":1,"b":2}}"#
    );
}

#[test]
fn stored_values_agree_with_their_keys() {
    let resource = one(CLUSTER);
    let key = resource.key();
    assert_eq!(key, "/skein/config/default/Cluster/a");
    assert_eq!(
        parse_value(&key, &resource.canonical_json()).unwrap(),
        resource
    );
    for (key, value, part) in [
        (
            "/skein/config/default/Cluster/b",
            &resource.canonical_json()[..],
            "says that it is Cluster/a",
        ),
        (
            "/skein/config/team/Cluster/a",
            &resource.canonical_json()[..],
            "says that it is Cluster/a",
        ),
        (
            "/skein/config/default/Cluster/a/b",
            b"{}",
            "not the key of a resource",
        ),
        (
            "/skein/config/default/Thing/a",
            b"{}",
            "not the key of a resource",
        ),
        (
            "/skein/config/default/cluster/a",
            b"{}",
            "not the key of a resource",
        ),
        (
            "/skein/config/default/Cluster/a",
            b"kind: Cluster",
            "not valid JSON",
        ),
        ("/skein/config/default/Cluster/a", b"\xff", "not valid JSON"),
        ("/skein/config/default/Cluster/a", b"", "not valid JSON"),
        (
            "/skein/config/default/Cluster/a",
            b"{\"kind\":\"Cluster\",\"kind\":\"Cluster\"}",
            "twice",
        ),
        (
            "/skein/config/default/Cluster/a",
            b"{\"kind\":\"Cluster\",\"name\":5}",
            "found `5`",
        ),
    ] {
        let found = parse_value(key, value).unwrap_err();
        assert!(
            found.iter().any(|f| f.to_string().contains(part)),
            "{found:?} should have {part}"
        );
    }
}

#[test]
fn one_input_has_a_resource_once() {
    let found = faults(&format!("{CLUSTER}---\n{CLUSTER}"));
    assert_eq!(
        found,
        ["Cluster/a: it is written twice, first at in.yaml:1:1; keep one of them (in.yaml:5:1)"]
    );
    assert!(parse_sources([("a.yaml", CLUSTER), ("b.yaml", CLUSTER)]).is_err());
    let other = CLUSTER.replace("name: a", "name: a\nnamespace: team");
    assert_eq!(
        parse_sources([("a.yaml", CLUSTER), ("b.yaml", &other)])
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn documents_without_content_and_anchors_are_fine() {
    let text = "---\n# nothing\n---\nkind: Cluster\nname: a\nendpoints: &e [10.0.0.1:80]\n\
                ---\nkind: Cluster\nname: b\nendpoints: [&x 10.0.0.2:80]\nlabels: { at: *x }\n";
    let resources = parse_documents("in.yaml", text).unwrap();
    assert_eq!(resources.len(), 2);
    assert_eq!(resources[1].metadata.labels["at"], "10.0.0.2:80");
    let json = r#"{"kind": "Cluster", "name": "a", "endpoints": ["10.0.0.1:80"], "labels": {"s": "a\/b\u00e9\ud83d\ude00"}}"#;
    assert_eq!(one(json).metadata.labels["s"], "a/bé😀");
}

#[test]
fn bombs_are_refused_before_they_cost_anything() {
    let big = format!("# {}", "x".repeat(10 << 20));
    assert!(faults(&big)[0].contains("more than the limit of 8 MiB; split it"));
    for deep in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
    ] {
        assert_eq!(faults(&deep).len(), 1);
    }
    let nested: String = (0..5000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert_eq!(faults(&nested).len(), 1);
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}, ", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", item.repeat(10));
    }
    assert!(faults(&laughs)[0].contains("aliases counted"));
    assert!(faults("a: &a [*a]\n").len() == 1);
    let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse_value("/skein/config/default/Cluster/a", json.as_bytes()).is_err());
    let wide = format!("{CLUSTER}annotations: {{ a: {} }}\n", "x".repeat(2 << 20));
    assert!(
        faults(&wide)[0].contains("more than the limit of 1024 KiB"),
        "{:?}",
        faults(&wide)[0].len()
    );
}

#[test]
fn faults_of_a_document_are_limited() {
    let routes: String = (0..1000).map(|_| "- { to: 'bad name' }\n").collect();
    let found = faults(&format!(
        "kind: VirtualHost\nname: h\ndomains: [a]\nroutes:\n{routes}"
    ));
    assert_eq!(found.len(), 64);
}
