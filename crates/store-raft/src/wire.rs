//! openraft's types to and from the protobuf that is stored and sent.
//!
//! Owns the mapping and its errors. Never drops what it does not know: an unknown payload is an
//! error, because skipping an entry would let members differ.

use std::collections::{BTreeMap, BTreeSet};

use model::{MeshId, NodeId};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use store_api::skeinpb as pb;

use crate::soundness::digest::Digest;
use crate::types::{
    EncodedBatch, Entry, LeaderId, LogId, MemberInfo, Membership, SnapshotMeta, StoredMembership,
    Types, VoteId,
};

/// Bytes that are valid protobuf but not what this version can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("`{0}` is missing; the sender is broken or of an incompatible version")]
    Missing(&'static str),
    #[error(
        "log entry {index} has a payload of an unknown kind; \
         run at least the version that wrote it"
    )]
    UnknownPayload { index: u64 },
    #[error("the membership is inconsistent: {0}; the sender is broken")]
    Membership(String),
    #[error("the bytes are not protobuf: {0}; the data is damaged")]
    Malformed(#[from] prost::DecodeError),
}

impl From<WireError> for std::io::Error {
    fn from(error: WireError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

// ---- log ids and votes

pub(crate) fn log_id_to_pb(id: &LogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        node_id: id.leader_id.node_id.0,
        index: id.index,
    }
}

pub(crate) fn log_id_from_pb(id: &pb::LogId) -> LogId {
    LogId::new(
        LeaderId {
            term: id.term,
            node_id: NodeId(id.node_id),
        },
        id.index,
    )
}

fn opt_to_pb(id: Option<&LogId>) -> Option<pb::LogId> {
    id.map(log_id_to_pb)
}

fn opt_from_pb(id: Option<&pb::LogId>) -> Option<LogId> {
    id.map(log_id_from_pb)
}

pub(crate) fn vote_to_pb(vote: &VoteId) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.node_id.0,
        committed: vote.committed,
    }
}

fn vote_id(vote: &pb::Vote) -> VoteId {
    VoteId {
        leader_id: LeaderId {
            term: vote.term,
            node_id: NodeId(vote.node_id),
        },
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_pb(vote: Option<&pb::Vote>) -> Result<VoteId, WireError> {
    vote.map(vote_id).ok_or(WireError::Missing("vote"))
}

// ---- membership

fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let voters = membership.get_joint_config().iter();
    pb::Membership {
        voters: voters
            .map(|set| pb::VoterSet {
                node_ids: set.iter().map(|id| id.0).collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, info)| member_to_pb(*id, info))
            .collect(),
    }
}

pub(crate) fn member_to_pb(id: NodeId, info: &MemberInfo) -> pb::Member {
    pb::Member {
        node_id: id.0,
        name: info.name.clone(),
        peer_addr: info.peer_addr.clone(),
        client_addr: info.client_addr.clone(),
        mesh_id: info.mesh_id.0,
    }
}

fn membership_from_pb(membership: pb::Membership) -> Result<Membership, WireError> {
    let voters = membership.voters.into_iter();
    let voters: Vec<BTreeSet<NodeId>> = voters
        .map(|set| set.node_ids.into_iter().map(NodeId).collect())
        .collect();
    let members: BTreeMap<NodeId, MemberInfo> = membership
        .members
        .into_iter()
        .map(|member| {
            let info = MemberInfo {
                name: member.name,
                peer_addr: member.peer_addr,
                client_addr: member.client_addr,
                mesh_id: MeshId(member.mesh_id),
            };
            (NodeId(member.node_id), info)
        })
        .collect();
    Membership::new(voters, members).map_err(|error| WireError::Membership(error.to_string()))
}

/// The snapshot's meta data; `snapshot_id` is for people.
pub(crate) fn meta_to_pb(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: opt_to_pb(meta.last_log_id.as_ref()),
        membership_log_id: opt_to_pb(meta.last_membership.log_id().as_ref()),
        membership: Some(membership_to_pb(meta.last_membership.membership())),
        snapshot_id: meta
            .last_log_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

pub(crate) fn meta_from_pb(meta: pb::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let membership = meta.membership.ok_or(WireError::Missing("membership"))?;
    let membership_log_id = opt_from_pb(meta.membership_log_id.as_ref());
    // A state before any membership has neither log id nor voters, which `Membership::new` refuses.
    let membership = if membership.voters.is_empty() && membership.members.is_empty() {
        StoredMembership::default()
    } else {
        StoredMembership::new(membership_log_id, membership_from_pb(membership)?)
    };
    Ok(SnapshotMeta {
        last_log_id: opt_from_pb(meta.last_log_id.as_ref()),
        last_membership: membership,
    })
}

// ---- digests

pub(crate) fn digest_to_pb(digest: &Digest) -> pb::StateDigest {
    let Digest {
        index,
        form,
        crc32,
        length,
    } = *digest;
    pb::StateDigest {
        index,
        form,
        crc32,
        length,
    }
}

pub(crate) fn digest_from_pb(digest: Option<pb::StateDigest>) -> Option<Digest> {
    digest.map(|digest| Digest {
        index: digest.index,
        form: digest.form,
        crc32: digest.crc32,
        length: digest.length,
    })
}

// ---- entries

pub(crate) fn entry_to_pb(entry: Entry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(EncodedBatch(bytes)) => pb::entry::Payload::Batch(bytes),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_pb(&membership))
        }
    };
    pb::Entry {
        log_id: Some(log_id_to_pb(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn entry_from_pb(entry: pb::Entry) -> Result<Entry, WireError> {
    let log_id = entry.log_id.as_ref().ok_or(WireError::Missing("log_id"))?;
    let log_id = log_id_from_pb(log_id);
    let payload = match entry.payload {
        Some(pb::entry::Payload::Blank(_)) => EntryPayload::Blank,
        Some(pb::entry::Payload::Batch(bytes)) => EntryPayload::Normal(EncodedBatch(bytes)),
        Some(pb::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from_pb(membership)?)
        }
        None => {
            return Err(WireError::UnknownPayload {
                index: log_id.index,
            });
        }
    };
    Ok(Entry { log_id, payload })
}

// ---- calls

pub(crate) fn append_to_pb(request: AppendEntriesRequest<Types>) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        vote: Some(vote_to_pb(&request.vote)),
        prev_log_id: opt_to_pb(request.prev_log_id.as_ref()),
        leader_commit: opt_to_pb(request.leader_commit.as_ref()),
        entries: request.entries.into_iter().map(entry_to_pb).collect(),
    }
}

