//! Starts that must not work, and ends that must.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::harness::skein::command;
use crate::harness::{Mesh, Node, Ran, Subnet, skein, until};

/// A node of its own that was never started.
fn lone(name: &str, subnet: &Subnet, last: u8, dir: &Path) -> Node {
    Node::new(name, subnet.ip(last).into(), dir)
}

/// Asserts that it failed with `code` and one line, which has all of `parts`.
#[track_caller]
fn one_line(ran: &Ran, code: i32, parts: &[&str]) {
    let said = &ran.stderr;
    assert_eq!(ran.code, code, "{said}");
    assert!(said.starts_with("skein: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_one_is_named() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    for path in [file.clone(), file.join("below")] {
        let path = path.to_str().unwrap();
        let ran = lone("n1", &subnet, 1, dir.path())
            .set("--data-dir", path)
            .run_to_end();
        one_line(&ran, 1, &[path, "director"]);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"not a directory");
}

#[test]
fn a_data_directory_that_is_not_writable_is_named() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    let read_only = dir.path().join("data");
    std::fs::create_dir(&read_only).unwrap();
    let only_read = std::fs::Permissions::from_mode(0o555);
    std::fs::set_permissions(&read_only, only_read).unwrap();
    let visible = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), visible).unwrap();

    let mut command = command();
    command.current_dir("/").args(["node", "--name", "n1"]);
    command.arg("--data-dir").arg(&read_only);
    if rustix::process::geteuid().is_root() {
        // Modes do not bind root.
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(output) => one_line(
            &output.into(),
            1,
            &[read_only.to_str().unwrap(), "ermission"],
        ),
        Err(fault) => println!("skipped: the binary is not for other users: {fault}"),
    }
}

#[test]
fn a_data_directory_in_use_stays_with_the_node_that_has_it() {
    let mesh = Mesh::start(1);
    let data = mesh.nodes[0].data.to_str().unwrap().to_owned();
    let second = lone("n2", &mesh.subnet, 2, mesh.dir.path()).set("--data-dir", &data);
    one_line(&second.run_to_end(), 1, &[&data, "another"]);
    mesh.skein(&["put", "a", "1"]).ok();
}

#[test]
fn a_port_that_is_taken_is_named_whichever_it_is() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let address = SocketAddr::from((subnet.ip(9), 4000));
    let _tcp = TcpListener::bind(address).unwrap();
    let _udp = UdpSocket::bind(address).unwrap();
    for (at, flag) in ["client", "peer", "gossip", "admin"].iter().enumerate() {
        let flag = format!("--{flag}-addr");
        let node = lone(&format!("n{at}"), &subnet, 1, dir.path()).set(&flag, &address.to_string());
        let ran = node.run_to_end();
        one_line(&ran, 1, &[&flag, &address.to_string(), "in use"]);
    }
}

#[test]
fn a_second_node_on_the_same_ports_does_not_start() {
    let mesh = Mesh::start(1);
    let data = mesh.dir.path().join("other");
    let second =
        lone("n2", &mesh.subnet, 1, mesh.dir.path()).set("--data-dir", data.to_str().unwrap());
    one_line(&second.run_to_end(), 1, &["--client-addr", "in use"]);
}

#[test]
fn a_first_join_with_a_wrong_key_ends_and_the_mesh_goes_on() {
    let mesh = Mesh::start(1);
    let strangers = || mesh.nodes[0].metric("skein_gossip_dropped_total{reason=\"UnknownKey\"}");
    assert!(strangers() < 1.0, "all know the key so far");
    let key = mesh.dir.path().join("wrong.key");
    let key = key.to_str().unwrap();
    skein(&["keygen", "-o", key]).ok();
    let seed = format!("{}:7946", mesh.nodes[0].ip);
    let stranger = lone("n2", &mesh.subnet, 2, mesh.dir.path()).with(&[
        "--gossip-key-file",
        key,
        "--join",
        &seed,
    ]);
    let ran = stranger.run_to_end();
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let lines = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("skein: "));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    assert!(
        lines[0].contains(&seed) && lines[0].contains("does not know the gossip key"),
        "{}",
        lines[0]
    );

    assert!(strangers() >= 1.0, "the stranger's datagrams are counted");
    let log = mesh.nodes[0].log();
    assert!(
        log.contains(&mesh.subnet.ip(2).to_string()),
        "and logged: {log}"
    );
    mesh.skein(&["put", "a", "1"]).ok();
    let peers = mesh.skein(&["peers", "-o", "json"]).ok().json();
    assert_eq!(peers["peers"].as_array().unwrap().len(), 1, "{peers}");
}

