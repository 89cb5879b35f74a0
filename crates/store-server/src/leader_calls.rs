//! Calls of this node to the leader's `Forward` service.
//!
//! Owns the connections and the certainty about what was sent: a call that never left may be tried
//! elsewhere, one that may have arrived has an unknown outcome. Never retries by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{ConfigRevision, MeshId, NodeId};
use store_api::errors;
use store_api::skeinpb as pb;
use store_api::skeinpb::change_members_request::Change;
use store_api::skeinpb::failure;
use store_api::skeinpb::forward_client::ForwardClient;
use store_api::skeinpb::propose_reply::Result as Reply;
use store_api::verdict::{Proposed, never_sent};
use store_mvcc::Proposal;
use store_raft::{Leader, RaftStatus, convert};
use tls::Dialer;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::answer::{Answer, Written};
use crate::limits::FORWARD_ANSWER_MAX;
use crate::relay::{Relay, RelayError};
use crate::writes::WriteError;

/// The metadata that names the caller's mesh, 16 hex digits, as on every call between nodes.
pub(crate) const MESH_KEY: &str = "skein-mesh-id";
/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed this often, and given up after as long without an answer, so a
/// vanished host costs a caller seconds, not minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Connections that are kept. One more, and all are dropped: members are few, so these are stale.
const CHANNELS_MAX: usize = 64;

/// Connections to whoever leads, by peer address.
pub(crate) struct LeaderCalls {
    channels: Mutex<HashMap<String, Channel>>,
    relays: Mutex<HashMap<String, Relay>>,
    status: watch::Receiver<RaftStatus>,
    tls: Option<Dialer>,
}

impl LeaderCalls {
    pub(crate) fn new(status: watch::Receiver<RaftStatus>, tls: Option<Dialer>) -> Self {
        Self {
            channels: Mutex::default(),
            relays: Mutex::default(),
            status,
            tls,
        }
    }

    /// Has the leader admit and propose a command, in its caller's name.
    pub(crate) async fn propose(
        &self,
        leader: &Leader,
        proposal: &Proposal,
        deadline: Instant,
    ) -> Result<Written, WriteError> {
        let relay = self.relay(&leader.peer_addr).map_err(elsewhere)?;
        let proposal = convert::proposal_to_pb(proposal);
        let reply = relay.propose(proposal, deadline).await;
        reply.map_or_else(|error| Err(lost(&error, leader)), written)
    }

    /// Has the leader change the members.
    pub(crate) async fn change_members(
        &self,
        leader: &Leader,
        change: Change,
        deadline: Instant,
    ) -> Result<pb::ChangedMembers, WriteError> {
        use pb::change_members_reply::Result as Reply;
        let mut client = self.client(&leader.peer_addr).map_err(elsewhere)?;
        let request = pb::ChangeMembersRequest {
            change: Some(change),
        };
        let reply = client.change_members(self.request(request));
        let unknown = |status| WriteError::Final(Proposed::Unknown.mark(status));
        let reply = match timeout_at(deadline, reply).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if never_sent(&status) => return Err(elsewhere(status)),
            Ok(Err(_)) => return Err(unknown(errors::timeout_due_to_connection_lost())),
            Err(_elapsed) => return Err(unknown(errors::timeout())),
        };
        match reply.result {
            Some(Reply::Changed(changed)) => Ok(changed),
            Some(Reply::Failure(failure)) => Err(write_error(&failure)),
            None => Err(unknown(unknown_reply())),
        }
    }

    /// Asks the leader up to where a reader must have applied.
    pub(crate) async fn read_index(
        &self,
        leader: &Leader,
        deadline: Instant,
    ) -> Result<u64, Status> {
        let mut client = self.client(&leader.peer_addr)?;
        let reply = client.read_index(self.request(pb::ReadIndexRequest {}));
        let reply = timeout_at(deadline, reply)
            .await
            .map_err(|_| errors::timeout())?;
        let reply = reply.map_err(|status| {
            tracing::debug!(%status, leader = %leader.id, "lost the leader's answer to a read");
            errors::timeout_due_to_connection_lost()
        })?;
        match reply.into_inner().result {
            Some(pb::read_index_reply::Result::Index(index)) => Ok(index),
            Some(pb::read_index_reply::Result::Failure(failure)) => Err(status_of(&failure)),
            None => Err(unknown_reply()),
        }
    }

    fn client(&self, peer_addr: &str) -> Result<ForwardClient<Channel>, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(peer_addr) {
            return Ok(client(channel.clone()));
        }
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let channel = connect(peer_addr, self.tls.as_ref())?;
        channels.insert(peer_addr.to_owned(), channel.clone());
        Ok(client(channel))
    }

    /// The stream of proposals to that node.
    fn relay(&self, peer_addr: &str) -> Result<Relay, Status> {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relay) = relays.get(peer_addr).filter(|relay| !relay.has_ended()) {
            return Ok(relay.clone());
        }
        relays.retain(|_, relay| !relay.has_ended());
        let client = self.client(peer_addr)?;
        let request = self.request(());
        let relay = Relay::open(peer_addr.to_owned(), client, self.status.clone(), request);
        relays.insert(peer_addr.to_owned(), relay.clone());
        Ok(relay)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mesh_id = self.status.borrow().mesh_id.unwrap_or_default();
        let mut request = Request::new(message);
        let text = mesh_id.to_string().parse().expect("hex digits are ASCII");
        request.metadata_mut().insert(MESH_KEY, text);
        request
    }
}

