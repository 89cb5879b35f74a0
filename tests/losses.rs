//! The way back: a mesh restored from a file, and one recovered after the loss of its quorum.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Mesh, Node, Ran, skein, until};

const CLUSTER: &str = "kind: Cluster\nname: web\nendpoints: [\"127.0.0.1:1\"]\n";

/// Keys with history, and config.
fn fill(mesh: &Mesh) {
    for at in 0..20 {
        let key = format!("k/{}", at % 6);
        mesh.skein(&["put", &key, &at.to_string()]).ok();
    }
    mesh.skein(&["del", "k/5"]).ok();
    mesh.apply(CLUSTER);
}

/// All keys of a node's own copy, with their revisions.
fn rows(node: &Node) -> Value {
    let all = node.skein(&["get", "", "--prefix", "--local", "-o", "json"]);
    all.ok().json()
}

fn voters(node: &Node) -> usize {
    let members = node.skein(&["member", "list", "-o", "json"]);
    let members = (members.code == 0).then(|| members.json());
    let members = members.unwrap_or_default();
    let members = members["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .filter(|one| one["role"] != "learner")
        .count()
}

fn recover(node: &Node, more: &[&str]) -> Ran {
    let dir = node.data.to_str().expect("UTF-8");
    skein(&[&["recover", "--data-dir", dir, "-o", "json"], more].concat())
}

fn mesh_id(node: &Node) -> String {
    let status = node.status().expect("it answers");
    status["mesh_id"].as_str().expect("a mesh").to_owned()
}

#[test]
fn three_empty_machines_become_the_mesh_that_a_file_holds() {
    let (file, before, old, dir) = {
        let mesh = Mesh::start(3);
        fill(&mesh);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.skein");
        let name = file.to_str().expect("UTF-8").to_owned();
        mesh.skein(&["snapshot", "save", &name]).ok();
        let leader = &mesh.nodes[mesh.leader()];
        (name, rows(leader), mesh_id(leader), dir)
    };
    let mut mesh = Mesh::prepare(3);
    let data = mesh.nodes[0].data.to_str().expect("UTF-8").to_owned();
    let restored = skein(&[
        "snapshot",
        "restore",
        &file,
        "--data-dir",
        &data,
        "-o",
        "json",
    ]);
    let restored = restored.ok().json();
    assert_eq!(restored["revision"], before["revision"]);
    assert_eq!(restored["restored_mesh_id"], Value::from(old.clone()));
    // Again into the same directory: it is not empty any more.
    let twice = skein(&["snapshot", "restore", &file, "--data-dir", &data]).exits(1);
    assert!(twice.stderr.contains("not empty"), "{}", twice.stderr);

    // All of them as they would found a mesh: the two find the one that is there.
    for node in &mut mesh.nodes {
        node.start();
    }
    mesh.wait_formed();
    until("all three vote", || {
        mesh.nodes.iter().all(|node| voters(node) == 3)
    });
    mesh.wait_synced();
    for node in &mesh.nodes {
        until("it has all keys", || rows(node)["rows"] == before["rows"]);
        assert_ne!(mesh_id(node), old);
    }
    // Revisions go on, and the past is there.
    let put = mesh.skein(&["put", "after", "1", "-o", "json"]).ok().json();
    assert_eq!(
        put["revision"].as_i64(),
        before["revision"].as_i64().map(|revision| revision + 1)
    );
    let past = mesh.skein(&["get", "k/0", "--rev", "2"]).ok();
    assert_eq!(past.stdout, "0\n");
    mesh.skein(&["config", "get", "Cluster", "web"]).ok();
    drop(dir);
}

#[test]
fn a_restore_that_was_killed_says_so_and_is_done_again() {
    let mesh = Mesh::start(1);
    fill(&mesh);
    let file = mesh.dir.path().join("a.skein");
    let file = file.to_str().expect("UTF-8");
    mesh.skein(&["snapshot", "save", file]).ok();
    let mut later = Mesh::prepare(1);
    let data = later.nodes[0].data.clone();
    // As a kill leaves it: begun, and not finished.
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("UNFINISHED"), "").expect("written");
    std::fs::write(data.join("identity"), "half").expect("written");
    let refused = later.nodes[0].run_to_end().exits(1);
    assert!(refused.stderr.contains("UNFINISHED"), "{}", refused.stderr);
    let data = data.to_str().expect("UTF-8");
    skein(&["snapshot", "restore", file, "--data-dir", data]).ok();
    later.nodes[0].start();
    later.wait_formed();
    assert_eq!(rows(&later.nodes[0])["rows"], rows(&mesh.nodes[0])["rows"]);
}

