//! Listeners that pass TLS on: what is refused, and where connections are said to go.

use proxy_config::compiled::{Protocol, TlsAsked};
use proxy_config::{Ask, EndpointHealth, check, explain, graph, parse_documents};

use crate::{compiled, named, set, texts, with};

const CLUSTERS: &str = "
{kind: Cluster, name: a, endpoints: [10.0.0.1:443]}
---
{kind: Cluster, name: b, endpoints: [10.0.0.2:443]}
";

fn listener(rest: &str) -> String {
    format!("{{kind: Listener, name: t, bind: ':443', protocol: tls_passthrough, {rest}}}")
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    let pair = "certificates: [{certificate_chain: /a, private_key: /b}]";
    for (text, fault) in [
        (listener(""), "routes: nothing goes anywhere; give `routes`"),
        (
            listener(&format!("to: a, tls: {{{pair}}}")),
            "tls: TLS that is passed on is not ended here",
        ),
        (
            listener("to: a, headers: {request: {remove: [x]}}"),
            "headers: a tls_passthrough listener sees no headers",
        ),
        (
            listener("routes: [{match: {}, to: a}]"),
            "routes[0].match: it matches everything",
        ),
        (listener("routes: [{to: a}]"), "routes[0]: `match` is missing"),
        (
            listener("routes: [{match: {server_names: ['*']}, to: a}]"),
            "routes[0].match.server_names[0]: \"*\" is not a name that clients can ask for",
        ),
        (
            listener("routes: [{match: {server_names: ['10.0.0.1']}, to: a}]"),
            "routes[0].match.server_names[0]: \"10.0.0.1\" is not a name",
        ),
        (
            listener("routes: [{match: {server_names: ['a.*']}, to: a}]"),
            "routes[0].match.server_names[0]: \"a.*\" is not a name",
        ),
        (
            listener("routes: [{match: {server_names: [x.test, X.test.]}, to: a}]"),
            "routes[0].match.server_names[1]: `x.test` is given twice",
        ),
        (
            listener(
                "routes: [{match: {server_names: [x.test]}, to: a}, {match: {server_names: \
                 [y.test, x.test], alpn: [h2]}, to: b}]",
            ),
            "routes[1].match.server_names[1]: routes[0] takes all connections for `x.test` before",
        ),
        (
            listener("routes: [{match: {alpn: [h2, h2]}, to: a}]"),
            "routes[0].match.alpn[1]: `h2` is given twice",
        ),
        (
            "{kind: Listener, name: t, bind: ':1', protocol: tcp, to: a, routes: [{match: {alpn: [x]}, to: a}]}"
                .into(),
            "routes: only a tls_passthrough listener has routes; use `to`",
        ),
        (
            "{kind: Listener, name: t, bind: ':1', protocol: http, routes: [{match: {alpn: [x]}, to: a}]}"
                .into(),
            "routes: an http listener has no routes; attach a VirtualHost to it",
        ),
        (
            format!("{{kind: Listener, name: t, bind: ':1', protocol: http, tls: {{mode: maybe, {pair}}}}}"),
            "tls.mode: ",
        ),
    ] {
        let faults = parse_documents("in", &text).unwrap_err();
        let told = texts(&faults);
        assert!(told.iter().any(|it| it.contains(fault)), "{fault}: {told:#?}");
    }
}

#[test]
fn a_route_needs_its_cluster() {
    let missing = with(
        &set(CLUSTERS),
        &listener("to: a, routes: [{match: {alpn: [x]}, to: c}]"),
    );
    let told = texts(&check(&missing).unwrap_err());
    assert!(
        told[0].contains("routes[0].to: there is no Cluster `c`"),
        "{told:?}"
    );
}

fn routes() -> String {
    listener(
        "routes: [{match: {server_names: ['*.x.test']}, to: a}, {match: {server_names: [w.x.test], \
         alpn: [h2, h3]}, to: {a: 1, b: 3}}]",
    )
}

#[test]
fn a_name_leads_to_a_cluster_and_explain_says_so() {
    let config = compiled(&with(&set(CLUSTERS), &routes())).config;
    let Protocol::TlsPassthrough(tls) = &config.listeners[&named("t")].protocol else {
        panic!()
    };
    let found = tls.routes.find(&TlsAsked {
        server_name: Some("w.x.test"),
        offers: &|protocol| protocol == "h3",
    });
    assert_eq!((found, tls.to.is_none()), (Some(1), true));
    assert_eq!(tls.idle_timeout.unwrap().as_secs(), 3600);

    let health = |_: &_, _: &_| EndpointHealth::default();
    let told = |url: &str| explain(&config, &Ask::get(url).unwrap(), &health).to_string();
    let text = told("tls://W.x.test");
    for part in [
        "listener t (TLS, passed on 127.0.0.11:443)",
        "routes[1] w.x.test, alpn h2 or h3: no, unless it offers that protocol",
        "routes[0] *.x.test: matches",
        "cluster a: 100.0 %",
        "=> routes[0] takes it, the connection goes to a",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = told("tls://other.test:443");
    assert!(text.contains("=> closed: no route has its name"), "{text}");

    let drawn = graph(&config).to_text();
    assert!(
        drawn.contains("listener t TLS, passed on 127.0.0.11:443"),
        "{drawn}"
    );
    assert!(
        drawn.contains("route routes[1] w.x.test, alpn h2 or h3"),
        "{drawn}"
    );
    assert!(drawn.contains("cluster b (3/4)"), "{drawn}");

    // What no route takes has a place of its own.
    let set = with(
        &set(CLUSTERS),
        &routes().replace("routes:", "to: b, routes:"),
    );
    let config = compiled(&set).config;
    let text = explain(&config, &Ask::get("tls://other.test").unwrap(), &health).to_string();
    assert!(
        text.contains("no route has its name, the connection goes to b"),
        "{text}"
    );
}

#[test]
fn a_cluster_that_changes_reaches_the_routes() {
    let before = with(&set(CLUSTERS), &routes());
    let after = with(
        &before,
        "{kind: Cluster, name: a, endpoints: [10.0.0.9:443]}",
    );
    let first = compiled(&before);
    let target = crate::node("n1", &[]);
    let next = proxy_config::compile(&after, &target, Some(&first), model::ConfigRevision(2));
    let Protocol::TlsPassthrough(tls) = &next.config.listeners[&named("t")].protocol else {
        panic!()
    };
    let cluster = tls.routes.routes()[0].to.choose(0);
    assert_eq!(cluster.endpoints[0].address.to_string(), "10.0.0.9:443");
}
