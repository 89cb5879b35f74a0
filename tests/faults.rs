//! What breaks, and what goes on all the same: dead leaders, lost quorums, damaged and full disks,
//! frozen processes, and strangers on every port.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::harness::{Mesh, Node, Traffic, Upstream, get, send_raw, skein, until};

fn config(upstream: &Upstream) -> String {
    format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n\
         kind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{{ to: all }}]\n---\n\
         kind: Cluster\nname: all\nendpoints: [\"{}\"]\n",
        upstream.address
    )
}

fn upstream(mesh: &Mesh) -> Upstream {
    Upstream::start("up", (mesh.subnet.ip(100), 8000))
}

fn serves(node: &Node) -> bool {
    get(node.at(8080), "any", "/").is_ok_and(|answer| answer.status == 200)
}

/// Writes keys one after the other through all nodes, and remembers what was acknowledged.
fn write_until(stop: &AtomicBool, endpoints: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("written/{at:06}");
        let put = ["put", &key, &key, "--endpoints", endpoints];
        if skein(&put).code == 0 {
            acknowledged.push(key);
        }
        at += 1;
    }
    acknowledged
}

/// The acknowledged keys that this node's own copy lacks.
fn missing(node: &Node, acknowledged: &[String]) -> Vec<String> {
    let ran = node
        .skein(&["get", "written/", "--prefix", "--local", "-o", "json"])
        .ok()
        .json();
    let found: std::collections::HashSet<String> = ran["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].as_str().unwrap().to_owned())
        .collect();
    acknowledged
        .iter()
        .filter(|key| !found.contains(*key))
        .cloned()
        .collect()
}

#[test]
fn a_leader_killed_under_traffic_and_writes_costs_nothing_that_was_promised() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let leader = mesh.leader();
    let others: Vec<SocketAddr> = (0..3)
        .filter(|at| *at != leader)
        .map(|at| mesh.nodes[at].at(8080))
        .collect();
    let traffic = Traffic::start(&others, "any");
    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (stop, endpoints) = (Arc::clone(&stop), mesh.endpoints());
        move || write_until(&stop, &endpoints)
    });
    traffic.wait_for(50);
    mesh.nodes[leader].kill();
    until("a survivor leads and takes a write", || {
        mesh.skein(&["put", "after", "yes"]).code == 0
    });
    traffic.wait_for(50);
    mesh.apply("kind: Defaults\nroute_timeout: 9s\n");
    traffic.wait_for(20);
    traffic.stop_unharmed();
    mesh.nodes[leader].start();
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.join().unwrap();
    assert!(acknowledged.len() > 5, "{acknowledged:?}");
    mesh.wait_synced();
    for node in &mesh.nodes {
        until("every acknowledged write is on every node", || {
            missing(node, &acknowledged).is_empty()
        });
        assert!(serves(node), "{}", node.name);
    }
}

#[test]
fn one_node_of_three_restarted_alone_serves_at_once_and_says_it_has_no_quorum() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let revision = mesh.nodes[0].status().unwrap()["config_revision"].clone();
    for node in &mut mesh.nodes {
        node.kill();
    }
    mesh.nodes[1].start();
    let alone = &mesh.nodes[1];
    until("the node alone serves its last-known-good config", || {
        serves(alone)
    });
    until("its status says that there is no quorum", || {
        alone.status().is_some_and(|status| {
            status["has_quorum"] == false && status["config_revision"] == revision
        })
    });
    let told = alone.skein(&["status"]).ok().stdout;
    assert!(told.to_lowercase().contains("no quorum"), "{told}");
    // The dead are shown as such, and a write says clearly that it cannot be.
    let dead = |name| {
        alone
            .status_of(name)
            .is_some_and(|node| node["state"] == "DOWN")
    };
    until("the others are DOWN", || dead("n1") && dead("n3"));
    let file = mesh.dir.path().join("again.yaml");
    std::fs::write(&file, config(&upstream)).unwrap();
    for write in [
        &["put", "k", "v", "--timeout", "15s"][..],
        &["apply", "--timeout", "15s", "-f", file.to_str().unwrap()],
    ] {
        let refused = alone.skein(write).exits(1).stderr;
        assert!(refused.contains("no leader"), "{write:?}: {refused}");
        assert!(refused.contains("skein status"), "{write:?}: {refused}");
    }
    assert!(serves(alone));
    // With a second node there is a quorum again.
    mesh.nodes[0].start();
    until("two of three can write", || {
        mesh.nodes[1].skein(&["put", "k", "v"]).code == 0
    });
    assert!(serves(&mesh.nodes[0]) && serves(&mesh.nodes[1]));
}

