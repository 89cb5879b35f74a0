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
