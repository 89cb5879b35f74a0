//! Carries out what `formation` decides: promises, founds, joins.
//!
//! Owns the loop from the first start to membership; `standing` goes on from there. Never decides:
//! every step is `next_step`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_gossip::{GOSSIP_INTERVAL, HEARD_WITHIN_INTERVALS, Identity, Peers, Promised};
use model::{MeshId, NodeId};
use store_disk::Promise;
use store_raft::{Member, Store};
use store_server::JoinError;

use crate::formation::{FoundingSet, Other, Own, Step, next_step};
use crate::parts::{Parts, client_address};
use crate::standing;

/// How often the view of gossip is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a node without seeds listens for a mesh that knows its address before it founds one:
/// every node of such a mesh that has it among its seeds has called by then.
const LISTEN: Duration = GOSSIP_INTERVAL.saturating_mul(HEARD_WITHIN_INTERVALS);
/// The pause after a step that did not work.
const RETRY: Duration = Duration::from_millis(300);
/// The pause after a refusal: it stands until something changed.
const REFUSED_RETRY: Duration = Duration::from_secs(3);

/// How long the store may take after its start to know its members from its log.
const MEMBERS_KNOWN: Duration = Duration::from_secs(2);

/// Forms, joins or simply returns to the mesh, and keeps this node's place in it.
pub(crate) async fn be_member(parts: &Parts) {
    let store = &parts.opened().await;
    let place = async {
        become_member(parts, store).await;
        standing::keep(parts, store).await;
    };
    tokio::join!(standing::tell_addresses(parts, store), place);
}

/// Ends when this node is a member, or has been one.
async fn become_member(parts: &Parts, store: &Store) {
    if parts.data.mesh().is_some() {
        // A node whose log does not name it, because its join was interrupted, waits in vain.
        let mut status = store.status_watch();
        let known = status.wait_for(standing::was_member);
        let _ = tokio::time::timeout(MEMBERS_KNOWN, known).await;
    }
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        if standing::was_member(&store.status()) {
            return;
        }
        let peers = parts.mesh.peers().borrow().clone();
        let result = match next_step(&own(parts, begun), &others(&peers)) {
            Step::Wait(waiting) => Err(Pending {
                why: waiting.to_string(),
                pause: LOOK_EVERY,
            }),
            Step::Promise(set) => promise(parts, &set).await,
            Step::Found(set) => found(parts, store, &set, &peers).await,
            Step::Join { mesh, through } => join(parts, store, mesh, &through).await,
        };
        match result {
            Ok(()) => tokio::time::sleep(LOOK_EVERY).await,
            Err(pending) => {
                // Said once, however often it is tried.
                if said != pending.why {
                    tracing::info!(why = %pending.why, "not a member of a mesh yet");
                    said = pending.why;
                }
                tokio::time::sleep(pending.pause).await;
            }
        }
    }
}

/// Why this node is no member yet, and when to look again.
struct Pending {
    why: String,
    pause: Duration,
}

impl Pending {
    fn retry(fault: impl std::fmt::Display) -> Self {
        Self {
            why: fault.to_string(),
            pause: RETRY,
        }
    }
}

fn own(parts: &Parts, begun: Instant) -> Own {
    Own {
        id: parts.node_id,
        peer_addr: parts.options.peer_addr,
        expect: parts.options.bootstrap_expect,
        mesh: parts.data.mesh(),
        has_seeds: !parts.options.join.is_empty() || parts.knew_peers,
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

async fn promise(parts: &Parts, set: &FoundingSet) -> Result<(), Pending> {
    let members = set
        .0
        .iter()
        .map(|(id, address)| (*id, address.to_string()))
        .collect();
    let (data, promise) = (parts.data.clone(), Promise { members });
    blocking(move || data.save_promise(promise))
        .await
        .map_err(Pending::retry)?;
    tracing::info!(
        nodes = set.0.len(),
        "promised to found a mesh with exactly these nodes"
    );
    parts.publish();
    Ok(())
}

async fn found(
    parts: &Parts,
    store: &Store,
    set: &FoundingSet,
    peers: &Peers,
) -> Result<(), Pending> {
    let founders = set
        .0
        .iter()
        .map(|(id, address)| founder(parts, *id, *address, peers));
    let Some(members) = founders.collect::<Option<Vec<Member>>>() else {
        return Err(Pending::retry("a founding node was just lost from view"));
    };
    let mesh = set.mesh_id();
    let founded = store.initialize(members, mesh).await;
    founded.map_err(Pending::retry)?;
    tracing::info!(%mesh, nodes = set.0.len(), "founded a mesh");
    wait_for_membership(store).await;
    Ok(())
}

/// A founding member: its id and address as promised, the rest as gossip has it.
fn founder(parts: &Parts, id: NodeId, address: SocketAddr, peers: &Peers) -> Option<Member> {
    if id == parts.node_id {
        return Some(parts.own_member());
    }
    let identity = &peers.peer(id)?.facts.identity;
    Some(Member {
        id,
        name: identity.name.to_string(),
        peer_addr: address.to_string(),
        client_addr: identity
            .client_addr
            .map(|address| client_address(address, identity.client_tls))
            .unwrap_or_default(),
    })
}

async fn join(
    parts: &Parts,
    store: &Store,
    mesh: MeshId,
    through: &[SocketAddr],
) -> Result<(), Pending> {
    let through: Vec<String> = through.iter().map(ToString::to_string).collect();
    let joined = store_server::request_join(
        store.peer_tls(),
        &through,
        &parts.own_member(),
        store.version(),
        Some(mesh),
    )
    .await;
    let joined = joined.map_err(|fault| match fault {
        JoinError::Refused(why) | JoinError::Removed(why) => Pending {
            why,
            pause: REFUSED_RETRY,
        },
        JoinError::Unavailable(_) => Pending::retry(fault),
    })?;
    tracing::info!(%mesh, members = joined.members.len(), "joined a mesh as a learner");
    wait_for_membership(store).await;
    Ok(())
}

/// After an accepted founding or join, membership arrives through the log.
async fn wait_for_membership(store: &Store) {
    let mut status = store.status_watch();
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
