//! TLS on the ports of real nodes: who gets in, who does not, and what they are told.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Authority, Mesh, Node, Pair, Ran, Subnet, send_raw, skein, until};

/// A mesh whose client ports ask for certificates of a CA, and a client's certificate of it.
struct Guarded {
    mesh: Mesh,
    ca: Authority,
    client: Pair,
    servers: Vec<Pair>,
}

impl Guarded {
    fn start(count: usize) -> Self {
        let mut mesh = Mesh::prepare(count);
        let ca = Authority::new(mesh.dir.path(), "ca");
        let client = ca.issue("client", &[]);
        let mut servers = Vec::new();
        for node in std::mem::take(&mut mesh.nodes) {
            let server = ca.issue(&format!("{}-server", node.name), &[node.ip]);
            let mut node = node.with(&client_flags(&server, &ca));
            node.tls = client.arguments(&ca);
            node.start();
            mesh.nodes.push(node);
            servers.push(server);
        }
        mesh.wait_formed();
        Self {
            mesh,
            ca,
            client,
            servers,
        }
    }

    fn node(&self) -> &Node {
        &self.mesh.nodes[0]
    }

    /// Runs `skein get a` with other arguments for TLS.
    fn get_with(&self, arguments: &[&str]) -> Ran {
        let fixed = ["get", "a", "--timeout", "20s", "--endpoints"];
        skein(&[&fixed[..], &[&*self.node().client()], arguments].concat())
    }
}

fn client_flags<'a>(pair: &'a Pair, ca: &'a Authority) -> [&'a str; 6] {
    [
        "--client-cert-file",
        &pair.cert,
        "--client-key-file",
        &pair.key,
        "--client-trusted-ca-file",
        ca.ca(),
    ]
}

/// etcdctl against all nodes; `None` where there is none.
fn etcdctl(mesh: &Mesh, arguments: &[&str], tls: &[String]) -> Option<Ran> {
    let mut command = Command::new("etcdctl");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCDCTL_")) {
        command.env_remove(name);
    }
    let endpoints: Vec<_> = mesh
        .nodes
        .iter()
        .map(|node| format!("https://{}", node.client()))
        .collect();
    command
        .env("ETCDCTL_API", "3")
        .args(arguments)
        .args(tls)
        .stdin(Stdio::null());
    command.args([
        "--endpoints",
        &endpoints.join(","),
        "--command-timeout",
        "6s",
    ]);
    let ran = command.args(["--dial-timeout", "5s"]).output();
    if ran.is_err() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "there is no etcdctl in PATH"
        );
        println!("skipped in part: there is no etcdctl in PATH");
    }
    ran.ok().map(Ran::from)
}

#[test]
fn a_guarded_client_port_serves_whoever_has_a_certificate_and_nobody_else() {
    let guarded = Guarded::start(3);
    let mesh = &guarded.mesh;
    mesh.skein(&["put", "a", "one"]).ok();
    for node in &mesh.nodes {
        assert_eq!(node.skein(&["get", "a"]).ok().stdout, "one\n");
    }
    let members = mesh.skein(&["members", "-o", "json"]).ok().json();
    let told: Vec<&Value> = members["members"].as_array().unwrap().iter().collect();
    for member in told {
        let url = member["client_urls"][0].as_str().unwrap();
        assert!(url.starts_with("https://"), "{members}");
    }
    let explained = mesh.skein(&["explain", "http://x.example/", "--node", "n2"]);
    assert!(
        !explained.stderr.contains("no endpoint"),
        "{}",
        explained.stderr
    );

    // No certificate; one of another CA; one that ended: told apart, and nothing is written.
    let ca = guarded.ca.ca();
    let other = Authority::new(mesh.dir.path(), "other");
    let foreign = other.issue("foreign", &[]);
    let expired = guarded.ca.issue_expired("expired", &[]);
    let with = |pair: &Pair| {
        let arguments = [
            "put",
            "a",
            "two",
            "--endpoints",
            &guarded.node().client(),
            "--cacert",
            ca,
        ];
        skein(&[&arguments[..], &["--cert", &pair.cert, "--key", &pair.key]].concat())
    };
    let none = skein(&[
        "put",
        "a",
        "two",
        "--endpoints",
        &guarded.node().client(),
        "--cacert",
        ca,
    ]);
    for (ran, part) in [
        (none, "give --cert and --key"),
        (with(&foreign), "does not trust"),
    ] {
        let said = ran.exits(1).stderr;
        assert!(said.contains("not let in") && said.contains(part), "{said}");
        assert!(!said.contains("outcome is unknown"), "{said}");
    }
    let said = with(&expired).exits(1).stderr;
    assert!(said.contains("expired on 2021-01-01"), "{said}");
    assert_eq!(mesh.skein(&["get", "a"]).ok().stdout, "one\n");

    // The server's certificate is checked, too.
    let said = guarded.get_with(&["--cacert", other.ca()]).exits(1).stderr;
    assert!(
        said.contains("not trusted here") && said.contains("--cacert"),
        "{said}"
    );

    let tls = guarded.client.arguments(&guarded.ca);
    let Some(got) = etcdctl(mesh, &["get", "a", "--print-value-only"], &tls) else {
        return;
    };
    assert_eq!(got.ok().stdout, "one\n");
    let trusting: Vec<String> = vec!["--cacert".into(), ca.into()];
    let foreign = foreign.arguments(&guarded.ca);
    for tls in [trusting, foreign, expired.arguments(&guarded.ca)] {
        let refused = etcdctl(mesh, &["get", "a"], &tls).expect("it is there");
        assert_ne!(refused.code, 0, "{tls:?}: {}", refused.stdout);
    }
}

