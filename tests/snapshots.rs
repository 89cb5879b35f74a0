//! Snapshots: saved from a mesh that goes on.

use crate::harness::{Mesh, until};

/// A folder's names.
fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .collect()
}

#[test]
fn a_snapshot_of_a_mesh_is_saved_from_whoever_lives() {
    let mut mesh = Mesh::start(3);
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "3")] {
        mesh.skein(&["put", key, value]).ok();
    }
    mesh.apply("kind: Cluster\nname: web\nendpoints: [\"127.0.0.1:1\"]\n");
    let folder = mesh.dir.path().join("backup");
    std::fs::create_dir(&folder).expect("made");
    let file = folder.join("a.skein");
    let file = file.to_str().expect("UTF-8");
    mesh.nodes[0].kill();
    let saved = mesh.skein(&["snapshot", "save", file, "-o", "json", "--timeout", "20s"]);
    let saved = saved.ok().json();
    assert_eq!(
        (&saved["keys"], &saved["config_revision"]),
        (&3.into(), &1.into())
    );
    let revision = mesh.nodes[1].skein(&["get", "a", "-o", "json"]).ok().json();
    assert_eq!(saved["revision"], revision["revision"]);
    let status = crate::harness::skein(&["snapshot", "status", file, "-o", "json"]);
    assert_eq!(status.ok().json(), saved);
    assert_eq!(names(&folder), ["a.skein"]);

    // Without a quorum nobody knows what is newest.
    mesh.nodes[1].kill();
    let last = folder.join("b.skein");
    let last = last.to_str().expect("UTF-8");
    let failed = mesh
        .skein(&["snapshot", "save", last, "--timeout", "5s"])
        .exits(1);
    assert!(failed.stderr.contains("--local"), "{}", failed.stderr);
    mesh.skein(&["snapshot", "save", last, "--local"]).ok();
}

#[test]
fn a_node_saves_snapshots_by_itself_and_keeps_some() {
    let mut mesh = Mesh::prepare(1);
    let folder = mesh.dir.path().join("backup");
    let text = folder.to_str().expect("UTF-8").to_owned();
    let node = mesh.nodes.pop().expect("a node");
    let flags = [
        "--snapshot-dir",
        &text,
        "--snapshot-every",
        "1s",
        "--snapshot-keep",
        "2",
    ];
    mesh.nodes.push(node.with(&flags));
    mesh.nodes[0].start();
    mesh.wait_formed();
    mesh.skein(&["put", "a", "1"]).ok();
    let whole = |name: &str| {
        let file = folder.join(name);
        let file = file.to_str().expect("UTF-8");
        let status = crate::harness::skein(&["snapshot", "status", file, "-o", "json"]);
        (status.code == 0).then(|| status.json())
    };
    let mut first = None;
    until(
        "it has saved some, with the key, and the first is gone",
        || {
            let names = if folder.exists() {
                names(&folder)
            } else {
                Vec::new()
            };
            let mut saved: Vec<_> = names
                .iter()
                .filter(|name| name.starts_with("n1-"))
                .collect();
            saved.sort();
            let Some(oldest) = saved.first() else {
                return false;
            };
            let first = first.get_or_insert_with(|| (*oldest).clone());
            let newest = saved.last().and_then(|name| whole(name));
            saved.len() == 2
                && !saved.contains(&&*first)
                && newest.is_some_and(|it| it["keys"] == 1)
        },
    );
    assert!(mesh.nodes[0].metric("skein_snapshot_saved_unix_seconds ") > 1e9);
    assert!(mesh.nodes[0].metric("skein_snapshot_failures ") < 1.0);
}

#[test]
fn a_snapshot_that_cannot_be_saved_is_told_and_harms_nothing() {
    let mut mesh = Mesh::prepare(1);
    let blocked = mesh.dir.path().join("file");
    std::fs::write(&blocked, "").expect("written");
    let folder = blocked.join("backup");
    let node = mesh.nodes.pop().expect("a node");
    mesh.nodes
        .push(node.with(&["--snapshot-dir", folder.to_str().expect("UTF-8")]));
    mesh.nodes[0].start();
    mesh.wait_formed();
    until("it counts the failure", || {
        mesh.nodes[0].metric("skein_snapshot_failures ") > 0.0
    });
    let log = mesh.nodes[0].log();
    assert!(log.contains("no snapshot was saved"), "{log}");
    mesh.skein(&["put", "a", "1"]).ok();
}
