//! etcd's Cluster service: who the members are, and changes of them.
//!
//! Owns the way of a change to the leader. Goes on after a failure only if surely nothing was done.
//! Never decides about a change: that is the leader's [`Members`].

use std::sync::Arc;

use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::cluster_server::Cluster;
use store_api::skeinpb::ChangedMembers;
use store_api::skeinpb::change_members_request::Change;
use store_api::verdict::Proposed;
use store_raft::{Role, Store};
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::header::Headers;
use crate::leader_calls::LeaderCalls;
use crate::limits::Limits;
use crate::members::{Members, list};
use crate::patience::Patience;
use crate::reads::Reads;
use crate::writes::WriteError;

#[derive(Clone)]
pub(crate) struct ClusterService {
    pub(crate) store: Store,
    pub(crate) reads: Reads,
    pub(crate) members: Members,
    pub(crate) leader: Arc<LeaderCalls>,
    pub(crate) headers: Headers,
    pub(crate) limits: Limits,
}

impl ClusterService {
    /// Membership is no part of the key space, so the header has no revision, as in etcd.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.headers.at(0))
    }

    /// Has a change made by whichever node leads.
    async fn change(
        &self,
        metadata: &MetadataMap,
        change: Change,
    ) -> Result<ChangedMembers, Status> {
        let patience = Patience::of(metadata, &self.limits);
        let deadline = Instant::now() + self.limits.request_deadline;
        let mut status = self.store.status_watch();
        loop {
            let (role, leader) = {
                let status = status.borrow_and_update();
                (status.role, status.leader.clone())
            };
            let attempt = match (role, &leader) {
                (Role::Stopped, _) => return Err(Proposed::No.mark(errors::stopped())),
                (Role::Leader, _) => self.members.change(change.clone()).await,
                (_, Some(leader)) => {
                    let change = change.clone();
                    self.leader.change_members(leader, change, deadline).await
                }
                (_, None) => Err(WriteError::Elsewhere(None)),
            };
            match attempt {
                Ok(changed) => return Ok(changed),
                Err(WriteError::Final(status)) => return Err(status),
                Err(WriteError::Elsewhere(_)) if !patience.is_over() => {}
                Err(WriteError::Elsewhere(_)) if leader.is_none() => {
                    return Err(Proposed::No.mark(errors::no_leader()));
                }
                Err(WriteError::Elsewhere(_)) => {
                    return Err(Proposed::No.mark(errors::timeout()));
                }
            }
            let news = status.wait_for(|now| (now.role, &now.leader) != (role, &leader));
            let _ = timeout_at(patience.next_look(), news).await;
        }
    }
}

impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            let patience = Patience::of(request.metadata(), &self.limits);
            self.reads.linearizable(patience).await?;
        }
        let members = list(&self.store);
        let header = self.header();
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, Change::Add(request)).await?;
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header(),
            member: changed.added,
            members: changed.members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, Change::Remove(request)).await?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.header(),
            members: changed.members,
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, Change::Update(request)).await?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.header(),
            members: changed.members,
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = self.change(&metadata, Change::Promote(request)).await?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.header(),
            members: changed.members,
        }))
    }
}
