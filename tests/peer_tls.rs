//! TLS between real nodes: both sides show a certificate, and both are checked.

use std::net::IpAddr;

use rcgen::ExtendedKeyUsagePurpose;

use crate::harness::{Authority, Mesh, Node, Pair, Subnet, send_raw, skein, until};

fn peer_flags<'a>(pair: &'a Pair, ca: &'a Authority) -> [&'a str; 6] {
    [
        "--peer-cert-file",
        &pair.cert,
        "--peer-key-file",
        &pair.key,
        "--peer-trusted-ca-file",
        ca.ca(),
    ]
}

/// Three nodes that speak TLS to each other, their CA and their certificates.
fn start() -> (Mesh, Authority, Vec<Pair>) {
    let mut mesh = Mesh::prepare(3);
    let ca = Authority::new(mesh.dir.path(), "peer-ca");
    let mut pairs = Vec::new();
    for node in std::mem::take(&mut mesh.nodes) {
        let pair = ca.issue(&format!("{}-peer", node.name), &[node.ip]);
        let mut node = node.with(&peer_flags(&pair, &ca));
        node.start();
        mesh.nodes.push(node);
        pairs.push(pair);
    }
    mesh.wait_formed();
    (mesh, ca, pairs)
}

/// What is said to whoever calls the peer port of `node` with these arguments.
fn call(node: &Node, arguments: &[&str]) -> String {
    let address = format!("https://{}:2380", node.ip);
    let fixed = ["get", "a", "--timeout", "10s", "--endpoints", &address];
    skein(&[&fixed[..], arguments].concat()).exits(1).stderr
}

#[test]
fn nodes_replicate_and_forward_over_tls_and_let_no_stranger_in() {
    let (mesh, ca, pairs) = start();
    // Each of them takes writes, so two of them forward.
    for node in &mesh.nodes {
        node.skein(&["put", &node.name, "one"]).ok();
    }
    let members = mesh.skein(&["members", "-o", "json"]).ok().json();
    for member in members["members"].as_array().unwrap() {
        let url = member["peer_urls"][0].as_str().unwrap();
        assert!(url.starts_with("https://"), "{members}");
    }

    let other = Authority::new(mesh.dir.path(), "other");
    let foreign = other.issue("foreign", &[]);
    let node = &mesh.nodes[0];
    let said = call(node, &["--cacert", ca.ca()]);
    assert!(said.contains("asks for a certificate"), "{said}");
    let with = |pair: &Pair| {
        call(
            node,
            &[
                "--cacert",
                ca.ca(),
                "--cert",
                &pair.cert,
                "--key",
                &pair.key,
            ],
        )
    };
    let said = with(&foreign);
    assert!(
        said.contains("not let in") && said.contains("does not trust"),
        "{said}"
    );
    let said = with(&pairs[1]);
    assert!(
        !said.contains("not let in"),
        "one of the CA's own gets through TLS: {said}"
    );
    let strangers = || node.metric("skein_port_strangers_total{port=\"peer\"}");
    until("the strangers are counted", || strangers() > 1.5);
    let before = strangers();
    send_raw(node.at(2380), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    until("plain text, too", || strangers() > before + 0.5);

    // A node with a certificate of another CA, and one with none, stay out; the log says why.
    let seed = format!("{}:7946", node.ip);
    let key = mesh.dir.path().join("gossip.key");
    let join = ["--gossip-key-file", key.to_str().unwrap(), "--join", &seed];
    let ip = |last| IpAddr::from(mesh.subnet.ip(last));
    let own = other.issue("n4-peer", &[ip(4)]);
    let mut wrong = Node::new("n4", ip(4), mesh.dir.path())
        .with(&join)
        .with(&peer_flags(&own, &other));
    let mut plain = Node::new("n5", ip(5), mesh.dir.path()).with(&join);
    wrong.start();
    plain.start();
    until("the log says why it does not join", || {
        wrong.log().contains("--peer-trusted-ca-file")
    });
    until("the plain one tries in vain", || {
        plain.log().contains("not a member of a mesh yet")
    });
    let members = mesh.skein(&["members", "-o", "json"]).ok().json();
    assert_eq!(members["members"].as_array().unwrap().len(), 3, "{members}");
}

#[test]
fn a_killed_leader_is_succeeded_over_tls() {
    let (mut mesh, _, _) = start();
    let leader = mesh.leader();
    mesh.nodes[leader].kill();
    let survivor = (leader + 1) % 3;
    until("another one leads", || {
        mesh.nodes[survivor].skein(&["put", "b", "two"]).code == 0
    });
    mesh.nodes[leader].start();
    until("the killed one is back and has it", || {
        mesh.nodes[leader].skein(&["get", "b", "--local"]).stdout == "two\n"
    });
}

#[test]
fn nodes_go_over_to_a_new_ca_while_they_run() {
    let (mut mesh, ca, pairs) = start();
    mesh.skein(&["put", "a", "one"]).ok();
    let new = Authority::new(mesh.dir.path(), "new-ca");
    std::fs::copy(&new.pem, &ca.pem).unwrap();
    for (node, pair) in mesh.nodes.iter().zip(&pairs) {
        new.issue(&format!("{}-new", node.name), &[node.ip])
            .replace(pair);
    }
    for node in &mesh.nodes {
        until("the new ones are in force", || {
            node.metric("skein_tls_reloads{port=\"peer\"}") > 0.5
                && node.metric("skein_tls_files_refused{port=\"peer\"}") < 0.5
        });
    }
    // It begins with the new ones only, so all connections to it and from it are by these.
    let follower = (mesh.leader() + 1) % 3;
    mesh.nodes[follower].kill();
    mesh.skein(&["put", "a", "two"]).ok();
    mesh.nodes[follower].start();
    until("it is back and has it", || {
        mesh.nodes[follower].skein(&["get", "a", "--local"]).stdout == "two\n"
    });
    until("it forwards", || {
        mesh.nodes[follower].skein(&["put", "b", "x"]).code == 0
    });
}

#[test]
fn a_certificate_that_the_others_would_not_take_is_refused_at_the_start() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let ip = IpAddr::from(subnet.ip(1));
    let ca = Authority::new(dir.path(), "ca");
    let other = Authority::new(dir.path(), "other");
    let refused = |code: i32, arguments: &[&str], parts: &[&str]| {
        let ran = Node::new("n1", ip, dir.path())
            .with(arguments)
            .run_to_end()
            .exits(code);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "no `{part}` in {}", ran.stderr);
        }
    };
    let good = ca.issue("good", &[ip]);
    refused(2, &peer_flags(&good, &ca)[..4], &["--peer-trusted-ca-file"]);
    let elsewhere = ca.issue("elsewhere", &[subnet.ip(2).into()]);
    refused(
        1,
        &peer_flags(&elsewhere, &ca),
        &["not valid for", &ip.to_string()],
    );
    refused(
        1,
        &peer_flags(&good, &other),
        &["not signed by a CA in", other.ca()],
    );
    let expired = ca.issue_expired("expired", &[ip]);
    refused(1, &peer_flags(&expired, &ca), &["expired on 2021-01-01"]);
    let serves = ca.issue_with("serves", &[ip], |parameters| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    refused(1, &peer_flags(&serves, &ca), &["clientAuth"]);
}
