//! The peer port's Raft service: calls from other members, handed to openraft.
//!
//! Owns the checks that come first (mesh, target) and the reception of snapshots. Never answers for
//! openraft.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use lifecycle::Shutdown;
use openraft::async_runtime::watch::WatchReceiver;
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
use crate::soundness::{Keeper, healing};
use crate::types::{Types, VoteId};
use crate::wire;

/// Serves the other members' Raft calls; made by [`Store::peer_service`](crate::Store).
#[derive(Clone)]
pub struct PeerService {
    raft: Raft,
    seat: Arc<MeshSeat>,
    pulse: Arc<Pulse>,
    snapshots: SnapshotStore,
    keeper: Arc<Keeper>,
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
        keeper: Arc<Keeper>,
        hang_up: Shutdown,
    ) -> Self {
        Self {
            raft,
            seat,
            pulse,
            snapshots,
            keeper,
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
    type FetchStateStream = BoxStream<'static, Result<pb::SnapshotChunk, Status>>;

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
        if self.keeper.is_damaged() {
            return Err(damaged());
        }
        let response = self
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(halted)?;
        Ok(Response::new(wire::transfer_reply_to_pb(response)))
    }

    async fn digest_state(
        &self,
        request: Request<pb::DigestStateRequest>,
    ) -> Result<Response<pb::DigestStateReply>, Status> {
        let index = self.checked(request)?.index;
        // Whoever asks knows how long that may take.
        let digest = self.keeper.digests().wait_for(index).await;
        let digest = Some(wire::digest_to_pb(&digest));
        Ok(Response::new(pb::DigestStateReply { digest }))
    }

    async fn judge_state(
        &self,
        request: Request<pb::JudgeStateRequest>,
    ) -> Result<Response<pb::JudgeStateReply>, Status> {
        use pb::judge_state_request::Verdict;
        match self.checked(request)?.verdict {
            Some(Verdict::Agreed(digest)) => {
                if let Some(digest) = wire::digest_from_pb(Some(digest)) {
                    self.keeper.hear_agreed(digest).await;
                }
            }
            Some(Verdict::Undecided(text)) => self.keeper.hear_undecided(text),
            None => {}
        }
        Ok(Response::new(pb::JudgeStateReply {}))
    }

    async fn fetch_state(
        &self,
        request: Request<pb::FetchStateRequest>,
    ) -> Result<Response<Self::FetchStateStream>, Status> {
        self.checked(request)?;
        if self.keeper.is_damaged() {
            return Err(damaged());
        }
        let vote = self.raft.metrics().borrow_watched().vote;
        let chunks = healing::chunks(&vote, self.keeper.digests().state()).map(Ok);
        Ok(Response::new(chunks.boxed()))
    }
}

fn damaged() -> Status {
    Status::unavailable("skein: this member's own state is damaged; ask another")
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
