//! How nodes become a mesh, once: the decision, as a pure function.
//!
//! Owns the rule that makes a second mesh impossible: a node durably promises itself to exactly one
//! set of (id, address) pairs, and a set becomes a mesh only when all its nodes promised that very
//! set. Never sends, stores or waits: `form` does what is decided here.

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
    /// The mesh it belongs to already, as far as its disk knows; it may not be a member yet.
    pub(crate) mesh: Option<MeshId>,
    /// How many nodes found the mesh.
    pub(crate) expect: usize,
    /// Whether it knows whom to look for: seeds to join, or peers from an earlier life.
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
    /// Every node of the promised set promised it, and this one begins for all.
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
    /// Everybody promised; this node, the first of the set, begins for all.
    ForFounder(NodeId),
    /// The mesh that this node belongs to is not in reach.
    ForOwnMesh(MeshId),
    /// The promise names another peer address of this node.
    AddressMoved(SocketAddr),
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
            Self::ForFounder(id) => write!(f, "node {id} founds the mesh for all"),
            Self::ForOwnMesh(mesh) => write!(
                f,
                "no node of this node's mesh {mesh} is in reach; start one, or give its gossip \
                 address with --join"
            ),
            Self::AddressMoved(promised) => write!(
                f,
                "this node promised to found a mesh at the peer address {promised}; start it with \
                 --peer-addr {promised}"
            ),
            Self::ForPromises(ids) => {
                f.write_str("waiting for the promise of node")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))?;
                f.write_str(
                    "; if one of them is gone for good, empty the data directories of all \
                     founding nodes, none of which holds data yet",
                )
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
    if let Some(mesh) = own.mesh {
        return return_to(mesh, own, others);
    }
    if let Some(step) = existing_mesh(own, others) {
        return step;
    }
    match &own.promise {
        Some(set) => keep_promise(own, set, others),
        None if own.expect == 1 && own.has_seeds => Step::Wait(Waiting::ForMesh),
        None if own.expect == 1 && !own.listened => Step::Wait(Waiting::Listening),
        // Whoever else is here without a mesh was told to join one: this one.
        None if own.expect == 1 => {
            Step::Promise(FoundingSet(BTreeMap::from([(own.id, own.peer_addr)])))
        }
        None => choose_set(own, others),
    }
}

/// The step of a node whose disk names a mesh although its log does not say that it is a member: it
/// ended between the two. It never looks at another mesh.
fn return_to(mesh: MeshId, own: &Own, others: &[Other]) -> Step {
    if let Some(set) = own.promise.as_ref().filter(|set| set.mesh_id() == mesh) {
        return keep_promise(own, set, others);
    }
    let members = others.iter().filter(|other| other.mesh == Some(mesh));
    let through: Vec<SocketAddr> = members.map(|other| other.peer_addr).collect();
    if through.is_empty() {
        Step::Wait(Waiting::ForOwnMesh(mesh))
    } else {
        Step::Join { mesh, through }
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
        Some(set) if set.mesh_id() == mesh => Some(keep_promise(own, set, others)),
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
    if let Some(&promised) = set
        .0
        .get(&own.id)
        .filter(|&&promised| promised != own.peer_addr)
    {
        return Step::Wait(Waiting::AddressMoved(promised));
    }
    // A node that is in the set's mesh kept its promise.
    let kept =
        |other: &Other| other.promise.as_ref() == Some(set) || other.mesh == Some(set.mesh_id());
    let promised =
        |id: &NodeId| *id == own.id || others.iter().any(|other| other.id == *id && kept(other));
    let missing: Vec<NodeId> = set.0.keys().copied().filter(|id| !promised(id)).collect();
    match set.0.keys().next() {
        _ if !missing.is_empty() => Step::Wait(Waiting::ForPromises(missing)),
        // One begins for all: two first entries that differ in a name would never be reconciled.
        Some(first) if *first != own.id => Step::Wait(Waiting::ForFounder(*first)),
        _ => Step::Found(set.clone()),
    }
}

fn choose_set(own: &Own, others: &[Other]) -> Step {
    // A node that expects nobody else founds alone or joins: it is none of the founders.
    let founders = || others.iter().filter(|other| other.expect > 1);
    if let Some(odd) = founders().find(|other| other.expect != own.expect) {
        return Step::Wait(Waiting::UnequalExpect {
            name: odd.name.clone(),
            theirs: odd.expect,
            ours: own.expect,
        });
    }
    // Follow a set that somebody promised; the order makes all undecided nodes follow the same one.
    let here = |set: &&FoundingSet| set.0.get(&own.id) == Some(&own.peer_addr);
    if let Some(set) = founders()
        .filter_map(|other| other.promise.as_ref())
        .filter(here)
        .min()
    {
        return Step::Promise(set.clone());
    }
    let mut free: BTreeMap<NodeId, SocketAddr> = founders()
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
