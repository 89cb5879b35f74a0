//! How long a mesh takes to know of a death, and whether it ever blames the living.
//!
//! `cargo run --release -p mesh-gossip --example detection -- NODES RUNS` starts NODES in one
//! process, at the interval of a real node, and RUNS times kills one of them. It prints when the
//! first, the median and the last survivor knew, and how often a living node was held for dead.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints, and may end in a panic"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_gossip::{
    Facts, GOSSIP_INTERVAL, GossipConfig, Identity, KeyRing, Liveness, Mesh, NodeState, Peers,
};
use model::{MeshId, NodeId};

/// The detector has filled its windows of samples by then.
const SETTLE: Duration = Duration::from_secs(6);

fn facts(id: u64) -> Facts {
    let identity = Identity {
        node_id: NodeId(id),
        name: format!("node-{id}").parse().unwrap(),
        mesh_id: Some(MeshId(1)),
        promise: None,
        bootstrap_expect: None,
        client_addr: None,
        client_tls: false,
        peer_addr: None,
        admin_addr: None,
        gossip_addr: None,
        zone: None,
        labels: BTreeMap::new(),
        version: String::new(),
        roles: Vec::new(),
    };
    Facts {
        identity,
        state: NodeState::default(),
    }
}

fn start(id: u64, generation: u64, seed: Option<&Mesh>) -> Arc<Mesh> {
    let mesh = Mesh::start(GossipConfig {
        generation,
        bind: ([127, 0, 0, 1], 0).into(),
        seeds: seed.iter().map(|mesh| mesh.address().to_string()).collect(),
        keys: KeyRing::development(),
        interval: GOSSIP_INTERVAL,
        facts: facts(id),
    });
    Arc::new(mesh.unwrap())
}

/// Counts whenever a peer that is not `dying` is held for dead.
async fn watch(mesh: Arc<Mesh>, dying: Arc<AtomicU64>, alarms: Arc<AtomicU64>) {
    let mut peers = mesh.peers();
    drop(mesh);
    let mut down: Vec<u64> = Vec::new();
    while peers.changed().await.is_ok() {
        let now: Arc<Peers> = peers.borrow_and_update().clone();
        let is_down = |id: &u64| {
            let peer = now.peer(NodeId(*id));
            peer.is_some_and(|peer| peer.liveness == Liveness::Down)
        };
        let seen: Vec<u64> = now
            .iter()
            .map(|peer| peer.facts.identity.node_id.0)
            .collect();
        let seen: Vec<u64> = seen.into_iter().filter(is_down).collect();
        let fresh = seen.iter().filter(|id| !down.contains(id));
        let blamed = fresh.filter(|id| **id != dying.load(Ordering::Relaxed));
        alarms.fetch_add(blamed.count() as u64, Ordering::Relaxed);
        down = seen;
    }
}

async fn until(mesh: &Mesh, holds: impl Fn(&Peers) -> bool) {
    let mut peers = mesh.peers();
    peers.wait_for(|peers| holds(peers)).await.unwrap();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap());
    let (nodes, runs) = (arguments.next().unwrap_or(3), arguments.next().unwrap_or(5));
    let (dying, alarms) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut meshes: BTreeMap<u64, Arc<Mesh>> = BTreeMap::new();
    let enter = |meshes: &mut BTreeMap<u64, Arc<Mesh>>, id, generation| {
        let mesh = start(id, generation, meshes.values().next().map(|mesh| &**mesh));
        tokio::spawn(watch(mesh.clone(), dying.clone(), alarms.clone()));
        meshes.insert(id, mesh);
    };
    for id in 1..=nodes {
        enter(&mut meshes, id, 1);
    }
    let began = Instant::now();
    let mut last = Vec::new();
    for run in 1..=runs {
        for mesh in meshes.values() {
            until(mesh, |peers| peers.alive().count() as u64 == nodes - 1).await;
        }
        tokio::time::sleep(SETTLE).await;
        let victim = run % nodes + 1;
        dying.store(victim, Ordering::Relaxed);
        let killed = Instant::now();
        drop(meshes.remove(&victim));
        let mut known = Vec::new();
        for mesh in meshes.values() {
            let mesh = mesh.clone();
            known.push(tokio::spawn(async move {
                let down = |peers: &Peers| {
                    let peer = peers.peer(NodeId(victim));
                    peer.is_some_and(|peer| peer.liveness == Liveness::Down)
                };
                until(&mesh, down).await;
                killed.elapsed().as_secs_f64()
            }));
        }
        let mut took = Vec::new();
        for one in known {
            took.push(one.await.unwrap());
        }
        took.sort_by(f64::total_cmp);
        last.push(took[took.len() - 1]);
        let median = took[took.len() / 2];
        println!(
            "run {run}: first {:.2} s, median {median:.2} s, last {:.2} s",
            took[0],
            took[took.len() - 1]
        );
        enter(&mut meshes, victim, run + 1);
    }
    last.sort_by(f64::total_cmp);
    let watched = began.elapsed().as_secs() * nodes * (nodes - 1);
    println!(
        "{nodes} nodes, {runs} runs: last {:.2} to {:.2} s, median {:.2} s; {} false alarms in {watched} s of watching each other",
        last[0],
        last[last.len() - 1],
        last[last.len() / 2],
        alarms.load(Ordering::Relaxed)
    );
}
