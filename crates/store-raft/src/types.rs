//! The types that openraft is told to work with.
//!
//! Owns the choice of node id, member information, log payload and answer. Never converts: that is
//! `wire`; never decides: that is openraft.

use std::fmt;

use bytes::Bytes;
use model::{MeshId, NodeId};
use openraft::impls::{BoxedErrorSource, InlineBatch, TokioRuntime, Vote, leader_id_adv};
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use store_mvcc::Outcome;

/// openraft's parameters.
///
/// Leader ids order by (term, node id), so two candidates of one term never split the vote for
/// good: the greater wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = EncodedBatch;
    type R = Vec<Outcome>;
    type NodeId = NodeId;
    type Node = MemberInfo;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote<LeaderId>;
    type Payload = EntryPayload<EncodedBatch, NodeId, MemberInfo>;
    type Entry = openraft::Entry<LeaderId, Self::Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type VoteId = Vote<LeaderId>;
pub(crate) type Entry = openraft::Entry<LeaderId, EntryPayload<EncodedBatch, NodeId, MemberInfo>>;
pub(crate) type Membership = openraft::Membership<NodeId, MemberInfo>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, MemberInfo>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, MemberInfo>;

/// What the membership replicates about a member, next to its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    pub(crate) name: String,
    pub(crate) peer_addr: String,
    pub(crate) client_addr: String,
    /// The same for every member: whoever has the membership knows its mesh.
    pub(crate) mesh_id: MeshId,
}

/// One log entry's commands: an encoded `skeinpb::Batch`.
///
/// It is encoded once by the proposer, stored and sent as it is, and decoded only by apply.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncodedBatch(pub(crate) Bytes);

impl fmt::Debug for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where openraft puts a result: a closure that it calls once.
pub(crate) struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    pub(crate) fn new(then: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(then))
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
