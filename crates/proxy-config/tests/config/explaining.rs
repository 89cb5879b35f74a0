//! Explanations, graphs and the JSON Schema.

use proxy_config::compiled::{Cluster, Endpoint};
use proxy_config::{Ask, EndpointHealth, Explanation, Graph, Verdict, explain, graph, json_schema};

use crate::{BASE, compiled, set, with};

fn config() -> proxy_config::Compiled {
    compiled(&with(
        &set(BASE),
        "{kind: VirtualHost, name: shop, domains: [shop.test, '*.shop.test'], routes: [
           {match: {path: /only}, to: a},
           {match: {path_prefix: /api, methods: [POST]}, to: a},
           {match: {path_prefix: /api, headers: [{name: x, exact: y}]}, to: a},
           {match: {path_prefix: /api}, to: {a: 3, b: 1}, timeout: 2s, retry: {when: [5xx, reset], times: 2, per_try_timeout: 500ms}}]}
---
{kind: Listener, name: raw, bind: ':9000', protocol: tcp, to: b}",
    ))
}

fn health(_: &Cluster, endpoint: &Endpoint) -> EndpointHealth {
    if endpoint.address.to_string() == "10.0.0.2:80" {
        EndpointHealth {
            verdict: Verdict::Unhealthy,
            unhealthy_by: vec!["n2".into(), "n3".into()],
            ejected: None,
        }
    } else {
        EndpointHealth {
            verdict: Verdict::Healthy,
            unhealthy_by: vec![],
            ejected: None,
        }
    }
}

fn explained(url: &str) -> Explanation {
    explain(&config().config, &Ask::get(url).unwrap(), &health)
}

