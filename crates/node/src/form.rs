//! Carries out what `formation` decides: promises, founds, joins.
//!
//! Owns the loop from the first start to membership. Never decides: every step is `next_step`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_gossip::{Identity, Peers, Promised};
use model::{MeshId, NodeId};
use store_disk::Promise;
use store_raft::Member;

use crate::formation::{FoundingSet, Other, Own, Step, Waiting, next_step};
use crate::parts::Parts;

/// How often the view of gossip is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a node without seeds listens for a mesh that knows its address before it founds one:
/// long enough for two rounds of gossip from nodes that have it among their seeds.
const LISTEN: Duration = Duration::from_millis(1200);
/// The pause after a join that did not work.
const JOIN_RETRY: Duration = Duration::from_millis(300);

/// Forms, joins or simply returns to the mesh; ends when this node is a member.
pub(crate) async fn become_member(parts: &Parts) {
    let begun = Instant::now();
    let mut said: Option<Waiting> = None;
    loop {
        if parts.store.status().is_member() {
            return;
        }
        let peers = parts.mesh.peers().borrow().clone();
        let own = own(parts, begun);
        match next_step(&own, &others(&peers)) {
            Step::Wait(waiting) => {
                if said.as_ref() != Some(&waiting) {
                    tracing::info!(why = %waiting, "not a member of a mesh yet");
                    said = Some(waiting);
                }
            }
            Step::Promise(set) => promise(parts, &set).await,
            Step::Found(set) => found(parts, &set, &peers).await,
            Step::Join { mesh, through } => join(parts, mesh, &through).await,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn own(parts: &Parts, begun: Instant) -> Own {
    Own {
        id: parts.node_id,
        peer_addr: parts.options.peer_addr,
        expect: parts.options.bootstrap_expect,
        has_seeds: !parts.options.join.is_empty(),
        listened: begun.elapsed() >= LISTEN,
        promise: parts.data.promise().and_then(|promise| from_disk(&promise)),
    }
}

fn others(peers: &Peers) -> Vec<Other> {
    peers
        .iter()
        .filter(|peer| peer.liveness == mesh_gossip::Liveness::Alive)
        .filter_map(|peer| other(&peer.facts.identity))
        .collect()
}

fn other(identity: &Identity) -> Option<Other> {
    Some(Other {
        id: identity.node_id,
        name: identity.name.clone(),
        peer_addr: identity.peer_addr?,
        mesh: identity.mesh_id,
        expect: identity
            .bootstrap_expect
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(1),
        promise: identity.promise.as_deref().and_then(from_gossip),
    })
}

/// The promise as gossip tells it.
pub(crate) fn to_gossip(promise: &Promise) -> Vec<Promised> {
    let members = promise.members.iter();
    members
        .map(|(node_id, peer_addr)| Promised {
            node_id: *node_id,
            peer_addr: peer_addr.clone(),
        })
        .collect()
}

fn from_gossip(promised: &[Promised]) -> Option<FoundingSet> {
    set(promised
        .iter()
        .map(|one| (one.node_id, one.peer_addr.as_str())))
}

fn from_disk(promise: &Promise) -> Option<FoundingSet> {
    set(promise
        .members
        .iter()
        .map(|(id, address)| (*id, address.as_str())))
}

fn set<'a>(members: impl Iterator<Item = (NodeId, &'a str)>) -> Option<FoundingSet> {
    let parsed = members.map(|(id, address)| Some((id, address.parse::<SocketAddr>().ok()?)));
    parsed.collect::<Option<BTreeMap<_, _>>>().map(FoundingSet)
}

async fn promise(parts: &Parts, set: &FoundingSet) {
    let members = set
        .0
        .iter()
        .map(|(id, address)| (*id, address.to_string()))
        .collect();
    let (data, promise) = (parts.data.clone(), Promise { members });
    match blocking(move || data.save_promise(promise)).await {
        Ok(()) => {
            tracing::info!(
                nodes = set.0.len(),
                "promised to found a mesh with exactly these nodes"
            );
            parts.publish();
        }
        Err(fault) => tracing::error!(%fault, "cannot promise to found a mesh"),
    }
}

async fn found(parts: &Parts, set: &FoundingSet, peers: &Peers) {
    let members = set
        .0
        .keys()
        .filter_map(|id| founder(parts, *id, peers))
        .collect::<Vec<_>>();
    if members.len() < set.0.len() {
        return; // A founder was just lost from view; it is looked at again.
    }
    let mesh = set.mesh_id();
    match parts.store.initialize(members, mesh).await {
        Ok(()) => {
            tracing::info!(%mesh, nodes = set.0.len(), "founded a mesh");
            wait_for_membership(parts).await;
        }
        Err(fault) => tracing::warn!(%fault, "cannot found the mesh yet"),
    }
}

fn founder(parts: &Parts, id: NodeId, peers: &Peers) -> Option<Member> {
    if id == parts.node_id {
        return Some(parts.own_member());
    }
    let identity = &peers.peer(id)?.facts.identity;
    Some(Member {
        id,
        name: identity.name.to_string(),
        peer_addr: identity.peer_addr?.to_string(),
        client_addr: identity
            .client_addr
            .map(|a| a.to_string())
            .unwrap_or_default(),
    })
}

async fn join(parts: &Parts, mesh: MeshId, through: &[SocketAddr]) {
    let through: Vec<String> = through.iter().map(ToString::to_string).collect();
    match store_server::request_join(&through, &parts.own_member(), Some(mesh)).await {
        Ok(joined) => {
            tracing::info!(%mesh, members = joined.members.len(), "joined a mesh as a learner");
            wait_for_membership(parts).await;
        }
        Err(fault) => {
            tracing::warn!(%mesh, %fault, "cannot join yet");
            tokio::time::sleep(JOIN_RETRY).await;
        }
    }
}

/// After an accepted founding or join, membership arrives through the log.
async fn wait_for_membership(parts: &Parts) {
    let mut status = parts.store.status_watch();
    let arrived = status.wait_for(store_raft::RaftStatus::is_member);
    // Late is no fault: the loop above asks again.
    let _ = tokio::time::timeout(Duration::from_secs(5), arrived).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