/// Both ports of every node, and users on top.
#[test]
fn both_ports_and_users_together_let_in_whoever_has_both_a_certificate_and_a_password() {
    let mut mesh = Mesh::prepare(3);
    let (ca, peer_ca) = (
        Authority::new(mesh.dir.path(), "ca"),
        Authority::new(mesh.dir.path(), "peer-ca"),
    );
    let client = ca.issue("client", &[]);
    for node in std::mem::take(&mut mesh.nodes) {
        let server = ca.issue(&format!("{}-server", node.name), &[node.ip]);
        let peer = peer_ca.issue(&format!("{}-peer", node.name), &[node.ip]);
        let peer_flags = [
            "--peer-cert-file",
            &peer.cert,
            "--peer-key-file",
            &peer.key,
            "--peer-trusted-ca-file",
            peer_ca.ca(),
        ];
        let mut node = node.with(&client_flags(&server, &ca)).with(&peer_flags);
        node.tls = client.arguments(&ca);
        node.start();
        mesh.nodes.push(node);
    }
    mesh.wait_formed();
    mesh.skein(&["user", "add", "root", "--new-password", "r00t"])
        .ok();
    mesh.skein(&["user", "grant-role", "root", "root"]).ok();
    mesh.skein(&["auth", "enable"]).ok();

    let root = ["--user", "root:r00t"];
    // Each of them takes writes, so two of them forward.
    for node in &mesh.nodes {
        node.skein(&[&["put", &node.name, "one"], &root[..]].concat())
            .ok();
        let got = node.skein(&[&["get", &node.name], &root[..]].concat()).ok();
        assert_eq!(got.stdout, "one\n");
    }
    let nobody = mesh.skein(&["get", "n1"]).exits(1).stderr;
    assert!(nobody.contains("user name is empty"), "{nobody}");
    let wrong = mesh.skein(&["get", "n1", "--user", "root:wrong"]);
    let wrong = wrong.exits(1).stderr;
    assert!(wrong.contains("authentication failed"), "{wrong}");
    // A password alone is not enough, nor is a certificate for the other port.
    let peer = peer_ca.issue("stranger", &[]);
    let address = mesh.nodes[0].client();
    let fixed = ["get", "n1", "--endpoints", &address, "--cacert", ca.ca()];
    let bare = skein(&[&fixed[..], &root].concat()).exits(1).stderr;
    assert!(bare.contains("not let in"), "{bare}");
    let pair = ["--cert", &peer.cert, "--key", &peer.key];
    let foreign = skein(&[&fixed[..], &root, &pair].concat());
    let foreign = foreign.exits(1).stderr;
    assert!(foreign.contains("does not trust"), "{foreign}");

    let file = mesh.dir.path().join("a.skein");
    let file = file.to_str().expect("UTF-8");
    let save = ["snapshot", "save", file, "-o", "json"];
    let refused = mesh.skein(&save).exits(1).stderr;
    assert!(refused.contains("user name is empty"), "{refused}");
    let saved = mesh.skein(&[&save[..], &root].concat()).ok().json();
    assert_eq!(saved["keys"], 3);
    let status = skein(&["snapshot", "status", file, "-o", "json"]);
    assert_eq!(status.ok().json(), saved);
}