#[test]
fn quorum_lost_at_runtime_disturbs_no_traffic_and_is_told() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let traffic = Traffic::start(&[mesh.nodes[2].at(8080)], "any");
    mesh.nodes[0].kill();
    mesh.nodes[1].kill();
    until("the survivor says that there is no quorum", || {
        let status = mesh.nodes[2].status();
        status.is_some_and(|status| status["has_quorum"] == false)
    });
    // Health, explain and reads of its own copy work on.
    mesh.nodes[2].skein(&["explain", "/"]).ok();
    let read = ["get", "/skein/config/", "--prefix", "--local"];
    assert!(
        mesh.nodes[2]
            .skein(&read)
            .ok()
            .stdout
            .contains("Cluster/all")
    );
    traffic.wait_for(50);
    traffic.stop_unharmed();
}

#[test]
fn all_nodes_killed_at_once_under_writes_lose_no_acknowledged_one() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (stop, endpoints) = (Arc::clone(&stop), mesh.endpoints());
        move || write_until(&stop, &endpoints)
    });
    until("writes are on their way", || {
        mesh.skein(&["get", "written/000020"]).code == 0
    });
    for node in &mut mesh.nodes {
        node.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.join().unwrap();
    assert!(acknowledged.len() >= 20, "{acknowledged:?}");
    for node in &mut mesh.nodes {
        node.start();
    }
    mesh.wait_synced();
    for node in &mesh.nodes {
        until("every acknowledged write is on every node", || {
            missing(node, &acknowledged).is_empty()
        });
        assert!(serves(node), "{}", node.name);
    }
}

/// The worst of both: no quorum, and the file is damaged. The rows on its own disk still tell.
#[test]
fn a_node_alone_with_a_damaged_last_known_good_file_serves_what_its_store_holds() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    mesh.wait_synced();
    for node in &mut mesh.nodes {
        node.kill();
    }
    let file = mesh.nodes[1].data.join("last-known-good.json");
    std::fs::write(&file, "nonsense").unwrap();
    mesh.nodes[1].start();
    until("it serves", || serves(&mesh.nodes[1]));
    let path = file.display().to_string();
    assert!(mesh.nodes[1].log().contains(&path));
}

#[test]
fn a_damaged_last_known_good_file_is_named_and_the_store_tells_the_config_again() {
    let mut mesh = Mesh::start(1);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    assert!(mesh.nodes[0].stop().success());
    let file = mesh.nodes[0].data.join("last-known-good.json");
    let good = std::fs::read(&file).expect("it was saved");
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 0x20;
    std::fs::write(&file, damaged).unwrap();
    mesh.nodes[0].start();
    let node = &mesh.nodes[0];
    until("it serves what the store holds", || serves(node));
    let log = node.log();
    let path = file.display().to_string();
    let named = log
        .lines()
        .any(|line| line.contains("ERROR") && line.contains(&path) && line.contains("damaged"));
    assert!(named, "{log}");
    // The file is whole again: the next start has nothing to tell.
    until("the file is written anew", || {
        std::fs::read(&file).unwrap() == good
    });
}

/// Sends these bytes and waits until the other side ends the connection.
fn is_closed(address: SocketAddr, bytes: &[u8]) -> bool {
    match send_raw(address, bytes) {
        Ok(_) => true,
        Err(fault) => matches!(
            fault.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
    }
}

#[test]
fn garbage_on_any_port_ends_that_connection_only() {
    let mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let traffic = Traffic::start(&mesh.at(8080), "any");
    let node = &mesh.nodes[0];
    let noise: Vec<u8> = (0..8192_u32).map(|at| (at * 7919 % 251) as u8).collect();
    let half_http2 = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &noise].concat();
    for port in [2379, 2380, 9901, 8080] {
        for bytes in [
            &noise[..],
            &half_http2,
            b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        ] {
            assert!(
                is_closed(node.at(port), bytes),
                "port {port} keeps a stranger's connection"
            );
        }
        // Opened, half a word, and gone.
        for _ in 0..20 {
            let mut stream = TcpStream::connect(node.at(port)).unwrap();
            let _ = stream.write_all(&noise[..3]);
        }
    }
    for port in ["client", "peer", "admin"] {
        let series = format!("skein_port_strangers_total{{port=\"{port}\"}}");
        until("the strangers at a port are counted", || {
            node.metric(&series) >= 3.0
        });
    }
    // Noise behind a preface of HTTP/2 is no request.
    until("what is no request at a listener is counted", || {
        node.metric("http_downstream_rq_refused_total{listener=\"web\"") >= 2.0
    });
    let stranger = UdpSocket::bind((mesh.subnet.ip(200), 0)).unwrap();
    let dropped = "skein_gossip_dropped_total";
    let before = node.metric(dropped);
    for length in [0, 1, 7, 64, 1200, 1201, 8192] {
        stranger.send_to(&noise[..length], node.at(7946)).unwrap();
    }
    until("the stranger's datagrams are counted", || {
        node.metric(dropped) >= before + 7.0
    });
    until("a stranger is named in the log", || {
        node.log()
            .contains(&stranger.local_addr().unwrap().to_string())
    });
    // All goes on: traffic, writes through this very node, gossip.
    node.skein(&["put", "k", "v"]).ok();
    mesh.wait_synced();
    assert_eq!(node.admin("/ready").unwrap().status, 200);
    traffic.wait_for(50);
    traffic.stop_unharmed();
    let status = node.status().unwrap();
    assert!(
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["store_fault"].is_null()),
        "{status}"
    );
}