#[test]
fn every_step_to_the_route_is_told() {
    let explanation = explained("http://www.SHOP.test/x/../api//cart?q=1");
    assert_eq!(
        (&*explanation.host, &*explanation.path),
        ("www.shop.test", "/api/cart")
    );
    assert_eq!(explanation.listener.as_ref().unwrap().name, "web");
    assert_eq!(
        explanation.virtual_host.as_ref().unwrap().domains,
        ["shop.test", "*.shop.test"]
    );
    let why: Vec<_> = explanation
        .tried
        .iter()
        .map(|route| route.mismatch.as_deref())
        .collect();
    assert_eq!(
        why,
        [
            Some("the path is not path /only"),
            Some("the method is not POST"),
            Some("header x is not y"),
            None
        ]
    );
    let chosen = explanation.chosen.as_ref().unwrap();
    assert_eq!((chosen.route, chosen.targets.len()), (Some(3), 2));
    assert_eq!((chosen.targets[0].weight, chosen.targets[0].of), (3, 4));
    let text = explanation.to_string();
    for part in [
        "GET /api/cart for host www.shop.test",
        "listener web (http 127.0.0.11:80)",
        "routes[1] path_prefix /api, method POST: no, the method is not POST",
        "routes[3] path_prefix /api: matches",
        "timeout 2s",
        "retry up to 2 times on reset, 5xx, 500ms for each try (the route says so)",
        "cluster a: 75.0 % of the requests",
        "10.0.0.2:80 weight 1: unhealthy (unhealthy says n2, n3)",
        "=> routes[3] takes it, to a 3, b 1 (config revision 1)",
    ] {
        assert!(text.contains(part), "{text}\nshould have {part}");
    }
    let json = serde_json::to_string(&explanation).unwrap();
    assert!(json.contains(r#""timeout":"2s""#) && json.contains(r#""verdict":"unhealthy""#));
    assert_eq!(
        serde_json::from_str::<Explanation>(&json).unwrap(),
        explanation
    );
}

#[test]
fn the_retries_in_force_are_told_with_who_says_so() {
    let route = |retry: &str| {
        format!(
            "{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{{to: a{retry}}}]}}"
        )
    };
    let defaults = "\n---\n{kind: Defaults, retry: {times: 0, per_try_timeout: 1s}}";
    for (retry, defaults, text, json) in [
        (
            "",
            "",
            "retry up to 2 times on connect-failure, reset (built in)\n",
            r#"{"when":["connect-failure","reset"],"times":2,"per_try_timeout":null,"given_by":"built_in"}"#,
        ),
        (
            ", retry: {times: 0}",
            "",
            "no retry (the route says so)\n",
            r#"{"when":[],"times":0,"per_try_timeout":null,"given_by":"route"}"#,
        ),
        (
            "",
            defaults,
            "no retry, 1s for each try (Defaults say so)\n",
            r#"{"when":[],"times":0,"per_try_timeout":"1s","given_by":"defaults"}"#,
        ),
        (
            ", retry: {when: [5xx]}",
            defaults,
            "retry once on 5xx (the route says so)\n",
            r#"{"when":["5xx"],"times":1,"per_try_timeout":null,"given_by":"route"}"#,
        ),
    ] {
        let config = compiled(&with(&set(BASE), &(route(retry) + defaults)));
        let ask = Ask::get("http://shop.test/").unwrap();
        let explanation = explain(&config.config, &ask, &health);
        assert!(explanation.to_string().contains(text), "{explanation}");
        let chosen = explanation.chosen.unwrap();
        assert_eq!(serde_json::to_string(&chosen.retry).unwrap(), json);
    }
}

#[test]
fn requests_that_go_nowhere_are_explained_too() {
    for (url, outcome) in [
        ("http://shop.test/other", "404: none of the routes takes it"),
        (
            "http://other.test/",
            "404: no virtual host of this listener serves other.test",
        ),
        (
            "http://shop.test/a%2Fb",
            "400: the path: it has an escaped slash",
        ),
        (
            "http://shop.test/../x",
            "400: the path: its `..` lead out of the root",
        ),
        (
            "http://a@shop.test/",
            "400: the host: it has a character that no host name has",
        ),
        (
            "http://shop.test:81/",
            "no listener of this node has port 81: raw (127.0.0.11:9000), web",
        ),
    ] {
        let explanation = explained(url);
        assert!(
            explanation.outcome.starts_with(outcome),
            "{url}: {}",
            explanation.outcome
        );
        assert!(explanation.chosen.is_none());
    }
    let tcp = explained("tcp://10.0.0.1:9000");
    assert_eq!(tcp.outcome, "the connection goes to b");
    assert_eq!(
        tcp.chosen.unwrap().targets[0].endpoints[0].health.verdict,
        Verdict::Unhealthy
    );
    let mut named = Ask::get("/api").unwrap();
    named.listener = Some("web".into());
    named.host = "shop.test".into();
    named.headers = vec![("X".into(), "y".into())];
    let explanation = explain(&config().config, &named, &health);
    assert_eq!(explanation.chosen.unwrap().route, Some(2));
    // A second value is seen, here as by the proxy.
    named.headers.push(("x".into(), "z".into()));
    let explanation = explain(&config().config, &named, &health);
    assert_eq!(explanation.chosen.unwrap().route, Some(3));
}

/// A virtual host that answers by itself.
const OWN: &str = "{kind: VirtualHost, name: shop, domains: [shop.test], routes: [
  {match: {path_prefix: /old}, redirect: {scheme: https, path_prefix: /new}},
  {match: {path: /health}, respond: {status: 200, body: fine}},
  {match: {path_prefix: /in}, to: a, rewrite: {path_prefix: /, host: inner}}]";

#[test]
fn what_a_route_does_itself_is_explained_and_drawn() {
    let config = compiled(&with(&set(BASE), &format!("{OWN}}}"))).config;
    for (path, end) in [
        (
            "/old/x?y",
            "routes[0] path_prefix /old: matches\n=> routes[0] takes it, redirect 301 to \
             https://shop.test/new/x?y (config revision 1)\n",
        ),
        (
            "/in/x?y",
            "=> routes[2] takes it, to a, as /x for host inner (config revision 1)\n",
        ),
        (
            "/health",
            "=> routes[1] takes it, respond 200 (config revision 1)\n",
        ),
    ] {
        let ask = Ask::get(&format!("http://shop.test{path}")).unwrap();
        let explanation = explain(&config, &ask, &health);
        assert!(explanation.to_string().ends_with(end), "{explanation}");
        let sent = explanation.outcome.contains(", to a");
        assert_eq!(explanation.chosen.unwrap().targets.is_empty(), !sent);
    }
    let graph = graph(&config);
    let label = "routes[0] path_prefix /old: redirect 301";
    let route = graph.nodes.iter().find(|node| node.label == label).unwrap();
    assert!(graph.edges.iter().all(|edge| edge.from != route.id));
}

#[test]
fn expectations_see_what_a_route_does_itself() {
    let faults = |expect: &str| {
        let set = with(&set(BASE), &format!("{OWN}, expect: [{expect}]}}"));
        proxy_config::check(&set).map_or_else(|faults| crate::texts(&faults), |_| Vec::new())
    };
    for good in [
        "{get: '/old/x?y', redirect: 'https://shop.test/new/x?y'}",
        "{get: /old, status: 301}",
        "{get: /health, status: 200}",
        "{get: /, status: 404}",
    ] {
        assert_eq!(faults(good), [""; 0], "{good}");
    }
    for (bad, part) in [
        (
            "{get: /health, status: 404}",
            "should go to status 404, but routes[1] takes it, respond 200",
        ),
        (
            "{get: /old, redirect: 'http://shop.test/new'}",
            "should go to http://shop.test/new, but routes[0] takes it, redirect 301 to \
             https://shop.test/new;",
        ),
        (
            "{get: /old, to: a}",
            "should go to a, but routes[0] takes it, redirect 301",
        ),
    ] {
        assert!(faults(bad)[0].contains(part), "{:?}", faults(bad));
    }
}

#[test]
fn many_routes_are_counted_not_listed() {
    let routes: String = (0..1000)
        .map(|i| format!("{{match: {{path: /{i}}}, to: a}}, "))
        .collect();
    let host =
        format!("{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{routes}]}}");
    let config = compiled(&with(&set(BASE), &host));
    let ask = Ask::get("http://shop.test/999").unwrap();
    let explanation = explain(&config.config, &ask, &health);
    assert_eq!((explanation.tried.len(), explanation.untold), (201, 799));
    assert!(
        explanation
            .to_string()
            .contains("... 799 more routes do not match")
    );
}

#[test]
fn the_graph_leads_from_listeners_to_endpoints() {
    let graph = graph(&config().config);
    assert_eq!((graph.nodes.len(), graph.edges.len()), (11, 13));
    let edge = graph.edges.iter().find(|edge| edge.label == "3/4").unwrap();
    assert_eq!(
        (&*edge.from, &*edge.to),
        ("route:default/shop/3", "cluster:default/a")
    );
    let text = graph.to_text();
    for part in [
        "listener web http 127.0.0.11:80\n  virtual host shop shop.test *.shop.test\n    route routes[0] path /only\n      cluster a\n        endpoint 10.0.0.1:80\n",
        "cluster a (3/4)",
        "listener raw tcp 127.0.0.11:9000\n  cluster b\n    endpoint 10.0.0.2:80\n",
    ] {
        assert!(text.contains(part), "{text}\nshould have {part}");
    }
    let dot = graph.to_dot();
    assert!(dot.starts_with("digraph") && dot.ends_with("}\n"));
    assert!(dot.contains("\"route:default/shop/3\" -> \"cluster:default/a\" [label=\"3/4\"];"));
    let mermaid = graph.to_mermaid();
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("-- \"3/4\" -->"));
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
}

