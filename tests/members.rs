//! `skein member`: changes of the members by hand, and what is refused.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Mesh, Node, Writers, until};

/// How many members the node knows.
fn members(node: &Node) -> usize {
    let members = node.skein(&["member", "list", "-o", "json"]).ok().json();
    members["members"].as_array().expect("members").len()
}

#[test]
fn leadership_moves_and_members_go_by_name() {
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let (next, stays) = (&mesh.nodes[(leader + 1) % 3], &mesh.nodes[leader]);
    let moved = mesh.skein(&["member", "move-leader", &next.name, "-o", "json"]);
    let moved = moved.ok().json();
    assert_eq!(moved["leader"]["name"], next.name, "{moved}");
    assert!(
        moved["term"].as_u64().is_some_and(|term| term > 1),
        "{moved}"
    );
    // Asked again, it is so already.
    mesh.skein(&["member", "move-leader", &next.name]).ok();
    let unknown = mesh.skein(&["member", "remove", "n9"]).exits(4);
    assert!(unknown.stderr.contains("n1, n2, n3"), "{}", unknown.stderr);
    let voter = mesh.skein(&["member", "promote", &next.name]).exits(3);
    assert!(voter.stderr.contains("votes already"), "{}", voter.stderr);

    // The one that leads may go, too.
    let removed = mesh.skein(&["member", "remove", &next.name, "-o", "json"]);
    let mut removed = removed.ok().json();
    assert_eq!(removed["member"]["name"], next.name);
    removed["member"].take();
    let left = json!({
        "change": "removed", "member": null, "voters": 2, "quorum": 2, "may_fail": 0,
    });
    assert_eq!(removed, left);
    until("the others know it", || members(stays) == 2);
    stays.skein(&["put", "a", "1", "--timeout", "20s"]).ok();
    until("the removed node says so", || {
        let own = next.status_of(&next.name);
        own.is_some_and(|own| {
            let fault = own["store_fault"].as_str().unwrap_or_default();
            fault.contains("no longer a member")
        })
    });
}

#[test]
fn a_removal_that_would_cost_the_quorum_is_refused() {
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let (silent, living) = (&mesh.nodes[(leader + 1) % 3], &mesh.nodes[(leader + 2) % 3]);
    silent.signal(Signal::STOP);
    until("the leader misses it", || {
        let seen = mesh.nodes[leader].status_of(&silent.name);
        seen.is_some_and(|seen| seen["state"] == "DOWN")
    });
    let refused = mesh.nodes[leader].skein(&["member", "remove", &living.name, "-o", "json"]);
    let text = refused.exits(3).stderr;
    let error: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(error["error"]["kind"], "refused", "{error}");
    let message = error["error"]["message"].as_str().expect("text");
    assert!(message.contains("stays a member"), "{message}");
    silent.signal(Signal::CONT);
    assert_eq!(members(living), 3);
}

#[test]
fn no_write_fails_while_the_leader_is_stopped() {
    let mut mesh = Mesh::start(3);
    let leader = mesh.leader();
    let writers = Writers::start(&mesh);
    writers.more(200);
    mesh.nodes[leader].signal(Signal::TERM);
    writers.more(200);
    assert!(mesh.nodes[leader].wait().success());
    writers.more(200);
    writers.end(&mesh.nodes[(leader + 1) % 3]);
}

/// What a busy machine does to them for moments: the others do not take over while the leader hands
/// over and closes its port. Its clients' writes wait for whoever leads next.
#[test]
fn no_write_is_cut_off_where_the_others_take_their_time_to_succeed_the_leader() {
    let mut mesh = Mesh::start(3);
    let leader = mesh.leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        mesh.nodes[other].signal(Signal::STOP);
    }
    mesh.nodes[leader].signal(Signal::TERM);
    until("the leader is about to stop", || {
        mesh.nodes[leader].log().contains("stopping")
    });
    let writers = Writers::start(&mesh);
    until("the leader takes no new clients", || {
        std::net::TcpStream::connect(mesh.nodes[leader].at(2379)).is_err()
    });
    for other in others {
        mesh.nodes[other].signal(Signal::CONT);
    }
    assert!(mesh.nodes[leader].wait().success());
    writers.more(100);
    writers.end(&mesh.nodes[others[0]]);
}
