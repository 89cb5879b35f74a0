//! How nodes become a mesh, once: the decision, as a pure function.
//!
//! Owns the rule that makes a second mesh impossible: a node durably promises itself to exactly one
//! set of (id, address) pairs, and a set becomes a mesh only when all its nodes promised that very
//! set. Never sends, stores or waits: `formation_driver` does what is decided here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use model::{MeshId, NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// The founding members of a mesh: ids and peer addresses, ordered by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FoundingSet(pub(crate) BTreeMap<NodeId, SocketAddr>);

impl FoundingSet {
    /// The id of the mesh that this set founds: the same on every node without a word exchanged.
    pub(crate) fn mesh_id(&self) -> MeshId {
        // FNV-1a over the random node ids: equal sets agree, different sets differ almost surely.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.0.keys().flat_map(|id| id.0.to_be_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        MeshId(hash.max(1))
    }
}

/// What this node brings to the decision.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Its id.
    pub(crate) id: NodeId,
    /// Where its Raft peers reach it.
    pub(crate) peer_addr: SocketAddr,
    /// How many nodes found the mesh.
    pub(crate) expect: usize,
    /// Whether it was given seeds to join.
    pub(crate) has_seeds: bool,
    /// Whether it listened long enough to have heard of a mesh that knows its address.
    pub(crate) listened: bool,
    /// The set it promised itself to, if any.
    pub(crate) promise: Option<FoundingSet>,
}

/// What gossip tells of another living node.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    /// Its id.
    pub(crate) id: NodeId,
    /// Its name.
    pub(crate) name: NodeName,
    /// Where its Raft peers reach it.
    pub(crate) peer_addr: SocketAddr,
    /// The mesh it belongs to, if any.
    pub(crate) mesh: Option<MeshId>,
    /// How many nodes it expects to found a mesh.
    pub(crate) expect: usize,
    /// The set it promised itself to, if any.
    pub(crate) promise: Option<FoundingSet>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait(Waiting),
    /// Promise this set durably, tell the others, decide again.
    Promise(FoundingSet),
    /// Every node of the promised set promised it: begin.
    Found(FoundingSet),
    /// Ask this mesh, through one of these peers, to be taken in.
    Join {
        /// The mesh.
        mesh: MeshId,
        /// Its nodes' peer addresses.
        through: Vec<SocketAddr>,
    },
}

/// Why there is nothing to do yet; shown in status and, when it changes, in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// No mesh was heard of and this node may not found one alone.
    ForMesh,
    /// A lone node listens first, lest it overlook a mesh that knows its address.
    Listening,
    /// Not enough nodes yet.
    ForNodes {
        /// Nodes here, this one included.
        seen: usize,
        /// Nodes that found the mesh.
        expected: usize,
    },
    /// The node with the lowest id names the set.
    ForProposal(NodeId),
    /// These nodes of the promised set have not promised it yet.
    ForPromises(Vec<NodeId>),
    /// Peers of several meshes are in reach: joining either could be wrong.
    TwoMeshes(MeshId, MeshId),
    /// A peer expects another number of founding nodes.
    UnequalExpect {
        /// The peer.
        name: NodeName,
        /// Its number.
        theirs: usize,
        /// Ours.
        ours: usize,
    },
    /// This node is promised to a set, and another mesh formed without it.
    PromisedElsewhere(MeshId),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForMesh => f.write_str(
                "no mesh answers at the --join addresses yet; start its nodes, or give \
                 --bootstrap-expect N to found one",
            ),
            Self::Listening => f.write_str("listening for a mesh that knows this address"),
            Self::ForNodes { seen, expected } => {
                write!(f, "{seen} of {expected} founding nodes are here")
            }
            Self::ForProposal(id) => write!(f, "node {id} names the founding set"),
            Self::ForPromises(ids) => {
                f.write_str("waiting for the promise of node")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::TwoMeshes(a, b) => write!(
                f,
                "the meshes {a} and {b} are both in reach; let --join name nodes of one mesh only"
            ),
            Self::UnequalExpect { name, theirs, ours } => write!(
                f,
                "{name} has --bootstrap-expect {theirs}, this node {ours}; give all the same"
            ),
            Self::PromisedElsewhere(mesh) => write!(
                f,
                "this node is promised to other founding nodes, yet mesh {mesh} is here; to join \
                 it, empty this node's data directory"
            ),
        }
    }
}

