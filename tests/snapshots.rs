//! Snapshots: saved from a mesh that goes on.

use crate::harness::Mesh;

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
