//! What this node knows of every node of the mesh: members of the store and gossip peers, as one.
//!
//! Owns the verdict SYNCED, STALE, REFUSED or DOWN, and the role. Never asks anybody: it reads the
//! views at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use control_api::v1;
use mesh_gossip::{Facts, Liveness, Peers};
use model::{ConfigRevision, NodeId};
use store_mvcc::Image;
use store_raft::{RaftStatus, Role};

use crate::parts::client_address;
use crate::revision_clock::RevisionClock;

/// Remembers when each config revision was first heard of.
#[derive(Debug, Default)]
pub(crate) struct StatusBoard {
    revisions: Mutex<RevisionClock>,
}

/// Everything a status is made of.
pub(crate) struct Sources<'a> {
    /// This node's own facts.
    pub(crate) own: &'a Facts,
    /// The store here.
    pub(crate) raft: &'a RaftStatus,
    /// The others.
    pub(crate) peers: &'a Peers,
    /// The newest image here.
    pub(crate) image: &'a Image,
    /// What its store may hold.
    pub(crate) quota_bytes: u64,
    /// When this node started.
    pub(crate) started: SystemTime,
    /// Now, for how long a node is behind.
    pub(crate) now: Instant,
}

impl StatusBoard {
    /// The status of the mesh.
    pub(crate) fn status(&self, from: &Sources<'_>) -> v1::StatusResponse {
        let leader = from.raft.leader.as_ref().map(|leader| leader.id);
        self.note(from.image.config_revision(), from.peers, from.now);
        let revisions = self.clock();
        let mut nodes: BTreeMap<NodeId, v1::NodeStatus> = BTreeMap::new();
        let own_id = from.own.identity.node_id;
        let mut own = describe(from.own, from.started);
        own.set_state(judge(from.own, &revisions, from.now));
        nodes.insert(own_id, own);
        for peer in from.peers.iter().filter(|peer| !peer.foreign) {
            let id = peer.facts.identity.node_id;
            let mut node = describe(&peer.facts, peer.since);
            node.set_state(match peer.liveness {
                Liveness::Alive => judge(&peer.facts, &revisions, from.now),
                Liveness::Down | Liveness::Left => v1::ConfigState::Down,
            });
            nodes.insert(id, node);
        }
        add_silent_members(from.raft, &mut nodes);
        forget_replaced(from.raft, &mut nodes);
        let stopped = without_store(from);
        for (id, node) in &mut nodes {
            node.set_role(match stopped.contains(id) {
                true => v1::Role::None,
                false => role(from.raft, *id, leader),
            });
        }
        let agreed = from.image.meta().version;
        let leader_name = leader
            .and_then(|id| nodes.get(&id))
            .map(|node| node.name.clone());
        let mut nodes: Vec<v1::NodeStatus> = nodes.into_values().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        v1::StatusResponse {
            mesh_id: from.raft.mesh_id.map_or(0, |id| id.0),
            leader: leader_name.unwrap_or_default(),
            has_quorum: from.raft.quorum,
            config_revision: revisions.newest().0,
            nodes,
            answered_by: from.own.identity.name.to_string(),
            cluster_version: agreed.map_or_else(String::new, |agreed| agreed.version.to_string()),
            downgrade: agreed.is_some_and(|agreed| agreed.downgrade),
            live_bytes: from.image.live_bytes(),
            history_bytes: from.image.history_bytes(),
            quota_bytes: from.quota_bytes,
        }
    }

    /// Takes note of every revision that anybody runs: whatever a node applied was committed.
    pub(crate) fn note(&self, image: ConfigRevision, peers: &Peers, now: Instant) {
        let told = peers.iter().filter(|peer| !peer.foreign);
        let told = told.map(|peer| peer.facts.state.config_revision);
        let newest = told.fold(image, ConfigRevision::max);
        self.clock().note(newest, now);
    }

