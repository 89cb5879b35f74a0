//! A mesh forms by itself, once, whatever restarts or comes back empty.

use crate::harness::{Mesh, Node, until, until_some};

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

/// The URLs that the node at `asked` has recorded of the member `name`.
fn recorded(mesh: &Mesh, asked: usize, name: &str) -> Option<(String, String)> {
    let members = mesh.nodes[asked].skein(&["members", "-o", "json", "--timeout", "2s"]);
    if members.code != 0 {
        return None;
    }
    let members = members.json();
    let member = members["members"]
        .as_array()?
        .iter()
        .find(|member| member["name"] == name)?
        .clone();
    let url = |field: &str| Some(member[field][0].as_str()?.to_owned());
    Some((url("peer_urls")?, url("client_urls")?))
}

/// Stops the node, and starts it again at this peer port.
fn move_to(mesh: &mut Mesh, at: usize, port: u16) {
    assert!(mesh.nodes[at].stop().success());
    start_moved(mesh, at, port);
}

/// Starts the node at this peer port, on its data.
fn start_moved(mesh: &mut Mesh, at: usize, port: u16) {
    let address = format!("{}:{port}", mesh.nodes[at].ip);
    let node = Node::new(&mesh.nodes[at].name, mesh.nodes[at].ip, mesh.dir.path());
    let key = mesh.dir.path().join("gossip.key");
    let key = key.to_str().expect("UTF-8").to_owned();
    mesh.nodes[at] = node
        .with(&["--gossip-key-file", &key])
        .set("--peer-addr", &address);
    mesh.nodes[at].start();
}

#[test]
fn a_member_that_moved_is_recorded_where_it_is_and_its_vote_counts() {
    let mut mesh = Mesh::start(3);
    mesh.skein(&["put", "kept", "yes"]).ok();
    let moved = (mesh.leader() + 1) % 3;
    move_to(&mut mesh, moved, 2390);
    let name = mesh.nodes[moved].name.clone();
    let url = format!("http://{}:2390", mesh.nodes[moved].ip);
    until("all record the new address", || {
        (0..3).all(|at| recorded(&mesh, at, &name).is_some_and(|(peer, _)| peer == url))
    });
    // The two that are left need each other, at the new address.
    let lost = (moved + 1) % 3;
    mesh.nodes[lost].kill();
    mesh.wait_formed();
    mesh.skein(&["put", "more", "yes", "--timeout", "20s"]).ok();
    let read = mesh.nodes[moved].skein(&["get", "kept", "--timeout", "20s"]);
    assert_eq!(read.ok().stdout, "yes\n");
}

#[test]
fn a_mesh_of_one_records_its_own_move() {
    let mut mesh = Mesh::start(1);
    mesh.skein(&["put", "kept", "yes"]).ok();
    move_to(&mut mesh, 0, 2390);
    let url = format!("http://{}:2390", mesh.nodes[0].ip);
    until("it records its address", || {
        recorded(&mesh, 0, "n1").is_some_and(|(peer, _)| peer == url)
    });
    assert_eq!(mesh.skein(&["get", "kept"]).ok().stdout, "yes\n");
}

#[test]
fn a_mesh_whose_members_all_moved_at_once_finds_itself_by_gossip() {
    let mut mesh = Mesh::start(3);
    let before = mesh_ids(&mesh);
    mesh.skein(&["put", "kept", "yes"]).ok();
    for node in &mut mesh.nodes {
        node.kill();
    }
    for at in 0..3 {
        start_moved(&mut mesh, at, 2390);
    }
    mesh.wait_formed();
    for at in 0..3 {
        let url = format!("http://{}:2390", mesh.nodes[at].ip);
        let name = mesh.nodes[at].name.clone();
        until("everybody records every address", || {
            (0..3).all(|asked| recorded(&mesh, asked, &name).is_some_and(|(peer, _)| peer == url))
        });
    }
    assert_eq!(mesh_ids(&mesh), before);
    assert_eq!(mesh.skein(&["get", "kept"]).ok().stdout, "yes\n");
}

#[test]
fn a_replaced_member_that_returns_is_told_and_stays_out() {
    let mut mesh = Mesh::start(3);
    // What is known to be committed goes to the disk with the next write.
    for key in ["kept", "next"] {
        mesh.skein(&["put", key, "yes"]).ok();
        until("the write is everywhere", || {
            let local = |node: &Node| node.skein(&["get", key, "--local"]).code == 0;
            mesh.nodes.iter().all(local)
        });
    }
    let settled = |mesh: &Mesh| {
        let members = mesh.nodes[1].skein(&["members", "-o", "json"]).json();
        let members = members["members"].as_array().expect("members").clone();
        let ids: Vec<_> = members.iter().map(|one| one["id"].to_string()).collect();
        (ids.len() == 3 && members.iter().all(|one| one["role"] != "learner")).then_some(ids)
    };
    let founders = settled(&mesh);
    mesh.nodes[0].kill();
    let attic = mesh.dir.path().join("attic");
    std::fs::create_dir(&attic).expect("a folder");
    std::fs::rename(&mesh.nodes[0].data, attic.join("n1")).expect("moved");
    mesh.nodes[0].start();
    let before = until_some("the successor has the vote", || {
        settled(&mesh).filter(|ids| Some(ids) != founders.as_ref())
    });

    // The machine that was thought lost comes back, with its old disk.
    let key = mesh.dir.path().join("gossip.key");
    let seed = format!("{}:7946", mesh.nodes[1].ip);
    let mut returned = Node::new("n1", mesh.subnet.ip(9).into(), &attic).with(&[
        "--gossip-key-file",
        key.to_str().expect("UTF-8"),
        "--join",
        &seed,
    ]);
    returned.start();
    let fault = until_some("its status says what became of it", || {
        let status = returned.status()?;
        let nodes = status["nodes"].as_array()?.clone();
        let address = format!("{}:2380", returned.ip);
        let own = nodes
            .iter()
            .find(|node| node["addresses"]["peer"] == address)?;
        Some(own["store_fault"].as_str()?.to_owned())
    });
    assert!(fault.contains("no longer a member"), "{fault}");
    let successor = format!("{}:2380", mesh.nodes[0].ip);
    assert!(fault.contains(&successor), "{fault}");
    assert!(fault.contains("empty its data directory"), "{fault}");
    assert_eq!(returned.log().matches("no longer a member").count(), 1);
    // It serves what it has, the mesh goes on, and nobody took it back.
    let read = returned.skein(&["get", "kept", "--local"]).ok();
    assert_eq!(read.stdout, "yes\n");
    mesh.skein(&["put", "more", "yes"]).ok();
    assert_eq!(settled(&mesh), Some(before));
    // Told once more after a restart: it is on nobody's list to come back by itself.
    returned.kill();
    returned.start();
    until("it is told again", || {
        returned.log().matches("no longer a member").count() == 2
    });
}
