//! Calls to the other members, for openraft.
//!
//! Owns connections, deadlines and the window of unanswered appends. Never retries: openraft
//! decides what to send again.

mod calls;
mod lane;
mod pipeline;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use model::NodeId;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::stream_append_sequential;
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use store_api::skeinpb::raft_client::RaftClient;
use tls::Dialer;
use tonic::transport::Channel;

use crate::addresses::Addresses;
use crate::mesh::{Address, MeshSeat};
use crate::snapshot::{SnapshotFile, chunks};
use crate::types::{LeaderId, MemberInfo, Types, VoteId};
use crate::wire;

pub(crate) use calls::Calls;
use lane::Lane;
pub(crate) use lane::RAFT_MESSAGE_MAX;

/// How long a call may take whose answer waits for nobody's disk but the callee's.
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Makes one [`Peer`] for each member and purpose.
pub(crate) struct Network {
    seat: Arc<MeshSeat>,
    addresses: Arc<Addresses>,
    tls: Option<Dialer>,
}

impl Network {
    pub(crate) fn new(seat: Arc<MeshSeat>, addresses: Arc<Addresses>, tls: Option<Dialer>) -> Self {
        Self {
            seat,
            addresses,
            tls,
        }
    }

    fn peer(&self, target: NodeId, info: &MemberInfo, lane: Lane) -> Peer {
        // Whoever calls others has a mesh; the member's own record stands in before the first save.
        let mesh = self.seat.mesh().unwrap_or(info.mesh_id);
        Peer {
            target,
            address: Address::new(mesh, target),
            lane,
            addresses: self.addresses.clone(),
            client: lane::connect(&info.peer_addr, self.tls.as_ref()),
            tls: self.tls.clone(),
            connected: info.peer_addr.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &MemberInfo) -> Peer {
        self.peer(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &MemberInfo) -> Peer {
        self.peer(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &MemberInfo) -> Peer {
        self.peer(target, node, Lane::Snapshot)
    }
}

/// One member, seen from here, for one purpose.
pub(crate) struct Peer {
    target: NodeId,
    address: Address,
    lane: Lane,
    addresses: Arc<Addresses>,
    /// An address that cannot be one fails each call, so that the others go on.
    client: Result<RaftClient<Channel>, String>,
    tls: Option<Dialer>,
    /// The address that `client` calls.
    connected: String,
}

type CallResult<T> = Result<T, RPCError<Types>>;

impl Peer {
    /// The client of the address at which the member is now: openraft keeps its connections over a
    /// change of the membership, so it is looked up for each call.
    fn client(&mut self) -> CallResult<RaftClient<Channel>> {
        let now = self.addresses.of(self.target);
        if let Some(now) = now.filter(|now| *now != self.connected) {
            self.client = lane::connect(&now, self.tls.as_ref());
            self.connected = now;
        }
        self.client.clone().map_err(unreachable)
    }

    /// Sends one request and waits for its answer, for at most `deadline`.
    async fn call<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> CallResult<T> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(unreachable(format!(
                "{}: no answer in {deadline:?}",
                self.target
            ))),
        }
    }

    fn failed(&self, status: &tonic::Status) -> RPCError<Types> {
        unreachable(format!("{}: {}", self.target, status.message()))
    }
}

/// Every failure backs off: retrying at once against a dead process or a full disk helps nobody,
/// and the first steps of the back-off are short.
fn unreachable(reason: impl ToString) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn garbled(error: wire::WireError) -> RPCError<Types> {
    unreachable(error)
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> CallResult<AppendEntriesResponse<Types>> {
        let mut client = self.client()?;
        let request = self.address.request(wire::append_to_pb(request));
        let reply = self
            .call(option.hard_ttl(), client.append_entries(request))
            .await?;
        wire::append_reply_from_pb(reply).map_err(garbled)
    }

    /// Entries are pipelined: openraft reads the answers in order and resends from the last one
    /// that was acknowledged, and HTTP/2 keeps the order. A heartbeat is one request, so a plain
    /// call.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, CallResult<BoxStream<'s, CallResult<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        match self.lane {
            Lane::Log => self.pipeline(input).boxed(),
            Lane::Heartbeat | Lane::Snapshot => stream_append_sequential(self, input, option),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> CallResult<VoteResponse<Types>> {
        let mut client = self.client()?;
        let request = self.address.request(wire::vote_request_to_pb(&request));
        let reply = self.call(option.soft_ttl(), client.vote(request)).await?;
        wire::vote_reply_from_pb(&reply).map_err(garbled)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> CallResult<VoteResponse<Types>> {
        let mut client = self.client()?;
        let request = self.address.request(wire::vote_request_to_pb(&request));
        let reply = self
            .call(option.soft_ttl(), client.pre_vote(request))
            .await?;
        wire::vote_reply_from_pb(&reply).map_err(garbled)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> CallResult<TransferLeaderResponse<Types>> {
        let mut client = self.client()?;
        let request = self.address.request(wire::transfer_to_pb(&request));
        let reply = self
            .call(CALL_DEADLINE, client.transfer_leader(request))
            .await?;
        wire::transfer_reply_from_pb(reply).map_err(garbled)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteId,
        snapshot: openraft::Snapshot<LeaderId, NodeId, MemberInfo, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self.client()?;
        let chunks = chunks(vote, &snapshot.meta, snapshot.snapshot);
        let request = self.address.request(chunks);
        let call = self.call(option.hard_ttl(), client.install_snapshot(request));
        let reply = tokio::select! {
            reply = call => reply?,
            closed = cancel => return Err(closed.into()),
        };
        let vote = wire::vote_from_pb(reply.vote.as_ref()).map_err(garbled)?;
        Ok(SnapshotResponse::new(vote))
    }

    fn backoff(&self) -> Option<Backoff> {
        // A killed process is back within a second or two; a call to it costs one refused connect.
        let steps = [20, 50, 100, 200].into_iter().chain(std::iter::repeat(400));
        Some(Backoff::new(steps.map(Duration::from_millis)))
    }
}

impl From<wire::WireError> for RPCError<Types> {
    fn from(error: wire::WireError) -> Self {
        unreachable(io::Error::from(error))
    }
}
