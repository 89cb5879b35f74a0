//! Two builds of the product in one mesh: upgraded node by node, and taken back.
//!
//! Needs a second build that differs in its version only, which `tests/two-versions` makes before it
//! runs this.

use std::path::{Path, PathBuf};

use crate::harness::{Mesh, Node, Upstream, Writers, get, until};

/// Our version, and the next build's.
const NOW: &str = "0.1";
const NEXT: &str = "0.2";

/// The other build.
fn next_build() -> PathBuf {
    let path = std::env::var_os("SKEIN_NEXT");
    PathBuf::from(path.expect("SKEIN_NEXT names the next build; `tests/two-versions` makes it"))
}

/// Waits until all nodes know the mesh at this version, and whether it is held there.
fn agreed(mesh: &Mesh, version: &str, downgrade: bool) {
    until(&format!("the mesh is at {version}"), || {
        mesh.running().all(|node| {
            node.overview().is_some_and(|status| {
                status["cluster_version"] == version && status["downgrade"] == downgrade
            })
        })
    });
}

/// Replaces the build of one node after the other, the leader's last, while config changes.
fn replace_all(mesh: &mut Mesh, writers: &Writers, start: impl Fn(&mut Node), upstream: &Upstream) {
    let leader = mesh.leader();
    for at in [leader + 1, leader + 2, leader].map(|at| at % 3) {
        assert!(mesh.nodes[at].stop().success());
        writers.more(100);
        start(&mut mesh.nodes[at]);
        mesh.wait_formed();
        apply(mesh, &format!("round-{at}"), upstream);
        writers.more(100);
    }
}

/// Applies a route with this path, which all nodes must serve then.
fn apply(mesh: &Mesh, path: &str, upstream: &Upstream) {
    mesh.apply(&format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\n\
         routes: [{{ match: {{ path: /{path} }}, to: one }}]\n\
         ---\nkind: Cluster\nname: one\nendpoints: [\"{}\"]\n",
        upstream.address
    ));
    for address in mesh.at(8080) {
        let answer = get(address, "any", &format!("/{path}")).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn starts_as(program: &Path) -> impl Fn(&mut Node) {
    |node| node.start_as(program)
}

#[test]
#[ignore = "needs a second build: tests/two-versions makes it and runs this"]
fn a_mesh_goes_to_the_next_version_and_back_unnoticed() {
    let next = next_build();
    let mut mesh = Mesh::start(3);
    let upstream = Upstream::start("one", (mesh.subnet.ip(9), 0));
    agreed(&mesh, NOW, false);
    apply(&mesh, "before", &upstream);
    let writers = Writers::start(&mesh);
    writers.more(100);

    replace_all(&mut mesh, &writers, starts_as(&next), &upstream);
    agreed(&mesh, NEXT, false);
    let too_old = mesh.skein(&["downgrade", "validate", "0.0"]).exits(2);
    assert!(
        too_old.stderr.contains("one minor version"),
        "{}",
        too_old.stderr
    );
    let nothing = mesh.skein(&["downgrade", "cancel"]).exits(3);
    assert!(nothing.stderr.contains("under way"), "{}", nothing.stderr);

    // The older build is kept out as long as the mesh is at the newer version.
    // Its traffic goes on, and it says what is wrong.
    assert!(mesh.nodes[0].stop().success());
    mesh.nodes[0].start();
    let said = format!("this node runs version {NOW}, and the mesh is at version {NEXT}");
    until("the older build says why its store stays closed", || {
        let own = mesh.nodes[0].status_of("n1");
        own.is_some_and(|own| {
            own["store_fault"]
                .as_str()
                .unwrap_or_default()
                .contains(&said)
        })
    });
    let answer = get(mesh.nodes[0].at(8080), "any", "/").expect("an answer");
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert_eq!(mesh.nodes[0].stop().code(), Some(1));
    mesh.nodes[0].start_as(&next);
    mesh.wait_formed();

    mesh.skein(&["downgrade", "validate", NOW]).ok();
    agreed(&mesh, NEXT, false);
    let enabled = mesh
        .skein(&["downgrade", "enable", NOW, "-o", "json"])
        .ok()
        .json();
    assert_eq!(
        (&enabled["from"], &enabled["target"]),
        (&NEXT.into(), &NOW.into())
    );
    agreed(&mesh, NOW, true);
    mesh.skein(&["downgrade", "cancel"]).ok();
    agreed(&mesh, NEXT, false);
    mesh.skein(&["downgrade", "enable", NOW]).ok();
    agreed(&mesh, NOW, true);
    replace_all(&mut mesh, &writers, Node::start, &upstream);
    agreed(&mesh, NOW, false);
    writers.end(&mesh.nodes[0]);
}
