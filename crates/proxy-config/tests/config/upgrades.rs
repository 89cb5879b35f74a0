//! What clients of a route may go over to: as written, compiled and explained.

use proxy_config::compiled::Upgrades;
use proxy_config::{Ask, EndpointHealth, explain, parse_documents};

use crate::{BASE, compiled, set, texts, with};

fn host(fields: &str) -> String {
    format!("{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{{{fields}}}]}}")
}

/// What a route of these fields takes, and what is told of it.
fn upgrades(fields: &str) -> (Upgrades, String) {
    let config = compiled(&with(&set(BASE), &host(fields))).config;
    let ask = Ask::get("http://shop.test/").unwrap();
    let told = explain(&config, &ask, &|_, _| EndpointHealth::default()).to_string();
    let routers = config.listeners.values().filter_map(|it| it.router());
    let hosts: Vec<_> = routers.flat_map(|router| router.virtual_hosts()).collect();
    (hosts[0].routes()[0].1.upgrades.clone(), told)
}

#[test]
fn nothing_is_gone_over_to_unless_it_is_named() {
    let (none, told) = upgrades("to: a");
    assert!(none.is_empty() && !none.connect() && none.protocol("websocket").is_none());
    assert!(!told.contains("go over"), "{told}");
    let (some, told) = upgrades("to: a, upgrades: [WebSocket, spdy/3.1, CONNECT]");
    assert!(!some.is_empty() && some.connect());
    assert_eq!(some.protocol("WEBSOCKET"), Some("websocket"));
    assert_eq!(some.protocol("SPDY/3.1"), Some("spdy/3.1"));
    // The method is no protocol.
    assert_eq!(some.protocol("connect"), None);
    let part = "\nclients may go over to websocket, spdy/3.1, connect\n";
    assert!(told.contains(part), "{told}");
}

#[test]
fn faults_are_told_at_their_place() {
    for (fields, part) in [
        (
            "to: a, upgrades: [websocket, WEBSOCKET]",
            "routes[0].upgrades[1]: `websocket` is given twice",
        ),
        (
            "to: a, upgrades: [h2c]",
            "routes[0].upgrades[0]: `h2c` is agreed on between neighbours, and cannot be passed on; leave it out",
        ),
        (
            "to: a, upgrades: ['web socket']",
            "routes[0].upgrades[0]: \"web socket\" is not the name of a protocol; write websocket",
        ),
        (
            "respond: {status: 200}, upgrades: [websocket]",
            "routes[0].upgrades: nothing is sent upstream; leave it out, or give `to`",
        ),
    ] {
        let faults = parse_documents("in.yaml", &host(fields)).expect_err("the text is faulty");
        let found = texts(&faults);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should have {part}"
        );
    }
}
