//! The `Forward` service on the peer port: what other nodes ask of this one while it leads.
//!
//! Owns the checks of a caller's mesh and the way errors travel. Never forwards further: a caller
//! that asked the wrong node is told the right one.

use std::sync::Arc;

use model::{MeshId, NodeId};
use store_api::errors;
use store_api::skeinpb as pb;
use store_api::skeinpb::failure;
use store_api::skeinpb::forward_server::{Forward, ForwardServer};
use store_api::skeinpb::propose_reply::Result as Reply;
use store_api::verdict::Proposed;
use store_raft::{Leader, Member, MembershipError, ReadError, Role, Store, convert};
use tonic::{Request, Response, Status};

use crate::answer::{Answer, Written};
use crate::autopilot::{Judgement, Liveness};
use crate::leader_calls::mesh_of;
use crate::limits::FORWARD_BYTES_MAX;
use crate::writes::{WriteError, Writes};

/// Serves the other nodes of the mesh, and those that want to join it.
#[derive(Clone)]
pub struct ForwardService {
    store: Store,
    writes: Writes,
    liveness: Arc<dyn Liveness>,
}

impl ForwardService {
    pub(crate) fn new(store: Store, writes: Writes, liveness: Arc<dyn Liveness>) -> Self {
        Self {
            store,
            writes,
            liveness,
        }
    }

    pub(crate) fn into_server(self) -> ForwardServer<Self> {
        ForwardServer::new(self).max_decoding_message_size(FORWARD_BYTES_MAX)
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

    async fn admit_member(&self, request: pb::JoinRequest) -> Result<pb::Joined, pb::Failure> {
        let status = self.store.status();
        let Some(mesh_id) = status.mesh_id else {
            return Err(refused(
                "this node has no mesh yet; ask another one, or wait",
            ));
        };
        let wanted = MeshId(request.mesh_id);
        if wanted != MeshId(0) && wanted != mesh_id {
            return Err(refused(&format!(
                "this is mesh {mesh_id}, the node that asks is of mesh {wanted}, and meshes never \
                 merge; start it with an empty data directory, or with another --join"
            )));
        }
        if status.role != Role::Leader {
            return Err(elsewhere(status.leader));
        }
        let member = Member {
            id: NodeId(request.node_id),
            name: request.name,
            peer_addr: request.peer_addr,
            client_addr: request.client_addr,
        };
        let alive = |other: &&Member| {
            let namesake = other.name == member.name && other.id != member.id;
            namesake && self.liveness.judge(other.id) != Judgement::Dead
        };
        if let Some(namesake) = status
            .voters
            .iter()
            .chain(status.learners.iter())
            .find(alive)
        {
            return Err(refused(&format!(
                "a node `{}` is a member already ({}) and not known to be dead; wait until it is, \
                 or choose another --name",
                member.name, namesake.id
            )));
        }
        if status.member(member.id) != Some(&member) {
            self.store
                .add_learner(member)
                .await
                .map_err(membership_failure)?;
        }
        let status = self.store.status();
        let members = status.voters.iter().chain(status.learners.iter());
        let members = members
            .map(|member| member_to_pb(member, mesh_id))
            .collect();
        Ok(pb::Joined {
            mesh_id: mesh_id.0,
            members,
        })
    }
}

fn named(mesh: Option<MeshId>) -> String {
    mesh.map_or_else(|| "none".to_owned(), |mesh| mesh.to_string())
}

fn member_to_pb(member: &Member, mesh_id: MeshId) -> pb::Member {
    pb::Member {
        node_id: member.id.0,
        name: member.name.clone(),
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        mesh_id: mesh_id.0,
    }
}

#[tonic::async_trait]
impl Forward for ForwardService {
    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        let result = match self.propose_checked(request).await {
            Ok(written) => return Ok(Response::new(reply(written, self.store.status().term))),
            Err(WriteError::Elsewhere(leader)) => elsewhere(leader),
            Err(WriteError::Final(status)) => failure(
                &status,
                match Proposed::of(&status) {
                    Some(Proposed::No) => failure::Proposed::No,
                    Some(Proposed::Unknown) => failure::Proposed::Unknown,
                    None => failure::Proposed::Refused,
                },
            ),
        };
        let result = Some(Reply::Failure(result));
        Ok(Response::new(pb::ProposeReply {
            result,
            ..Default::default()
        }))
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
        let result = match self.admit_member(request.into_inner()).await {
            Ok(joined) => Reply::Joined(joined),
            Err(failure) => Reply::Failure(failure),
        };
        Ok(Response::new(pb::JoinReply {
            result: Some(result),
        }))
    }
}

impl ForwardService {
    async fn propose_checked(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Written, WriteError> {
        let fault = |status| WriteError::Final(Proposed::No.mark(status));
        self.check_mesh(&request).map_err(fault)?;
        let proposal = request.into_inner().proposal.unwrap_or_default();
        let proposal = convert::proposal_from_pb(proposal)
            .map_err(|error| fault(Status::unimplemented(format!("skein: {error}"))))?;
        self.writes.submit_here(proposal.command).await
    }
}

fn reply(written: Written, term: u64) -> pb::ProposeReply {
    let result = match written.answer {
        Answer::Put(answer) => Reply::Put(answer),
        Answer::Delete(answer) => Reply::DeleteRange(answer),
        Answer::Txn(answer) => Reply::Txn(answer),
        Answer::Compact(answer) => Reply::Compaction(answer),
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

fn refused(why: &str) -> pb::Failure {
    failure(
        &Status::failed_precondition(format!("skein: {why}")),
        failure::Proposed::No,
    )
}

fn membership_failure(error: MembershipError) -> pb::Failure {
    match error {
        MembershipError::NotLeader { leader } => elsewhere(leader),
        MembershipError::AlreadyFormed(text) | MembershipError::Refused(text) => refused(&text),
        MembershipError::TimedOut(_) => {
            let late = Status::unavailable(format!("skein: {error}"));
            failure(&late, failure::Proposed::Unknown)
        }
        MembershipError::Stopped => failure(&errors::stopped(), failure::Proposed::No),
    }
}
