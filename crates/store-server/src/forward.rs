//! The `Forward` service on the peer port: what other nodes ask of this one while it leads.
//!
//! Owns the checks of a caller's mesh and the way errors travel. Never forwards further: a caller
//! that asked the wrong node is told the right one.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use model::MeshId;
use rpc::MessageLimits;
use store_api::errors;
use store_api::skeinpb as pb;
use store_api::skeinpb::failure;
use store_api::skeinpb::forward_server::{Forward, ForwardServer};
use store_api::skeinpb::propose_reply::Result as Reply;
use store_api::verdict::Proposed;
use store_mvcc::Caller;
use store_raft::{Leader, Member, ReadError, Store, convert};
use tonic::{Request, Response, Status, Streaming};

use crate::admit::{Gate, Refused, member_to_pb};
use crate::answer::{Answer, Written};
use crate::autopilot::Liveness;
use crate::leader_calls::mesh_of;
use crate::limits::FORWARD_BYTES_MAX;
use crate::members::Members;
use crate::relayed;
use crate::writes::{WriteError, Writes};

/// Serves the other nodes of the mesh, and those that want to join it.
#[derive(Clone)]
pub struct ForwardService {
    store: Store,
    writes: Writes,
    gate: Gate,
    members: Members,
    introduction: Arc<dyn Fn() -> Introduction + Send + Sync>,
}

/// Who this node is, for a leader that is asked to take it in.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// The member that it is, or would be.
    pub node: Member,
    /// Whether it promised itself to others, to found a mesh with them.
    pub promised: bool,
}

impl ForwardService {
    pub(crate) fn new(
        store: Store,
        writes: Writes,
        members: Members,
        liveness: Arc<dyn Liveness>,
        introduction: Arc<dyn Fn() -> Introduction + Send + Sync>,
    ) -> Self {
        let gate = Gate::new(store.clone(), liveness);
        Self {
            store,
            writes,
            gate,
            members,
            introduction,
        }
    }

    pub(crate) fn into_server(self) -> ForwardServer<Self> {
        ForwardServer::new(self).with_limits(MessageLimits {
            request: FORWARD_BYTES_MAX,
            ..MessageLimits::default()
        })
    }

    /// A call meant for another mesh comes from a node whose addresses are out of date.
    fn check_mesh<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let (theirs, ours) = (mesh_of(request), self.store.mesh_id());
        if theirs.is_some() && theirs == ours {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "skein: this node is of mesh {}, the caller of {}: an address is out of date",
            named(ours),
            named(theirs)
        )))
    }
}

fn named(mesh: Option<MeshId>) -> String {
    mesh.map_or_else(|| "none".to_owned(), |mesh| mesh.to_string())
}

impl Forward for ForwardService {
    type ProposeManyStream = BoxStream<'static, Result<pb::ProposeManyReply, Status>>;