    fn clock(&self) -> MutexGuard<'_, RevisionClock> {
        self.revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a living node's own words amount to.
fn judge(facts: &Facts, revisions: &RevisionClock, now: Instant) -> v1::ConfigState {
    let state = &facts.state;
    // A node without a store is cut off from what will be accepted, whatever it runs now.
    if state.store_stopped || revisions.is_stale(state.config_revision, now) {
        v1::ConfigState::Stale
    } else if state.refused_count > 0 || state.listeners.iter().any(|one| one.fault.is_some()) {
        v1::ConfigState::Refused
    } else {
        v1::ConfigState::Synced
    }
}

/// The living nodes whose stores have stopped: they are members still, and take no part.
fn without_store(from: &Sources<'_>) -> BTreeSet<NodeId> {
    let others = from.peers.alive().map(|peer| &peer.facts);
    std::iter::once(from.own)
        .chain(others)
        .filter(|facts| facts.state.store_stopped)
        .map(|facts| facts.identity.node_id)
        .collect()
}

fn describe(facts: &Facts, since: SystemTime) -> v1::NodeStatus {
    let (identity, state) = (&facts.identity, &facts.state);
    v1::NodeStatus {
        name: identity.name.to_string(),
        id: identity.node_id.0,
        config_revision: state.config_revision.0,
        version: identity.version.clone(),
        zone: identity.zone.clone().unwrap_or_default(),
        labels: identity.labels.clone().into_iter().collect(),
        addresses: Some(addresses(facts)),
        listeners: state.listeners.iter().map(listener).collect(),
        refused: state.refused.iter().map(refusal).collect(),
        store_fault: state.store_fault.clone().unwrap_or_default(),
        since: unix_seconds(since),
        load_percent: u32::from(state.load_percent),
        ..v1::NodeStatus::default()
    }
}

/// The addresses that a node told, empty where it told none.
pub(crate) fn addresses(facts: &Facts) -> v1::Addresses {
    let text = |address: Option<std::net::SocketAddr>| {
        address
            .map(|address| address.to_string())
            .unwrap_or_default()
    };
    let identity = &facts.identity;
    v1::Addresses {
        client: identity
            .client_addr
            .map(|address| client_address(address, identity.client_tls))
            .unwrap_or_default(),
        peer: text(identity.peer_addr),
        gossip: text(identity.gossip_addr),
        admin: text(identity.admin_addr),
    }
}

fn listener(fact: &mesh_gossip::ListenerFact) -> v1::ListenerStatus {
    let mut status = v1::ListenerStatus {
        name: fact.name.clone(),
        bind: fact.bind.to_string(),
        fault: fact.fault.clone().unwrap_or_default(),
        ..v1::ListenerStatus::default()
    };
    status.set_state(match fact.state.as_str() {
        "listening" => v1::ListenerState::Listening,
        "draining" => v1::ListenerState::Draining,
        _ => v1::ListenerState::Failed,
    });
    status
}

fn refusal(refused: &mesh_gossip::RefusedResource) -> v1::Refusal {
    v1::Refusal {
        resource: refused.resource.clone(),
        fault: refused.fault.clone(),
    }
}

/// Members of the store that gossip has not heard of: they count for quorum, so they are shown.
fn add_silent_members(raft: &RaftStatus, nodes: &mut BTreeMap<NodeId, v1::NodeStatus>) {
    for member in raft.voters.iter().chain(raft.learners.iter()) {
        nodes.entry(member.id).or_insert_with(|| {
            let mut node = v1::NodeStatus {
                name: member.name.clone(),
                id: member.id.0,
                addresses: Some(v1::Addresses {
                    client: member.client_addr.clone(),
                    peer: member.peer_addr.clone(),
                    ..v1::Addresses::default()
                }),
                ..v1::NodeStatus::default()
            };
            node.set_state(v1::ConfigState::Down);
            node
        });
    }
}

/// A dead node whose place a living one of the same name took is history, not a fault to show.
fn forget_replaced(raft: &RaftStatus, nodes: &mut BTreeMap<NodeId, v1::NodeStatus>) {
    let living: Vec<String> = nodes
        .values()
        .filter(|node| node.state() != v1::ConfigState::Down)
        .map(|node| node.name.clone())
        .collect();
    nodes.retain(|id, node| {
        node.state() != v1::ConfigState::Down
            || raft.member(*id).is_some()
            || !living.contains(&node.name)
    });
}

fn role(raft: &RaftStatus, id: NodeId, leader: Option<NodeId>) -> v1::Role {
    if leader == Some(id) {
        return v1::Role::Leader;
    }
    if id == raft.id && raft.role == Role::Candidate {
        return v1::Role::Candidate;
    }
    let is = |members: &[store_raft::Member]| members.iter().any(|member| member.id == id);
    if is(&raft.voters) {
        v1::Role::Follower
    } else if is(&raft.learners) {
        v1::Role::Learner
    } else {
        v1::Role::None
    }
}

/// Seconds since 1970, 0 for a clock before that.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
