//! What a registration may say, what becomes of one that says something else, and who counts where
//! two say the same.

use super::*;

const KEY: &str = "/skein/endpoints/default/web/1";

fn service() -> ResourceName {
    ResourceName {
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn put(registry: &mut Registry, id: &str, value: &str, mod_revision: i64) -> Option<ResourceName> {
    registry.apply(Change {
        key: format!("/skein/endpoints/default/web/{id}").as_bytes(),
        value: Some(value.as_bytes()),
        mod_revision,
    })
}

fn delete(registry: &mut Registry, id: &str) -> Option<ResourceName> {
    registry.apply(Change {
        key: format!("/skein/endpoints/default/web/{id}").as_bytes(),
        value: None,
        mod_revision: 9,
    })
}

fn addresses(registry: &Registry) -> Vec<String> {
    let endpoints = registry.endpoints(&service());
    endpoints
        .iter()
        .map(|one| one.address.to_string())
        .collect()
}

#[test]
fn a_value_is_an_address_or_an_object() {
    let mut registry = Registry::default();
    assert_eq!(
        put(&mut registry, "a", " 10.0.0.1:80\n", 2),
        Some(service())
    );
    let long = r#"{"address": "[2001:db8::1]:80", "weight": 3, "zone": "z1", "priority": 2,
                   "labels": {"version": "v2"}, "hostname": "Web-1.Example.com"}"#;
    put(&mut registry, "b", long, 3);
    let endpoints = registry.endpoints(&service());
    assert_eq!(
        *endpoints,
        [
            Endpoint {
                address: "10.0.0.1:80".parse().unwrap(),
                socket: None,
                weight: 1,
                zone: None,
                priority: 0,
                labels: Default::default(),
                hostname: None,
                source: Source::Registered("a".into()),
            },
            Endpoint {
                address: "[2001:db8::1]:80".parse().unwrap(),
                socket: None,
                weight: 3,
                zone: Some("z1".into()),
                priority: 2,
                labels: crate::compiled::Labels::new([("version", "v2")]),
                hostname: Some("web-1.example.com".into()),
                source: Source::Registered("b".into()),
            },
        ]
    );
}

#[test]
fn a_fault_names_the_registration_what_is_wrong_and_the_remedy() {
    let long = "x".repeat(ADDRESS_BYTES_MAX + 1);
    let huge = " ".repeat(REGISTRATION_BYTES_MAX + 1);
    for (value, fault) in [
        ("", "is not an address"),
        ("10.0.0.1", "is not an address"),
        ("10.0.0.1:0", "is not an address"),
        ("0.0.0.0:80", "is not an address"),
        (
            "unix:/run/app.sock",
            "a socket is one node's own, and this is for all; give ip:port",
        ),
        (&*long, "neither an address nor an object"),
        (&*huge, "more than 16384 bytes"),
        ("{", "EOF while parsing"),
        ("{}", "missing field `address`"),
        (r#"{"address": 7}"#, "expected"),
        (
            r#"{"address": "10.0.0.1:80", "wieght": 2}"#,
            "unknown field `wieght`",
        ),
        (
            r#"{"address": "10.0.0.1:80", "weight": 0}"#,
            "weight: it is 0; give at least 1",
        ),
        (
            r#"{"address": "10.0.0.1:80", "weight": -1}"#,
            "invalid value",
        ),
        (
            r#"{"address": "10.0.0.1:80", "priority": 128}"#,
            "priority: out of bounds",
        ),
        (
            r#"{"address": "10.0.0.1:80", "labels": {"": "x"}}"#,
            "a label has no name",
        ),
        (
            r#"{"address": "10.0.0.1:80", "zone": "a b"}"#,
            "is not a name",
        ),
        (
            r#"{"address": "10.0.0.1:80", "hostname": "a b"}"#,
            "hostname: it has a character",
        ),
        (r#"{"address": "10.0.0.1:80"} x"#, "trailing characters"),
    ] {
        let found = check_registration(KEY.as_bytes(), value.as_bytes()).expect(value);
        let text = found.to_string();
        assert!(text.starts_with("endpoint web/1: "), "{text}");
        assert!(
            text.contains(fault) && text.contains("; "),
            "{value}: {text}"
        );
        assert!(text.len() < 400, "{text}");
    }
    let found = check_registration(KEY.as_bytes(), b"\xff").unwrap();
    assert!(found.to_string().contains("it is no text"), "{found}");
    assert_eq!(check_registration(KEY.as_bytes(), b"10.0.0.1:80"), None);
}

#[test]
fn a_key_names_namespace_service_and_id() {
    for (key, fault) in [
        ("/skein/endpoints/", "no key of a registration"),
        ("/skein/endpoints/web/1", "no key of a registration"),
        (
            "/skein/endpoints/default/web/a/b",
            "no key of a registration",
        ),
        ("/skein/endpoints/default//1", "is not a name"),
        ("/skein/endpoints/-/web/1", "is not a name"),
        ("/skein/endpoints/default/web/", "is no id"),
        ("/skein/endpoints/default/web/a b", "is no id"),
    ] {
        let found = check_registration(key.as_bytes(), b"10.0.0.1:80").expect(key);
        assert!(found.to_string().contains(fault), "{key}: {found}");
        let mut registry = Registry::default();
        let change = |value| Change {
            key: key.as_bytes(),
            value,
            mod_revision: 2,
        };
        assert_eq!(registry.apply(change(Some(b"10.0.0.1:80"))), None);
        assert_eq!(registry.faults().count(), 1);
        assert_eq!(registry.fault(key.as_bytes()), Some(&found));
        assert_eq!(registry.apply(change(None)), None);
        assert_eq!(registry.faults().count(), 0);
    }
    let id = "web-1.eu:[2001:db8::1]:80";
    let key = format!("/skein/endpoints/team-a/web/{id}");
    assert_eq!(check_registration(key.as_bytes(), b"10.0.0.1:80"), None);
}

#[test]
fn what_cannot_be_read_is_left_out_and_the_rest_stays() {
    let mut registry = Registry::default();
    put(&mut registry, "a", "10.0.0.1:80", 2);
    put(&mut registry, "b", "10.0.0.2:80", 3);
    assert_eq!(put(&mut registry, "a", "garbage", 4), Some(service()));
    assert_eq!(addresses(&registry), ["10.0.0.2:80"]);
    assert_eq!((registry.len(), registry.refused()), (1, 1));
    let unused = registry.unused(&service());
    assert!(
        unused[0].starts_with("endpoint web/a: \"garbage\" is not"),
        "{unused:?}"
    );
    assert!(registry.fault(b"/skein/endpoints/default/web/a").is_some());
    assert!(registry.fault(b"/skein/endpoints/default/web/b").is_none());
    // It comes right, and the other one goes.
    put(&mut registry, "a", "10.0.0.3:80", 5);
    assert_eq!(delete(&mut registry, "b"), Some(service()));
    assert_eq!(addresses(&registry), ["10.0.0.3:80"]);
    assert_eq!(registry.faults().count(), 0);
    assert_eq!(delete(&mut registry, "a"), Some(service()));
    assert_eq!(delete(&mut registry, "a"), None, "it was not there");
    assert!(addresses(&registry).is_empty() && registry.is_empty());
    assert_eq!(registry.services().count(), 0);
}

#[test]
fn of_two_with_one_address_the_one_written_last_counts() {
    let mut registry = Registry::default();
    let draining = r#"{"address": "10.0.0.1:80", "draining": true}"#;
    put(
        &mut registry,
        "old",
        r#"{"address": "10.0.0.1:80", "weight": 5}"#,
        2,
    );
    put(&mut registry, "new", "10.0.0.1:80", 3);
    let weights = |registry: &Registry| -> Vec<u32> {
        let endpoints = registry.endpoints(&service());
        endpoints.iter().map(|one| one.weight).collect()
    };
    assert_eq!(weights(&registry), [1]);
    let unused = registry.unused(&service());
    assert_eq!(
        unused,
        ["endpoint web/old: 10.0.0.1:80 was registered again since"]
    );
    // The one before drains: that says nothing about the one that took its place.
    put(&mut registry, "old", draining, 3);
    put(&mut registry, "new", "10.0.0.1:80", 4);
    assert_eq!(weights(&registry), [1]);
    put(&mut registry, "new", draining, 5);
    assert!(weights(&registry).is_empty());
    let unused = registry.unused(&service());
    assert!(
        unused.contains(&"endpoint web/new: 10.0.0.1:80 is draining".to_owned()),
        "{unused:?}"
    );
    // Both of one transaction: one of them.
    put(&mut registry, "a", "10.0.0.9:80", 6);
    put(&mut registry, "b", "10.0.0.9:80", 6);
    assert_eq!(addresses(&registry), ["10.0.0.9:80"]);
}

#[test]
fn what_is_known_can_be_written_down_and_read_again() {
    let mut registry = Registry::default();
    let long = r#"{"address": "[2001:db8::1]:80", "weight": 3, "zone": "z1", "priority": 2,
                   "labels": {"version": "v2", "a": "b"}, "hostname": "web", "draining": true}"#;
    for (id, value, revision) in [
        ("a", "10.0.0.1:80", 2),
        ("b", long, 3),
        ("c", "garbage", 4),
        ("d", "10.0.0.1:80", 5),
    ] {
        put(&mut registry, id, value, revision);
    }
    let mut again = Registry::default();
    for (key, value, mod_revision) in registry.rows() {
        let value = Some(value.as_bytes());
        let key = key.as_bytes();
        again.apply(Change {
            key,
            value,
            mod_revision,
        });
    }
    assert_eq!((again.len(), again.refused()), (3, 0));
    assert_eq!(again.endpoints(&service()), registry.endpoints(&service()));
    assert_eq!(
        again.rows().collect::<Vec<_>>(),
        registry.rows().collect::<Vec<_>>()
    );
    let draining = "endpoint web/b: [2001:db8::1]:80 is draining".to_owned();
    assert!(again.unused(&service()).contains(&draining));
}