/// Decides the next step of a node that belongs to no mesh, from itself and the living others.
pub(crate) fn next_step(own: &Own, others: &[Other]) -> Step {
    if let Some(step) = existing_mesh(own, others) {
        return step;
    }
    match &own.promise {
        Some(set) => keep_promise(own, set, others),
        None if own.expect == 1 && own.has_seeds => Step::Wait(Waiting::ForMesh),
        None if own.expect == 1 && !own.listened => Step::Wait(Waiting::Listening),
        None => choose_set(own, others),
    }
}

/// What an existing mesh in reach asks for, if there is one.
fn existing_mesh(own: &Own, others: &[Other]) -> Option<Step> {
    let mut meshes: Vec<MeshId> = others.iter().filter_map(|other| other.mesh).collect();
    meshes.sort_unstable();
    meshes.dedup();
    let mesh = *meshes.first()?;
    if let Some(&second) = meshes.get(1) {
        return Some(Step::Wait(Waiting::TwoMeshes(mesh, second)));
    }
    match &own.promise {
        // The others were quicker: this node is a founding member all the same.
        Some(set) if set.mesh_id() == mesh => Some(Step::Found(set.clone())),
        Some(_) => Some(Step::Wait(Waiting::PromisedElsewhere(mesh))),
        None => {
            let members = others.iter().filter(|other| other.mesh.is_some());
            Some(Step::Join {
                mesh,
                through: members.map(|other| other.peer_addr).collect(),
            })
        }
    }
}

fn keep_promise(own: &Own, set: &FoundingSet, others: &[Other]) -> Step {
    let promised = |id: &NodeId| {
        *id == own.id
            || others
                .iter()
                .any(|other| other.id == *id && other.promise.as_ref() == Some(set))
    };
    let missing: Vec<NodeId> = set.0.keys().copied().filter(|id| !promised(id)).collect();
    if missing.is_empty() {
        Step::Found(set.clone())
    } else {
        Step::Wait(Waiting::ForPromises(missing))
    }
}

fn choose_set(own: &Own, others: &[Other]) -> Step {
    if let Some(odd) = others.iter().find(|other| other.expect != own.expect) {
        return Step::Wait(Waiting::UnequalExpect {
            name: odd.name.clone(),
            theirs: odd.expect,
            ours: own.expect,
        });
    }
    // Follow a set that somebody promised; the order makes all undecided nodes follow the same one.
    let here = |set: &&FoundingSet| set.0.get(&own.id) == Some(&own.peer_addr);
    if let Some(set) = others
        .iter()
        .filter_map(|other| other.promise.as_ref())
        .filter(here)
        .min()
    {
        return Step::Promise(set.clone());
    }
    let mut free: BTreeMap<NodeId, SocketAddr> = others
        .iter()
        .filter(|other| other.promise.is_none())
        .map(|other| (other.id, other.peer_addr))
        .collect();
    free.insert(own.id, own.peer_addr);
    if free.len() < own.expect {
        return Step::Wait(Waiting::ForNodes {
            seen: free.len(),
            expected: own.expect,
        });
    }
    match free.keys().next() {
        Some(lowest) if *lowest != own.id => Step::Wait(Waiting::ForProposal(*lowest)),
        _ => Step::Promise(FoundingSet(free.into_iter().take(own.expect).collect())),
    }
}

#[cfg(test)]
mod tests;