/// The mesh that a call names.
pub(crate) fn mesh_of<T>(request: &Request<T>) -> Option<MeshId> {
    request
        .metadata()
        .get(MESH_KEY)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// A channel to a node's peer port; it connects when first used.
pub(crate) fn connect(peer_addr: &str, tls: Option<&Dialer>) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{peer_addr}")).map_err(|_| {
        Status::unavailable(format!(
            "skein: the peer address `{peer_addr}` is not HOST:PORT"
        ))
    })?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    Ok(match tls {
        None => endpoint.connect_lazy(),
        Some(dialer) => endpoint.connect_with_connector_lazy(dialer.clone()),
    })
}

pub(crate) fn client(channel: Channel) -> ForwardClient<Channel> {
    ForwardClient::new(channel).max_decoding_message_size(FORWARD_ANSWER_MAX)
}

fn elsewhere(status: Status) -> WriteError {
    tracing::debug!(%status, "a write was not forwarded");
    WriteError::Elsewhere(None)
}

/// What is known about a proposal without an answer.
fn lost(error: &RelayError, leader: &Leader) -> WriteError {
    tracing::debug!(?error, leader = %leader.id, "no answer to a proposal");
    WriteError::Final(match error {
        RelayError::NotSent => return WriteError::Elsewhere(None),
        RelayError::Full => Proposed::No.mark(errors::too_many_requests()),
        RelayError::Lost => Proposed::Unknown.mark(errors::timeout_due_to_connection_lost()),
        RelayError::Late => Proposed::Unknown.mark(errors::timeout()),
    })
}

fn written(reply: pb::ProposeReply) -> Result<Written, WriteError> {
    let answer = match reply.result {
        Some(Reply::Put(answer)) => Answer::Put(answer),
        Some(Reply::DeleteRange(answer)) => Answer::Delete(answer),
        Some(Reply::Txn(answer)) => Answer::Txn(answer),
        Some(Reply::Compaction(answer)) => Answer::Compact(answer),
        Some(Reply::SetClusterVersion(_)) => Answer::SetClusterVersion,
        Some(Reply::LeaseGrant(answer)) => Answer::Grant(answer),
        Some(Reply::LeaseRevoke(answer)) => Answer::Revoke(answer),
        Some(Reply::LeaseKeepAlive(answer)) => Answer::KeepAlive(answer.ttls),
        Some(Reply::Auth(_)) => Answer::Auth,
        Some(Reply::Failure(failure)) => return Err(write_error(&failure)),
        None => return Err(WriteError::Final(Proposed::Unknown.mark(unknown_reply()))),
    };
    let config_revision = ConfigRevision(reply.config_revision);
    Ok(Written {
        revision: reply.revision,
        config_revision,
        answer,
    })
}

fn write_error(failure: &pb::Failure) -> WriteError {
    let status = status_of(failure);
    match failure.proposed() {
        failure::Proposed::No if status.code() == Code::Unavailable => {
            WriteError::Elsewhere(leader_of(failure))
        }
        failure::Proposed::No => WriteError::Final(Proposed::No.mark(status)),
        failure::Proposed::Unknown => WriteError::Final(Proposed::Unknown.mark(status)),
        failure::Proposed::Refused => WriteError::Final(status),
    }
}

/// The status that a failure tells.
pub(crate) fn status_of(failure: &pb::Failure) -> Status {
    let code = i32::try_from(failure.code).map_or(Code::Unknown, Code::from_i32);
    Status::new(code, failure.message.clone())
}

/// Who leads, as a failure tells it.
pub(crate) fn leader_of(failure: &pb::Failure) -> Option<Leader> {
    let known = failure.leader_id != 0 && !failure.leader_peer_addr.is_empty();
    let leader = Leader {
        id: NodeId(failure.leader_id),
        peer_addr: failure.leader_peer_addr.clone(),
    };
    known.then_some(leader)
}

fn unknown_reply() -> Status {
    Status::unknown(
        "skein: the leader's answer is of an unknown kind; run the same version everywhere",
    )
}