#[test]
fn a_key_file_that_is_no_key_is_named() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let key = dir.path().join("gossip.key");
    let start = || {
        let node = lone("n1", &subnet, 1, dir.path());
        let node = node.with(&["--gossip-key-file", key.to_str().unwrap()]);
        node.run_to_end()
    };
    one_line(&start(), 1, &[key.to_str().unwrap(), "skein keygen"]);
    std::fs::write(&key, "too short\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    one_line(&start(), 1, &[key.to_str().unwrap()]);
}

#[test]
fn addresses_off_loopback_need_a_word() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    // An address of nobody (RFC 5737): a node that got past the check could not bind it.
    let off = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4000)).to_string();
    for flag in [
        "--client-addr",
        "--peer-addr",
        "--gossip-addr",
        "--admin-addr",
    ] {
        let node = |words: &[&str]| {
            let node = lone("n1", &subnet, 1, dir.path()).set(flag, &off);
            node.with(words).run_to_end()
        };
        one_line(&node(&[]), 2, &[flag, &off, "loopback", "--insecure"]);
        one_line(&node(&["--insecure"]), 1, &[&off, "assign"]);
    }
    let wildcard = lone("n1", &subnet, 1, dir.path())
        .set("--peer-addr", "0.0.0.0:2380")
        .with(&["--insecure"]);
    one_line(&wildcard.run_to_end(), 2, &["--peer-addr", "0.0.0.0:2380"]);
}

#[test]
fn misspelled_settings_are_usage_errors() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let flag = lone("n1", &subnet, 1, dir.path()).with(&["--workres", "2"]);
    let ran = flag.run_to_end().exits(2);
    assert!(ran.stderr.contains("--workres"), "{}", ran.stderr);
    assert!(ran.stderr.contains("'--workers'"), "{}", ran.stderr);

    let file = dir.path().join("node.yaml");
    let with_file = || {
        let node = lone("n1", &subnet, 1, dir.path());
        node.with(&["--config", file.to_str().unwrap()])
            .run_to_end()
    };
    one_line(&with_file(), 2, &["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "name: n1\nworkres: 2\n").unwrap();
    let ran = with_file().exits(2);
    for part in [file.to_str().unwrap(), "line 2", "`workres`", "workers"] {
        assert!(ran.stderr.contains(part), "no `{part}` in {}", ran.stderr);
    }
    std::fs::write(&file, "workers: many\n").unwrap();
    let ran = with_file().exits(2);
    assert!(ran.stderr.contains("line 1"), "{}", ran.stderr);
    assert!(!dir.path().join("n1").exists(), "nothing was begun");
}

#[test]
fn settings_come_from_a_file_and_flags_win() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let ip = subnet.ip(1);
    let file = dir.path().join("node.yaml");
    let settings =
        format!("name: from-file\nzone: z1\nlabels: {{ tier: edge }}\nclient-addr: {ip}:1\n");
    std::fs::write(&file, settings).unwrap();
    let mut node = lone("n1", &subnet, 1, dir.path()).with(&["--config", file.to_str().unwrap()]);
    node.start();
    until("it leads", || {
        node.status_of("n1").is_some_and(|own| {
            own["role"] == "leader" && own["zone"] == "z1" && own["labels"]["tier"] == "edge"
        })
    });
}

#[test]
fn a_node_that_is_told_to_stop_leaves_at_once_and_continues_when_started_again() {
    let mut mesh = Mesh::start(3);
    let leader = mesh.leader();
    mesh.skein(&["put", "a", "1"]).ok();
    // The leader is the hardest to miss; then one of the others.
    for at in [leader, (leader + 1) % 3] {
        let name = mesh.nodes[at].name.clone();
        let id = mesh.nodes[at].status_of(&name).unwrap()["id"].clone();
        let status = mesh.nodes[at].stop();
        assert_eq!(status.code(), Some(0), "{}", mesh.nodes[at].log());
        let others: Vec<&Node> = mesh.running().collect();
        for other in &others {
            let peers = || other.skein(&["peers", "-o", "json"]).ok().json();
            until("the others know that it left", || {
                let peers = peers();
                let all = peers["peers"].as_array().unwrap();
                let gone = all.iter().find(|peer| peer["name"] == name.as_str());
                let liveness = &gone.unwrap()["liveness"];
                assert_ne!(liveness, "DOWN", "it said good-bye");
                liveness == "LEFT"
            });
            assert_eq!(other.status_of(&name).unwrap()["state"], "DOWN");
        }
        others[0].skein(&["put", "a", &name]).ok();

        mesh.nodes[at].start();
        mesh.wait_formed();
        until("it has caught up", || {
            mesh.nodes[at].skein(&["get", "a", "--local"]).stdout == format!("{name}\n")
        });
        assert_eq!(mesh.nodes[at].status_of(&name).unwrap()["id"], id);
    }
    let members = mesh.skein(&["members", "-o", "json"]).ok().json();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
}
