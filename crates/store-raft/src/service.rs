//! The peer port's Raft service: calls from other members, handed to openraft.
//!
//! Owns the checks that come first (mesh, target) and the reception of snapshots. Never answers for
//! openraft.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use lifecycle::Shutdown;
use openraft::error::{Fatal, RaftError};
use openraft::raft::AppendEntriesRequest;
use rpc::MessageLimits;
use store_api::skeinpb as pb;
use store_api::skeinpb::raft_server::{Raft as RaftCalls, RaftServer};
use store_disk::SnapshotStore;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::Raft;
use crate::mesh::MeshSeat;
use crate::network::RAFT_MESSAGE_MAX;
use crate::pulse::Pulse;
use crate::snapshot;
use crate::types::{Types, VoteId};
use crate::wire;

/// Serves the other members' Raft calls; made by [`Store::peer_service`](crate::Store).
#[derive(Clone)]
pub struct PeerService {
    raft: Raft,
    seat: Arc<MeshSeat>,
    pulse: Arc<Pulse>,
    snapshots: SnapshotStore,
    /// Requested when streams shall end.
    hang_up: Shutdown,
    /// One snapshot comes in at a time; a second sender is told to come back.
    receiving: Arc<Semaphore>,
}

impl PeerService {
    pub(crate) fn new(
        raft: Raft,
        seat: Arc<MeshSeat>,
        pulse: Arc<Pulse>,
        snapshots: SnapshotStore,
        hang_up: Shutdown,
    ) -> Self {
        Self {
            raft,
            seat,
            pulse,
            snapshots,
            hang_up,
            receiving: Arc::new(Semaphore::new(1)),
        }
    }

    pub(crate) fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self).with_limits(MessageLimits {
            request: RAFT_MESSAGE_MAX,
            answer: RAFT_MESSAGE_MAX,
        })
    }

    fn checked<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.seat.check(request.metadata())?;
        Ok(request.into_inner())
    }
}

fn stopped<E: std::error::Error>(error: RaftError<Types, E>) -> Status {
    Status::unavailable(format!("skein: raft does not answer: {error}"))
}

fn halted(fatal: Fatal<Types>) -> Status {
    Status::unavailable(format!("skein: raft has stopped: {fatal}"))
}

impl RaftCalls for PeerService {
    type StreamAppendStream = BoxStream<'static, Result<pb::AppendEntriesReply, Status>>;

    async fn append_entries(
        &self,
        request: Request<pb::AppendEntriesRequest>,
    ) -> Result<Response<pb::AppendEntriesReply>, Status> {
        let request = wire::append_from_pb(self.checked(request)?)?;
        listen(&self.pulse, &request);
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        Ok(Response::new(wire::append_reply_to_pb(response)))
    }

    async fn stream_append(
        &self,
        request: Request<Streaming<pb::AppendEntriesRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let requests = self.checked(request)?;
        let requests = incoming(requests, self.pulse.clone(), self.hang_up.clone());
        let answers = self.raft.stream_append(requests);
        let replies = answers.map(|answer| match answer {
            Ok(answer) => Ok(wire::stream_answer_to_pb(answer)),
            Err(fatal) => Err(halted(fatal)),
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let request = wire::vote_request_from_pb(&self.checked(request)?)?;
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to_pb(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let request = wire::vote_request_from_pb(&self.checked(request)?)?;
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply_to_pb(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::InstallSnapshotReply>, Status> {
        let chunks = self.checked(request)?;
        let _receiving = self.receiving.try_acquire().map_err(|_| {
            Status::resource_exhausted("skein: another snapshot is being received; try again later")
        })?;
        let pulse = self.pulse.clone();
        let beat = move |vote: &VoteId| pulse.beat(vote.leader_id);
        let (vote, snapshot) = snapshot::receive(chunks, &self.snapshots, beat).await?;
        let response = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(halted)?;
        let vote = Some(wire::vote_to_pb(&response.vote));
        Ok(Response::new(pb::InstallSnapshotReply { vote }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let request = wire::transfer_from_pb(&self.checked(request)?)?;
        let response = self
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(halted)?;
        Ok(Response::new(wire::transfer_reply_to_pb(response)))
    }
}

/// Takes from a leader's call what is not Raft's business.
fn listen(pulse: &Pulse, request: &AppendEntriesRequest<Types>) {
    pulse.beat(request.vote.leader_id);
    if let Some(committed) = request.leader_commit {
        pulse.heard_commit(committed.index);
    }
}

/// The requests of one stream, up to its end, the first that makes no sense, or the end of this
/// node. A stream that ends otherwise than by somebody's will is a sign that the sender died.
fn incoming(
    requests: Streaming<pb::AppendEntriesRequest>,
    pulse: Arc<Pulse>,
    mut hang_up: Shutdown,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static {
    let ending = async move { hang_up.requested().await };
    let requests = Box::pin(requests.take_until(ending));
    stream::unfold((requests, pulse), |(mut requests, pulse)| async move {
        match requests.next().await.transpose() {
            Ok(Some(request)) => {
                let request = wire::append_from_pb(request)
                    .inspect_err(|error| tracing::error!(%error, "cannot read an append"))
                    .ok()?;
                listen(&pulse, &request);
                Some((request, (requests, pulse)))
            }
            Ok(None) => None,
            Err(status) => {
                tracing::debug!(%status, "a leader's stream broke");
                pulse.connection_broke();
                None
            }
        }
    })
}
