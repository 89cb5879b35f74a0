//! A mesh forms by itself, once, whatever restarts or comes back empty.

use crate::harness::{Mesh, Node, until};

fn mesh_ids(mesh: &Mesh) -> Vec<String> {
    let id = |node: &Node| node.status().expect("it answers")["mesh_id"].to_string();
    let mut ids: Vec<String> = mesh.nodes.iter().map(id).collect();
    ids.dedup();
    ids
}

#[test]
fn three_nodes_form_one_mesh_and_keep_it_over_a_restart_of_all() {
    let mut mesh = Mesh::start(3);
    let before = mesh_ids(&mesh);
    assert_eq!(before.len(), 1, "{before:?}");
    mesh.skein(&["put", "kept", "yes"]).ok();
    for node in &mut mesh.nodes {
        node.kill();
    }
    for node in &mut mesh.nodes {
        node.start();
    }
    mesh.wait_formed();
    assert_eq!(mesh_ids(&mesh), before);
    assert_eq!(mesh.skein(&["get", "kept"]).ok().stdout.trim(), "yes");
}

#[test]
fn a_node_with_an_empty_disk_joins_the_mesh_it_had_and_takes_its_old_place() {
    let mut mesh = Mesh::start(3);
    let before = mesh_ids(&mesh);
    mesh.skein(&["put", "kept", "yes"]).ok();
    mesh.nodes[0].kill();
    std::fs::remove_dir_all(&mesh.nodes[0].data).expect("emptied");
    mesh.nodes[0].start();
    until(
        "the emptied node is a voter under a new id, in place of the old one",
        || {
            let members = mesh.nodes[1].skein(&["members", "-o", "json"]);
            if members.code != 0 {
                return false;
            }
            let members = members.json();
            let members = members["members"].as_array().expect("members").clone();
            members.len() == 3
                && members.iter().all(|member| member["role"] != "learner")
                && mesh.nodes[0]
                    .status()
                    .is_some_and(|status| status["has_quorum"] == true)
                && members
                    .iter()
                    .filter(|member| member["name"] == "n1")
                    .count()
                    == 1
        },
    );
    assert_eq!(mesh_ids(&mesh), before);
    let read = mesh.nodes[0].skein(&["get", "kept"]).ok();
    assert_eq!(read.stdout.trim(), "yes");
}

#[test]
fn one_more_node_joins_with_nothing_but_a_seed() {
    let mut mesh = Mesh::start(1);
    let seed = format!("{}:7946", mesh.nodes[0].ip);
    let ip = mesh.subnet.ip(2).into();
    let key = mesh.dir.path().join("gossip.key");
    let node = Node::new("n2", ip, mesh.dir.path());
    let key = key.to_str().expect("UTF-8");
    mesh.nodes
        .push(node.with(&["--join", &seed, "--gossip-key-file", key]));
    mesh.nodes[1].start();
    mesh.wait_formed();
    assert_eq!(mesh_ids(&mesh).len(), 1);
}

#[test]
fn a_node_without_seeds_finds_the_peers_it_knew() {
    let mut mesh = Mesh::start(1);
    let key = mesh.dir.path().join("gossip.key");
    let arguments = ["--gossip-key-file", key.to_str().expect("UTF-8")];
    let seed = format!("{}:7946", mesh.nodes[0].ip);
    let node = Node::new("n2", mesh.subnet.ip(2).into(), mesh.dir.path());
    let joining = node.with(&arguments).with(&["--join", &seed]);
    mesh.nodes.push(joining);
    mesh.nodes[1].start();
    mesh.wait_formed();
    until("the first node remembers the second", || {
        std::fs::read_to_string(mesh.nodes[0].data.join("known-peers"))
            .is_ok_and(|text| text.contains(&format!("{}:7946", mesh.nodes[1].ip)))
    });
    for node in &mut mesh.nodes {
        node.kill();
    }
    // The second one starts again with a seed that leads nowhere: only what they knew connects them.
    let node = Node::new("n2", mesh.subnet.ip(2).into(), mesh.dir.path());
    let nowhere = format!("{}:7946", mesh.subnet.ip(200));
    mesh.nodes[1] = node.with(&arguments).with(&["--join", &nowhere]);
    for node in &mut mesh.nodes {
        node.start();
    }
    mesh.wait_formed();
}

#[test]
fn a_wiped_first_node_without_seeds_never_founds_a_second_mesh() {
    let mut mesh = Mesh::start(1);
    let key = mesh.dir.path().join("gossip.key");
    let key = key.to_str().expect("UTF-8").to_owned();
    let seed = format!("{}:7946", mesh.nodes[0].ip);
    for (name, last) in [("n2", 2), ("n3", 3)] {
        let node = Node::new(name, mesh.subnet.ip(last).into(), mesh.dir.path());
        mesh.nodes
            .push(node.with(&["--join", &seed, "--gossip-key-file", &key]));
        mesh.nodes.last_mut().expect("pushed").start();
    }
    mesh.wait_formed();
    let before = mesh_ids(&mesh);
    // Not by the members' list: it has a voter as soon as its promotion begins, and to lose the leader
    // before that is committed is to lose the quorum.
    until("both others were promoted", || {
        mesh.nodes[0].log().matches("changed the members").count() == 2
    });
    mesh.nodes[0].kill();
    // The survivors know of the first node's address only as a seed now.
    for node in &mut mesh.nodes[1..] {
        node.kill();
        node.start();
    }
    mesh.wait_formed();
    std::fs::remove_dir_all(&mesh.nodes[0].data).expect("emptied");
    mesh.nodes[0].start();
    mesh.wait_formed();
    assert_eq!(mesh_ids(&mesh), before);
}

#[test]
fn a_node_that_only_joins_does_not_hold_up_the_founders() {
    let mut mesh = Mesh::prepare(3);
    let key = mesh.dir.path().join("gossip.key");
    let key = key.to_str().expect("UTF-8").to_owned();
    let seed = format!("{}:7946", mesh.nodes[0].ip);
    let node = Node::new("n4", mesh.subnet.ip(4).into(), mesh.dir.path());
    mesh.nodes
        .push(node.with(&["--join", &seed, "--gossip-key-file", &key]));
    for node in mesh.nodes.iter_mut().rev() {
        node.start();
    }
    mesh.wait_formed();
    assert_eq!(mesh_ids(&mesh).len(), 1);
}

#[test]
fn a_member_that_moved_its_peer_address_is_told_so() {
    let mut mesh = Mesh::start(1);
    assert!(mesh.nodes[0].stop().success());
    let moved = format!("{}:2390", mesh.nodes[0].ip);
    let key = mesh.dir.path().join("gossip.key");
    let key = key.to_str().expect("UTF-8").to_owned();
    let node = Node::new("n1", mesh.nodes[0].ip, mesh.dir.path());
    let ran = node
        .with(&["--gossip-key-file", &key])
        .set("--peer-addr", &moved)
        .run_to_end()
        .exits(1);
    assert!(
        ran.stderr.contains(&format!("{}:2380", mesh.nodes[0].ip)),
        "{}",
        ran.stderr
    );
}