/// From now on every write to a file fails, as on a full disk; reads and sockets work on.
fn forbid_writes(node: &Node) {
    let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
    let none = Rlimit {
        current: Some(0),
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, none).expect("limited");
}

#[test]
fn a_full_disk_stops_the_store_of_that_node_and_no_traffic() {
    let mut mesh = Mesh::prepare(3);
    for node in &mut mesh.nodes {
        // Without the trap the limit would kill the process; a full disk does not.
        node.start_after("trap '' XFSZ");
    }
    mesh.wait_formed();
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let traffic = Traffic::start(&mesh.at(8080), "any");
    traffic.wait_for(30);
    let full = mesh.leader();
    forbid_writes(&mesh.nodes[full]);
    // The others go on with the writes; the one that was leading says what happened to it.
    until("a write succeeds without the full node", || {
        mesh.skein(&["put", "after", "yes"]).code == 0
    });
    let name = mesh.nodes[full].name.clone();
    until("every node tells of the fault", || {
        mesh.nodes.iter().all(|node| {
            let told = node.status_of(&name);
            told.is_some_and(|told| {
                let detached = told["role"] == "none" && told["state"] == "STALE";
                detached && !told["store_fault"].is_null()
            })
        })
    });
    let told = mesh.skein(&["status"]).ok().stdout;
    assert!(told.contains("store stopped"), "{told}");
    let other = (full + 1) % 3;
    until("the others have a leader", || {
        mesh.nodes[other].status().is_some_and(|status| {
            status["leader"]
                .as_str()
                .is_some_and(|leader| leader != name)
        })
    });
    // Whoever asks the full node first is served by another one: nothing was proposed there.
    let endpoints = format!(
        "{},{}",
        mesh.nodes[full].client(),
        mesh.nodes[other].client()
    );
    let change = mesh.dir.path().join("change.yaml");
    std::fs::write(&change, "kind: Defaults\nroute_timeout: 9s\n").unwrap();
    let apply = ["apply", "-f", change.to_str().unwrap()];
    skein(&[&apply[..], &["--endpoints", &endpoints]].concat()).ok();
    let alone = mesh.nodes[full].skein(&apply).exits(1);
    assert!(
        !alone.stderr.contains("unknown"),
        "surely nothing was written: {}",
        alone.stderr
    );
    traffic.wait_for(100);
    traffic.stop_unharmed();
    assert!(mesh.nodes[full].runs());
    // With room again, a restart is all that it needs.
    mesh.nodes[full].kill();
    mesh.nodes[full].start();
    mesh.wait_synced();
    let read = mesh.nodes[full].skein(&["get", "after"]).ok();
    assert_eq!(read.stdout.trim(), "yes");
}

#[test]
fn a_frozen_node_is_missed_and_catches_up_when_it_thaws() {
    let mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    let frozen = mesh.leader();
    let other = (frozen + 1) % 3;
    let name = mesh.nodes[frozen].name.clone();
    mesh.nodes[frozen].signal(Signal::STOP);
    until("the others lead without it", || {
        mesh.nodes[other].skein(&["put", "meanwhile", "yes"]).code == 0
    });
    until("it is DOWN", || {
        let seen = mesh.nodes[other].status_of(&name);
        seen.is_some_and(|node| node["state"] == "DOWN")
    });
    let change = format!("{}balance: random\n", config(&upstream));
    let file = mesh.dir.path().join("change.yaml");
    std::fs::write(&file, change).unwrap();
    mesh.nodes[other]
        .skein(&["apply", "-f", file.to_str().unwrap()])
        .ok();
    mesh.nodes[frozen].signal(Signal::CONT);
    mesh.wait_synced();
    let read = mesh.nodes[frozen].skein(&["get", "meanwhile", "--local"]);
    assert_eq!(read.ok().stdout.trim(), "yes");
    assert!(serves(&mesh.nodes[frozen]));
    mesh.nodes[frozen].skein(&["put", "after", "yes"]).ok();
}
