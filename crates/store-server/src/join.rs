//! How a node asks to become a member, and how a member has its addresses recorded.
//!
//! Owns the search for the leader among the nodes that are known. Never decides whether to join:
//! that is the node.

use std::collections::VecDeque;
use std::time::Duration;

use model::{MeshId, NodeId, Version};
use store_api::skeinpb as pb;
use store_api::skeinpb::join_reply::Result as Reply;
use store_raft::{Member, convert};
use tls::Dialer;
use tokio::time::timeout;
use tonic::Code;

use crate::leader_calls::{client, connect, leader_of, status_of};

/// How long one node may take to answer. A change of members commits in far less.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Nodes point to the leader they know; after so many calls the search is given up.
const CALLS_MAX: usize = 16;

/// The mesh has a new member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The mesh.
    pub mesh_id: MeshId,
    /// All its members, the new one among them.
    pub members: Vec<Member>,
}

/// Why a node did not become a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The mesh turned the node away; asking again is of no use until something changed.
    #[error("{0}")]
    Refused(String),
    /// The node was a member and is one no longer, for good.
    #[error("{0}")]
    Removed(String),
    /// No leader answered; ask again later.
    #[error("no leader answered ({0}); it is asked again until one does")]
    Unavailable(String),
}

/// Asks the nodes at `peer_addrs` (`HOST:PORT` of peer ports, called by `tls` if they speak it), and whoever they point to, to make
/// `me`, of this `version`, a member of `mesh_id`, or of whichever mesh answers. Asking twice does no harm.
///
/// # Errors
/// [`JoinError`].
pub async fn request_join(
    tls: Option<&Dialer>,
    peer_addrs: &[String],
    me: &Member,
    version: Version,
    mesh_id: Option<MeshId>,
) -> Result<Joined, JoinError> {
    let request = pb::JoinRequest {
        version: Some(convert::version_to_pb(version)),
        ..join_request(me, mesh_id.unwrap_or_default(), false)
    };
    search(tls, peer_addrs, &request).await
}

/// As [`request_join`], for a node that was a member of `mesh_id` before: the leader records what
/// changed of `me`, and says so if the node was removed meanwhile.
///
/// # Errors
/// [`JoinError`].
pub async fn request_record(
    tls: Option<&Dialer>,
    peer_addrs: &[String],
    me: &Member,
    mesh_id: MeshId,
) -> Result<Joined, JoinError> {
    search(tls, peer_addrs, &join_request(me, mesh_id, true)).await
}

fn join_request(me: &Member, mesh_id: MeshId, returning: bool) -> pb::JoinRequest {
    pb::JoinRequest {
        node_id: me.id.0,
        name: me.name.clone(),
        peer_addr: me.peer_addr.clone(),
        client_addr: me.client_addr.clone(),
        mesh_id: mesh_id.0,
        returning,
        version: None,
    }
}

async fn search(
    tls: Option<&Dialer>,
    peer_addrs: &[String],
    request: &pb::JoinRequest,
) -> Result<Joined, JoinError> {
    let mut to_ask: VecDeque<String> = peer_addrs.iter().cloned().collect();
    let mut reasons = Vec::new();
    for _ in 0..CALLS_MAX {
        let Some(peer_addr) = to_ask.pop_front() else {
            break;
        };
        let failure = match ask(tls, &peer_addr, request.clone()).await {
            Ok(Reply::Joined(joined)) => return Ok(members(joined)),
            Ok(Reply::Removed(removed)) => return Err(JoinError::Removed(removed.message)),
            Ok(Reply::Failure(failure)) => failure,
            Err(reason) => {
                reasons.push(format!("{peer_addr}: {reason}"));
                continue;
            }
        };
        let status = status_of(&failure);
        if status.code() != Code::Unavailable {
            return Err(JoinError::Refused(failure.message));
        }
        reasons.push(format!("{peer_addr}: {}", failure.message));
        if let Some(leader) = leader_of(&failure) {
            to_ask.push_front(leader.peer_addr);
        }
    }
    Err(JoinError::Unavailable(reasons.join("; ")))
}

async fn ask(
    tls: Option<&Dialer>,
    peer_addr: &str,
    request: pb::JoinRequest,
) -> Result<Reply, String> {
    let channel = connect(peer_addr, tls).map_err(|status| status.message().to_owned())?;
    let mut forward = client(channel);
    let reply = timeout(ANSWER_WAIT, forward.join(request)).await;
    let reply = reply.map_err(|_| "no answer".to_owned())?;
    let reply = reply
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    reply
        .result
        .ok_or_else(|| "an answer of an unknown kind".to_owned())
}

fn members(joined: pb::Joined) -> Joined {
    let member = |member: pb::Member| Member {
        id: NodeId(member.node_id),
        name: member.name,
        peer_addr: member.peer_addr,
        client_addr: member.client_addr,
    };
    Joined {
        mesh_id: MeshId(joined.mesh_id),
        members: joined.members.into_iter().map(member).collect(),
    }
}
