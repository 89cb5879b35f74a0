//! The peers of a node, as its gossip knows them at one moment.
//!
//! Owns the shape that others read. Never decides who is alive: that is `roster`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh_health::{Received, Report};
use model::NodeId;
use prometheus_client::encoding::EncodeLabelValue;

use crate::Facts;

/// What gossip holds of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Liveness {
    /// Heard of lately, from itself or by way of others.
    Alive,
    /// Silent for too long.
    Down,
    /// It said that it leaves.
    Left,
}

/// One peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// What it tells about itself; for one that is not alive, what it told last.
    pub facts: Facts,
    /// Which of its lives this is: grows with every start.
    pub generation: u64,
    /// What gossip holds of it.
    pub liveness: Liveness,
    /// When `liveness` began, by this node's clock.
    pub since: SystemTime,
    /// Whether it belongs to another mesh than this node. It is shown, and counts for nothing.
    pub foreign: bool,
    /// Its health reports by cluster (`namespace/name`).
    pub reports: BTreeMap<Arc<str>, ReceivedReport>,
}

/// A health report with the time of its arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedReport {
    /// What it says.
    pub report: Report,
    /// When it arrived here.
    pub received: Instant,
}

/// All peers but this node itself, immutable, cheap to share.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    pub(crate) by_id: BTreeMap<NodeId, Arc<Peer>>,
    /// The gossip address of another live process that claims this node's id: somebody copied a
    /// data directory, and two voters with one id can break the store.
    pub twin: Option<SocketAddr>,
}

impl Peers {
    /// Every peer, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_id.values().map(|peer| &**peer)
    }

    /// The peer with `id`.
    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.by_id.get(&id).map(|peer| &**peer)
    }

    /// Those that are alive and not foreign.
    pub fn alive(&self) -> impl Iterator<Item = &Peer> {
        self.iter()
            .filter(|peer| peer.liveness == Liveness::Alive && !peer.foreign)
    }

    /// The ids of [`Peers::alive`]: with this node's own id, among whom probes are shared out.
    pub fn alive_ids(&self) -> BTreeSet<NodeId> {
        self.alive()
            .map(|peer| peer.facts.identity.node_id)
            .collect()
    }

    /// The health reports of [`Peers::alive`], with their ages at `now`.
    pub fn reports(&self, now: Instant) -> Vec<Received<'_>> {
        self.alive()
            .flat_map(|peer| {
                peer.reports
                    .iter()
                    .map(move |(cluster, received)| Received {
                        node: peer.facts.identity.node_id,
                        cluster,
                        report: &received.report,
                        age: now.saturating_duration_since(received.received),
                    })
            })
            .collect()
    }

    /// Whether nothing changed between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.twin == other.twin
            && self.by_id.len() == other.by_id.len()
            && self
                .by_id
                .values()
                .zip(other.by_id.values())
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }
}
