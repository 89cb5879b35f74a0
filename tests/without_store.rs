//! Nodes whose store opens late, or never: traffic goes on, and whoever asks is told at once.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Mesh, Node, Traffic, Upstream, get, skein, until};

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

/// Spoils the head of the oldest segment of a stopped node's log, and returns its path.
fn damage_log(node: &Node) -> PathBuf {
    let segments = std::fs::read_dir(node.data.join("wal")).unwrap();
    let oldest = segments.map(|entry| entry.unwrap().path()).min().unwrap();
    let file = OpenOptions::new().write(true).open(&oldest).unwrap();
    file.write_all_at(b"spoilt", 80).unwrap();
    oldest
}

/// The error lines of its log that name `part`.
fn errors_with(node: &Node, part: &str) -> usize {
    let log = node.log();
    let lines = log.lines();
    lines
        .filter(|line| line.contains("ERROR") && line.contains(part))
        .count()
}

#[test]
fn a_damaged_log_costs_one_node_its_store_and_nobody_any_traffic() {
    let mut mesh = Mesh::start(3);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    mesh.nodes[2].stop();
    let path = damage_log(&mesh.nodes[2]).display().to_string();
    mesh.nodes[2].start();
    let (whole, hurt) = (&mesh.nodes[0], &mesh.nodes[2]);
    until("it serves its last-known-good config", || serves(hurt));
    let traffic = Traffic::start(&mesh.at(8080), "any");

    let tells = |node: &Node, part: &str| {
        node.status_of("n3").is_some_and(|told| {
            let detached = told["role"] == "none" && told["state"] == "STALE";
            let fault = told["store_fault"].as_str();
            detached && fault.is_some_and(|fault| fault.contains(part))
        })
    };
    until("it tells which file is damaged", || tells(hurt, &path));
    until("the others tell that it has no store", || {
        tells(whole, "the store cannot be opened")
    });
    assert!(hurt.skein(&["status"]).ok().stdout.contains(&path));
    let ready = hurt.admin("/ready").unwrap();
    assert_eq!(ready.status, 200, "traffic is welcome: {}", ready.body);
    assert!(ready.body.contains(&path), "{}", ready.body);
    assert!(hurt.metric("skein_store_fault") > 0.5);
    assert_eq!(errors_with(hurt, &path), 1, "{}", hurt.log());

    // Asked alone, it names the fault; asked first, it hands over to the next one.
    for call in [&["put", "k", "v"][..], &["get", "k"], &["members"]] {
        let refused = hurt.skein(call).exits(1).stderr;
        assert!(refused.contains(&path), "{call:?}: {refused}");
        assert!(!refused.contains("unknown"), "{call:?}: {refused}");
    }
    let endpoints = format!("{},{}", hurt.client(), whole.client());
    skein(&["put", "k", "v", "--endpoints", &endpoints]).ok();
    let change = mesh.dir.path().join("change.yaml");
    std::fs::write(&change, "kind: Defaults\nroute_timeout: 9s\n").unwrap();
    let apply = ["apply", "-f", change.to_str().unwrap()];
    skein(&[&apply[..], &["--endpoints", &endpoints]].concat()).ok();
    traffic.wait_for(100);
    traffic.stop_unharmed();

    // It was never whole, and says so at its end.
    assert_eq!(mesh.nodes[2].stop().code(), Some(1));
    assert!(mesh.nodes[2].log().contains("ran without a store"));
}

#[test]
fn a_damaged_log_without_a_config_to_serve_ends_the_node() {
    let mut mesh = Mesh::start(1);
    mesh.skein(&["put", "k", "v"]).ok();
    assert!(mesh.nodes[0].stop().success());
    let path = damage_log(&mesh.nodes[0]).display().to_string();
    let ran = mesh.nodes[0].run_to_end().exits(1);
    let lines = ran.stderr.lines();
    let told: Vec<_> = lines.filter(|line| line.starts_with("skein: ")).collect();
    assert_eq!(told.len(), 1, "{}", ran.stderr);
    for part in [&path, "damaged", "move the data directory away"] {
        assert!(told[0].contains(part), "no `{part}` in {}", told[0]);
    }
}

/// A snapshot that is a pipe keeps the store from opening until somebody writes into it.
#[test]
fn while_the_store_opens_its_ports_answer_and_traffic_flows() {
    let mut mesh = Mesh::start(1);
    let upstream = upstream(&mesh);
    mesh.apply(&config(&upstream));
    mesh.skein(&["put", "k", "v"]).ok();
    assert!(mesh.nodes[0].stop().success());
    let pipe = mesh.nodes[0].data.join("snapshots").join("slow.snap");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    mesh.nodes[0].start();
    let node = &mesh.nodes[0];

    until("it serves its last-known-good config", || serves(node));
    until("it tells its status", || {
        let status = node.status();
        status.is_some_and(|status| status["has_quorum"] == false)
    });
    node.skein(&["explain", "/"]).ok();
    assert_eq!(node.admin("/ready").unwrap().status, 200);
    for call in [&["put", "k", "w"][..], &["get", "k", "--local"]] {
        let refused = node.skein(call).exits(1).stderr;
        assert!(refused.contains("is opening"), "{call:?}: {refused}");
    }
    drop(File::options().write(true).open(&pipe).unwrap());
    until("the store is open", || {
        node.skein(&["get", "k"]).stdout == "v\n"
    });
    mesh.skein(&["put", "k", "w"]).ok();
}

#[test]
fn a_node_is_told_to_stop_while_its_store_opens() {
    let mut mesh = Mesh::start(1);
    assert!(mesh.nodes[0].stop().success());
    let pipe = mesh.nodes[0].data.join("snapshots").join("slow.snap");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    mesh.nodes[0].start();
    let node = &mut mesh.nodes[0];
    until("it answers", || node.admin("/ready").is_some());
    let ready = node.admin("/ready").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(node.stop().success());
}
