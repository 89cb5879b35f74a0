//! Health by gossip: each node probes its share, all nodes know, and routing follows.

use std::net::{SocketAddr, TcpListener};

use crate::harness::{Mesh, Upstream, get, until, until_some};

/// All of `web` goes to these endpoints, which are probed often. Nothing is retried: an endpoint out
/// of rotation is seen by the answers.
fn config(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n\
         kind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{{ to: all, retry: {{ times: 0 }} }}]\n---\n\
         kind: Cluster\nname: all\nendpoints: [{}]\n\
         probe: {{ http: /healthz, every: 300ms, timeout: 300ms, unhealthy_after: 2, healthy_after: 2 }}\n",
        endpoints.join(", ")
    )
}

fn wait_verdict(mesh: &Mesh, endpoint: SocketAddr, verdict: &str) {
    until(&format!("{endpoint} is {verdict} on every node"), || {
        mesh.running()
            .all(|node| node.verdict("/", endpoint).as_deref() == Some(verdict))
    });
}

/// An endpoint dies, leaves rotation on all nodes, returns, and is used again by all.
fn dies_and_returns(count: usize) {
    let mesh = Mesh::start(count);
    let stays = Upstream::start("stays", (mesh.subnet.ip(101), 8000));
    let mut dies = Upstream::start("dies", (mesh.subnet.ip(102), 8000));
    mesh.apply(&config(&[stays.address, dies.address]));
    wait_verdict(&mesh, dies.address, "healthy");
    wait_verdict(&mesh, stays.address, "healthy");
    dies.die();
    wait_verdict(&mesh, dies.address, "unhealthy");
    // The workers hear of a verdict a moment after it can be seen.
    for node in &mesh.nodes {
        until("only the one that stays is used", || {
            (0..20).all(|_| {
                let answer = get(node.at(8080), "any", "/").unwrap();
                answer.body.starts_with("stays ")
            })
        });
    }
    dies.revive();
    wait_verdict(&mesh, dies.address, "healthy");
    for node in &mesh.nodes {
        until("the endpoint that returned is used", || {
            get(node.at(8080), "any", "/").is_ok_and(|answer| answer.body.starts_with("dies "))
        });
    }
}

#[test]
fn an_endpoint_that_dies_leaves_rotation_on_three_nodes_and_returns() {
    dies_and_returns(3);
}

#[test]
fn an_endpoint_that_dies_leaves_rotation_on_two_nodes_and_returns() {
    dies_and_returns(2);
}

#[test]
fn an_endpoint_that_dies_leaves_rotation_on_one_node_and_returns() {
    dies_and_returns(1);
}

/// It takes connections, and never answers: as dead as one that refuses them.
#[test]
fn an_endpoint_that_hangs_leaves_rotation_too() {
    let mesh = Mesh::start(1);
    let stays = Upstream::start("stays", (mesh.subnet.ip(101), 8000));
    let hangs = TcpListener::bind((mesh.subnet.ip(102), 8000)).unwrap();
    let hanging = hangs.local_addr().unwrap();
    mesh.apply(&config(&[stays.address, hanging]));
    wait_verdict(&mesh, hanging, "unhealthy");
    for _ in 0..20 {
        let answer = get(mesh.nodes[0].at(8080), "any", "/").unwrap();
        assert!(answer.body.starts_with("stays "), "{answer:?}");
    }
}

fn probes(mesh: &Mesh, at: usize) -> f64 {
    mesh.nodes[at].metric("skein_probe_probes_total")
}

/// Four nodes, three probers for an endpoint: the fourth knows all the same, and takes over when one
/// of the three dies.
#[test]
fn a_node_that_does_not_probe_knows_and_takes_over_when_a_prober_dies() {
    let mut mesh = Mesh::start(4);
    // One endpoint only, so that one of the nodes is without a share.
    let mut dies = Upstream::start("dies", (mesh.subnet.ip(102), 8000));
    mesh.apply(&config(&[dies.address]));
    wait_verdict(&mesh, dies.address, "healthy");
    let idle = until_some("three of four nodes probe", || {
        let probing = |at: &usize| probes(&mesh, *at) > 0.0;
        let idle: Vec<usize> = (0..4).filter(|at| !probing(at)).collect();
        (idle.len() == 1).then(|| idle[0])
    });
    let before: Vec<f64> = (0..4).map(|at| probes(&mesh, at)).collect();
    until("the probers go on", || {
        (0..4).all(|at| at == idle || probes(&mesh, at) > before[at] + 2.0)
    });
    assert!(
        probes(&mesh, idle) < 1.0,
        "a node without a share probes nothing"
    );
    let dead = (idle + 1) % 4;
    mesh.nodes[dead].kill();
    until(
        "the fourth node probes in the place of the dead one",
        || probes(&mesh, idle) > 2.0,
    );
    dies.die();
    wait_verdict(&mesh, dies.address, "unhealthy");
}

#[test]
fn when_all_endpoints_fail_their_probes_requests_are_tried_all_the_same() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let start = |name: &str, last: u8| Upstream::start(name, (mesh.subnet.ip(last), 8000));
    let both = [start("one", 101), start("two", 102)];
    let config = config(&[both[0].address, both[1].address]);
    mesh.apply(&config);
    for one in &both {
        one.fall_sick();
        wait_verdict(&mesh, one.address, "unhealthy");
    }
    let answer = |at| {
        let answer = get(node.at(8080), "any", &format!("/{at}")).unwrap();
        (answer.status, answer.body)
    };
    for at in 0..20 {
        assert_eq!(answer(at).0, 200, "panic: better some answers than none");
    }
    assert!(both.iter().all(|one| one.requests() > 0), "both are used");
    // Who does not want that says so.
    let cluster = config.split("---\n").nth(2).unwrap();
    mesh.apply(&format!("{cluster}panic_threshold: 0\n"));
    assert_eq!(answer(99).0, 503);
}

#[test]
fn a_killed_node_is_down_on_the_others_and_a_leaving_one_at_once() {
    let mut mesh = Mesh::start(3);
    mesh.nodes[2].kill();
    let down = |mesh: &Mesh, on: usize, name: &str| {
        let node = mesh.nodes[on].status_of(name);
        node.is_some_and(|node| node["state"] == "DOWN")
    };
    until("the killed node is DOWN on both others", || {
        down(&mesh, 0, "n3") && down(&mesh, 1, "n3")
    });
    mesh.nodes[2].start();
    mesh.wait_formed();
    // A leaving node says so: when its process has ended, the others know already or in a moment,
    // without the time that the failure detector needs (two to three seconds).
    assert!(mesh.nodes[2].stop().success());
    let left = |mesh: &Mesh, on: usize| {
        let peers = mesh.nodes[on].skein(&["peers", "-o", "json"]).ok().json();
        let peers = peers["peers"].as_array().unwrap().iter();
        let mut peers = peers.filter(|peer| peer["name"] == "n3");
        peers.next().unwrap()["liveness"] == "LEFT"
    };
    until("the node has left, and is not merely gone", || {
        left(&mesh, 0) && left(&mesh, 1) && down(&mesh, 0, "n3") && down(&mesh, 1, "n3")
    });
    // It never was DOWN by the failure detector: a LEFT that comes from a leave stays LEFT.
    mesh.nodes[2].start();
    mesh.wait_formed();
}