#[test]
fn a_mesh_that_lost_its_quorum_is_recovered_from_one_disk() {
    let mut mesh = Mesh::start(3);
    fill(&mesh);
    let leader = mesh.leader();
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    let old = mesh_id(&mesh.nodes[leader]);

    // While it runs, and while the others could do without it, it is refused.
    let running = recover(&mesh.nodes[leader], &["--yes"]).exits(1);
    assert!(running.stderr.contains("in use"), "{}", running.stderr);
    assert!(mesh.nodes[leader].stop().success());
    let lives = recover(&mesh.nodes[leader], &["--yes"]).exits(3);
    assert!(
        lives.stderr.contains("quorum is not lost"),
        "{}",
        lives.stderr
    );
    mesh.nodes[one].kill();
    let one_lives = recover(&mesh.nodes[leader], &["--yes"]).exits(3);
    let told = one_lives.stderr;
    assert!(told.contains("quorum is not lost"), "{told}");
    mesh.nodes[leader].start();
    mesh.wait_formed();
    for at in 0..20 {
        mesh.skein(&["put", &format!("late/{at}"), "x", "--timeout", "20s"])
            .ok();
    }
    // The survivor is one that has what was acknowledged: with two left, both have.
    let before = rows(&mesh.nodes[leader]);
    mesh.nodes[leader].kill();
    mesh.nodes[two].kill();
    for lost in [one, two] {
        std::fs::remove_dir_all(&mesh.nodes[lost].data).expect("a disk is lost");
    }

    let shown = recover(&mesh.nodes[leader], &[]).exits(3);
    assert!(shown.stderr.contains("--yes"), "{}", shown.stderr);
    assert_eq!(shown.json()["voters"].as_array().map(Vec::len), Some(3));
    let recovered = recover(&mesh.nodes[leader], &["--yes"]).ok().json();
    assert_eq!(recovered["mesh_id"], Value::from(old.clone()));
    assert_ne!(recovered["recovered"]["mesh_id"], Value::from(old.clone()));
    for node in &mut mesh.nodes {
        node.start();
    }
    mesh.wait_formed();
    until("all three vote", || {
        mesh.nodes.iter().all(|node| voters(node) == 3)
    });
    for node in &mesh.nodes {
        until("it has all keys", || rows(node)["rows"] == before["rows"]);
        assert_ne!(mesh_id(node), old);
    }
    mesh.skein(&["put", "after", "1", "--timeout", "20s"]).ok();
}

/// `skein recover` at a terminal, where somebody types `answer`; `None` where there is no `script`.
fn recover_at_a_terminal(node: &Node, answer: &str) -> Option<Ran> {
    let program = skein::command().get_program().to_owned();
    let program = program.to_str().expect("UTF-8").to_owned();
    let command = format!("{program} recover --data-dir {}", node.data.display());
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "there is no script in PATH"
        );
        println!("skipped: there is no script in PATH");
        return None;
    };
    let mut typed = child.stdin.take().expect("piped");
    writeln!(typed, "{answer}").expect("typed");
    // The line stays open until the command has ended: nobody hangs up.
    let output = std::thread::spawn(move || child.wait_with_output());
    let ran = output.join().expect("it ran").expect("its output").into();
    drop(typed);
    Some(ran)
}

#[test]
fn whoever_recovers_is_asked_and_must_say_yes() {
    let mut mesh = Mesh::start(2);
    mesh.skein(&["put", "a", "1"]).ok();
    for node in &mut mesh.nodes {
        node.kill();
    }
    let kept = |node: &Node| {
        let mut entries = std::fs::read_dir(&node.data).expect("a folder");
        entries.any(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().starts_with("before-recovery-")
        })
    };
    let Some(refused) = recover_at_a_terminal(&mesh.nodes[0], "y") else {
        return;
    };
    let said = refused.exits(3).stdout;
    assert!(
        said.contains("Type yes:") && said.contains("nothing was changed"),
        "{said}"
    );
    assert!(!kept(&mesh.nodes[0]));
    let agreed = recover_at_a_terminal(&mesh.nodes[0], "yes").expect("it is there");
    let said = agreed.ok().stdout;
    assert!(said.contains("the only member of the new mesh"), "{said}");
    assert!(kept(&mesh.nodes[0]));
    mesh.nodes[0].start();
    until("it serves alone", || {
        let got = mesh.nodes[0].skein(&["get", "a", "--timeout", "2s"]);
        got.code == 0 && got.stdout == "1\n"
    });
}