#[test]
fn whoever_speaks_the_wrong_thing_is_told_and_costs_nobody_else() {
    let guarded = Guarded::start(1);
    let node = guarded.node();
    let address = node.at(2379);
    let strangers = || node.metric("skein_port_strangers_total{port=\"client\"}");
    assert!(strangers() < 1.0, "nobody came yet");

    let plain = send_raw(address, b"POST /v3/kv/range HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let plain = String::from_utf8_lossy(&plain).into_owned();
    assert!(
        plain.starts_with("HTTP/1.1 400 ") && plain.ends_with("use https\n"),
        "{plain}"
    );
    let alert = send_raw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    send_raw(address, b"\x00\xffgarbage").unwrap();
    send_raw(address, &[&[0x16, 3, 1, 0, 9][..], &[0xff; 9]].concat()).unwrap();
    until("all four are counted", || strangers() > 3.5);
    // Who only looks whether somebody is here is no stranger.
    drop(TcpStream::connect(address).unwrap());

    // Half a handshake holds nobody up.
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
        slow.push(half);
    }
    node.skein(&["put", "a", "one"]).ok();
    let mut rest = Vec::new();
    slow[0]
        .set_read_timeout(Some(Duration::from_secs(45)))
        .unwrap();
    let ended = slow[0].read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    until("those that did not go on are counted", || {
        strangers() > 53.5
    });

    let said = guarded.get_with(&[]).exits(1).stderr;
    assert!(
        said.contains(&format!("use https://{}", node.client())),
        "{said}"
    );

    let plain = Mesh::start(1);
    let address = plain.nodes[0].client();
    let said = skein(&[
        "get",
        "a",
        "--endpoints",
        &address,
        "--cacert",
        guarded.ca.ca(),
    ]);
    let said = said.exits(1).stderr;
    assert!(said.contains(&format!("use http://{address}")), "{said}");
    until("it is counted there", || {
        plain.nodes[0].metric("skein_port_strangers_total{port=\"client\"}") > 0.5
    });
    plain.skein(&["put", "a", "1"]).ok();
}

#[test]
fn new_files_come_into_force_and_bad_ones_do_not() {
    let guarded = Guarded::start(1);
    let (node, dir) = (guarded.node(), guarded.mesh.dir.path());
    node.skein(&["put", "a", "one"]).ok();
    let expiry = || node.metric("skein_tls_certificate_expiry_seconds{port=\"client\"}");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(expiry() > now, "{}", expiry());

    // Garbage changes nothing but what is told.
    let (cert, kept) = (&guarded.servers[0].cert, dir.join("kept"));
    std::fs::copy(cert, &kept).unwrap();
    std::fs::write(cert, "no certificate").unwrap();
    let refused = || node.metric("skein_tls_files_refused{port=\"client\"}") > 0.5;
    until("the bad file shows as a metric", refused);
    assert_eq!(node.skein(&["get", "a"]).ok().stdout, "one\n");
    let told = node.status_of("n1").unwrap()["store_fault"].to_string();
    assert!(
        told.contains(cert) && told.contains("goes on with the old"),
        "{told}"
    );
    assert!(node.log().contains("no PEM certificate"), "{}", node.log());
    std::fs::copy(&kept, cert).unwrap();
    until("all is well again", || !refused());

    // A new CA with new certificates of it, in place.
    let new = Authority::new(dir, "new");
    let server = new.issue("new-server", &[node.ip]);
    let client = new.issue("new-client", &[]);
    server.replace(&guarded.servers[0]);
    std::fs::copy(&new.pem, &guarded.ca.pem).unwrap();
    let arguments = client.arguments(&new);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    until("the new ones are in force", || {
        guarded.get_with(&arguments).code == 0
    });
    // That file is the new CA by now: the server is believed, the old client is not.
    let old = node.skein(&["get", "a"]).exits(1).stderr;
    assert!(old.contains("not let in"), "{old}");
    assert!(node.metric("skein_tls_reloads{port=\"client\"}") > 0.5);
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let ip = IpAddr::from(subnet.ip(1));
    let ca = Authority::new(dir.path(), "ca");
    let good = ca.issue("good", &[ip]);
    let other = ca.issue("other", &[ip]);
    let expired = ca.issue_expired("expired", &[ip]);
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "garbage").unwrap();
    let garbage = garbage.to_str().unwrap();
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
    let (cert, key) = ("--client-cert-file", "--client-key-file");
    refused(2, &[cert, &good.cert], &[cert, key, "give both"]);
    refused(
        1,
        &[cert, &good.cert, key, &other.key],
        &[&other.key, &good.cert, "not the key"],
    );
    refused(
        1,
        &[cert, garbage, key, &good.key],
        &[cert, garbage, "PEM certificate"],
    );
    refused(
        1,
        &[cert, &good.cert, key, garbage],
        &[key, garbage, "PEM private key"],
    );
    refused(
        1,
        &[cert, "/does/not/exist", key, &good.key],
        &["/does/not/exist", "No such file"],
    );
    refused(
        1,
        &[cert, &expired.cert, key, &expired.key],
        &["expired on 2021-01-01", "renew"],
    );
    let with_ca = [
        cert,
        &good.cert,
        key,
        &good.key,
        "--client-trusted-ca-file",
        garbage,
    ];
    refused(1, &with_ca, &["--client-trusted-ca-file", garbage]);
    // etcd's names do, too.
    refused(
        1,
        &["--cert-file", &good.cert, "--key-file", &other.key],
        &["not the key"],
    );
}
