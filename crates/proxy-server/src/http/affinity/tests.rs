//! What counts as alike.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn affinity(policies: &[(HashOn, bool)], fields: &[(&'static str, &str)], query: &str) -> Affinity {
    let policies: Vec<HashPolicy> = policies
        .iter()
        .map(|(on, terminal)| HashPolicy {
            on: on.clone(),
            terminal: *terminal,
        })
        .collect();
    let headers = headers(fields);
    let subject = Subject {
        headers: &headers,
        query,
        peer: "10.0.0.1",
        trusted_hops: 0,
    };
    Affinity::by(&policies, &subject, &mut SmallRng::seed_from_u64(1))
}

fn key(policies: &[(HashOn, bool)], fields: &[(&'static str, &str)], query: &str) -> Option<u64> {
    affinity(policies, fields, query).key
}

fn header() -> HashOn {
    HashOn::Header("x-user".into())
}

fn query() -> HashOn {
    HashOn::QueryParameter("user".into())
}

fn cookie(ttl: Option<u64>) -> HashOn {
    HashOn::Cookie {
        name: "sid".into(),
        new: ttl.map(|seconds| NewCookie {
            ttl: Duration::from_secs(seconds),
            path: Some("/shop".into()),
        }),
    }
}

#[test]
fn a_header_is_known_by_its_values_in_any_order() {
    let by = |fields: &[(&'static str, &str)]| key(&[(header(), false)], fields, "");
    assert_eq!(by(&[]), None);
    assert_eq!(by(&[("x-other", "a")]), None);
    assert_eq!(by(&[("x-user", "ann")]), Some(hash(b"ann", 0)));
    let both = by(&[("x-user", "ann"), ("x-user", "bob")]);
    assert_eq!(both, by(&[("x-user", "bob"), ("x-user", "ann")]));
    assert_ne!(both, by(&[("x-user", "ann")]));
    assert_ne!(both, by(&[("x-user", "annbob")]));
}

#[test]
fn a_cookie_is_found_wherever_it_is() {
    let by = |fields: &[(&'static str, &str)]| key(&[(cookie(None), false)], fields, "");
    let expected = Some(hash(b"a=b", 0));
    for value in ["sid=a=b", "x=1; sid=a=b", "x=1;sid=a=b ;y=2", "sid=\"a=b\""] {
        assert_eq!(by(&[("cookie", value)]), expected, "{value}");
    }
    assert_eq!(by(&[("cookie", "x=1"), ("cookie", "sid=a=b")]), expected);
    for value in ["xsid=a", "sidx=a", "SID=a", "sid", ""] {
        assert_eq!(by(&[("cookie", value)]), None, "{value}");
    }
}

#[test]
fn a_missing_cookie_is_made_and_leads_to_the_same_place() {
    let made = affinity(&[(cookie(Some(90)), false)], &[], "");
    let text = made.cookie.unwrap();
    let text = text.to_str().unwrap();
    let (pair, rest) = text.split_once("; ").unwrap();
    assert_eq!(rest, "Max-Age=90; Path=/shop; HttpOnly");
    assert_eq!(pair.len(), "sid=".len() + 16);
    let again = affinity(&[(cookie(Some(90)), false)], &[("cookie", pair)], "");
    assert_eq!((again.key, again.cookie), (made.key, None));

    let session = affinity(&[(cookie(Some(0)), false)], &[], "");
    let text = session.cookie.unwrap();
    assert!(!text.to_str().unwrap().contains("Max-Age"), "{text:?}");
    let none = affinity(&[(cookie(None), false)], &[], "");
    assert_eq!((none.key, none.cookie), (None, None));
}

#[test]
fn a_query_parameter_is_known_by_its_first_value() {
    let by = |text: &str| key(&[(query(), false)], &[], text);
    let expected = Some(hash(b"ann", 0));
    for text in ["?user=ann", "?a=b&user=ann", "?user=ann&user=bob"] {
        assert_eq!(by(text), expected, "{text}");
    }
    assert_eq!(by("?user"), Some(hash(b"", 0)));
    for text in ["", "?", "?users=ann", "?a=user=ann"] {
        assert_eq!(by(text), None, "{text}");
    }
}

#[test]
fn several_count_together_up_to_a_terminal_one() {
    let fields = [("x-user", "ann")];
    let alone = key(&[(header(), false)], &fields, "").unwrap();
    let in_order = key(&[(header(), false), (query(), false)], &fields, "?user=1");
    let turned = key(&[(query(), false), (header(), false)], &fields, "?user=1");
    assert!(in_order != turned && in_order != Some(alone));
    // One that is not there changes nothing.
    let missing = [(query(), true), (header(), false)];
    assert_eq!(key(&missing, &fields, ""), Some(alone));
    let terminal = [(header(), true), (query(), false)];
    assert_eq!(key(&terminal, &fields, "?user=1"), Some(alone));
    let behind = [(header(), true), (cookie(Some(1)), false)];
    assert_eq!(affinity(&behind, &fields, "").cookie, None);
}

#[test]
fn the_client_is_who_the_trusted_hops_say() {
    let headers = headers(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")]);
    let subject = |trusted_hops| Subject {
        headers: &headers,
        query: "",
        peer: "9.9.9.9",
        trusted_hops,
    };
    let of = |address: &str| Some(address_key(address.parse().unwrap()));
    assert_eq!(subject(0).source_ip(), of("9.9.9.9"));
    assert_eq!(subject(1).source_ip(), of("2.2.2.2"));
    assert_eq!(subject(2).source_ip(), of("1.1.1.1"));
    assert_eq!(of("::ffff:9.9.9.9"), of("9.9.9.9"));
    assert_eq!(of("9.9.9.9"), Some(hash(b"9.9.9.9", 0)));
    assert_ne!(of("2001:db8:1234:5678:9abc:def0:1234:5678"), of("9.9.9.9"));
}
