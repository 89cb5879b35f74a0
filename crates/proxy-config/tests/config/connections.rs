//! What connections to endpoints are like: as written, compiled and explained.

use std::time::Duration;

use proxy_config::compiled::{ConnectionKeepalive, Connections, TcpKeepalive};
use proxy_config::{Ask, EndpointHealth, explain, parse_documents};

use crate::{BASE, compiled, named, set, texts, with};

fn cluster(fields: &str) -> String {
    format!("{{kind: Cluster, name: b, endpoints: ['10.0.0.1:80'], {fields}}}")
}

#[test]
fn connections_have_no_limits_unless_they_are_given_and_explain_tells_them() {
    let bare = compiled(&with(&set(BASE), &cluster("")));
    let expected = Connections::default();
    assert_eq!(bare.config.clusters[&named("b")].connections, expected);
    let given = compiled(&with(
        &set(BASE),
        &cluster(
            "connections: {max_requests_per_connection: 1000, max_connection_duration: 10m,
              tcp_keepalive: {keepalive_time: 5m, keepalive_interval: 15s, keepalive_probes: 3}}",
        ),
    ));
    let expected = Connections {
        max_requests: Some(1000),
        max_duration: Some(Duration::from_secs(600)),
        tcp_keepalive: Some(TcpKeepalive {
            time: Some(Duration::from_secs(300)),
            interval: Some(Duration::from_secs(15)),
            probes: Some(3),
        }),
        keepalive: None,
    };
    assert_eq!(given.config.clusters[&named("b")].connections, expected);
    let ask = Ask::get("http://shop.test/").unwrap();
    let told = explain(&given.config, &ask, &|_, _| EndpointHealth::default()).to_string();
    let part = ", at most 1000 requests per connection, connections for at most 10m\n";
    assert!(told.contains(part), "{told}\nshould have {part}");
}

#[test]
fn an_endpoint_of_http2_may_be_asked_whether_it_is_there() {
    let pings = "http: h2, connections: {connection_keepalive: {interval: 30s, timeout: 5s}}";
    let given = compiled(&with(&set(BASE), &cluster(pings)));
    let expected = ConnectionKeepalive {
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(5),
    };
    let connections = &given.config.clusters[&named("b")].connections;
    assert_eq!(connections.keepalive, Some(expected));
    let ask = Ask::get("http://shop.test/").unwrap();
    let told = explain(&given.config, &ask, &|_, _| EndpointHealth::default()).to_string();
    assert!(
        told.contains(", a PING every 30s that is answered within 5s"),
        "{told}"
    );
}

#[test]
fn faults_are_told_at_their_place() {
    for (fields, part) in [
        (
            "max_requests_per_connection: 0",
            "connections.max_requests_per_connection: it is 0; give at least 1",
        ),
        (
            "max_connection_duration: 0s",
            "connections.max_connection_duration: no time at all",
        ),
        (
            "connection_keepalive: {interval: 30s, timeout: 5s}",
            "connections.connection_keepalive: HTTP/1.1 has no PING; use `tcp_keepalive`, or `http: h2`",
        ),
        (
            "connection_keepalive: {interval: 0s, timeout: 5s}}, http: h2, limits: {",
            "connections.connection_keepalive.interval: no time at all",
        ),
        (
            "connection_keepalive: {interval: 1s, timeout: 0s}}, http: h2, limits: {",
            "connections.connection_keepalive.timeout: no time at all",
        ),
        (
            "tcp_keepalive: {keepalive_time: 1500ms}",
            "connections.tcp_keepalive.keepalive_time: not what the kernel takes; give whole",
        ),
        (
            "tcp_keepalive: {keepalive_interval: 10h}",
            "connections.tcp_keepalive.keepalive_interval: not what the kernel takes",
        ),
        (
            "tcp_keepalive: {keepalive_probes: 128}",
            "connections.tcp_keepalive.keepalive_probes: out of bounds",
        ),
    ] {
        let text = cluster(&format!("connections: {{{fields}}}"));
        let faults = parse_documents("in.yaml", &text).expect_err("the text is faulty");
        let found = texts(&faults);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should have {part}"
        );
    }
}

#[test]
fn who_tells_of_clients_and_who_is_told_is_written_in_few_words() {
    let listener = |word: &str| {
        format!("{{kind: Listener, name: l, bind: ':1', protocol: http, proxy_protocol: {word}}}")
    };
    let cluster =
        |more: &str| format!("{{kind: Cluster, name: c, endpoints: [10.0.0.1:1], {more}}}");
    for (text, fault) in [
        (listener("maybe"), "proxy_protocol: "),
        (listener("{}"), "proxy_protocol: `mode` is missing"),
        (
            listener("{mode: required, trusted_sources: []}"),
            "proxy_protocol.trusted_sources: nobody is trusted",
        ),
        (
            listener("{mode: required, trusted_sources: [10.0.0.1/8]}"),
            "it begins at 10.0.0.0: write 10.0.0.0/8",
        ),
        (
            listener("{mode: required, trusted_sources: ['::1', '::1']}"),
            "proxy_protocol.trusted_sources[1]: `::1` is given twice",
        ),
        (cluster("proxy_protocol: v3"), "proxy_protocol: "),
        (
            cluster("proxy_protocol: v1, http: h2"),
            "proxy_protocol: an HTTP/2 connection carries requests of many clients",
        ),
    ] {
        let told = texts(&parse_documents("in", &text).unwrap_err());
        assert!(told[0].contains(fault), "{fault}: {told:?}");
    }
    // The short form stays short, and the long one is kept.
    for (written, kept) in [
        ("required", "proxy_protocol: required"),
        ("{mode: optional}", "proxy_protocol: optional"),
        (
            "{mode: optional, trusted_sources: [10.0.0.0/8]}",
            "- 10.0.0.0/8",
        ),
    ] {
        let resource = parse_documents("in", &listener(written)).unwrap().remove(0);
        let yaml = resource.to_yaml();
        assert!(yaml.contains(kept), "{yaml}");
        assert_eq!(parse_documents("in", &yaml).unwrap()[0], resource);
    }
    let set = set(&format!(
        "{{kind: Listener, name: l, bind: ':1', protocol: tcp, to: c}}\n---\n{}",
        cluster("proxy_protocol: v2, probe: {tcp: true}")
    ));
    let config = compiled(&set).config;
    let version = proxy_config::compiled::ProxyProtocolVersion::V2;
    let known = &config.clusters[&named("c")];
    assert_eq!(known.probe.as_ref().unwrap().proxy_protocol, Some(version));
    let health = |_: &_, _: &_| EndpointHealth::default();
    let ask = Ask::get("tcp://x:1").unwrap();
    let text = explain(&config, &ask, &health).to_string();
    assert!(
        text.contains("told the client by the PROXY protocol v2"),
        "{text}"
    );
    let over = with(
        &set,
        "{kind: Listener, name: u, bind: ':1', protocol: udp, to: c}",
    );
    let told = texts(&proxy_config::check(&over).unwrap_err());
    assert!(
        told[0].contains("Cluster/c has `proxy_protocol`"),
        "{told:?}"
    );
}