pub(crate) fn append_from_pb(
    request: pb::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<Types>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_pb(request.vote.as_ref())?,
        prev_log_id: opt_from_pb(request.prev_log_id.as_ref()),
        leader_commit: opt_from_pb(request.leader_commit.as_ref()),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_pb)
            .collect::<Result<_, _>>()?,
    })
}

/// What a follower answers to one request of a stream.
pub(crate) type StreamAnswer = Result<Option<LogId>, StreamAppendError<Types>>;

pub(crate) fn stream_answer_to_pb(answer: StreamAnswer) -> pb::AppendEntriesReply {
    use pb::append_entries_reply::Result as Reply;
    let result = match answer {
        Ok(last) => Reply::Success(pb::Stored {
            last_log_id: opt_to_pb(last.as_ref()),
        }),
        Err(StreamAppendError::Conflict(prev)) => Reply::Conflict(pb::Conflict {
            prev_log_id: Some(log_id_to_pb(&prev)),
        }),
        Err(StreamAppendError::HigherVote(vote)) => Reply::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendEntriesReply {
        result: Some(result),
    }
}

pub(crate) fn stream_answer_from_pb(
    reply: pb::AppendEntriesReply,
) -> Result<StreamAnswer, WireError> {
    use pb::append_entries_reply::Result as Reply;
    Ok(match reply.result.ok_or(WireError::Missing("result"))? {
        Reply::Success(stored) | Reply::Partial(stored) => {
            Ok(opt_from_pb(stored.last_log_id.as_ref()))
        }
        Reply::Conflict(conflict) => {
            let prev = conflict
                .prev_log_id
                .as_ref()
                .ok_or(WireError::Missing("prev_log_id"))?;
            Err(StreamAppendError::Conflict(log_id_from_pb(prev)))
        }
        Reply::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_id(&vote))),
    })
}