#[test]
fn labels_cannot_break_out_of_a_rendering() {
    let odd = with(
        &set(BASE),
        r#"{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{match: {headers: [{name: x, exact: 'a"]; <b>&\'}]}, to: a}]}"#,
    );
    let graph = graph(&compiled(&odd).config);
    assert!(graph.to_dot().contains(r#"header x: a\"]; <b>&\\"#));
    assert!(
        graph
            .to_mermaid()
            .contains("header x: a&quot;]; &lt;b&gt;&amp;\\")
    );
}

#[test]
fn the_schema_knows_every_field_of_every_kind() {
    let schema = json_schema();
    let kinds = schema["oneOf"].as_array().unwrap();
    let titles: Vec<_> = kinds
        .iter()
        .map(|kind| kind["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["Defaults", "Cluster", "VirtualHost", "Listener"]);
    for kind in kinds {
        assert_eq!(kind["additionalProperties"], false);
        assert!(
            kind["properties"].get("name").is_some() && kind["properties"].get("nodes").is_some()
        );
    }
    let host = &kinds[2];
    assert_eq!(
        host["required"],
        serde_json::json!(["kind", "name", "domains", "routes"])
    );
    assert!(
        host["properties"]["domains"]["description"]
            .as_str()
            .unwrap()
            .contains("hosts")
    );
    // Every reference leads somewhere.
    let text = schema.to_string();
    for part in text.split("\"#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["$defs"].get(name).is_some(), "{name}");
    }
}

#[test]
fn changes_of_headers_are_told_in_the_order_in_which_they_are_made() {
    let set = with(
        &set(BASE),
        "{kind: Listener, name: web, bind: ':80', protocol: http,
          headers: {request: {set: {x-edge: '1'}}, response: {remove: [server]}}}
---
{kind: VirtualHost, name: shop, domains: [shop.test],
  headers: {request: {add: {x-edge: '%PROTOCOL%'}, remove: [X-Debug]}},
  routes: [{to: a, headers: {response: {add_if_absent: {x-from: '%UPSTREAM_HOST%'}}}}]}
---
{kind: Cluster, name: a, endpoints: [10.0.0.1:80], headers: {request: {set: {x-edge: last}}}}",
    );
    let ask = Ask::get("http://shop.test/").unwrap();
    let explanation = explain(&compiled(&set).config, &ask, &health);
    let chosen = explanation.chosen.as_ref().unwrap();
    assert_eq!(
        chosen.headers.request,
        [
            "set x-edge: 1 (listener)",
            "remove x-debug (virtual host)",
            "add x-edge: %PROTOCOL% (virtual host)"
        ]
    );
    assert_eq!(
        chosen.targets[0].headers.request,
        ["set x-edge: last (cluster)"]
    );
    let text = explanation.to_string();
    for line in [
        "\nrequest header: set x-edge: 1 (listener)\n",
        "\nresponse header: remove server (listener)\n",
        "\nresponse header: add x-from: %UPSTREAM_HOST% if absent (route)\n",
        "\nrequest header: set x-edge: last (cluster)\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
