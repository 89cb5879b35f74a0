//! The fields `tls`: what is refused, and what comes of what is not.

use std::time::Duration;

use proxy_config::compiled::{CertificateSource, TlsVersion};
use proxy_config::{graph, parse_documents};

use crate::{compiled, texts};

fn listener(protocol: &str, tls: &str) -> String {
    format!("kind: Listener\nname: a\nbind: ':443'\nprotocol: {protocol}\ntls: {tls}\n")
}

fn cluster(tls: &str) -> String {
    format!("kind: Cluster\nname: a\nendpoints: [10.0.0.1:80]\ntls: {tls}\n")
}

const PAIR: &str = "{ certificate_chain: /a.pem, private_key: /a.key }";

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    let pairs = |rest: &str| format!("{{ certificates: [{PAIR}], {rest} }}");
    for (text, fault) in [
        (listener("http", "{}"), "tls: `certificates` is missing"),
        (
            listener("http", "{ certificates: [] }"),
            "tls.certificates: there is no certificate",
        ),
        (
            listener("http", &format!("{{ certificates: [{PAIR}, {PAIR}] }}")),
            "tls.certificates[1]: `/a.pem` is given twice",
        ),
        (
            listener(
                "http",
                "{ certificates: [{ certificate_chain: a.pem, private_key: /b }] }",
            ),
            "tls.certificates[0].certificate_chain: \"a.pem\" is not the path of a file",
        ),
        (
            listener("http", &pairs("alpn: [spdy]")),
            "tls.alpn[0]: an http listener does not speak `spdy`",
        ),
        (
            listener("http", &pairs("minimum_version: '1.2'")),
            "tls.minimum_version: ",
        ),
        (
            listener("http", &pairs("handshake_timeout: 0s")),
            "tls.handshake_timeout: no time at all",
        ),
        (
            listener("http", &pairs("client_certificate: { mode: required }")),
            "tls.client_certificate: `trusted_ca` is missing",
        ),
        (
            listener(
                "http",
                &pairs("client_certificate: { trusted_ca: /ca, subject_alt_names: ['*'] }"),
            ),
            "subject_alt_names[0]: \"*\" is not a name in a certificate",
        ),
        (
            "{kind: Cluster, name: a, http: auto, endpoints: ['10.0.0.1:80']}".into(),
            "http: which HTTP is spoken is agreed on in the TLS handshake; add `tls`, or give h1",
        ),
        (
            cluster("{ sni: 10.0.0.1 }"),
            "tls.sni: not the name of a host",
        ),
        (
            cluster("{ sni: '*.a.example' }"),
            "tls.sni: not the name of a host",
        ),
        (
            cluster("{ subject_alt_names: ['spiffe://'] }"),
            "is not a name in a certificate",
        ),
    ] {
        let faults = parse_documents("test", &text).unwrap_err();
        let told = texts(&faults);
        assert!(
            told.iter().any(|told| told.contains(fault)),
            "{told:#?} should have {fault}"
        );
    }
}

#[test]
fn what_is_agreed_on_follows_from_what_is_spoken() {
    let offered = |http: &str, probe: &str| {
        let text = format!("{}http: {http}\nprobe: {{ {probe} }}\n", cluster("{}"));
        let set = parse_documents("test", &text).unwrap();
        let compiled = compiled(&set.into_iter().collect());
        let cluster = compiled.config.clusters.values().next().unwrap();
        let probe = cluster.probe.as_ref().unwrap();
        let all = [cluster.tls.as_ref(), probe.tls.as_ref()];
        all.map(|tls| tls.unwrap().alpn.join(" "))
    };
    for (http, probe, expected) in [
        ("h1", "tcp: true", ["", ""]),
        ("h2", "tcp: true", ["h2", "h2"]),
        ("auto", "tcp: true", ["h2 http/1.1", "h2 http/1.1"]),
        // A probe speaks what it speaks.
        ("auto", "http: /", ["h2 http/1.1", ""]),
        ("h2", "http: /", ["h2", ""]),
        ("h1", "grpc: ''", ["", "h2"]),
        ("auto", "grpc: ''", ["h2 http/1.1", "h2"]),
    ] {
        assert_eq!(offered(http, probe), expected, "{http} {probe}");
    }
}

#[test]
fn what_is_left_out_is_safe() {
    let text = listener("http", &format!("{{ certificates: [{PAIR}] }}"))
        + "---\n"
        + &cluster("{}")
        + "---\nkind: VirtualHost\nname: a\ndomains: ['*']\nroutes: [{ to: a }]\n";
    let set = parse_documents("test", &text)
        .unwrap()
        .into_iter()
        .collect();
    let compiled = compiled(&set);
    let listener = compiled.config.listeners.values().next().unwrap();
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(tls.minimum_version, TlsVersion::V12);
    assert_eq!(tls.handshake_timeout, Duration::from_secs(10));
    assert!(!tls.strict_sni && tls.client.is_none());
    assert!(tls.alpn.iter().any(|name| &**name == "http/1.1"));
    let CertificateSource::Files { private_key, .. } = &tls.certificates[0];
    assert_eq!(&**private_key, "/a.key");
    let cluster = compiled.config.clusters.values().next().unwrap();
    let tls = cluster.tls.as_ref().unwrap();
    assert!(tls.trusted_ca.is_none() && tls.sni.is_none() && tls.alpn.is_empty());
    let drawn = format!("{:?}", graph(&compiled.config));
    assert!(drawn.contains("a http over TLS"), "{drawn}");
}