pub(crate) fn append_reply_to_pb(response: AppendEntriesResponse<Types>) -> pb::AppendEntriesReply {
    use pb::append_entries_reply::Result as Reply;
    let result = match response {
        AppendEntriesResponse::Success => Reply::Success(pb::Stored::default()),
        AppendEntriesResponse::PartialSuccess(last) => Reply::Partial(pb::Stored {
            last_log_id: opt_to_pb(last.as_ref()),
        }),
        AppendEntriesResponse::Conflict => Reply::Conflict(pb::Conflict::default()),
        AppendEntriesResponse::HigherVote(vote) => Reply::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendEntriesReply {
        result: Some(result),
    }
}

pub(crate) fn append_reply_from_pb(
    reply: pb::AppendEntriesReply,
) -> Result<AppendEntriesResponse<Types>, WireError> {
    use pb::append_entries_reply::Result as Reply;
    Ok(match reply.result.ok_or(WireError::Missing("result"))? {
        Reply::Success(_) => AppendEntriesResponse::Success,
        Reply::Partial(stored) => {
            AppendEntriesResponse::PartialSuccess(opt_from_pb(stored.last_log_id.as_ref()))
        }
        Reply::Conflict(_) => AppendEntriesResponse::Conflict,
        Reply::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_id(&vote)),
    })
}

pub(crate) fn vote_request_to_pb(request: &VoteRequest<Types>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_pb(&request.vote)),
        last_log_id: opt_to_pb(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_pb(
    request: &pb::VoteRequest,
) -> Result<VoteRequest<Types>, WireError> {
    let vote = vote_from_pb(request.vote.as_ref())?;
    let mut decoded = VoteRequest::new(vote, opt_from_pb(request.last_log_id.as_ref()));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn vote_reply_to_pb(response: &VoteResponse<Types>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_pb(&response.vote)),
        last_log_id: opt_to_pb(response.last_log_id.as_ref()),
        vote_granted: response.vote_granted,
    }
}

pub(crate) fn vote_reply_from_pb(reply: &pb::VoteReply) -> Result<VoteResponse<Types>, WireError> {
    let vote = vote_from_pb(reply.vote.as_ref())?;
    Ok(VoteResponse::new(
        vote,
        opt_from_pb(reply.last_log_id.as_ref()),
        reply.vote_granted,
    ))
}

pub(crate) fn transfer_to_pb(request: &TransferLeaderRequest<Types>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from_leader: Some(vote_to_pb(request.from_leader())),
        to_node_id: request.to_node_id().0,
        last_log_id: opt_to_pb(request.last_log_id()),
    }
}

pub(crate) fn transfer_from_pb(
    request: &pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<Types>, WireError> {
    let from = vote_from_pb(request.from_leader.as_ref())?;
    let last = opt_from_pb(request.last_log_id.as_ref());
    Ok(TransferLeaderRequest::new(
        from,
        NodeId(request.to_node_id),
        last,
    ))
}

pub(crate) fn transfer_reply_to_pb(
    response: TransferLeaderResponse<Types>,
) -> pb::TransferLeaderReply {
    use pb::transfer_leader_reply::Result as Reply;
    let result = match response {
        Ok(()) => Reply::Accepted(pb::Accepted {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Reply::VoteChanged(pb::VoteChanged {
                expected: Some(vote_to_pb(&expected)),
                actual: Some(vote_to_pb(&actual)),
            })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Reply::LogBehind(pb::LogBehind {
                expected: opt_to_pb(expected.as_ref()),
                actual: opt_to_pb(actual.as_ref()),
            })
        }
    };
    pb::TransferLeaderReply {
        result: Some(result),
    }
}

pub(crate) fn transfer_reply_from_pb(
    reply: pb::TransferLeaderReply,
) -> Result<TransferLeaderResponse<Types>, WireError> {
    use pb::transfer_leader_reply::Result as Reply;
    Ok(match reply.result.ok_or(WireError::Missing("result"))? {
        Reply::Accepted(_) => Ok(()),
        Reply::VoteChanged(votes) => Err(TransferLeaderError::VoteChanged {
            expected: vote_from_pb(votes.expected.as_ref())?,
            actual: vote_from_pb(votes.actual.as_ref())?,
        }),
        Reply::LogBehind(ids) => Err(TransferLeaderError::LogNotFlushed {
            expected: opt_from_pb(ids.expected.as_ref()),
            actual: opt_from_pb(ids.actual.as_ref()),
        }),
    })
}
