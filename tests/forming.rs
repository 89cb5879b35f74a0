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