    async fn propose_many(
        &self,
        request: Request<Streaming<pb::ProposeManyRequest>>,
    ) -> Result<Response<Self::ProposeManyStream>, Status> {
        self.check_mesh(&request)
            .map_err(|status| Proposed::No.mark(status))?;
        let service = self.clone();
        let answer = move |proposal| service.clone().propose(proposal);
        let answers = relayed::answers(request.into_inner(), answer);
        Ok(Response::new(answers.boxed()))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        use pb::read_index_reply::Result as Reply;
        self.check_mesh(&request)?;
        let result = match self.store.read_index().await {
            Ok(index) => Reply::Index(index),
            Err(ReadError::NotLeader { leader }) => Reply::Failure(elsewhere(leader)),
            Err(ReadError::Overloaded) => {
                Reply::Failure(failure(&errors::too_many_requests(), failure::Proposed::No))
            }
            Err(ReadError::TimedOut(_)) => {
                Reply::Failure(failure(&errors::timeout(), failure::Proposed::No))
            }
            Err(ReadError::Stopped) => {
                Reply::Failure(failure(&errors::stopped(), failure::Proposed::No))
            }
        };
        Ok(Response::new(pb::ReadIndexReply {
            result: Some(result),
        }))
    }

    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinReply>, Status> {
        use pb::join_reply::Result as Reply;
        let result = match self.gate.admit(request.into_inner()).await {
            Ok(joined) => Reply::Joined(joined),
            Err(Refused::Removed(message)) => Reply::Removed(pb::Removed { message }),
            Err(Refused::Elsewhere(leader)) => Reply::Failure(elsewhere(leader)),
            Err(Refused::Final(status)) => Reply::Failure(failure(&status, failure::Proposed::No)),
            Err(Refused::Unknown(status)) => {
                Reply::Failure(failure(&status, failure::Proposed::Unknown))
            }
        };
        Ok(Response::new(pb::JoinReply {
            result: Some(result),
        }))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersReply>, Status> {
        use pb::change_members_reply::Result as Reply;
        self.check_mesh(&request)?;
        let change = request.into_inner().change.ok_or_else(|| {
            Status::unimplemented(
                "skein: a change of an unknown kind; run the same version everywhere",
            )
        })?;
        let result = match self.members.change(change).await {
            Ok(changed) => Reply::Changed(changed),
            Err(error) => Reply::Failure(failure_of(error)),
        };
        Ok(Response::new(pb::ChangeMembersReply {
            result: Some(result),
        }))
    }

    /// Answered to whoever asks: nothing in it is secret to a peer.
    async fn introduce(
        &self,
        _: Request<pb::IntroduceRequest>,
    ) -> Result<Response<pb::IntroduceReply>, Status> {
        let Introduction { node, promised } = (self.introduction)();
        let mesh_id = self.store.mesh_id().unwrap_or_default();
        Ok(Response::new(pb::IntroduceReply {
            node: Some(member_to_pb(&node, mesh_id)),
            promised,
            version: Some(convert::version_to_pb(self.store.version())),
        }))
    }
}

impl ForwardService {
    /// Admits and proposes one proposal of another node.
    async fn propose(self, proposal: pb::Proposal) -> pb::ProposeReply {
        let result = match self.propose_checked(proposal).await {
            Ok(written) => return reply(written, self.store.status().term),
            Err(error) => failure_of(error),
        };
        pb::ProposeReply {
            result: Some(Reply::Failure(result)),
            ..Default::default()
        }
    }

    async fn propose_checked(&self, proposal: pb::Proposal) -> Result<Written, WriteError> {
        let proposal = convert::proposal_from_pb(proposal).map_err(|error| {
            let unknown = Status::unimplemented(format!("skein: {error}"));
            WriteError::Final(Proposed::No.mark(unknown))
        })?;
        // What the mesh does by itself, its leader does.
        let caller = match proposal.caller {
            Caller::Own => Caller::Nobody,
            caller => caller,
        };
        self.writes.submit_here(caller, proposal.command).await
    }
}

fn reply(written: Written, term: u64) -> pb::ProposeReply {
    let result = match written.answer {
        Answer::Put(answer) => Reply::Put(answer),
        Answer::Delete(answer) => Reply::DeleteRange(answer),
        Answer::Txn(answer) => Reply::Txn(answer),
        Answer::Compact(answer) => Reply::Compaction(answer),
        Answer::SetClusterVersion => Reply::SetClusterVersion(pb::ClusterVersionSet {}),
        Answer::Grant(answer) => Reply::LeaseGrant(answer),
        Answer::Revoke(answer) => Reply::LeaseRevoke(answer),
        Answer::KeepAlive(ttls) => Reply::LeaseKeepAlive(pb::LeasesKeptAlive { ttls }),
        Answer::Auth => Reply::Auth(pb::AuthChanged {}),
    };
    pb::ProposeReply {
        revision: written.revision,
        config_revision: written.config_revision.0,
        term,
        result: Some(result),
    }
}

fn failure(status: &Status, proposed: failure::Proposed) -> pb::Failure {
    pb::Failure {
        code: u32::try_from(i32::from(status.code())).unwrap_or_default(),
        message: status.message().to_owned(),
        proposed: proposed.into(),
        leader_id: 0,
        leader_peer_addr: String::new(),
    }
}

fn failure_of(error: WriteError) -> pb::Failure {
    match error {
        WriteError::Elsewhere(leader) => elsewhere(leader),
        WriteError::Final(status) => {
            let proposed = match Proposed::of(&status) {
                Some(Proposed::No) => failure::Proposed::No,
                Some(Proposed::Unknown) => failure::Proposed::Unknown,
                None => failure::Proposed::Refused,
            };
            failure(&status, proposed)
        }
    }
}

/// Nothing was done here; the leader, if it is known, may do it.
fn elsewhere(leader: Option<Leader>) -> pb::Failure {
    let nothing_done = failure(&errors::leader_changed(), failure::Proposed::No);
    match leader {
        Some(leader) => pb::Failure {
            leader_id: leader.id.0,
            leader_peer_addr: leader.peer_addr,
            ..nothing_done
        },
        None => nothing_done,
    }
}
