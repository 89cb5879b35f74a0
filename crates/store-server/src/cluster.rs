//! etcd's Cluster service, as far as it makes sense here: members are listed; they come and go by
//! joining, not by a client's request.
//!
//! Owns the translation of members. Never changes the membership.

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_server::Cluster;
use store_raft::{Member, Store};
use tonic::{Request, Response, Status};

use crate::header::Headers;
use crate::limits::Limits;
use crate::patience::Patience;
use crate::reads::Reads;

#[derive(Clone)]
pub(crate) struct ClusterService {
    store: Store,
    reads: Reads,
    headers: Headers,
    limits: Limits,
}

impl ClusterService {
    pub(crate) fn new(store: Store, reads: Reads, headers: Headers, limits: Limits) -> Self {
        Self {
            store,
            reads,
            headers,
            limits,
        }
    }
}

fn member(member: &Member, is_learner: bool) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_ur_ls: vec![format!("http://{}", member.peer_addr)],
        client_ur_ls: vec![format!("http://{}", member.client_addr)],
        is_learner,
    }
}

fn by_joining() -> Status {
    Status::unimplemented(
        "skein: members come by `skein node --join` and go when they are long dead; \
         start or stop the node instead",
    )
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            let patience = Patience::of(request.metadata(), &self.limits);
            self.reads.linearizable(patience).await?;
        }
        let status = self.store.status();
        let voters = status.voters.iter().map(|voter| member(voter, false));
        let learners = status.learners.iter().map(|learner| member(learner, true));
        // Membership is no part of the key space, so the header has no revision, as in etcd.
        let header = Some(self.headers.at(0));
        let members = voters.chain(learners).collect();
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(by_joining())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(by_joining())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(by_joining())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(by_joining())
    }
}
