//! UDP listeners and Unix sockets: what is refused, and what is told of them.

use proxy_config::compiled::Protocol;
use proxy_config::{Ask, EndpointHealth, check, explain, graph, parse_documents};

use crate::{compiled, named, set, texts, with};

const BASE: &str = "
{kind: Listener, name: u, bind: ':53', protocol: udp, to: a}
---
{kind: Listener, name: t, bind: ':53', protocol: tcp, to: b}
---
{kind: Cluster, name: a, endpoints: [10.0.0.1:53]}
---
{kind: Cluster, name: b, endpoints: ['unix:/run/b.sock']}
";

#[test]
fn what_datagrams_cannot_have_is_refused() {
    let pair = "certificates: [{certificate_chain: /a, private_key: /b}]";
    for (rest, fault) in [
        ("", "to: a udp listener needs to know where datagrams go"),
        (
            &*format!("to: a, tls: {{{pair}}}"),
            "tls: TLS needs connections",
        ),
        (
            "to: a, proxy_protocol: required",
            "proxy_protocol: datagrams have no PROXY header",
        ),
        (
            "to: a, headers: {request: {remove: [x]}}",
            "headers: a udp listener sees no headers",
        ),
        (
            "to: a, routes: [{match: {alpn: [x]}, to: a}]",
            "routes: only a tls_passthrough listener",
        ),
    ] {
        let text = format!("{{kind: Listener, name: u, bind: ':53', protocol: udp, {rest}}}");
        let told = texts(&parse_documents("in", &text).unwrap_err());
        assert!(
            told.iter().any(|it| it.contains(fault)),
            "{fault}: {told:#?}"
        );
    }
    for (change, fault) in [
        (
            "{kind: Listener, name: u, bind: ':53', protocol: udp, to: b}",
            "Listener/u: to: Cluster/b has Unix sockets, and a udp listener sends datagrams",
        ),
        (
            "{kind: Cluster, name: a, endpoints: [10.0.0.1:53], tls: {sni: x.test}}",
            "Listener/u: to: Cluster/a has `tls`, and a udp listener sends datagrams",
        ),
        (
            "{kind: Listener, name: v, bind: '0.0.0.0:53', protocol: udp, to: a}",
            "`0.0.0.0:53` is taken by Listener/u",
        ),
        (
            "{kind: Listener, name: v, bind: '0.0.0.0:53', protocol: tcp, to: a}",
            "`0.0.0.0:53` is taken by Listener/t",
        ),
    ] {
        let told = texts(&check(&with(&set(BASE), change)).unwrap_err());
        assert!(told[0].contains(fault), "{fault}: {told:#?}");
    }
    let bad = "{kind: Cluster, name: b, endpoints: ['unix:/b'], tls: {}}";
    let told = texts(&parse_documents("in", bad).unwrap_err());
    assert!(
        told[0].contains("tls.sni: a Unix socket has no name"),
        "{told:?}"
    );
    let twice = "{kind: Cluster, name: b, endpoints: ['unix:/b', {address: 'unix:/b', weight: 2}]}";
    let told = texts(&parse_documents("in", twice).unwrap_err());
    assert!(
        told[0].contains("endpoints[1]: `unix:/b` is given twice"),
        "{told:?}"
    );
}

#[test]
fn the_transport_tells_two_listeners_of_a_port_apart() {
    let config = compiled(&set(BASE)).config;
    let Protocol::Udp(udp) = &config.listeners[&named("u")].protocol else {
        panic!()
    };
    assert_eq!(udp.idle_timeout.unwrap().as_secs(), 60);
    let health = |_: &_, _: &_| EndpointHealth::default();
    let told = |url: &str| explain(&config, &Ask::get(url).unwrap(), &health).to_string();
    let text = told("udp://x:53");
    assert!(text.contains("listener u (udp 127.0.0.11:53)"), "{text}");
    assert!(text.contains("timeout 1m\n"), "{text}");
    let text = told("tcp://x:53");
    assert!(text.contains("listener t (tcp 127.0.0.11:53)"), "{text}");
    assert!(text.contains("  unix:/run/b.sock weight 1"), "{text}");
    let text = told("udp://x:54");
    assert!(
        text.contains("no listener of this node has port 54 of UDP"),
        "{text}"
    );
    let drawn = graph(&config).to_text();
    assert!(drawn.contains("listener u udp 127.0.0.11:53"), "{drawn}");
    assert!(drawn.contains("endpoint unix:/run/b.sock"), "{drawn}");
    let cluster = &config.clusters[&named("b")];
    // Nothing is ever sent to what stands for it.
    assert!(
        cluster.endpoints[0]
            .address
            .to_string()
            .starts_with("[100::")
    );
}
